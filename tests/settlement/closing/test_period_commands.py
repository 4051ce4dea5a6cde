"""`clearinghouse periods`, as operators and scripts use it, and the job as the schedule has it."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import UTC, datetime
from decimal import Decimal
from uuid import UUID

import pytest
from prometheus_client import CollectorRegistry

from clearinghouse.job_runs import Outcome
from settlement.cli import app
from settlement.closing.close import closing_job
from settlement.closing.metrics import ClosingMetrics
from tests.parts.command_line import Answer, called
from tests.parts.days import days
from tests.settlement.closing.books import NOW, OCTOBER, US, Books

Command = Callable[..., Answer]
THIS_MONTH = datetime.now(UTC).replace(day=1, hour=0, minute=0, second=0, microsecond=0)
LAST_MONTH = (THIS_MONTH - US).replace(day=1, hour=0, minute=0, second=0, microsecond=0)


@pytest.fixture
def command(database: str) -> Command:
    return lambda *arguments: called(app, ["periods", *arguments], {"CLEARINGHOUSE_DATABASE_URL": database})


@pytest.fixture
def acme(books: Books) -> UUID:
    """Created with the month before this one, in which it used 1.5."""
    id_ = books.gateway(LAST_MONTH)
    books.owner.execute("UPDATE gateway SET name = 'acme' WHERE id = %s", [id_])
    books.moved(id_, 10, LAST_MONTH)
    books.used(id_, Decimal("1.5"), LAST_MONTH)
    books.used(id_, 2, THIS_MONTH, markup_bps=250)
    return id_


@pytest.mark.usefixtures("acme")
def test_a_dry_run_shows_what_would_be_closed_and_leaves_nothing(command: Command, books: Books) -> None:
    shown = command("close", "--dry-run", "--json").json()
    (item,) = shown["items"]
    assert shown["problems"] == []
    assert (item["period"], item["usage"], item["closing"]) == (f"{LAST_MONTH:%Y-%m-%d}", "1.5", "8.5")
    assert "1 periods would be closed." in command("close", "--dry-run").out
    assert books.owner.execute("SELECT FROM billing_period").fetchall() == []


@pytest.mark.usefixtures("acme")
def test_what_was_closed_is_listed_and_shown(command: Command) -> None:
    assert "No period was closed yet." in command("list").out
    assert "1 periods closed." in command("close").out
    assert "Nothing is over" in command("close").out
    (item,) = command("list", "acme", "--json").json()["items"]
    shown = command("show", "acme", f"{LAST_MONTH:%Y-%m-%d}", "--json").json()
    assert {name: shown[name] for name in item} == item
    assert shown["movements"] == {"grant": "10"}
    assert [(line["app"], line["charge"], line["rate_rule"]) for line in shown["lines"]] == [("app", "1.5", None)]
    told = command("show", "acme").out
    assert re.search(r"^closing +8\.5$", told, re.MULTILINE)
    assert "cost + 0 bps" in told
    assert command("list").out.count("prepaid") == 1


@pytest.mark.usefixtures("acme")
def test_the_period_that_goes_on_is_previewed(command: Command) -> None:
    """Whether or not the one before it is closed."""
    before = command("preview", "acme", "--json").json()
    assert (before["opening"], before["usage"], before["closing"], before["closed_at"]) == ("8.5", "2", "6.5", None)
    command("close")
    assert command("preview", "acme", "--json").json() == before
    assert "not yet" in command("preview", "acme").out


def test_what_cannot_be_closed_is_a_failure(command: Command, books: Books, acme: UUID) -> None:
    books.owner.execute("UPDATE account SET balance = balance + 1 WHERE id = %s", [acme])
    for arguments in (["close", "--dry-run"], ["close"]):
        answer = command(*arguments)
        assert answer.exit_code == 1
        assert "its balance less what its entries make it is 1" in answer.err


@pytest.mark.usefixtures("acme")
def test_a_period_that_is_none_is_refused(command: Command) -> None:
    assert "called by the day it begins" in command("show", "acme", "October").err
    assert "is closed" in command("show", "acme", "2020-01-01").err


async def test_the_schedule_closes_what_is_over_and_tells_what_is_overdue(database: str, books: Books) -> None:
    acme, _ = books.gateway(), books.gateway()
    books.owner.execute("UPDATE account SET balance = balance + 1 WHERE id = %s", [acme])
    registry = CollectorRegistry()
    metric = "clearinghouse_billing_periods_overdue_gateways"
    job = closing_job(ClosingMetrics(registry))
    assert registry.get_sample_value(metric) is None
    async with days(database, NOW) as passing:
        failed = await passing.run(job)
        assert failed is not None
        assert (failed.outcome, failed.error_kind) == (Outcome.FAILED, "PeriodsDiffer")
        assert registry.get_sample_value(metric) == 1
        books.owner.execute("UPDATE account SET balance = balance - 1 WHERE id = %s", [acme])
        done = await passing.run(job, by_hand=True)
    assert done is not None
    assert done.said == "1 periods of 1 gateways closed"
    assert registry.get_sample_value(metric) == 0
    assert books.owner.execute("SELECT count(*) FROM billing_period WHERE begins_at = %s", [OCTOBER]).fetchone() == (2,)
