"""Comparing in the background: from where it ended, from what came late, and by one process at a time."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from datetime import UTC, datetime, timedelta

import psycopg
import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from clearinghouse.database.connect import ADMIN_ROLE, SERVE_ROLE, async_engine, in_role
from clearinghouse.errors import NotFound
from clearinghouse.signer_events.faults import Found
from clearinghouse.signer_events.reconcile import Expected, accept_finding, forget
from clearinghouse.signer_events.watch import LOCK, SignerEventWatch
from tests.clearinghouse.signer_events.parts import World, changed, findings, id_of, record


class Shown:
    def __init__(self) -> None:
        self.counts: dict[Found, int] = {}

    def open_findings(self, counts: Mapping[Found, int]) -> None:
        self.counts = dict(counts)


@pytest.fixture
async def engine(database: str) -> AsyncIterator[AsyncEngine]:
    engine = async_engine(in_role(database, SERVE_ROLE), pool_size=2)
    yield engine
    await engine.dispose()


def watch_over(engine: AsyncEngine, shown: Shown, *, grace: timedelta = timedelta(seconds=-1)) -> SignerEventWatch:
    return SignerEventWatch(engine, expected=Expected(), grace=grace, kept=timedelta(days=30), shown=shown)


def reached(world: World) -> datetime:
    until: datetime = world.service.house.fetch("SELECT reconciled_until FROM signer_event_progress")[0][0]
    return until


async def test_it_goes_on_from_where_it_was_and_back_for_what_comes_late(world: World, engine: AsyncEngine) -> None:
    shown = Shown()
    watch = watch_over(engine, shown)
    await watch.look()
    assert not any(shown.counts.values()), "nothing to do, and every kind shown"
    assert set(shown.counts) == set(Found)

    await world.streams(1, 4)
    tickets = world.signer.tickets
    await record(world.engine, world.folder, tickets[:1] + tickets[2:])
    assert reached(world) < datetime.now(UTC) - timedelta(minutes=1)
    await watch.look()
    assert {kind for kind, count in shown.counts.items() if count} == {
        Found.ISSUANCE_WITHOUT_EVENT, Found.SEQUENCE_MISSING,
    }  # fmt: skip
    assert reached(world) > datetime.now(UTC) - timedelta(minutes=1)

    await record(world.engine, world.folder, tickets[1:2], "late.jsonl")
    assert reached(world) < datetime.now(UTC) - timedelta(minutes=1), "moved back"
    await watch.look()
    assert not any(shown.counts.values())


async def test_what_names_nobody_of_ours_is_shown_without_waiting_for_the_grace(
    world: World, engine: AsyncEngine
) -> None:
    shown = Shown()
    await world.streams(1, 1)
    event = await world.behind_our_back(world.service.new_stream())
    await record(world.engine, world.folder, world.signer.tickets)
    await watch_over(engine, shown, grace=timedelta(minutes=1)).look()
    assert shown.counts[Found.EVENT_WITHOUT_ISSUANCE] == 1
    assert [finding.subject for finding in await findings(world.engine)] == [id_of(event)]


async def test_one_process_at_a_time_compares_and_all_show(world: World, engine: AsyncEngine) -> None:
    await world.behind_our_back(world.service.new_stream())
    await record(world.engine, world.folder, world.signer.tickets)
    shown = Shown()
    with psycopg.connect(world.service.house.conninfo) as other:
        other.execute("SELECT pg_advisory_lock(%s)", [LOCK])
        await watch_over(engine, shown).look()
        assert shown.counts[Found.EVENT_WITHOUT_ISSUANCE] == 0
        other.execute("SELECT pg_advisory_unlock(%s)", [LOCK])  # a server ends a closed connection a moment later
    await watch_over(engine, shown).look()
    assert shown.counts[Found.EVENT_WITHOUT_ISSUANCE] == 1


async def test_a_finding_put_aside_stays_aside_when_it_is_found_again(
    world: World, engine: AsyncEngine, database: str
) -> None:
    event = await world.behind_our_back(world.service.new_stream())
    await record(world.engine, world.folder, [event])
    shown = Shown()
    await watch_over(engine, shown).look()
    admin = async_engine(in_role(database, ADMIN_ROLE))
    async with admin.begin() as connection:
        await accept_finding(connection, "event_without_issuance", id_of(event), reason="a drill", actor="test")
    async with admin.begin() as connection:
        with pytest.raises(NotFound):
            await accept_finding(connection, "event_without_issuance", id_of(event), reason="again", actor="test")
    await admin.dispose()
    await record(world.engine, world.folder, [event], "again.jsonl")  # everything is looked at once more
    await watch_over(engine, shown).look()
    assert shown.counts[Found.EVENT_WITHOUT_ISSUANCE] == 0
    assert world.service.house.fetch("SELECT reason, accepted_by FROM signer_event_finding WHERE reason <> ''") == [
        ("a drill", "test")
    ]


async def test_old_events_are_forgotten_and_their_findings_stay_open(world: World, engine: AsyncEngine) -> None:
    old = await world.behind_our_back(world.service.new_stream())
    await record(world.engine, world.folder, [old])
    shown = Shown()
    await watch_over(engine, shown).look()
    with psycopg.connect(world.service.house.conninfo) as owner:
        owner.execute("UPDATE signer_event SET happened_at = now() - interval '2 days'")
    assert await forget(engine, older_than=timedelta(days=1)) == 0, "it was received just now"
    with psycopg.connect(world.service.house.conninfo) as owner:
        owner.execute("UPDATE signer_event SET received_at = now() - interval '2 days'")
    assert await forget(engine, older_than=timedelta(days=1)) == 1
    await world.streams(1, 1)
    await record(world.engine, world.folder, [changed(world.signer.tickets[-1], num_tickets=1)])
    await watch_over(engine, shown).look()
    assert shown.counts[Found.EVENT_WITHOUT_ISSUANCE] == 1


async def test_no_role_changes_or_removes_what_was_reported(world: World, database: str) -> None:
    await world.streams(1, 1)
    await record(world.engine, world.folder, world.signer.events)
    for role in (SERVE_ROLE, ADMIN_ROLE):
        for table in ("signer_event", "signer_payment", "unreleased", "signer_event_finding"):
            for statement in (f"DELETE FROM {table}", f"UPDATE {table} SET id = id", f"TRUNCATE {table}"):
                with psycopg.connect(in_role(database, role)) as connection, pytest.raises(psycopg.Error) as refused:
                    connection.execute(statement.encode())
                assert isinstance(
                    refused.value, psycopg.errors.InsufficientPrivilege | psycopg.errors.UndefinedColumn
                ), statement
