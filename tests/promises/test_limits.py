"""Limits on what is used: reached to the last unit, passed by nobody, and said in the same way everywhere."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import grpc
import psycopg
import pytest
from google.rpc.error_details_pb2 import ErrorInfo, RetryInfo
from grpc_status import rpc_status

from clearinghouse.api.pb import clearinghouse_pb2 as pb
from clearinghouse.api.pb.clearinghouse_pb2_grpc import ClearinghouseStub
from clearinghouse.database.connect import SERVE_ROLE, async_engine, in_role
from clearinghouse.housekeeping import close_idle_sessions
from clearinghouse.identity import gateways, keys, limits
from clearinghouse.usage import REFUSAL_REMEMBERED_S
from tests.parts import client
from tests.parts.client import Answer
from tests.parts.service import Service, our_body
from tests.parts.stack import PEPPER, TICKET_CHARGE_USD, TICKET_EV_WEI, Stream, TestGateway

if TYPE_CHECKING:
    from clearinghouse.api.pb.clearinghouse_pb2_grpc import ClearinghouseAsyncStub

CALLERS = 64
SMALLEST = Decimal("1e-12")


async def limit(service: Service, gateway: TestGateway, **changes: Decimal | int | None) -> None:
    async with service.house.engine.begin() as connection:
        await limits.set_gateway_limits(connection, gateway.id, changes)


async def set_minimum(service: Service, gateway: TestGateway, minimum_charge: Decimal) -> None:
    async with service.house.engine.begin() as connection:
        await gateways.set_pricing(connection, gateway.id, markup_bps=0, minimum_charge=minimum_charge)


async def limit_by(service: Service, gateway: TestGateway, name: str, most: int) -> None:
    """Of the gateway or of its key, by the name that refusals have."""
    if name.startswith("key_"):
        await service.house.limit_key(gateway, **{name.removeprefix("key_"): most})
    else:
        await limit(service, gateway, **{name: most})


async def close_idle(service: Service) -> int:
    engine = async_engine(in_role(service.house.conninfo, SERVE_ROLE))
    closed = await close_idle_sessions(engine, idle=timedelta(minutes=2))
    await engine.dispose()
    return closed


async def storm(services: Sequence[Service], gateway: TestGateway, streams: Sequence[Stream]) -> list[Answer]:
    """All streams pay at once, spread over the services; those that were paid for go on from there."""
    answers = await asyncio.gather(
        *(services[i % len(services)].sign(gateway, stream.body()) for i, stream in enumerate(streams))
    )
    for stream, answer in zip(streams, answers, strict=True):
        if answer.status == 200:
            stream.learn(answer.body)
        else:
            assert (answer.status, answer.code) == (429, "limit_reached"), answer.body
    return answers


def new_stream(service: Service, *, tickets: int = 1, orchestrator: bytes = b"\x55" * 20) -> Stream:
    """Of one orchestrator, which a stream of `Service.new_stream` is not."""
    stream = service.new_stream(tickets=tickets)
    stream.offer.address = orchestrator
    return stream


def released(answers: Sequence[Answer]) -> int:
    return sum(answer.status == 200 for answer in answers)


def rules(answers: Sequence[Answer]) -> set[str | None]:
    return {answer.header("clearinghouse-limit") for answer in answers if answer.status != 200}


def as_owner(service: Service, *statements: str) -> None:
    """Past every rule of the books, as only time can."""
    with psycopg.connect(service.house.conninfo, autocommit=True) as connection:
        connection.execute("SET session_replication_role = replica")
        for statement in statements:
            connection.execute(statement.encode())


def let_days_pass(service: Service, days: int) -> None:
    """All that was ever done was done so many days earlier."""
    as_owner(
        service,
        f"UPDATE issuance SET created_at = created_at - interval '{days * 24} hours'",
        f"UPDATE exposure_counter SET issued_hour = issued_hour - interval '{days * 24} hours'",
        f"UPDATE exposure_delta SET issued_hour = issued_hour - interval '{days * 24} hours'",
        f"UPDATE account SET usage_day = usage_day - {days} WHERE usage_day > '2000-01-01'",
    )


async def forgotten() -> None:
    """Until no process refuses from memory alone."""
    await asyncio.sleep(REFUSAL_REMEMBERED_S + 0.05)


MOST = 5
#: What allows exactly MOST calls of one ticket each, and what would be one unit too little for it.
EXACT: dict[str, tuple[dict[str, Decimal | int], dict[str, Decimal | int]]] = {
    "calls_per_day": ({"calls_per_day": MOST}, {"calls_per_day": MOST - 1}),
    "spend_per_day": (
        {"spend_per_day": MOST * TICKET_CHARGE_USD},
        {"spend_per_day": MOST * TICKET_CHARGE_USD - SMALLEST},
    ),
    "spend_per_month": (
        {"spend_per_month": MOST * TICKET_CHARGE_USD},
        {"spend_per_month": MOST * TICKET_CHARGE_USD - SMALLEST},
    ),
    "ev_open": ({"ev_open": MOST * TICKET_EV_WEI}, {"ev_open": MOST * TICKET_EV_WEI - 1}),
    "sessions_open": ({"sessions_open": MOST}, {"sessions_open": MOST - 1}),
    "sessions_open_per_orchestrator": (
        {"sessions_open_per_orchestrator": MOST},
        {"sessions_open_per_orchestrator": MOST - 1},
    ),
}
OF_KEYS = tuple(name for name in EXACT if name in limits.KEY_LIMITS)


@pytest.mark.parametrize("name", EXACT)
async def test_64_callers_on_two_processes_reach_a_limit_exactly_and_never_pass_it(
    twins: tuple[Service, Service], name: str
) -> None:
    first, _ = twins
    for allowed, most in zip(EXACT[name], (MOST, MOST - 1), strict=True):
        gateway = await first.house.new_gateway(tickets=100)
        await limit(first, gateway, **allowed)
        answers = await storm(twins, gateway, [new_stream(first) for _ in range(CALLERS)])
        assert rules(answers) == {name}
        await forgotten()
        answers += await storm(twins, gateway, [new_stream(first) for _ in range(8)])
        assert (released(answers), first.house.sums(gateway).issuances) == (most, most)


@pytest.mark.parametrize("name", OF_KEYS)
async def test_a_keys_limit_below_its_gateways_is_reached_exactly_and_its_other_keys_go_on(
    twins: tuple[Service, Service], name: str
) -> None:
    first, _ = twins
    for allowed, most in zip(EXACT[name], (MOST, MOST - 1), strict=True):
        gateway = await first.house.new_gateway(tickets=100)
        await limit(first, gateway, calls_per_day=MOST + 1)
        await first.house.limit_key(gateway, **allowed)
        answers = await storm(twins, gateway, [new_stream(first) for _ in range(CALLERS)])
        assert rules(answers) == {f"key_{name}"}
        assert released(answers) == most
        assert await counted(first, gateway) == [(str(most * TICKET_EV_WEI), str(most))]
        another = await first.house.new_key(gateway.id)
        answers = await storm(twins, another, [new_stream(first) for _ in range(8)])
        assert (released(answers), rules(answers)) == (MOST + 1 - most, {"calls_per_day"})


async def counted(service: Service, gateway: TestGateway) -> list[tuple[str, str]]:
    """Open expected value in wei and open sessions of each key that has limits, as the gateway reads them."""
    answer = await client.call(service.port, "GET", "/v1/limits", headers=[("Authorization", gateway.authorization)])
    used = [{use["limit"]: use["used"] for use in key["limits"]} for key in answer.json["keys"]]
    return [(limits["key_ev_open"], limits["key_sessions_open"]) for limits in used]


async def test_what_a_key_has_open_when_it_is_first_limited_counts_and_what_others_opened_does_not(
    service: Service,
) -> None:
    gateway = await service.house.new_gateway()
    other = await service.house.new_key(gateway.id)
    idle, stream, others = (new_stream(service) for _ in range(3))
    await service.pay(gateway, idle)  # three days ago, in the end, and closed
    let_days_pass(service, 1)
    await service.pay(gateway, stream)
    let_days_pass(service, 2)
    as_owner(service, "UPDATE session SET updated_at = updated_at - interval '10 minutes'")
    await service.pay(gateway, stream)
    await service.pay(other, others)
    await service.pay(gateway, others)
    assert await close_idle(service) == 1
    await service.house.limit_key(gateway, ev_open=4 * TICKET_EV_WEI, sessions_open=2)
    assert await counted(service, gateway) == [(str(3 * TICKET_EV_WEI), "1")]
    answers = await storm([service], gateway, [new_stream(service) for _ in range(8)])
    assert (released(answers), rules(answers)) == (1, {"key_ev_open"})
    await service.house.limit_key(gateway, ev_open=None)
    await forgotten()
    answers = await storm([service], gateway, [new_stream(service) for _ in range(8)])
    assert (released(answers), rules(answers)) == (0, {"key_sessions_open"})
    await service.pay(other, new_stream(service))


async def test_what_a_key_used_before_it_had_a_limit_counts(service: Service) -> None:
    gateway = await service.house.new_gateway()
    other = await service.house.new_key(gateway.id)
    stream = new_stream(service)
    for _ in range(3):
        await service.pay(gateway, stream)
    await service.pay(other, new_stream(service))
    await service.house.limit_key(gateway, calls_per_day=4, spend_per_month=10)
    answers = await storm([service], gateway, [new_stream(service) for _ in range(8)])
    assert (released(answers), rules(answers)) == (1, {"key_calls_per_day"})
    await service.house.limit_key(gateway, calls_per_day=None, spend_per_month=None)
    await forgotten()
    await service.pay(gateway, stream)
    assert service.house.fetch("SELECT count(*) FROM key_limit") == [(0,)]


async def test_a_rotated_key_keeps_its_limits(service: Service) -> None:
    gateway = await service.house.new_gateway()
    await service.house.limit_key(gateway, calls_per_day=1, requests_per_s=7)
    async with service.house.engine.begin() as connection:
        new = await keys.rotate(connection, gateway.api_key.split("_")[1], pepper=PEPPER)
        kept = await limits.key_limits(connection, new.key.id)
    assert kept.requests_per_s == 7
    answers = await storm([service], TestGateway(gateway.id, new.api_key), [new_stream(service) for _ in range(8)])
    assert (released(answers), rules(answers)) == (1, {"key_calls_per_day"})


async def test_a_call_too_large_for_what_is_left_does_not_keep_out_smaller_ones(service: Service) -> None:
    gateway = await service.house.new_gateway(tickets=100)
    await limit(service, gateway, spend_per_day=10 * TICKET_CHARGE_USD)
    sizes = [7, 7, 2, 7, 1, 7]
    answers = await asyncio.gather(*(service.sign(gateway, new_stream(service, tickets=size).body()) for size in sizes))
    assert [answer.status for answer in answers].count(200) == 3
    assert service.house.sums(gateway).tickets == 10
    assert rules(answers) == {"spend_per_day"}


async def test_the_reason_is_credit_where_both_credit_and_a_limit_are_short(service: Service) -> None:
    gateway = await service.house.new_gateway(tickets=0)
    await limit(service, gateway, calls_per_day=0)
    answer = await service.sign(gateway, new_stream(service).body())
    assert (answer.status, answer.code) == (402, "out_of_credit")


async def test_a_keys_limit_is_named_before_that_of_sessions_per_orchestrator(service: Service) -> None:
    gateway = await service.house.new_gateway()
    await service.house.limit_key(gateway, calls_per_day=0)
    await limit(service, gateway, sessions_open_per_orchestrator=0)
    assert rules([await service.sign(gateway, new_stream(service).body())]) == {"key_calls_per_day"}


async def test_a_replay_at_the_limit_is_still_answered(service: Service) -> None:
    gateway = await service.house.new_gateway()
    await limit(service, gateway, calls_per_day=2)
    stream = new_stream(service)
    await service.pay(gateway, stream)
    body = stream.body()
    paid = await service.sign(gateway, body)
    stream.learn(paid.body)
    for _ in range(2):
        assert (await service.sign(gateway, stream.body())).status == 429
        again = await service.sign(gateway, body)
        assert (again.status, again.body, again.header("clearinghouse-replayed")) == (200, paid.body, "true")
        await forgotten()


async def test_a_raised_limit_works_within_a_second_in_every_process(twins: tuple[Service, Service]) -> None:
    first, second = twins
    gateway = await first.house.new_gateway()
    await limit(first, gateway, calls_per_day=0)
    streams = [new_stream(first), new_stream(second)]
    assert released(await storm(twins, gateway, streams)) == 0
    await limit(first, gateway, calls_per_day=2)
    await forgotten()
    assert released(await storm(twins, gateway, streams)) == 2


async def test_a_lowered_price_makes_room_under_a_limit_within_a_second(service: Service) -> None:
    gateway = await service.house.new_gateway()
    await set_minimum(service, gateway, 2 * TICKET_CHARGE_USD)
    await limit(service, gateway, spend_per_day=3 * TICKET_CHARGE_USD)
    stream = new_stream(service)
    await service.pay(gateway, stream)
    assert (await service.sign(gateway, stream.body())).status == 429
    await set_minimum(service, gateway, Decimal(0))
    await forgotten()
    assert (await service.sign(gateway, stream.body())).status == 200


async def test_a_caller_at_its_limit_is_told_within_a_second_that_its_credit_is_gone(
    twins: tuple[Service, Service],
) -> None:
    first, second = twins
    gateway = await first.house.new_gateway(tickets=4)
    other_key = await first.house.new_key(gateway.id)
    await limit(first, gateway, ev_open=3 * TICKET_EV_WEI)
    await first.pay(gateway, new_stream(first))
    large = new_stream(first, tickets=3)
    assert rules([await first.sign(gateway, large.body())]) == {"ev_open"}
    await second.pay(other_key, new_stream(second))
    await forgotten()
    answer = await first.sign(gateway, large.body())
    assert (answer.status, answer.code) == (402, "out_of_credit")


async def test_a_caller_at_its_limit_is_told_within_a_second_that_its_key_was_revoked(service: Service) -> None:
    gateway = await service.house.new_gateway()
    await limit(service, gateway, calls_per_day=0)
    assert rules([await service.sign(gateway, new_stream(service).body())]) == {"calls_per_day"}
    await service.house.revoke(gateway)
    await forgotten()
    answer = await service.sign(gateway, new_stream(service).body())
    assert (answer.status, answer.code) == (401, "unauthenticated")


async def test_a_caller_at_its_limit_costs_no_signatures(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    gateway = await service.house.new_gateway()
    await limit(service, gateway, spend_per_day=TICKET_CHARGE_USD)
    await service.pay(gateway, new_stream(service))
    assert (await service.sign(gateway, new_stream(service).body())).status == 429
    signed = await metric(service, "clearinghouse_signer_answers_total")
    for _ in range(3):
        answers = await storm([service], gateway, [new_stream(service) for _ in range(20)])
        assert released(answers) == 0
        await forgotten()
    assert await metric(service, "clearinghouse_signer_answers_total") == signed


async def metric(service: Service, name: str) -> float:
    text = (await client.call(service.port, "GET", "/metrics")).body.decode()
    found = [line for line in text.splitlines() if line.startswith(name)]
    assert found, f"no metric is named {name}"
    return sum(float(line.rsplit(" ", 1)[1]) for line in found)


@pytest.mark.parametrize("name", ["calls_per_day", "spend_per_day"])
async def test_a_limit_per_day_begins_anew_at_midnight_utc(service: Service, name: str) -> None:
    gateway = await service.house.new_gateway()
    key = await service.house.new_key(gateway.id)
    await limit(service, gateway, **EXACT[name][0])
    await service.house.limit_key(key, **EXACT[name][1])
    assert released(await storm([service], key, [new_stream(service) for _ in range(8)])) == MOST - 1
    refused = await storm([service], gateway, [new_stream(service) for _ in range(8)])
    assert (released(refused), rules(refused)) == (1, {name})
    let_days_pass(service, 1)
    await forgotten()
    assert released(await storm([service], key, [new_stream(service) for _ in range(8)])) == MOST - 1
    assert released(await storm([service], gateway, [new_stream(service) for _ in range(8)])) == 1


async def test_a_limit_per_month_does_not_begin_anew_with_the_day_but_with_the_month(service: Service) -> None:
    gateway = await service.house.new_gateway()
    await limit(service, gateway, spend_per_month=MOST * TICKET_CHARGE_USD)
    stream = new_stream(service)
    for _ in range(MOST):
        await service.pay(gateway, stream)
    if datetime.now(UTC).day > 1:
        let_days_pass(service, 1)
        refused = await service.sign(gateway, stream.body())
        assert refused.header("clearinghouse-limit") == "spend_per_month"
        await forgotten()
    let_days_pass(service, 31)
    await service.pay(gateway, stream)


@pytest.mark.parametrize("name", ["ev_open", "key_ev_open"])
async def test_open_expected_value_stays_open_for_three_days(service: Service, name: str) -> None:
    gateway = await service.house.new_gateway()
    await limit_by(service, gateway, name, 2 * TICKET_EV_WEI)
    stream = new_stream(service)
    await service.pay(gateway, stream)
    let_days_pass(service, 1)
    await service.pay(gateway, stream)
    let_days_pass(service, 1)
    assert (await service.sign(gateway, stream.body())).header("clearinghouse-limit") == name
    let_days_pass(service, 1)  # the first is three days old
    await forgotten()
    await service.pay(gateway, stream)
    assert (await service.sign(gateway, stream.body())).header("clearinghouse-limit") == name


@pytest.mark.parametrize("name", ["sessions_open", "key_sessions_open", "sessions_open_per_orchestrator"])
async def test_sessions_at_their_limit_go_on_and_an_idle_one_makes_room_and_may_come_back(
    service: Service, name: str
) -> None:
    gateway = await service.house.new_gateway(tickets=1000)
    streams = [new_stream(service) for _ in range(3)]
    assert released(await storm([service], gateway, streams)) == 3
    await limit_by(service, gateway, name, 3)
    assert (await service.sign(gateway, new_stream(service).body())).header("clearinghouse-limit") == name
    assert released(await storm([service], gateway, streams)) == 3
    idle, *busy = streams
    as_owner(service, "UPDATE session SET updated_at = updated_at - interval '10 minutes'")
    await storm([service], gateway, busy)
    assert await close_idle(service) == 1
    await forgotten()
    await service.pay(gateway, new_stream(service))
    assert (await service.sign(gateway, new_stream(service).body())).status == 429
    await service.pay(gateway, idle)  # four are open now: what was begun is never cut off
    ((opened, per_orchestrator),) = service.house.fetch(
        "SELECT sessions_open, (SELECT sum(sessions)::bigint FROM open_sessions) FROM account WHERE id = %s", gateway.id
    )
    assert (opened, per_orchestrator) == (4, 4)
    if name == "key_sessions_open":
        assert (await counted(service, gateway))[0][1] == "4"


async def test_orchestrators_have_their_own_share_of_sessions(service: Service) -> None:
    gateway = await service.house.new_gateway()
    await limit(service, gateway, sessions_open_per_orchestrator=1)
    await service.pay(gateway, new_stream(service))
    assert (await service.sign(gateway, new_stream(service).body())).status == 429
    await service.pay(gateway, new_stream(service, orchestrator=b"\x77" * 20))


async def test_a_gateway_begins_with_a_limit_on_sessions_alone(service: Service) -> None:
    gateway = await service.house.new_gateway()
    async with service.house.engine.connect() as connection:
        found = await limits.gateway_limits(connection, gateway.id)
    assert {str(use.limit): use.allowed for use in found.limits if use.allowed is not None} == {
        "sessions_open": 20_000,
        "sessions_open_per_orchestrator": 5000,
    }


@pytest.fixture
async def stub(service: Service) -> AsyncIterator[ClearinghouseAsyncStub]:
    async with grpc.aio.insecure_channel(f"127.0.0.1:{service.running.grpc_port}") as channel:
        yield ClearinghouseStub(channel)


async def test_every_way_in_says_which_limit_and_until_when(service: Service, stub: ClearinghouseAsyncStub) -> None:
    gateway = await service.house.new_gateway()
    await limit(service, gateway, spend_per_day=Decimal("0.00004"))
    await service.pay(gateway, new_stream(service))
    midnight = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0) + timedelta(days=1)

    theirs = await service.sign(gateway, new_stream(service).body())
    assert (theirs.status, theirs.code) == (429, "limit_reached")
    assert theirs.message.startswith(
        "The limit spend_per_day is reached: 0.000024 of 0.00004 USD are used and this call needs 0.000024."
    )
    ours = await service.sign(
        gateway, json.dumps(our_body(new_stream(service).document())).encode(), path="/v1/signTicket"
    )
    for answer in (theirs, ours):
        assert answer.header("clearinghouse-limit") == "spend_per_day"
        wait_s = int(answer.header("retry-after") or 0)
        assert abs((midnight - datetime.now(UTC)).total_seconds() - wait_s) < 10
    facts = {"rule": "spend_per_day", "allowed": "0.00004", "used": "0.000024", "unit": "USD"}
    document: dict[str, Any] = ours.json
    assert {name: document[name] for name in facts} == facts
    assert document["resets_at"] == midnight.strftime("%Y-%m-%dT%H:%M:%S.000000Z")

    stream = new_stream(service)
    request = pb.SignTicketRequest(
        orchestrator=stream.offer.SerializeToString(), manifest_id=stream.manifest_id, type=stream.job_type
    )
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await stub.SignTicket(request, metadata=(("authorization", gateway.authorization),))
    assert raised.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    status = rpc_status.from_call(raised.value)  # type: ignore[arg-type]
    assert status is not None
    info, retry = ErrorInfo(), RetryInfo()
    assert status.details[0].Unpack(info)
    assert status.details[1].Unpack(retry)
    assert {name: info.metadata[name] for name in facts} == facts
    assert abs((midnight - datetime.now(UTC)).total_seconds() - retry.retry_delay.seconds) < 10
