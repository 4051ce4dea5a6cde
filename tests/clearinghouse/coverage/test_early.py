"""The gates as a process knows them: the commit's refusals, in its order, without asking a signer first."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from clearinghouse.coverage.early import EarlyGate
from clearinghouse.database.connect import SERVE_ROLE, async_engine, in_role
from clearinghouse.readiness import NotReady
from tests.parts.covered import ETHER, OTHER_SENDER, SENDER, Books
from tests.parts.database_link import database_link

Owner = psycopg.Connection[tuple[Any, ...]]


class Clock:
    now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
async def engine(database: str) -> AsyncIterator[AsyncEngine]:
    engine = async_engine(in_role(database, SERVE_ROLE), pool_size=1)
    yield engine
    await engine.dispose()


def set_gate(owner: Owner, level: str, *, cap_wei: int | None = None, valid_s: int = 20, **shares: Any) -> None:
    given = list(shares.get("shares", {}).items())
    owner.execute(
        "SELECT set_coverage_gate(%s, %s, %s, %s, %s::uuid[], %s::numeric[])",
        [SENDER, level, cap_wei, valid_s, [id_ for id_, _ in given], [wei for _, wei in given]],
    )


@pytest.mark.parametrize(
    ("level", "new", "running"),
    [
        ("ok", None, None),
        ("watch", None, None),
        ("low", "coverage_low", None),
        ("critical", "coverage_low", None),
    ],
)
async def test_new_sessions_are_refused_first(
    engine: AsyncEngine, owner: Owner, level: str, new: str | None, running: str | None
) -> None:
    set_gate(owner, level)
    gate = EarlyGate(engine, SENDER, is_enforced=True)
    await gate.refresh()
    assert gate.refusal(SENDER, is_new_session=True, face_value_wei=None) == new
    assert gate.refusal(SENDER, is_new_session=False, face_value_wei=10**30) == running


async def test_a_ticket_above_the_cap_is_refused_and_one_that_is_not_shown_is_not(
    engine: AsyncEngine, owner: Owner
) -> None:
    set_gate(owner, "ok", cap_wei=ETHER)
    gate = EarlyGate(engine, SENDER, is_enforced=True)
    await gate.refresh()
    codes = [gate.refusal(SENDER, is_new_session=True, face_value_wei=wei) for wei in (ETHER, ETHER + 1, None)]
    assert codes == [None, "face_value", None]


async def test_a_gate_holds_as_long_as_it_says_and_what_was_never_set_does_not_hold(
    engine: AsyncEngine, owner: Owner
) -> None:
    clock = Clock()
    gate = EarlyGate(engine, SENDER, is_enforced=True, now_s=clock)
    await gate.refresh()
    with pytest.raises(NotReady, match="not evaluated yet"):
        await gate.probe()
    set_gate(owner, "ok", valid_s=20)
    await gate.refresh()
    for age_s, code in ((0, None), (19.5, None), (20.5, "coverage_unknown")):
        clock.now_s = 1000 + age_s
        assert gate.refusal(SENDER, is_new_session=False, face_value_wei=None) == code
        assert gate.refusal(OTHER_SENDER, is_new_session=False, face_value_wei=None) == "coverage_unknown"
    with pytest.raises(NotReady, match="level ok"):
        await gate.probe()


async def test_a_share_is_what_is_left_of_it_and_whoever_has_none_gets_nothing(
    engine: AsyncEngine, owner: Owner
) -> None:
    books = Books(owner)
    one, other = books.new_gateway(ev_total_wei=100), books.new_gateway(ev_total_wei=100)
    set_gate(owner, "critical", shares={one: 130, other: 100})
    gate = EarlyGate(engine, SENDER, is_enforced=True)
    await gate.refresh()
    assert [gate.share_refusal(SENDER, one, wei) for wei in (0, 30, 31)] == [None, None, "coverage_critical"]
    assert [gate.share_refusal(SENDER, other, wei) for wei in (0, 1)] == [None, "coverage_critical"]
    owner.execute("UPDATE account SET ev_total_wei = 150 WHERE id = %s", [one])  # released over another sender
    await gate.refresh()
    assert [gate.share_refusal(SENDER, one, wei) for wei in (0, 1)] == [None, "coverage_critical"]
    set_gate(owner, "low")
    await gate.refresh()
    assert gate.share_refusal(SENDER, other, 10**30) is None


async def test_where_nothing_is_enforced_nothing_is_refused_and_the_level_is_told(
    engine: AsyncEngine, owner: Owner
) -> None:
    set_gate(owner, "critical")
    gate = EarlyGate(engine, SENDER, is_enforced=False)
    await gate.refresh()
    assert gate.refusal(SENDER, is_new_session=True, face_value_wei=10**30) is None
    assert gate.share_refusal(SENDER, Books(owner).new_gateway(), 10**30) is None
    assert await gate.probe() == "level critical, 0 s old, not enforced"


async def test_without_a_database_the_gates_hold_on_until_they_end(database: str, tmp_path: Path, owner: Owner) -> None:
    clock = Clock()
    set_gate(owner, "ok", valid_s=20)
    async with database_link(database, tmp_path) as link:
        engine = async_engine(in_role(link.conninfo, SERVE_ROLE), pool_size=1)
        gate = EarlyGate(engine, SENDER, is_enforced=True, now_s=clock)
        await gate.refresh()
        link.cut()
        await gate.refresh()
        await engine.dispose()
    assert gate.refusal(SENDER, is_new_session=False, face_value_wei=None) is None
    clock.now_s += 21
    assert gate.refusal(SENDER, is_new_session=False, face_value_wei=None) == "coverage_unknown"
