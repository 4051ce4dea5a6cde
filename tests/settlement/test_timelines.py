"""What was agreed on with a gateway decides where its periods end."""

from __future__ import annotations

from datetime import UTC, datetime
from uuid import UUID

import psycopg
import pytest
from hypothesis import given

from clearinghouse.database.connect import ADMIN_ROLE, async_engine, in_role
from clearinghouse.errors import NotFound
from clearinghouse.identity import gateways
from settlement.cadence import Cadence, Every
from settlement.periods import Terms, Timeline, Way
from settlement.time_zones import day_begins_at
from settlement.timelines import DEFAULT_TERMS, timeline, timeline_of
from tests.settlement.billing import timelines
from tests.settlement.conftest import Owner

BERLIN = Terms(Cadence(Every.WEEK, 4), "Europe/Berlin", Way.POSTPAID)
OPENED_AT = datetime(2026, 10, 20, 9, 30, tzinfo=UTC)


@given(timelines())
def test_a_timeline_comes_back_from_the_instants_at_which_its_terms_begin(expected: Timeline) -> None:
    agreed = [(expected.opened_at, expected.terms)]
    for change in expected.changes:
        agreed.append((day_begins_at(change.day, agreed[-1][1].zone), change.terms))
    assert timeline(expected.opened_at, agreed) == expected


def test_a_gateway_without_terms_is_billed_by_months_of_utc() -> None:
    found = timeline(OPENED_AT, [])
    assert (found.first().id, found.first().end) == ("2026-10-20", datetime(2026, 11, 1, tzinfo=UTC))
    assert found.terms == DEFAULT_TERMS


async def test_terms_are_read_from_the_database(database: str, owner: Owner) -> None:
    engine = async_engine(in_role(database, ADMIN_ROLE), pool_size=1)
    try:
        async with engine.begin() as connection:
            gateway = await gateways.create(connection, "acme")
            nothing_agreed = await timeline_of(connection, gateway.id)
        assert nothing_agreed.terms == DEFAULT_TERMS
        begins_at = nothing_agreed.first().end
        agree(owner, gateway.id, begins_at, BERLIN)
        async with engine.begin() as connection:
            found = await timeline_of(connection, gateway.id)
            with pytest.raises(NotFound):
                await timeline_of(connection, UUID(int=1))
    finally:
        await engine.dispose()
    assert found.first().end == begins_at
    assert found.after(found.first()).terms == BERLIN


def agree(owner: psycopg.Connection[tuple[object, ...]], gateway_id: UUID, begins_at: datetime, terms: Terms) -> None:
    owner.execute(
        """INSERT INTO billing_terms (gateway_id, begins_at, way, cadence, anchor_day, time_zone)
           VALUES (%s, %s, %s, %s, %s, %s)""",
        [gateway_id, begins_at, terms.way, terms.cadence.every, terms.cadence.anchor, terms.zone],
    )
