"""What may be asked of usage, and what is refused with a word that helps."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from clearinghouse import usage_query
from clearinghouse.errors import DatabaseUnavailable, InvalidRequest
from clearinghouse.usage_query import BY, Question, day_edges, question, time_zone_of, usage_document, usage_of
from tests.parts.books import Connection
from tests.parts.used import Books, Kind

NOW = datetime(2026, 11, 21, 23, 30, tzinfo=UTC)


def test_thirty_days_up_to_today_are_asked_for_where_nothing_else_is_said() -> None:
    assert question(now=NOW, time_zone="UTC") == Question(date(2026, 10, 23), date(2026, 11, 21), "UTC", ("day", "app"))
    tomorrow = question(now=NOW, time_zone="Asia/Tokyo", days_count=1, by=["model", "app"])
    assert tomorrow == Question(date(2026, 11, 22), date(2026, 11, 22), "Asia/Tokyo", ("app", "model"))
    february = question(now=NOW, time_zone="UTC", last="2024-02-29", days_count=2)
    assert (february.first, february.last) == (date(2024, 2, 28), date(2024, 2, 29))
    assert len(day_edges(question(now=NOW, time_zone="UTC", days_count=400))) == 401


@pytest.mark.parametrize(
    ("words", "part"),
    [
        ({"first": "2026-11-2"}, "from is a day, written 2026-04-07, not '2026-11-2'"),
        ({"last": "20261121"}, "to is a day, written 2026-04-07"),
        ({"first": "2026-02-30"}, "from is a day"),
        ({"first": "2026-11-22"}, "the first day, 2026-11-22, is after the last, 2026-11-21"),
        ({"first": "2025-10-17"}, "2025-10-17 to 2026-11-21 are more than 400 days"),
        ({"first": "2026-11-01", "days_count": 3}, "give the first day or how many days, not both"),
        ({"days_count": 0}, "the number of days must be 1 to 400, not 0"),
        ({"days_count": 401}, "the number of days must be 1 to 400, not 401"),
        ({"last": "9999-12-31"}, "there is no usage around 9999-12-31"),
        ({"last": "1970-01-01"}, "there is no usage around 1970-01-01"),
        (
            {"by": ["day", "gateway"]},
            "usage cannot be told apart by 'gateway': only by day, app, pipeline, model, job_",
        ),
        ({"by": ["app", "app"]}, "each once"),
        ({"by": []}, "one or more of day"),
        ({"time_zone": "Berlin"}, "there is no time zone 'Berlin'; one is written Europe/Berlin or UTC"),
        ({"time_zone": "Europe"}, "there is no time zone 'Europe'"),
        ({"time_zone": "../etc/passwd"}, "there is no time zone"),
        ({"time_zone": "Europe/Berlin\0"}, "there is no time zone"),
        ({"time_zone": "x" * 65}, "there is no time zone"),
        ({"time_zone": ""}, "there is no time zone ''"),
    ],
)
def test_a_question_that_cannot_be_answered_is_refused_with_what_is_wrong(words: dict[str, Any], part: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        question(**{"now": NOW, "time_zone": "UTC"} | words)
    assert part in refused.value.message


async def test_days_that_do_not_begin_with_a_quarter_of_an_hour_are_refused(
    admin: AsyncEngine, owner: Connection
) -> None:
    """Liberia's clocks were 44 minutes and a half behind until 1972."""
    asked, gateway = Question(date(1971, 12, 30), date(1971, 12, 31), "Africa/Monrovia", BY), Books(owner).new_gateway()
    async with admin.connect() as connection:
        with pytest.raises(InvalidRequest, match="did not begin with a quarter of an hour then: ask in UTC"):
            await usage_of(connection, gateway, asked)


async def test_more_groups_than_anybody_reads_are_refused(
    admin: AsyncEngine, owner: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(usage_query, "GROUPS_MAX_COUNT", 10)
    books = Books(owner)
    gateway = books.new_gateway()
    for number in range(11):
        books.use(gateway, NOW - timedelta(days=number % 3), Kind(app=f"app {number}"))
    async with admin.connect() as connection:
        by_model = await usage_of(connection, gateway, question(now=NOW, time_zone="UTC", by=["day", "model"]))
        assert [group.sums.issuances for group in by_model.groups] == [3, 4, 4]
        with pytest.raises(InvalidRequest, match="there are more than 10 groups: ask for fewer days, or tell apart by"):
            await usage_of(connection, gateway, question(now=NOW, time_zone="UTC", by=["app"]))


async def test_sums_that_move_while_they_are_read_are_read_again_and_not_for_ever(
    admin: AsyncEngine, owner: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the roll-up passes between the two looks, what it passed would be counted twice or not at all."""
    books = Books(owner)
    gateway = books.new_gateway()
    books.use(gateway, NOW)
    moves, query = [3, 2, 1], usage_query._query

    def moved(by: Any) -> str:
        if moves:
            end = NOW + timedelta(hours=moves.pop())
            owner.execute("SELECT roll_up_usage(%s, '3', %s, 1000, NULL)", [end, end])
        return query(by)

    monkeypatch.setattr(usage_query, "_query", moved)
    async with admin.connect() as connection:
        answer = await usage_of(connection, gateway, question(now=NOW, time_zone="UTC"))
        assert [sums.issuances for _, sums in answer.totals] == [1]
        moves.extend(range(30, 10, -1))
        with pytest.raises(DatabaseUnavailable, match="being added up"):
            await usage_of(connection, gateway, question(now=NOW, time_zone="UTC"))


async def test_the_days_are_those_of_the_bills_where_nothing_else_is_said(
    admin: AsyncEngine, owner: Connection
) -> None:
    gateway = Books(owner).new_gateway()
    terms = "INSERT INTO billing_terms (gateway_id, begins_at, way, time_zone) VALUES (%s, %s, 'prepaid', %s)"
    async with admin.connect() as connection:
        assert await time_zone_of(connection, gateway) == "UTC"
        owner.execute(terms, [gateway, datetime(2026, 1, 1, tzinfo=UTC), "Europe/Berlin"])
        owner.execute(terms, [gateway, datetime.now(UTC) + timedelta(days=1), "Asia/Tokyo"])
        assert await time_zone_of(connection, gateway) == "Europe/Berlin"


async def test_a_document_has_amounts_as_strings_and_null_where_nothing_is_told_apart(
    admin: AsyncEngine, owner: Connection
) -> None:
    books = Books(owner)
    gateway = books.new_gateway()
    books.use(gateway, NOW, Kind(app=""), ev_wei=10**30)
    async with admin.connect() as connection:
        answer = await usage_of(connection, gateway, question(now=NOW, time_zone="Europe/Berlin", by=["app"]))
    document = usage_document(gateway, answer)
    sums = {"currency": "USD", "issuances": 1, "tickets": 1, "ev_wei": str(10**30), "fee_wei": str(10**30 + 1),
            "charge": "0.000000001"}  # fmt: skip
    assert document.pop("rolled_up_until") == "1970-01-01T00:00:00.000000Z"
    assert document == {
        "gateway_id": f"gw_{gateway.hex}", "from": "2026-10-24", "to": "2026-11-22", "time_zone": "Europe/Berlin",
        "begins_at": "2026-10-23T22:00:00.000000Z", "ends_at": "2026-11-22T23:00:00.000000Z", "by": ["app"],
        "items": [{"day": None, "app": "", "pipeline": None, "model": None, "job_type": None, **sums}],
        "totals": [sums],
    }  # fmt: skip
    async with admin.connect() as connection:
        nothing = await usage_of(connection, gateway, question(now=NOW, time_zone="UTC", last="2026-01-01", by=BY))
    assert (nothing.groups, nothing.totals) == ((), ())
