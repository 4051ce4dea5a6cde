"""Promises 1, 2 and 7 when the signer hangs, lies, breaks or says no: never a charge, and an answer in time."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable
from fractions import Fraction
from typing import Any

import pytest

from chain.messages import Price
from chain.payment_state import PaymentState
from chain.pb import lp_rpc_pb2 as net
from chain.signatures import SigningKey, keccak
from clearinghouse.requests import decode_payment_request
from clearinghouse.signers.server import signer_served
from tests.parts import faulty_signer as faulty
from tests.parts.client import CLIENT_TIMEOUT_S
from tests.parts.faulty_signer import Behaviour, FaultySigner
from tests.parts.lying_signer import Lie, LyingSigner, lying_signer, with_document, with_payment, with_state
from tests.parts.service import OURS, Service, our_body, running
from tests.parts.stack import SIGNER_KEY, TICKET_EV_WEI, Clock, Stream, TestGateway, native_signer, offer

STRANGER = SigningKey(keccak(b"another sender"))


@pytest.fixture
async def liar() -> AsyncIterator[LyingSigner]:
    async with lying_signer() as liar:
        yield liar


@pytest.fixture
async def deceived(database: str, liar: LyingSigner) -> AsyncIterator[Service]:
    """A service whose only signer lies."""
    async with running(database, signer_urls=[liar.url]) as service:
        yield service
        await service.house.require_sound_books()


@pytest.fixture
async def broken(database: str) -> AsyncIterator[tuple[Service, FaultySigner]]:
    """A service whose only signer is broken."""
    async with FaultySigner(SIGNER_KEY) as signer, running(database, signer_urls=[signer.url]) as service:
        yield service, signer


def _first_nonce_again(payment: net.Payment) -> None:
    for ticket in payment.ticket_sender_params:
        ticket.sender_nonce += 1


def _one_more(payment: net.Payment) -> None:
    last = payment.ticket_sender_params[-1]
    payment.ticket_sender_params.add(sender_nonce=last.sender_nonce + 1, sig=last.sig)


def _same_nonce_twice(payment: net.Payment) -> None:
    payment.ticket_sender_params.add().CopyFrom(payment.ticket_sender_params[-1])


def _many(payment: net.Payment) -> None:
    first = payment.ticket_sender_params[0]
    for nonce in range(2, 200):
        payment.ticket_sender_params.add(sender_nonce=nonce, sig=first.sig)


def _resigned_by_stranger(payment: net.Payment) -> None:
    for ticket in payment.ticket_sender_params:
        ticket.sig = STRANGER.eth_sign(keccak(b"whatever"))


def _set(path: str, value: Any) -> Lie:
    def change(payment: net.Payment) -> None:
        *way, name = path.split(".")
        target: Any = payment
        for step in way:
            target = getattr(target, step)
        setattr(target, name, value)

    return with_payment(change)


def _off(wei: int) -> Callable[[PaymentState], Fraction]:
    return lambda state: (state.balance or Fraction(0)) + wei


def _clock_off(seconds: int) -> Callable[[PaymentState], int]:
    return lambda state: (state.last_update_unix_ns or 0) + seconds * 10**9


def _both(first: Lie, second: Lie) -> Lie:
    return lambda body: second(first(body))


LIES: dict[str, Lie] = {
    "another sender": _set("sender", STRANGER.address),
    "no sender": _set("sender", b""),
    "another recipient": _set("ticket_params.recipient", b"\x0d" * 20),
    "a larger face value": _set("ticket_params.face_value", b"\x01" * 8),
    "a smaller face value": _set("ticket_params.face_value", b"\x01"),
    "another win probability": _set("ticket_params.win_prob", b"\x7f" * 32),
    "another recipientRandHash": _set("ticket_params.recipient_rand_hash", b"\x0e" * 32),
    "another seed": _set("ticket_params.seed", b"\x05"),
    "another expiration": _set("ticket_params.expiration_block", b"\x7f\xff\xff\xff"),
    "another round": _set("expiration_params.creation_round", 3499),
    "another block hash": _set("expiration_params.creation_round_block_hash", b"\x0f" * 32),
    "another price": _set("expected_price.pricePerUnit", 1),
    "nonces from 2": with_payment(_first_nonce_again),
    "a ticket more than the state says": with_payment(_one_more),
    "a nonce twice": with_payment(_same_nonce_twice),
    "two hundred tickets": with_payment(_many),
    "no tickets": with_payment(lambda payment: payment.ClearField("ticket_sender_params")),
    "a stranger's signature": with_payment(_resigned_by_stranger),
    "a signature too short": with_payment(
        lambda payment: setattr(payment.ticket_sender_params[0], "sig", b"\x01" * 64)
    ),
    "another AuthID": with_state(auth_id="gw_0/ses_0"),
    "no AuthID": with_state(auth_id=""),
    "another orchestrator": with_state(orchestrator_address=b"\x0a" * 20),
    "another app": with_state(app="another"),
    "another type": with_state(type="lv2v"),
    "another PM session": with_state(pm_session_id=b"\x09" * 32),
    "a nonce behind": with_state(sender_nonce=lambda state: state.sender_nonce - 1),
    "a nonce ahead": with_state(sender_nonce=lambda state: state.sender_nonce + 1),
    "a sequence of its own": with_state(sequence_number=7),
    "a balance of 400 digits": with_state(balance=Fraction(10**399)),
    "a balance of a 400th part": with_state(balance=Fraction(1, 10**399)),
    "a balance of 800 digits": with_state(balance=Fraction(10**800)),
    "a negative balance": with_state(balance=Fraction(-(10**30))),
    "a balance one wei too high": with_state(balance=_off(1)),
    "a balance one wei too low": with_state(balance=_off(-1)),
    "no balance": with_state(balance=None),
    "a ticket more than is due, rightly booked": _both(
        with_payment(_one_more),
        with_state(sender_nonce=lambda state: state.sender_nonce + 1, balance=_off(TICKET_EV_WEI)),
    ),
    "another first price": with_state(initial_price=Price(1, 1)),
    "a first price for no pixels": with_state(initial_price=Price(1, 0)),
    "a clock of yesterday": with_state(last_update_unix_ns=_clock_off(-86_400)),
    "a clock of tomorrow": with_state(last_update_unix_ns=_clock_off(86_400)),
    "no clock": with_state(last_update_unix_ns=None),
    "an AuthExpiry": with_state(auth_expiry_unix_s=4_000_000_000),
    "no state": with_document(lambda document: document.pop("state")),
    "no state signature": with_document(lambda document: document["state"].pop("Sig")),
    "no payment": with_document(lambda document: document.pop("payment")),
    "no segCreds": with_document(lambda document: document.pop("segCreds")),
    "a payment that is a number": with_document(lambda document: document.update(payment=7)),
    "a payment that is not base64": with_document(lambda document: document.update(payment="%%%")),
    "a payment that is not protobuf": with_document(lambda document: document.update(payment="/////w==")),
    "a state that is not JSON": with_document(lambda document: document["state"].update(State="AAAA")),
    "garbage": lambda _body: b"\x00\xff garbage",
    "nothing": lambda _body: b"",
    "a list": lambda _body: b"[]",
    "deep nesting": lambda _body: b"[" * 100_000,
    "half the answer": lambda body: body[: len(body) // 2],
}

#: Found in the first answer of a session; in the others by a sample, since recovering a signature costs most of a call.
SAMPLED = frozenset({"a stranger's signature"})


async def test_no_lie_of_a_signer_is_charged_or_released(deceived: Service, liar: LyingSigner) -> None:
    gateway = await deceived.house.new_gateway()
    before = deceived.house.fingerprint()
    for name, liar.lie in LIES.items():
        for path in ("/generate-live-payment", OURS):
            document = deceived.new_stream().document()
            body = json.dumps(our_body(document) if path == OURS else document).encode()
            answer = await deceived.sign(gateway, body, path=path)
            assert (answer.status, answer.code) == (502, "signer_answer_invalid"), (name, answer.status, answer.body)
    assert deceived.house.fingerprint() == before
    assert liar.asked == 2 * len(LIES)


async def test_no_lie_about_a_continued_session_is_charged_or_released(deceived: Service, liar: LyingSigner) -> None:
    gateway = await deceived.house.new_gateway()
    stream = deceived.new_stream(tickets=2)
    await deceived.pay(gateway, stream)
    body, before = stream.body(), deceived.house.fingerprint()
    lies = {
        **{name: lie for name, lie in LIES.items() if name not in SAMPLED},
        "another StateID": with_state(state_id="0" * 32),
        "a sequence that stands still": with_state(sequence_number=0),
    }
    for name, liar.lie in lies.items():
        answer = await deceived.sign(gateway, body)
        assert (answer.status, answer.code) == (502, "signer_answer_invalid"), (name, answer.status, answer.body)
    assert deceived.house.fingerprint() == before
    liar.lie = lambda honest: honest
    assert (await deceived.sign(gateway, body)).status == 200


async def test_a_number_of_tickets_that_wrapped_around_is_neither_charged_nor_released(
    deceived: Service, liar: LyingSigner
) -> None:
    """Spec 10-A15: fewer tickets than the fee needs, and the deficit rightly booked."""
    gateway = await deceived.house.new_gateway()
    liar.lie = _both(
        with_payment(lambda payment: payment.ticket_sender_params.pop()),
        with_state(sender_nonce=lambda state: state.sender_nonce - 1, balance=_off(-TICKET_EV_WEI)),
    )
    answer = await deceived.sign(gateway, deceived.new_stream(tickets=2).body())
    assert (answer.status, answer.code) == (502, "signer_answer_invalid")
    assert "fewer tickets than due" in answer.message
    assert deceived.house.sums(gateway).issuances == 0


async def test_a_state_id_that_two_sessions_of_two_gateways_share_mixes_nothing(
    deceived: Service, liar: LyingSigner
) -> None:
    """Spec 10-A17: the reference's 32 bits collide after some 77,000 sessions. Ours are told apart by the AuthID."""
    liar.lie = with_state(state_id="00000000")
    gateways = [await deceived.house.new_gateway(tickets=10) for _ in range(2)]
    streams = [deceived.new_stream(tickets=number) for number in (1, 2)]
    for _ in range(3):
        for gateway, stream in zip(gateways, streams, strict=True):
            await deceived.pay(gateway, stream)
    assert [deceived.house.sums(gateway).tickets for gateway in gateways] == [3, 6]
    for gateway, stream in zip(gateways, reversed(streams), strict=True):
        assert (await deceived.sign(gateway, stream.body())).status == 403
    assert [deceived.house.sums(gateway).tickets for gateway in gateways] == [3, 6]


async def test_what_another_session_left_under_a_shared_state_id_is_not_inherited(
    deceived: Service, liar: LyingSigner
) -> None:
    """The reference keeps balances by StateID in memory: a new session would begin with the rest of another's."""
    gateway = await deceived.house.new_gateway()
    liar.lie = with_state(state_id="00000000", balance=_off(TICKET_EV_WEI // 2))
    answer = await deceived.sign(gateway, deceived.new_stream().body())
    assert (answer.status, answer.code) == (502, "signer_answer_invalid")
    assert deceived.house.sums(gateway).issuances == 0


async def test_a_signer_is_not_believed_a_time_it_did_not_bill(deceived: Service, liar: LyingSigner) -> None:
    """The next call's seconds count from LastUpdate: a later one gives them away, an earlier one bills them twice."""
    gateway = await deceived.house.new_gateway(tickets=1000)
    stream = deceived.new_stream(job_type="live")
    await deceived.pay(gateway, stream)
    before = deceived.house.fingerprint()
    for seconds, words in ((5, "another Balance"), (-5, "before the last payment's")):
        liar.lie = with_state(last_update_unix_ns=_clock_off(seconds))
        answer = await deceived.sign(gateway, stream.body())
        assert (answer.status, answer.code) == (502, "signer_answer_invalid"), seconds
        assert words in answer.message
    assert deceived.house.fingerprint() == before
    liar.lie = lambda honest: honest
    await deceived.pay(gateway, stream)


async def test_an_answer_to_another_request_is_neither_charged_nor_released(
    deceived: Service, liar: LyingSigner
) -> None:
    gateway = await deceived.house.new_gateway()
    other = decode_payment_request(deceived.new_stream().body())
    liar.request = lambda _request: other
    answer = await deceived.sign(gateway, deceived.new_stream().body())
    assert answer.status == 502
    assert deceived.house.sums(gateway).issuances == 0


async def test_an_answer_for_another_session_of_the_gateway_is_neither_charged_nor_released(
    deceived: Service, liar: LyingSigner
) -> None:
    gateway = await deceived.house.new_gateway()
    seen: list[str] = []

    def remember(auth_id: str) -> str:
        seen.append(auth_id)
        return seen[0]

    liar.auth_id = remember
    await deceived.pay(gateway, deceived.new_stream())
    assert (await deceived.sign(gateway, deceived.new_stream().body())).status == 502
    assert seen[0] != seen[1]


async def test_a_signer_that_loses_the_auth_id_is_found_out(deceived: Service, liar: LyingSigner) -> None:
    gateway = await deceived.house.new_gateway()
    liar.auth_id = lambda _auth_id: ""
    answer = await deceived.sign(gateway, deceived.new_stream().body())
    assert (answer.status, answer.code) == (502, "signer_answer_invalid")


async def test_a_state_signature_by_another_key_would_end_the_session_and_is_not_charged(
    deceived: Service, liar: LyingSigner
) -> None:
    """The caller could never go on from such a state: it would pay for an answer that is broken."""
    gateway = await deceived.house.new_gateway()
    liar.lie = with_document(lambda document: document["state"].update(Sig="AA" * 43 + "A="))
    answer = await deceived.sign(gateway, deceived.new_stream().body())
    assert (answer.status, answer.code) == (502, "signer_answer_invalid")
    assert deceived.house.sums(gateway).issuances == 0


# --- what a signer may well answer ------------------------------------------------------------------------------------


async def test_a_signers_no_passes_to_the_byte_on_its_own_route_and_as_a_problem_on_ours(
    broken: tuple[Service, FaultySigner],
) -> None:
    service, signer = broken
    gateway = await service.house.new_gateway()
    for status in (400, 480, 481, 482, 500, 503):
        await _require_passed_on(service, signer, gateway, status)


async def _require_passed_on(service: Service, signer: FaultySigner, gateway: TestGateway, status: int) -> None:
    body = b'{"error":{"message":"words  of \\u003ca signer\\u003e"}}\n'
    signer.on_payment = faulty.answers(status, body, ("Livepeer-Orchestrator-URL", "https://elsewhere.example:1"))
    before = service.house.fingerprint()
    document = service.new_stream().document()
    theirs = await service.sign(gateway, json.dumps(document).encode())
    assert (theirs.status, theirs.body) == (status, body)
    assert theirs.header("content-type") == "application/json"
    ours = await service.sign(gateway, json.dumps(our_body(document)).encode(), path=OURS)
    assert (ours.status, ours.header("content-type")) == (status, "application/problem+json")
    assert (ours.json["detail"], ours.json["status"]) == ("words  of <a signer>", status)
    assert ours.json["code"] == theirs.code != ""
    if status == 480:
        assert theirs.header("livepeer-orchestrator-url") == "https://elsewhere.example:1"
        assert ours.json["orchestrator_url"] == "https://elsewhere.example:1"
    assert service.house.fingerprint() == before


@pytest.mark.parametrize(
    ("behaviour", "status"),
    [
        (faulty.answers(200, b"garbage"), 502),
        (faulty.answers(200), 502),
        (faulty.answers(204, b""), 502),
        (faulty.answers(401), 502),
        (faulty.answers(402), 502),
        (faulty.answers(404, b"404 page not found\n"), 502),
        (faulty.answers(400, b"not an envelope"), 502),
        (faulty.answers(500, b""), 502),
        (faulty.closes_without_answer(), 503),
        (faulty.closes_mid_body(), 503),
        (faulty.closes_mid_chunk(), 503),
        (faulty.talks_garbage(), 503),
        (faulty.redirects("http://127.0.0.1:1/"), 503),
        (faulty.streams_huge_body(4 << 20), 503),
        (faulty.hangs_before_headers(), 503),
        (faulty.trickles(), 503),
    ],
)
async def test_a_broken_answer_is_a_clear_error_in_time_and_never_a_charge(
    broken: tuple[Service, FaultySigner], behaviour: Behaviour, status: int
) -> None:
    service, signer = broken
    gateway = await service.house.new_gateway()
    signer.on_payment = behaviour
    answer = await service.sign(gateway, service.new_stream().body(), timeout_s=CLIENT_TIMEOUT_S - 1)
    assert answer.status == status, answer.body
    assert answer.message
    assert service.house.sums(gateway).issuances == 0


@pytest.mark.parametrize(
    "behaviour",
    [
        faulty.hangs_before_headers(),
        faulty.hangs_mid_body(),
        faulty.closes_mid_body(),
        faulty.talks_garbage(),
        faulty.trickles(),
    ],
)
async def test_the_second_signer_answers_when_the_first_gives_no_complete_answer(
    database: str, behaviour: Behaviour
) -> None:
    async with (
        FaultySigner(SIGNER_KEY) as first,
        signer_served(native_signer(Clock())) as second_url,
        running(database, signer_urls=[first.url, second_url]) as service,
    ):
        first.on_payment = behaviour
        gateway = await service.house.new_gateway()
        streams = [service.new_stream() for _ in range(4)]
        started_s = time.monotonic()
        answers = await asyncio.gather(*(service.sign(gateway, stream.body()) for stream in streams))
        assert time.monotonic() - started_s < CLIENT_TIMEOUT_S
        assert [answer.status for answer in answers] == [200] * 4
        assert first.payments, "the broken signer was never asked"
        assert service.house.sums(gateway).tickets == 4


async def test_a_signer_that_changes_its_key_is_not_believed(database: str) -> None:
    async with FaultySigner(SIGNER_KEY) as signer, running(database, signer_urls=[signer.url]) as service:
        gateway = await service.house.new_gateway()
        request = decode_payment_request(service.new_stream().body())
        stranger = native_signer(Clock(), STRANGER)

        async def answer_as_stranger(writer: asyncio.StreamWriter) -> bool:
            auth_id = signer.payments[-1].values("Signer-Auth-Id")[0]
            answer = await stranger.generate_payment(request, auth_id=auth_id)
            return await faulty.answers(200, answer.body)(writer)

        signer.on_payment = answer_as_stranger
        answer = await service.sign(gateway, request.canonical)
        assert (answer.status, answer.code) == (502, "signer_answer_invalid")
        assert "sender" in answer.message
        assert service.house.sums(gateway).issuances == 0


async def test_a_signer_is_told_only_what_the_clearinghouse_says(broken: tuple[Service, FaultySigner]) -> None:
    service, signer = broken
    gateway = await service.house.new_gateway()
    spoofed = [
        ("Signer-Auth-Id", "victim"),
        ("signer_auth_id", "victim"),
        ("SIGNER-AUTH-ID", "victim"),
        ("Signer-Price", "0"),
        ("X-Anything", "victim"),
        ("Cookie", "victim"),
    ]
    await service.sign(gateway, service.new_stream().body(), *spoofed)
    (request,) = signer.payments
    assert len(request.values("Signer-Auth-Id")) == 1
    assert "victim" not in repr(request.headers)
    assert gateway.api_key not in repr(request.headers)
    assert request.values("Signer-Auth-Id")[0].startswith("gw_" + gateway.id.hex)


async def test_what_reaches_the_signer_is_our_own_serialisation(broken: tuple[Service, FaultySigner]) -> None:
    service, signer = broken
    gateway = await service.house.new_gateway()
    document = {**service.new_stream().document(), "unknown": {"ManifestID": "evil"}}
    await service.sign(gateway, json.dumps(document, indent=1).encode())
    (request,) = signer.payments
    assert request.body == decode_payment_request(json.dumps(document).encode()).canonical
    assert b"evil" not in request.body


def test_every_lie_changes_the_answer() -> None:
    """A lie that changes nothing would pass for honesty and prove nothing."""
    request = decode_payment_request(_example_body())
    honest = asyncio.run(native_signer(Clock()).generate_payment(request, auth_id="someone")).body
    for name, lie in LIES.items():
        assert lie(honest) != honest, name


def _example_body() -> bytes:
    return Stream(offer(Clock())).body()
