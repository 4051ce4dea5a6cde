"""The unary calls, over a real socket and a real database."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import grpc
import psycopg
import pytest
from google.rpc.status_pb2 import Status
from structlog.testing import capture_logs

from chain.messages import decode_payment
from chain.signatures import checksum_address, keccak, recover_eth_signer
from clearinghouse import errors
from clearinghouse.api.grpc_refusals import STATUS_CODES, TEXT_MAX_BYTES, refusal_status
from clearinghouse.api.pb import clearinghouse_pb2 as pb
from clearinghouse.api.problems import InternalError, MethodNotAllowed
from clearinghouse.ids import show
from clearinghouse.signers.base import SignerAnswer
from tests.clearinghouse.api.grpc_parts import (
    DETAILS_KEY,
    HeldSigner,
    Port,
    Refused,
    metadata,
    next_request,
    running_port,
    until,
)
from tests.parts.stack import (
    SIGNER_KEY,
    TICKET_CHARGE_USD,
    TICKET_EV_WEI,
    Stack,
    Stream,
    TestGateway,
    running_stack,
)


@pytest.fixture
async def stack(database: str) -> AsyncIterator[Stack]:
    async with running_stack(database) as stack:
        yield stack


@pytest.fixture
async def port(stack: Stack) -> AsyncIterator[Port]:
    async with running_port(stack) as port:
        yield port


@pytest.fixture
async def gateway(stack: Stack) -> TestGateway:
    return await stack.new_gateway(credit="10")


async def sign(port: Port, gateway: TestGateway, stream: Stream, **fields: Any) -> pb.SignTicketResponse:
    """One payment, after which the stream has the newest state."""
    answer = await port.stub.SignTicket(next_request(stream, **fields), metadata=metadata(gateway))
    assert isinstance(answer, pb.SignTicketResponse)
    stream.learn_state(answer.state.state, answer.state.sig)
    return answer


# --- SignTicket -------------------------------------------------------------------------------------------------------


async def test_a_signed_ticket_comes_with_a_receipt_that_agrees_with_the_books(
    stack: Stack, port: Port, gateway: TestGateway
) -> None:
    answer = await sign(port, gateway, stack.new_stream(tickets=3), end_user="user-7")
    payment, receipt = decode_payment(answer.payment), answer.receipt
    assert payment.sender == SIGNER_KEY.address
    assert len(payment.nonces) == receipt.num_tickets == 3
    assert receipt.ev_wei == receipt.fee_wei == str(3 * TICKET_EV_WEI)
    assert (receipt.charge, receipt.currency, receipt.price) == ("0.000072", "USD", "3000")
    assert receipt.balance == "9.999928"
    assert (await stack.standing(gateway)).balance == Decimal("9.999928")
    page = await port.stub.ListIssuances(pb.ListIssuancesRequest(), metadata=metadata(gateway))
    assert [(item.id, item.session_id, item.charge) for item in page.items] == [
        (receipt.issuance_id, receipt.session_id, receipt.charge)
    ]
    assert page.items[0].created_at == receipt.created_at
    assert page.items[0].end_user == "user-7"


async def test_a_session_goes_on_from_the_state_it_was_given(stack: Stack, port: Port, gateway: TestGateway) -> None:
    stream = stack.new_stream(tickets=2)
    answers = [await sign(port, gateway, stream) for _ in range(4)]
    nonces = [nonce for answer in answers for nonce in decode_payment(answer.payment).nonces]
    assert nonces == list(range(1, 9))
    assert len({answer.receipt.session_id for answer in answers}) == 1


async def test_the_same_request_again_gets_the_same_bytes_and_is_charged_once(
    stack: Stack, port: Port, gateway: TestGateway
) -> None:
    request = next_request(stack.new_stream())
    calls = [port.stub.SignTicket(request, metadata=metadata(gateway)) for _ in range(8)]
    answers = {(await call).SerializeToString() for call in calls}
    assert len(answers) == 1
    assert (await stack.standing(gateway)).balance == 10 - TICKET_CHARGE_USD
    trailers = [dict(await call.trailing_metadata()) for call in calls]
    assert sorted(trailer.get("clearinghouse-replayed", "") for trailer in trailers) == [""] + ["true"] * 7
    assert all(Decimal(trailer["clearinghouse-overhead-ms"]) > 0 for trailer in trailers)


async def test_an_idempotency_key_answers_for_its_request_only(stack: Stack, port: Port, gateway: TestGateway) -> None:
    stream = stack.new_stream()
    first = next_request(stream, idempotency_key="call-1")
    answer = await port.stub.SignTicket(first, metadata=metadata(gateway))
    stream.learn_state(answer.state.state, answer.state.sig)
    await sign(port, gateway, stream)
    again = await port.stub.SignTicket(first, metadata=metadata(gateway))
    assert again == answer
    other = next_request(stack.new_stream(), idempotency_key="call-1")
    refused = await Refused.by(port.stub.SignTicket(other, metadata=metadata(gateway)))
    assert (refused.code, refused.info.reason) == (grpc.StatusCode.ABORTED, "idempotency_conflict")


async def test_a_caller_that_hangs_up_during_the_commit_is_charged_once_and_finds_its_answer(
    stack: Stack, port: Port, gateway: TestGateway, owner: psycopg.Connection[tuple[Any, ...]]
) -> None:
    request = next_request(stack.new_stream())
    with owner.transaction():
        owner.execute("LOCK TABLE issuance IN SHARE MODE")
        call = port.stub.SignTicket(request, metadata=metadata(gateway))
        answering = asyncio.ensure_future(call)
        await until(lambda: _waiting_commits(owner.info.dsn) == 1)
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await answering
        await asyncio.sleep(0.05)  # the server has heard of it
    again = port.stub.SignTicket(request, metadata=metadata(gateway))
    answer = await again
    assert dict(await again.trailing_metadata())["clearinghouse-replayed"] == "true"
    assert answer.receipt.balance == str(10 - TICKET_CHARGE_USD)
    assert (await stack.standing(gateway)).balance == 10 - TICKET_CHARGE_USD


def _waiting_commits(dsn: str) -> int:
    query = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query LIKE '%commit_issuances%'"
    with psycopg.connect(dsn) as connection:
        row = connection.execute(query).fetchone()
        assert row is not None
        return int(row[0])


# --- refusals ---------------------------------------------------------------------------------------------------------

Case = tuple[grpc.StatusCode, str, int]


async def refused(port: Port, stream: Stream, gateway: TestGateway | None, **fields: Any) -> Refused:
    call = port.stub.SignTicket(next_request(stream, **fields), metadata=metadata(gateway) if gateway else ())
    return await Refused.by(call)


def case(refused: Refused) -> Case:
    info = refused.info
    assert info.domain == "clearinghouse.livepeer"
    assert info.metadata["what_next"]
    return refused.code, info.reason, int(info.metadata["http_status"])


async def test_a_call_without_a_valid_key_is_unauthenticated(stack: Stack, port: Port, gateway: TestGateway) -> None:
    expected = (grpc.StatusCode.UNAUTHENTICATED, "unauthenticated", 401)
    stream = stack.new_stream()
    assert case(await refused(port, stream, None)) == expected
    mistyped = TestGateway(gateway.id, gateway.api_key[:-1] + ("0" if gateway.api_key[-1] != "0" else "1"))
    assert case(await refused(port, stream, mistyped)) == expected
    twice = port.stub.SignTicket(next_request(stream), metadata=metadata(gateway) * 2)
    assert case(await Refused.by(twice)) == expected


async def test_a_suspended_gateway_signs_nothing_and_still_sees_what_is_its_own(
    stack: Stack, port: Port, gateway: TestGateway
) -> None:
    await stack.suspend(gateway)
    expected = (grpc.StatusCode.PERMISSION_DENIED, "gateway_suspended", 403)
    assert case(await refused(port, stack.new_stream(), gateway)) == expected
    assert (await port.stub.GetBalance(pb.GetBalanceRequest(), metadata=metadata(gateway))).balance == "10"


async def test_a_call_beyond_the_credit_says_what_it_costs_and_what_is_there(stack: Stack, port: Port) -> None:
    poor = await stack.new_gateway(credit="0.00004")
    answer = await refused(port, stack.new_stream(tickets=2), poor)
    assert case(answer) == (grpc.StatusCode.FAILED_PRECONDITION, "out_of_credit", 402)
    facts = answer.info.metadata
    assert (facts["charge"], facts["available"], facts["currency"]) == ("0.000048", "0.00004", "USD")
    assert (await stack.standing(poor)).balance == Decimal("0.00004")


async def test_an_invalid_request_says_what_is_wrong_with_it(stack: Stack, port: Port, gateway: TestGateway) -> None:
    stream = stack.new_stream()
    stream.offer.ClearField("price_info")
    answer = await refused(port, stream, gateway)
    assert case(answer) == (grpc.StatusCode.INVALID_ARGUMENT, "invalid_request", 400)
    assert answer.violations == [answer.message] == ["missing or zero priceInfo"]


@pytest.mark.parametrize("method", ["SignTicket", "GetBalance", "ListIssuances", "SignOrchestratorInfo"])
async def test_bytes_that_are_no_message_are_an_invalid_request(port: Port, gateway: TestGateway, method: str) -> None:
    call = port.channel.unary_unary(f"/livepeer.clearinghouse.v1.Clearinghouse/{method}")
    answer = await Refused.by(call(b"\xff\xff\xff", metadata=metadata(gateway)))
    assert case(answer) == (grpc.StatusCode.INVALID_ARGUMENT, "invalid_request", 400)


async def test_a_message_above_one_mebibyte_is_not_read(port: Port, stack: Stack, gateway: TestGateway) -> None:
    request = next_request(stack.new_stream(), capabilities=bytes(1 << 20))
    answer = await Refused.by(port.stub.SignTicket(request, metadata=metadata(gateway)))
    assert answer.code is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert (await stack.standing(gateway)).balance == 10


async def test_a_session_to_be_refreshed_names_its_orchestrator(stack: Stack, port: Port, gateway: TestGateway) -> None:
    stream = stack.new_stream()
    await sign(port, gateway, stream)
    stream.state = None
    answer = await refused(port, stream, gateway, manifest_id="another")
    assert case(answer) == (grpc.StatusCode.FAILED_PRECONDITION, "refresh_session", 480)
    assert answer.info.metadata["orchestrator_url"] == stream.offer.transcoder


async def test_a_price_above_the_callers_own_ceiling_is_refused(stack: Stack, port: Port, gateway: TestGateway) -> None:
    ceiling = pb.MaxPrice(price="7.5", currency="wei", unit="fixed")
    answer = await refused(port, stack.new_stream(), gateway, max_price=ceiling)
    assert case(answer) == (grpc.StatusCode.FAILED_PRECONDITION, "price_exceeded", 481)


async def test_nothing_due_is_a_refusal_that_charges_nothing(stack: Stack, port: Port, gateway: TestGateway) -> None:
    stream = stack.new_stream()
    stream.offer.price_info.pricePerUnit = 1  # a tiny part of a ticket: two of them are enough for long
    await sign(port, gateway, stream)
    await sign(port, gateway, stream)
    answer = await refused(port, stream, gateway)
    assert case(answer) == (grpc.StatusCode.FAILED_PRECONDITION, "no_tickets", 482)
    assert (await stack.standing(gateway)).balance == 10 - 2 * TICKET_CHARGE_USD


async def test_without_a_price_the_caller_is_told_when_to_try_again(stack: Stack, port: Port) -> None:
    gateway = await stack.new_gateway(currency="CHF")
    answer = await refused(port, stack.new_stream(), gateway)
    assert case(answer) == (grpc.StatusCode.UNAVAILABLE, "price_stale", 503)
    assert answer.retry_after_s == 30


class TalkativeSigner(HeldSigner):
    async def generate_payment(self, request: Any, *, auth_id: str) -> SignerAnswer:
        body = json.dumps({"error": {"message": "\ud800" + "€" * 10_000}}).encode()
        return SignerAnswer(480, body, orchestrator_url="https://" + "€" * 2000)


async def test_a_signers_long_message_is_cut_to_what_a_status_can_carry(database: str) -> None:
    async with running_stack(database, signer=TalkativeSigner()) as stack, running_port(stack) as port:
        answer = await refused(port, stack.new_stream(), await stack.new_gateway())
    assert case(answer) == (grpc.StatusCode.FAILED_PRECONDITION, "refresh_session", 480)
    assert answer.message.startswith("?€€€")
    assert answer.message.endswith("€…")
    assert TEXT_MAX_BYTES - 4 < len(answer.message.encode()) <= TEXT_MAX_BYTES


class BrokenSigner(HeldSigner):
    async def generate_payment(self, request: Any, *, auth_id: str) -> SignerAnswer:
        raise RuntimeError("a secret of the house")


async def test_a_bug_is_logged_and_tells_a_stranger_nothing_but_its_number(database: str) -> None:
    async with running_stack(database, signer=BrokenSigner()) as stack, running_port(stack) as port:
        gateway = await stack.new_gateway()
        with capture_logs() as logs:
            answer = await refused(port, stack.new_stream(), gateway)
        assert (await stack.standing(gateway)).balance == 10
    bug = next(entry for entry in logs if entry["event"] == "bug")
    assert isinstance(bug["exc_info"], RuntimeError)
    assert answer.code is grpc.StatusCode.INTERNAL
    assert bug["incident"] in answer.message
    assert "secret" not in answer.message
    assert not (answer.status and answer.status.details)


def all_refusals(base: type[errors.Refusal] = errors.Refusal) -> list[type[errors.Refusal]]:
    return [kind for child in base.__subclasses__() for kind in (child, *all_refusals(child))]


@pytest.mark.parametrize("kind", all_refusals(), ids=lambda kind: kind.__name__)
def test_every_refusal_has_a_status(kind: type[errors.Refusal]) -> None:
    assert STATUS_CODES[kind.http_status] is not grpc.StatusCode.OK


def test_every_code_is_in_the_table_that_tells_clients_what_to_do() -> None:
    page = (Path(__file__).parents[3] / "docs" / "api.md").read_text(encoding="utf-8")
    table = page.partition("\n## Codes\n")[2].partition("\n## ")[0]
    explained = {code for row in re.findall(r"(?m)^\| (`.+?`) \|", table) for code in re.findall(r"`(\w+)`", row)}
    ours = [kind for kind in all_refusals() if re.match(r"clearinghouse\.(?!cli\.)", kind.__module__)]
    assert {kind.code for kind in (*ours, MethodNotAllowed, InternalError)} == explained


def test_facts_of_a_refusal_are_in_its_details() -> None:
    status = refusal_status(errors.OutOfCredit("no", retry_after_s=7, charge="0.1", tickets=3))
    packed = Status.FromString(dict(status.trailing_metadata)[DETAILS_KEY])
    refused = Refused(status.code, status.details, packed)
    assert {"charge": "0.1", "tickets": "3"}.items() <= dict(refused.info.metadata).items()
    assert refused.retry_after_s == 7


# --- the other calls --------------------------------------------------------------------------------------------------


async def test_the_balance_is_as_of_now(stack: Stack, port: Port) -> None:
    gateway = await stack.new_gateway(credit="1.5", currency="EUR", credit_limit="2")
    balance = await port.stub.GetBalance(pb.GetBalanceRequest(), metadata=metadata(gateway))
    assert balance == pb.GetBalanceResponse(
        gateway_id=show("gw", gateway.id), available="3.5", balance="1.5", credit_limit="2", currency="EUR"
    )
    receipt = (await sign(port, gateway, stack.new_stream())).receipt
    balance = await port.stub.GetBalance(pb.GetBalanceRequest(), metadata=metadata(gateway))
    assert balance.balance == receipt.balance != "1.5"


async def test_issuances_come_in_pages_newest_first_and_only_to_their_gateway(
    stack: Stack, port: Port, gateway: TestGateway
) -> None:
    streams = [stack.new_stream(), stack.new_stream()]
    receipts = [(await sign(port, gateway, stream)).receipt for stream in streams + streams + streams]
    newest_first = [receipt.issuance_id for receipt in reversed(receipts)]

    found, cursor = [], ""
    for expected_count in (4, 2):
        request = pb.ListIssuancesRequest(page_size=4, cursor=cursor)
        page = await port.stub.ListIssuances(request, metadata=metadata(gateway))
        assert len(page.items) == expected_count
        found += [item.id for item in page.items]
        cursor = page.next_cursor
    assert cursor == ""
    assert found == newest_first

    session = receipts[0].session_id
    page = await port.stub.ListIssuances(pb.ListIssuancesRequest(session_id=session), metadata=metadata(gateway))
    assert [item.session_id for item in page.items] == [session] * 3
    item = page.items[-1]
    assert item.orchestrator == item.recipient == checksum_address(streams[0].offer.address)
    assert (item.job_type, item.transcoder) == ("fixed", streams[0].offer.transcoder)
    assert (item.manifest_id, item.first_nonce) == (streams[0].manifest_id, 1)
    assert (item.price, item.price_source, item.ev_wei) == ("3000", "declared", str(TICKET_EV_WEI))

    stranger = await stack.new_gateway()
    page = await port.stub.ListIssuances(pb.ListIssuancesRequest(), metadata=metadata(stranger))
    assert not page.items


@pytest.mark.parametrize(
    "request_fields", [{"page_size": 1001}, {"cursor": "nonsense"}, {"session_id": "gw_" + 32 * "0"}]
)
async def test_a_page_that_cannot_be_is_an_invalid_request(
    port: Port, gateway: TestGateway, request_fields: dict[str, Any]
) -> None:
    call = port.stub.ListIssuances(pb.ListIssuancesRequest(**request_fields), metadata=metadata(gateway))
    assert case(await Refused.by(call)) == (grpc.StatusCode.INVALID_ARGUMENT, "invalid_request", 400)


async def test_the_senders_address_comes_with_its_proof(port: Port, gateway: TestGateway) -> None:
    answer = await port.stub.SignOrchestratorInfo(pb.SignOrchestratorInfoRequest(), metadata=metadata(gateway))
    assert answer.address == checksum_address(SIGNER_KEY.address)
    signature = bytes.fromhex(answer.signature.removeprefix("0x"))
    assert recover_eth_signer(keccak(answer.address.encode()), signature) == SIGNER_KEY.address
    assert case(await Refused.by(port.stub.SignOrchestratorInfo(pb.SignOrchestratorInfoRequest()))) == (
        grpc.StatusCode.UNAUTHENTICATED,
        "unauthenticated",
        401,
    )


class KnowsOrchestrators(HeldSigner):
    asked: str = ""
    answer = SignerAnswer(200, b'[{"address":"https://o.example:8935","score":1}]\n')

    async def discover_orchestrators(self, query: str) -> SignerAnswer:
        self.asked = query
        return self.answer


async def test_discovery_asks_the_signer_and_passes_its_answer_on(stack: Stack, gateway: TestGateway) -> None:
    signer = KnowsOrchestrators()
    async with running_port(stack, signer=signer) as port:
        request = pb.DiscoverOrchestratorsRequest(caps=["live/m&d", "text/b"])
        answer = await port.stub.DiscoverOrchestrators(request, metadata=metadata(gateway))
        assert signer.asked == "caps=live%2Fm%26d&caps=text%2Fb"
        assert answer.orchestrators_json.encode() == signer.answer.body
        signer.answer = SignerAnswer(418, b"I'm a teapot")
        refused = await Refused.by(port.stub.DiscoverOrchestrators(request, metadata=metadata(gateway)))
        assert case(refused) == (grpc.StatusCode.UNAVAILABLE, "signer_answer_invalid", 502)


async def test_a_signer_without_discovery_is_not_found(port: Port, gateway: TestGateway) -> None:
    call = port.stub.DiscoverOrchestrators(pb.DiscoverOrchestratorsRequest(), metadata=metadata(gateway))
    assert case(await Refused.by(call)) == (grpc.StatusCode.NOT_FOUND, "not_found", 404)
