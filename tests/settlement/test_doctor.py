"""`clearinghouse doctor` about the worker: whether one leads, how its jobs do, and whether what it tells arrives."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from clearinghouse.checkup import worker
from clearinghouse.checkup.findings import Finding
from clearinghouse.config import Settings
from settlement.schedule import Job, Tick
from tests.settlement.conftest import Owner
from tests.settlement.test_worker import until, working


async def looked_at(database: str, **settings: Any) -> dict[str, Finding]:
    found = await worker.check(Settings.model_validate({"database_url": database, **settings}))
    assert all((each.status == "ok") == (each.what_to_do == "") for each in found)
    return {each.name: each for each in found}


async def well(tick: Tick) -> str:
    return "done"


async def fails(tick: Tick) -> str:
    raise ValueError("nothing goes")


async def test_where_no_worker_ever_ran_it_is_said_how_one_is_run(database: str) -> None:
    found = await looked_at(database)
    assert set(found) == {"worker"}
    assert found["worker"].status == "warning"
    assert "clearinghouse work" in found["worker"].what_to_do


async def test_a_worker_that_leads_is_named_and_one_that_is_gone_is_an_error(database: str) -> None:
    async with working(database, [Job("well", 60, well)]) as leading:
        await until(lambda: leading.metric("work_leads") == 1)
        found = await looked_at(database)
        assert found["worker"].status == found["jobs"].status == found["messages"].status == "ok"
        assert found["alert channels"].status == "warning", "the log alone wakes nobody"
        named = await looked_at(database, alerts={"channels": {"pager": "pagerduty://R0UTINGKEY"}})
        assert named["alert channels"].status == "ok"
        assert "R0UTINGKEY" not in str(named)
    found = await looked_at(database)
    assert found["worker"].status == "error"
    assert "none leads" in found["worker"].detail
    assert "jobs" not in found, "late are all of them"


async def test_a_job_that_is_late_and_one_that_fails_are_named_with_what_to_do(database: str, owner: Owner) -> None:
    failures = "SELECT count(*) FROM job_run WHERE outcome = 'failed'"
    async with working(database, [Job("bad", 1, fails), Job("late", 86_400, well)]):
        await until(lambda: (owner.execute(failures).fetchone() or (0,))[0] >= 2)
        found = [each for each in await worker.check(Settings(database_url=database)) if each.name == "jobs"]  # type: ignore[arg-type]
        assert len(found) == 1
        assert "bad has failed " in found[0].detail
        assert "nothing goes" in found[0].detail
        assert "clearinghouse jobs run bad" in found[0].what_to_do
        await until(lambda: owner.execute("SELECT outcome FROM job_run WHERE job = 'late'").fetchone() == ("ok",))
        owner.execute(
            "UPDATE job_run SET started_at = started_at - interval '9 days', due_at = due_at - interval '9 days'"
            " WHERE job = 'late'"
        )
        found = [each for each in await worker.check(Settings(database_url=database)) if each.name == "jobs"]  # type: ignore[arg-type]
        assert any(each.detail.startswith("late was due at ") for each in found)


@pytest.mark.parametrize(
    ("message", "says", "what_to_do"),
    [
        (("alert", "dead"), "alerts by pager: 1 given up within a week (answered 401)", "alerts test --channel pager"),
        (("alert", "waiting"), "alerts by pager: 1 waiting for more than ten minutes (answered 401)", "alerts replay"),
        (("notice", "dead"), "notices by pager: 1 given up within a week (answered 401)", "notices list --dead"),
    ],
)
async def test_messages_that_do_not_arrive_are_named_with_what_to_do(
    database: str, owner: Owner, message: tuple[str, str], says: str, what_to_do: str
) -> None:
    kind, state = message
    owner.execute("INSERT INTO job_lead (leader, since) VALUES ('gone:1', now())")
    owner.execute(
        """INSERT INTO delivery (id, kind, subject, number, channel, message, created_at, state, attempts_count,
                                 next_attempt_at, ended_at, error)
           VALUES (gen_random_uuid(), %(kind)s, gen_random_uuid(), 1, 'pager', '{}', now() - interval '11 minutes',
                   %(state)s, 3, now(), CASE WHEN %(state)s = 'dead' THEN now() END, 'answered 401')""",
        {"kind": kind, "state": state},
    )
    found = (await looked_at(database))["messages"]
    assert (found.status, found.detail) == ("warning", says)
    assert what_to_do in found.what_to_do


async def test_a_database_that_is_away_or_not_made_yet_is_no_finding_of_the_worker(tmp_path: Path) -> None:
    async with asyncio.timeout(60):
        away = Settings.model_validate({"database_url": "postgresql://u:s3cr3t@127.0.0.1:1/books"})
        assert await worker.check(away) == []
        assert await worker.check(Settings(data_dir=tmp_path)) == []
