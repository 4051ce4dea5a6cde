"""Events from a real broker: recorded once, whatever breaks meanwhile, and the same as from a file."""

from __future__ import annotations

import asyncio
import random
import tempfile
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import psycopg
import pytest

from clearinghouse.config import Settings
from clearinghouse.configured import kafka_source
from clearinghouse.database.connect import SERVE_ROLE, async_engine, in_role
from clearinghouse.signer_events import kafka as kafka_module
from clearinghouse.signer_events.kafka import KafkaIntake, KafkaSource
from clearinghouse.signer_events.store import Counts, Intake
from tests.clearinghouse.signer_events.parts import World, findings, reconcile_all, record
from tests.parts import client
from tests.parts.broker import PATIENCE_S, TOPIC, Broker, broker
from tests.parts.certificates import Authority
from tests.parts.database_link import database_link
from tests.parts.event_signer import reporting_signer
from tests.parts.service import running

pytestmark = pytest.mark.slow  # a broker lets a member of a group wait for seconds

TABLE = """
    SELECT id, digest, happened_at, auth_id, gateway_id, session_id, state_id, sequence, recipient_rand_hash,
           num_tickets, fee_wei, balance_wei, orchestrator, manifest_id, copies, differing_copies
      FROM signer_event ORDER BY id
"""


@pytest.fixture
async def kafka(tmp_path: Path) -> AsyncIterator[Broker]:
    async with broker(tmp_path) as kafka:
        yield kafka


@asynccontextmanager
async def reading(conninfo: str, source: KafkaSource) -> AsyncIterator[Counts]:
    engine = async_engine(in_role(conninfo, SERVE_ROLE), pool_size=1)
    intake = Intake(engine)
    consumer = KafkaIntake(source, intake)
    consumer.start()
    try:
        yield intake.counts
    finally:
        await consumer.stop()
        await engine.dispose()


def source_of(kafka: Broker, **further: Any) -> KafkaSource:
    return KafkaSource((kafka.address,), TOPIC, "clearinghouse", **further)


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while not condition():
            await asyncio.sleep(0.05)


def total(counts: Counts) -> int:
    return sum(counts.lines.values())


async def injected(world: World) -> list[str]:
    """Events of honest payments, some lost, repeated, foreign and broken, in no order."""
    await world.streams(4, 5)
    await world.behind_our_back(world.service.new_stream())
    lines = list(world.signer.events)
    lines += [lines[3], lines[5], "no event", '{"type":"stream_trace","data":[]}']
    del lines[7]
    random.Random(7).shuffle(lines)
    return lines


async def test_the_same_events_from_a_file_and_from_kafka_give_the_same_table(
    world: World, kafka: Broker, database: str
) -> None:
    lines = await injected(world)
    await record(world.engine, world.folder, lines)
    await reconcile_all(world.engine)
    from_file = world.service.house.fetch(TABLE)
    found_in_file = [finding._replace(first_seen_at=None) for finding in await findings(world.engine)]
    for table in ("signer_event", "signer_payment", "signer_event_finding"):
        empty(world, table)
    await kafka.publish(line.encode() for line in lines)
    async with reading(database, source_of(kafka)) as counts:
        await until(lambda: total(counts) == len(lines))
    assert (counts.lines["bad"], counts.lines["other_type"]) == (1, 1)
    assert world.service.house.fetch(TABLE) == from_file
    await reconcile_all(world.engine)
    assert [finding._replace(first_seen_at=None) for finding in await findings(world.engine)] == found_in_file
    assert len(found_in_file) > 3


def empty(world: World, table: str) -> None:
    with psycopg.connect(world.service.house.conninfo) as owner:
        owner.execute(f"TRUNCATE {table}".encode())


async def test_a_reader_that_comes_back_goes_on_where_its_work_was_safe(
    world: World, kafka: Broker, database: str
) -> None:
    await world.streams(1, 4)
    lines = [event.encode() for event in world.signer.events]
    await kafka.publish(lines[:4])
    async with reading(database, source_of(kafka)) as counts:
        await until(lambda: total(counts) == 4)
    await kafka.publish(lines[4:])
    async with reading(database, source_of(kafka)) as counts:
        await until(lambda: total(counts) == 4)
    assert counts.lines["new"] == 4
    assert world.service.house.fetch("SELECT max(copies) FROM signer_event") == [(1,)]


async def test_nothing_is_committed_to_kafka_before_the_database_has_it(
    world: World, kafka: Broker, database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kafka_module, "RECONNECT_PAUSE_MIN_S", 0.2)
    await world.streams(1, 3)
    await kafka.publish(event.encode() for event in world.signer.tickets)
    with tempfile.TemporaryDirectory() as folder:  # a short path for a socket
        await read_while_the_database_is_away(world, kafka, database, Path(folder))


async def read_while_the_database_is_away(world: World, kafka: Broker, database: str, folder: Path) -> None:
    async with database_link(database, folder) as link, reading(link.conninfo, source_of(kafka)) as counts:
        link.cut()
        await asyncio.sleep(2)
        assert total(counts) == 0
        assert await kafka.committed("clearinghouse") == 0
        await link.mend()
        await until(lambda: total(counts) == 3)
        async with asyncio.timeout(PATIENCE_S):
            while await kafka.committed("clearinghouse") != 3:
                await asyncio.sleep(0.05)
    assert world.service.house.fetch("SELECT count(*), max(copies) FROM signer_event") == [(3, 1)]


async def test_a_broker_that_goes_and_comes_back_is_found_again(
    world: World, kafka: Broker, database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kafka_module, "RECONNECT_PAUSE_MIN_S", 0.2)
    await kafka.stop()
    async with reading(database, source_of(kafka)) as counts:
        await asyncio.sleep(1)
        await kafka.start()
        await world.streams(1, 2)
        await kafka.publish(event.encode() for event in world.signer.tickets)
        await until(lambda: total(counts) == 2)


async def test_over_tls_with_a_private_authority(world: World, tmp_path: Path, database: str) -> None:
    async with broker(tmp_path, authority=Authority()) as kafka:
        await world.streams(1, 2)
        await kafka.publish(event.encode() for event in world.signer.tickets)
        async with reading(database, source_of(kafka, tls=True, tls_ca_file=kafka.ca_file)) as counts:
            await until(lambda: total(counts) == 2)


async def test_the_service_reads_and_compares_by_itself(
    kafka: Broker, database: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("clearinghouse.signer_events.watch.INTERVAL_S", 0.5)
    events = {"kafka_bootstrap_servers": [kafka.address], "kafka_topic": TOPIC, "grace_s": 0}
    async with (
        reporting_signer() as signer,
        running(database, signer_urls=[signer.url], signer_events=events) as service,
    ):
        world = World(service, signer, await service.house.new_gateway(), tmp_path)
        await world.streams(1, 2)
        await world.behind_our_back(service.new_stream())
        await kafka.publish([*(event.encode() for event in signer.tickets), b"junk", None])

        async def shown(series: str) -> bool:
            return series.encode() in (await client.call(service.port, "GET", "/metrics")).body

        async with asyncio.timeout(PATIENCE_S):
            for wanted in (
                'clearinghouse_signer_events_total{kind="new"} 3.0',
                'clearinghouse_signer_events_total{kind="bad"} 2.0',
                'clearinghouse_signer_event_findings{kind="event_without_issuance"} 1.0',
                'clearinghouse_signer_event_findings{kind="issuance_without_event"} 0.0',
                "clearinghouse_signer_events_lag_records 0.0",
            ):
                while not await shown(wanted):
                    await asyncio.sleep(0.1)


def test_a_password_never_crosses_the_network_in_the_clear_nor_shows() -> None:
    section = {"kafka_bootstrap_servers": ["broker:9092"], "kafka_topic": "events", "kafka_username": "me"}
    with pytest.raises(ValueError, match="needs kafka_password_file"):
        Settings.model_validate({"signer_events": section})
    with pytest.raises(ValueError, match="in the clear"):
        Settings.model_validate({"signer_events": {**section, "kafka_password": "hush"}})
    settings = Settings.model_validate({"signer_events": {**section, "kafka_password": "hush", "kafka_tls": True}})
    source = kafka_source(settings.signer_events)
    assert source is not None
    assert source.password == "hush"
    assert "hush" not in repr(source)
