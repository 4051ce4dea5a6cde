"""What the service threw away after a signer had signed: its event has no issuance, and is no alarm."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from pathlib import Path

import psycopg
from prometheus_client import CollectorRegistry

from clearinghouse.database.connect import SERVE_ROLE, async_engine, in_role
from clearinghouse.ids import uuid7
from clearinghouse.metrics import Metrics
from clearinghouse.unreleased import WAITING_MAX_COUNT, Asking, Unreleased, UnreleasedLog
from tests.clearinghouse.signer_events.parts import World, found, record
from tests.parts import client
from tests.parts.event_signer import reporting_signer
from tests.parts.service import GO_LIVEPEER, running


async def until(condition: Callable[[], bool], within_s: float = 10) -> None:
    async with asyncio.timeout(within_s):
        while not condition():
            await asyncio.sleep(0.02)


def reasons(world: World) -> list[tuple[str, int]]:
    return world.service.house.fetch("SELECT reason, signatures FROM unreleased ORDER BY at")


async def require_explained(world: World, *wanted: tuple[str, int]) -> None:
    """Within a moment the reasons are on record, and nothing is found wrong with any event of the signer."""
    await until(lambda: len(reasons(world)) >= len(wanted))
    assert reasons(world) == list(wanted)
    issued = world.service.house.fetch("SELECT count(*) FROM issuance")[0][0]
    assert len(world.signer.tickets) > issued, "there is something to be explained"
    await record(world.engine, world.folder, world.signer.events)
    assert await found(world.engine) == set()
    # And what is not of that very place is not explained by it.
    await world.behind_our_back(world.service.new_stream())
    await record(world.engine, world.folder, world.signer.tickets[-1:], "foreign.jsonl")
    assert {kind for kind, _ in await found(world.engine)} == {"event_without_issuance"}


async def test_an_answer_that_fails_its_checks_is_explained(world: World) -> None:
    stream = world.service.new_stream()
    await world.service.pay(world.gateway, stream)
    world.signer.tamper = lambda answer: answer._replace(body=answer.body.replace(b'"segCreds"', b'"segcreds"'))
    assert (await world.service.sign(world.gateway, stream.body())).code == "signer_answer_invalid"
    world.signer.tamper = lambda answer: answer
    await world.service.pay(world.gateway, stream)
    await require_explained(world, ("signer_answer_invalid", 1))


async def test_a_refused_commit_is_explained(world: World) -> None:
    stream = world.service.new_stream()
    world.signer.may_answer.clear()
    call = asyncio.create_task(world.service.sign(world.gateway, stream.body()))
    await until(lambda: len(world.signer.tickets) == 1)
    await world.service.house.suspend(world.gateway)
    world.signer.may_answer.set()
    assert (await call).code == "gateway_suspended"
    await world.service.house.resume(world.gateway)
    await world.service.pay(world.gateway, stream)
    await require_explained(world, ("gateway_suspended", 1))


async def test_a_signer_that_answers_too_late_is_explained(world: World) -> None:
    stream = world.service.new_stream()
    world.signer.may_answer.clear()
    assert (await world.service.sign(world.gateway, stream.body())).code == "signers_unavailable"
    world.signer.may_answer.set()
    await require_explained(world, ("signers_unavailable", 1))


async def test_two_equal_calls_to_two_processes_are_explained(world: World, database: str) -> None:
    async with running(database, signer_urls=[world.signer.url]) as other:
        stream = world.service.new_stream()
        world.signer.may_answer.clear()
        calls = [asyncio.create_task(each.sign(world.gateway, stream.body())) for each in (world.service, other)]
        await until(lambda: len(world.signer.tickets) == 2)
        world.signer.may_answer.set()
        answers = await asyncio.gather(*calls)
        assert [answer.status for answer in answers] == [200, 200]
        assert answers[0].body == answers[1].body
        await require_explained(world, ("replayed", 1))


async def test_a_call_that_finds_its_account_held_by_somebody_is_explained(world: World) -> None:
    stream = world.service.new_stream()
    await world.service.pay(world.gateway, stream)
    with psycopg.connect(world.service.house.conninfo) as other:
        other.execute("SELECT 1 FROM account WHERE id = %s FOR UPDATE", [world.gateway.id])
        assert (await world.service.sign(world.gateway, stream.body())).code == "account_busy"
    await require_explained(world, ("account_busy", 1))


async def test_a_signer_that_was_failed_over_from_is_explained(database: str, tmp_path: Path) -> None:
    async with (
        reporting_signer() as first,
        reporting_signer() as second,
        running(database, signer_urls=[first.url, second.url]) as service,
    ):
        world = World(service, first, await service.house.new_gateway(), tmp_path)
        first.may_answer.clear()
        stream = service.new_stream()
        for _ in range(2):  # they take turns
            await service.pay(world.gateway, stream)
        assert len(first.tickets) + len(second.tickets) == 3
        await until(lambda: bool(reasons(world)))
        assert reasons(world) == [("failed_over", 1)]
        await record(world.engine, tmp_path, [*first.events, *second.events])
        assert await found(world.engine) == set()


async def test_a_caller_who_hangs_up_is_explained(world: World) -> None:
    world.signer.may_answer.clear()
    body = world.service.new_stream().body()
    header = ("Authorization", world.gateway.authorization)
    async with client.unheard(world.service.port, GO_LIVEPEER, body, header):
        await until(lambda: len(world.signer.tickets) == 1)
    world.signer.may_answer.set()
    await until(lambda: bool(reasons(world)) or bool(world.service.house.fetch("SELECT 1 FROM issuance")))
    await record(world.engine, world.folder, world.signer.events)
    assert await found(world.engine) == set()


async def test_what_was_released_or_never_signed_leaves_nothing(world: World) -> None:
    stream = world.service.new_stream()
    await world.service.pay(world.gateway, stream)
    await world.service.sign(world.gateway, stream.body(type="nonsense"))
    stream.offer.auth_token.expiration = 1
    assert (await world.service.sign(world.gateway, stream.body())).status == 480  # in the signer's words
    await asyncio.sleep(1.5)
    assert reasons(world) == []


def unreleased() -> Unreleased:
    with contextlib.ExitStack() as stack:
        kept: list[Unreleased] = []
        asking = stack.enter_context(Asking(kept.append))
        asking.begins(uuid7(), uuid7(), sequence=3, recipient_rand_hash=bytes(32))
    return kept[0]


async def test_a_database_that_is_away_costs_bounded_memory_and_what_there_is_room_for_is_written_later(
    database: str,
) -> None:
    metrics = Metrics(CollectorRegistry(), version="test")
    away = async_engine(in_role("host=127.0.0.1 port=1 dbname=nowhere", SERVE_ROLE))
    log = UnreleasedLog(away, metrics.signer_events)
    for _ in range(WAITING_MAX_COUNT + 5):
        log.keep(unreleased())
    await log.write()
    await away.dispose()
    assert metrics.registry.get_sample_value("clearinghouse_unreleased_lost_total") == 5
    engine = async_engine(in_role(database, SERVE_ROLE))
    log._engine = engine
    await log.write()
    await log.write()
    async with engine.connect() as connection:
        count = (await connection.exec_driver_sql("SELECT count(*) FROM unreleased")).scalar_one()
    await engine.dispose()
    assert count == WAITING_MAX_COUNT
