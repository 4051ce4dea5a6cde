"""SignTickets: many payments over one stream, none of which waits for or spoils another."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator
from decimal import Decimal
from typing import Any

import grpc
import pytest
from structlog.testing import capture_logs

from clearinghouse.api.grpc_stream import IN_FLIGHT_MAX_COUNT
from clearinghouse.api.pb import clearinghouse_pb2 as pb
from tests.clearinghouse.api.grpc_parts import HeldSigner, Port, Refused, metadata, next_request, running_port, until
from tests.parts.stack import TICKET_CHARGE_USD, Stack, TestGateway, running_stack


@pytest.fixture
def signer() -> HeldSigner:
    signer = HeldSigner()
    signer.go.set()
    return signer


@pytest.fixture
async def stack(database: str, signer: HeldSigner) -> AsyncIterator[Stack]:
    async with running_stack(database, signer=signer) as stack:
        yield stack


@pytest.fixture
async def port(stack: Stack) -> AsyncIterator[Port]:
    async with running_port(stack) as port:
        yield port


@pytest.fixture
async def gateway(stack: Stack) -> TestGateway:
    return await stack.new_gateway(credit="10")


def numbered(stack: Stack, *numbers: int) -> list[pb.SignTicketsRequest]:
    """Requests of different sessions, with these numbers as their ids."""
    return [
        pb.SignTicketsRequest(request_id=str(number), request=next_request(stack.new_stream())) for number in numbers
    ]


async def answers(call: Any, *, count: int) -> dict[str, pb.SignTicketsResponse]:
    """The next `count` answers by their ids, in the order in which they came."""
    found: dict[str, pb.SignTicketsResponse] = {}
    async with asyncio.timeout(60):
        for _ in range(count):
            answer = await call.read()
            assert answer is not grpc.aio.EOF, "the stream ended early"
            assert answer.request_id not in found
            found[answer.request_id] = answer
    return found


async def test_every_request_is_answered_under_its_own_id_and_charged_once(
    stack: Stack, port: Port, gateway: TestGateway
) -> None:
    requests = numbered(stack, *range(200))
    call = port.stub.SignTickets(iter(requests), metadata=metadata(gateway))
    found = [answer async for answer in call]
    assert Counter(answer.request_id for answer in found) == Counter(str(number) for number in range(200))
    assert len({answer.response.receipt.issuance_id for answer in found}) == 200
    assert all(answer.overhead_ms > 0 and not answer.replayed for answer in found)
    assert (await stack.standing(gateway)).balance == 10 - 200 * TICKET_CHARGE_USD
    assert await call.code() is grpc.StatusCode.OK


async def test_a_slow_payment_does_not_hold_up_the_ones_behind_it(
    stack: Stack, port: Port, gateway: TestGateway, signer: HeldSigner
) -> None:
    slow, *others = numbered(stack, 1, 2, 3)
    signer.go.clear()
    signer.holds = lambda request: request.manifest_id == slow.request.manifest_id
    call = port.stub.SignTickets(metadata=metadata(gateway))
    for request in (slow, *others):
        await call.write(request)
    assert set(await answers(call, count=2)) == {"2", "3"}
    signer.go.set()
    assert set(await answers(call, count=1)) == {"1"}
    await call.done_writing()
    assert await call.read() is grpc.aio.EOF


async def test_a_refusal_is_an_answer_and_the_stream_goes_on(stack: Stack, port: Port, gateway: TestGateway) -> None:
    bad, good = numbered(stack, 1, 2)
    bad.request.orchestrator = b""
    call = port.stub.SignTickets(metadata=metadata(gateway))
    for request in (bad, good):
        await call.write(request)
    found = await answers(call, count=2)
    refusal = found["1"].refusal
    assert (refusal.code, refusal.message, refusal.http_status) == ("invalid_request", "missing orchestrator", 400)
    assert refusal.what_next
    assert found["2"].response.payment
    await call.write(pb.SignTicketsRequest(request_id="again", request=good.request))
    again = (await answers(call, count=1))["again"]
    assert again.replayed
    assert again.response == found["2"].response
    assert (await stack.standing(gateway)).balance == 10 - TICKET_CHARGE_USD


async def test_credit_that_runs_out_in_a_stream_pays_for_exactly_what_it_covers(stack: Stack, port: Port) -> None:
    gateway = await stack.new_gateway(credit=str(7 * TICKET_CHARGE_USD))
    call = port.stub.SignTickets(iter(numbered(stack, *range(40))), metadata=metadata(gateway))
    outcomes = Counter([answer.refusal.code or "signed" async for answer in call])
    assert outcomes == {"signed": 7, "out_of_credit": 33}
    assert (await stack.standing(gateway)).balance == Decimal(0)


async def test_bytes_that_are_no_message_are_refused_without_an_id(port: Port, gateway: TestGateway) -> None:
    method = port.channel.stream_stream(
        "/livepeer.clearinghouse.v1.Clearinghouse/SignTickets",
        response_deserializer=pb.SignTicketsResponse.FromString,
    )
    found = [answer async for answer in method(iter([b"\xff\xff"]), metadata=metadata(gateway))]
    assert [(answer.request_id, answer.refusal.code) for answer in found] == [("", "invalid_request")]


async def test_a_suspension_shows_in_a_stream_that_is_open(stack: Stack, port: Port, gateway: TestGateway) -> None:
    first, second = numbered(stack, 1, 2)
    call = port.stub.SignTickets(metadata=metadata(gateway))
    await call.write(first)
    assert (await answers(call, count=1))["1"].response.payment
    await stack.suspend(gateway)
    await call.write(second)
    assert (await answers(call, count=1))["2"].refusal.code == "gateway_suspended"


async def test_a_stream_without_a_valid_key_does_not_begin(stack: Stack, port: Port) -> None:
    call = port.stub.SignTickets(iter(numbered(stack, 1)))
    refused = await Refused.by(call.read())
    assert (refused.code, refused.info.reason) == (grpc.StatusCode.UNAUTHENTICATED, "unauthenticated")


async def test_a_stream_is_not_read_further_than_it_can_be_worked_on(
    stack: Stack, port: Port, gateway: TestGateway, signer: HeldSigner
) -> None:
    signer.go.clear()
    requests = numbered(stack, *range(IN_FLIGHT_MAX_COUNT + 30))
    call = port.stub.SignTickets(metadata=metadata(gateway))
    writing = asyncio.create_task(_write_all(call, requests))
    await until(lambda: signer.working_count == IN_FLIGHT_MAX_COUNT)
    await asyncio.sleep(0.1)
    assert signer.working_count == IN_FLIGHT_MAX_COUNT
    signer.go.set()
    assert len(await answers(call, count=len(requests))) == len(requests)
    await writing
    assert signer.working_max_count == IN_FLIGHT_MAX_COUNT


async def _write_all(call: Any, requests: list[pb.SignTicketsRequest]) -> None:
    for request in requests:
        await call.write(request)
    await call.done_writing()


async def test_half_closing_waits_for_what_was_sent(
    stack: Stack, port: Port, gateway: TestGateway, signer: HeldSigner
) -> None:
    signer.go.clear()
    call = port.stub.SignTickets(metadata=metadata(gateway))
    await _write_all(call, numbered(stack, 1, 2, 3))
    await until(lambda: signer.working_count == 3)
    signer.go.set()
    assert set(await answers(call, count=3)) == {"1", "2", "3"}
    assert await call.code() is grpc.StatusCode.OK


async def test_a_caller_that_hangs_up_leaves_nothing_running_and_no_bug_behind(
    stack: Stack, port: Port, gateway: TestGateway, signer: HeldSigner
) -> None:
    signer.go.clear()
    with capture_logs() as logs:
        call = port.stub.SignTickets(metadata=metadata(gateway))
        for request in numbered(stack, 1, 2, 3):
            await call.write(request)
        await until(lambda: signer.working_count == 3)
        call.cancel()
        await until(lambda: signer.working_count == 0)
        await asyncio.sleep(0.05)
    assert not [entry for entry in logs if entry["event"] == "bug"]
    assert (await stack.standing(gateway)).balance == 10
    signer.go.set()
    assert (await port.stub.SignTicket(next_request(stack.new_stream()), metadata=metadata(gateway))).payment


async def test_a_service_that_stops_answers_what_it_accepted_and_ends_the_stream(
    stack: Stack, gateway: TestGateway, signer: HeldSigner
) -> None:
    signer.go.clear()
    async with running_port(stack) as port:
        call = port.stub.SignTickets(metadata=metadata(gateway))
        for request in numbered(stack, 1, 2):
            await call.write(request)
        idle = port.stub.SignTickets(metadata=metadata(gateway))
        await idle.write(numbered(stack, 3)[0])
        await until(lambda: signer.working_count == 3)
        unary = asyncio.ensure_future(
            port.stub.SignTicket(next_request(stack.new_stream()), metadata=metadata(gateway))
        )
        await until(lambda: signer.working_count == 4)

        started_s = time.monotonic()
        stopping = asyncio.create_task(port.api.stop(30))
        await asyncio.sleep(0.1)
        assert not stopping.done()
        signer.go.set()
        assert all(answer.response.payment for answer in (await answers(call, count=2)).values())
        assert (await unary).payment
        refused = await Refused.by(call.read())
        assert (refused.code, refused.info.reason) == (grpc.StatusCode.UNAVAILABLE, "shutting_down")
        await stopping
        assert time.monotonic() - started_s < 10, "an idle stream held it up"
    assert (await stack.standing(gateway)).balance == 10 - 4 * TICKET_CHARGE_USD
