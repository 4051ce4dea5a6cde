"""The native signer against the remote-signer protocol: the table of 1.2, the cases of 5.7, the vectors of 5.8."""

from __future__ import annotations

import asyncio
import base64
import json
import threading
from dataclasses import replace
from fractions import Fraction
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chain.escrow import DeclaredEscrow
from chain.messages import flatten_segment
from chain.payment_state import SignedState
from chain.pb import lp_rpc_pb2 as pb
from chain.signatures import SigningKey, keccak, recover_eth_signer
from chain.tickets import Ticket, ticket_hash
from clearinghouse.errors import SignersUnavailable
from clearinghouse.requests import decode_payment_request, payment_request
from clearinghouse.signers import native
from clearinghouse.signers.base import SignerAnswer
from clearinghouse.signers.native import NativeSigner, SignerLimits
from tests.clearinghouse.signers.calls import (
    ESCROW,
    KEY,
    L1_BLOCK,
    NOW_UNIX_NS,
    ORCHESTRATOR,
    OTHER_KEY,
    RECIPIENT,
    SECOND_NS,
    Bench,
    Break,
    Call,
    Clock,
    Escrow,
    Paid,
    b64,
    body,
    info,
    message,
    minimal,
)

REFRESH = "remote signer could not check whether to refresh session: "
LIVE_VIDEO = 35


def capabilities(*models: str) -> bytes:
    message = pb.Capabilities(bitstring=[1 << LIVE_VIDEO])
    for model in models:
        message.constraints.PerCapability[LIVE_VIDEO].models[model].warm = True
    return message.SerializeToString()


# --- section 1.2: every step, and which of two comes first ------------------------------------------------------------

#: In the order of the table. Each breaks the same good call so that exactly this step fails.
STEPS: dict[str, tuple[Break, int, str]] = {
    "2 JSON": (lambda c: setattr(c, "body_head", b"{"), 400, "invalid character '{' at offset 1"),
    "3 no orchestrator": (lambda c: setattr(c, "offer_bytes", b""), 400, "missing orchestrator"),
    "4 no protobuf": (lambda c: setattr(c, "offer_tail", b"\xff"), 400, "proto:"),
    "5 zero price": (lambda c: setattr(c.offer.price_info, "pricePerUnit", 0), 400, "missing or zero priceInfo"),
    "6 no ticket params": (
        lambda c: c.offer.ClearField("ticket_params"),
        400,
        "missing ticketParams in OrchestratorInfo",
    ),
    "7a signature": (lambda c: setattr(c, "signed_by", OTHER_KEY), 400, "invalid sig"),
    "7b state": (lambda c: setattr(c, "state_bytes", b"not-json"), 400, "invalid state"),
    "7c orchestrator": (
        lambda c: c.change_state(orchestrator_address=bytes(20)),
        400,
        "orchestratorAddress mismatch",
    ),
    "7d app": (lambda c: c.change_state(app="another"), 400, "app mismatch"),
    "7e type": (lambda c: c.change_state(type="fixed"), 400, "job type mismatch"),
    "8 no manifest": (lambda c: c.fields.update(ManifestID=""), 400, "missing manifestID"),
    "9 capabilities": (
        lambda c: c.fields.update(capabilities=b64(b"not-valid-protobuf")),
        400,
        "cannot parse invalid wire-format data",
    ),
    "10 no token": (lambda c: c.offer.ClearField("auth_token"), 400, f"{REFRESH}missing auth token"),
    "11 token expires": (
        lambda c: c.offer.HasField("auth_token") and setattr(c.offer.auth_token, "expiration", 1),
        480,
        "refresh session for remote signer",
    ),
    "12 params expire": (
        lambda c: c.change_escrow(last_seen_l1_block=L1_BLOCK + 40),
        480,
        "refresh session for remote signer",
    ),
    "13 no such ticket": (
        lambda c: setattr(c.bench, "limits", SignerLimits(max_ticket_ev_wei=0)),
        400,
        f"{REFRESH}ticket EV 1.00000 > max ticket EV 0.00000",
    ),
    "14 type": (lambda c: (c.fields.update(type="bogus"), c.change_state(type="")), 400, "invalid job type"),
    "15 nothing billable": (
        lambda c: (c.fields.update(type=""), c.change_state(type="")),
        400,
        "missing billable unit or job type",
    ),
    "16 maxPrice": (
        lambda c: c.fields.update(maxPrice={"price": 0, "currency": "wei", "unit": "seconds"}),
        400,
        "maxPrice.price must be a positive decimal",
    ),
    "17 initial price": (
        lambda c: c.change_state(initial_price=c.state.initial_price._replace(pixels_per_unit=0)),
        400,
        "invalid initial price in state",
    ),
    "18 price": (
        lambda c: setattr(c.offer.price_info, "pricePerUnit", 3),
        481,
        "orchestrator price 3.000 exceeds initial session price ceiling 1.000",
    ),
    "20 nothing due": (lambda c: c.change_state(balance=Fraction(5)), 482, "no tickets"),
    "21 too many": (lambda c: c.change_state(balance=Fraction(-96)), 400, "numTickets 101 exceeds maximum of 100"),
    "23 too much": (
        lambda c: setattr(c.bench, "limits", SignerLimits(max_total_ev_wei=4)),
        500,
        "Internal Server Error",
    ),
    "28 another caller": (lambda c: setattr(c, "auth_id", "stranger"), 500, "Internal Server Error"),
}


def test_the_good_call_is_paid() -> None:
    assert Call().post().status == 200


@pytest.mark.parametrize("step", STEPS)
def test_each_step_answers_with_its_status_and_words(step: str) -> None:
    breaks, status, text = STEPS[step]
    call = Call()
    breaks(call)
    answer = call.post()
    assert (answer.status, text in message(answer)) == (status, True), answer
    assert answer.body.endswith(b"}}\n")
    assert answer.content_type == "application/json"
    assert answer.orchestrator_url == ("http://orch.example" if status == 480 else None)


@pytest.mark.parametrize(("first", "second"), list(combinations(STEPS, 2)))
def test_of_two_failing_steps_the_earlier_answers(first: str, second: str) -> None:
    call = Call()
    STEPS[second][0](call)
    STEPS[first][0](call)
    answer = call.post()
    assert (answer.status, STEPS[first][2] in message(answer)) == (STEPS[first][1], True), answer


# --- section 5.7: the cases of the reference --------------------------------------------------------------------------

CEILINGS = SignerLimits(
    max_price_per_unit=Fraction(500), capability_max_prices={(LIVE_VIDEO, "livepeer/model1"): Fraction(200)}
)


def wei(price: Any, unit: str, currency: str = "wei") -> dict[str, Any]:
    return {"price": price, "currency": currency, "unit": unit}


REQUEST_CASES: dict[str, tuple[bytes, int, str]] = {
    "invalid JSON": (b"{not-json", 400, "invalid character"),
    "missing blob": (b'{"inPixels":1}', 400, "missing orchestrator"),
    "blob not protobuf": (body(b"not-proto"), 400, "proto:"),
    "price 0": (body(info(price=(0, 1))), 400, "missing or zero priceInfo"),
    "pixels 0": (body(info(price=(1, 0))), 400, "missing or zero priceInfo"),
    "price negative": (body(info(price=(-1, -1))), 400, "missing or zero priceInfo"),
    "token expired": (body(info(expires_in_s=-60), inPixels=1), 480, "refresh session"),
    "type bogus": (body(info(), type="bogus"), 400, "invalid job type"),
    "inPixels 0": (body(info(), inPixels=0), 400, "missing billable unit or job type"),
    "inPixels negative": (body(info(), inPixels=-1), 400, "missing billable unit or job type"),
    "inPixels 101": (body(info(), inPixels=101), 400, "exceeds maximum of 100"),
    "inPixels enormous": (body(info(price=(2**63 - 1, 1)), inPixels=2**63 - 1), 481, "orchestrator price"),
    "capabilities": (
        body(info(), type="lv2v", capabilities=b64(b"not-valid-protobuf")),
        400,
        "cannot parse invalid wire-format data",
    ),
    "price 1000": (
        body(info(price=(1000, 1)), inPixels=1),
        481,
        "orchestrator price 1000.000 exceeds configured maximum price ceiling 500.000",
    ),
    "maxPrice 9": (body(info(price=(10, 1)), type="fixed", maxPrice=wei(9, "fixed")), 481, "request maxPrice"),
    "maxPrice untyped": (
        body(info(), inPixels=1, maxPrice=wei(9, "fixed")),
        400,
        "maxPrice requires payment type live, lv2v, or fixed",
    ),
    "maxPrice usd": (
        body(info(), type="fixed", maxPrice=wei(9, "fixed", "usd")),
        400,
        "maxPrice.currency must be wei",
    ),
    "maxPrice unit": (
        body(info(), type="live", maxPrice=wei(9, "fixed")),
        400,
        "maxPrice.unit must be seconds for payment type live",
    ),
    "maxPrice 0": (body(info(), type="fixed", maxPrice=wei(0, "fixed")), 400, "must be a positive decimal"),
    "maxPrice empty": (body(info(), type="fixed", maxPrice={}), 400, "must be a positive decimal"),
    "fixed 1000": (body(info(price=(1000, 1)), type="fixed", ManifestID="fixed-manifest"), 481, "orchestrator price"),
    "model1 300": (
        body(info(price=(300, 1)), type="fixed", capabilities=b64(capabilities("livepeer/model1"))),
        481,
        "orchestrator price 300.000 exceeds configured maximum price ceiling 200.000",
    ),
    "other model 300": (
        body(info(price=(300, 1), ev_wei=300), type="fixed", capabilities=b64(capabilities("another"))),
        200,
        "",
    ),
}


@pytest.mark.parametrize("case", REQUEST_CASES)
def test_requests_are_validated_as_by_the_reference(case: str) -> None:
    request_body, status, text = REQUEST_CASES[case]
    answer = Bench(limits=CEILINGS).post(request_body)
    assert answer.status == status, answer
    assert status == 200 or text in message(answer)


STATE_CASES: dict[str, tuple[Break, int, str]] = {
    "no ManifestID": (lambda c: c.fields.pop("ManifestID"), 400, "missing manifestID"),
    "sig": (
        lambda c: c.fields.update(state={"State": b64(b"{}"), "Sig": b64(b"bad")}),
        400,
        "invalid sig",
    ),
    "sig without state": (lambda c: c.fields.update(state={"State": None, "Sig": b64(b"bad")}), 400, "invalid sig"),
    "app": (lambda c: (c.change_state(app="a"), c.fields.update(app="b")), 400, "app mismatch"),
    "type": (
        lambda c: (c.change_state(type="lv2v"), c.fields.update(type="live")),
        400,
        "job type mismatch",
    ),
    "orchestrator": (lambda c: setattr(c.offer, "address", b"\x02"), 400, "orchestratorAddress mismatch"),
    "price above initial": (
        lambda c: (
            c.change_state(initial_price=c.state.initial_price._replace(price_per_unit=100)),
            setattr(c.offer.price_info, "pricePerUnit", 150),
        ),
        481,
        "initial session price ceiling",
    ),
    "balance": (lambda c: c.change_state(balance=Fraction(1000)), 482, "no tickets"),
}


@pytest.mark.parametrize("case", STATE_CASES)
def test_states_are_validated_as_by_the_reference(case: str) -> None:
    breaks, status, text = STATE_CASES[case]
    call = Call()
    breaks(call)
    answer = call.post()
    assert (answer.status, text in message(answer)) == (status, True), answer


def test_a_short_address_is_the_padded_address() -> None:
    call = Call()
    call.offer.address = ORCHESTRATOR[-1:]
    assert call.post().status == 200


def test_an_untyped_session_is_billed_its_pixels_at_the_first_price() -> None:
    """LV2V_Succeeds of the reference."""
    bench = Bench(limits=SignerLimits(max_price_per_unit=Fraction(200)))
    first = bench.pay(info(price=(150, 175), ev_wei=35), inPixels=1000)
    assert (len(first.nonces), first.state.balance, first.state.sequence_number) == (25, Fraction(125, 7), 0)

    second = bench.pay(
        info(price=(112, 175), ev_wei=35), inPixels=2500, state=first.signed_state, ManifestID="from the orchestrator"
    )
    assert second.nonces == list(range(26, 26 + 61))
    assert (second.state.balance, second.state.sequence_number) == (10, 1)
    assert second.state.state_id == first.state.state_id
    assert (second.payment.expected_price.pricePerUnit, second.state.initial_price.price_per_unit) == (112, 150)


def test_a_models_ceiling_takes_the_place_of_the_global_one() -> None:
    limits = SignerLimits(
        max_price_per_unit=Fraction(200), capability_max_prices={(LIVE_VIDEO, "default"): Fraction(500)}
    )
    paid = Bench(limits=limits).pay(
        info(price=(300, 1), ev_wei=35), inPixels=1, capabilities=b64(capabilities("livepeer/model1"))
    )
    assert (len(paid.nonces), paid.state.balance) == (9, 15)
    assert paid.segment.capabilities.constraints.PerCapability[LIVE_VIDEO].models["livepeer/model1"].warm


def test_live_bills_the_seconds_that_passed() -> None:
    bench = Bench()
    first = bench.pay(info(price=(3, 1), ev_wei=35), type="live")
    assert (len(first.nonces), first.state.balance) == (1, 5)
    bench.clock.advance(12)
    second = bench.pay(info(price=(3, 1), ev_wei=35), type="live", ManifestID="m", state=first.signed_state)
    assert (len(second.nonces), second.state.balance, second.state.sequence_number) == (1, 4, 1)


def test_fixed_bills_one_call_whatever_the_pixels() -> None:
    bench = Bench()
    request = {"type": "fixed", "inPixels": 1_000_000, "maxPrice": wei(4, "fixed"), "ManifestID": "m"}
    first = bench.pay(info(price=(3, 1), ev_wei=3), **request)
    second = bench.pay(info(price=(3, 1), ev_wei=3), **request, state=first.signed_state)
    assert (first.nonces, second.nonces) == ([1], [2])
    assert (first.state.balance, second.state.balance) == (0, 0)
    assert (first.state.sequence_number, second.state.sequence_number) == (0, 1)


@pytest.mark.parametrize(
    ("price", "requested", "configured", "source"),
    [
        ((2, 1), 2, 3, None),
        ((7, 4), "1.5", 3, "request maxPrice"),
        ((9, 4), "2.5", 3, "initial session price"),
        ((7, 4), 2, Fraction(3, 2), "configured maximum price"),
        ((7, 4), "1.5", Fraction(3, 2), "configured maximum price"),  # a tie names the earlier source
    ],
)
def test_the_lowest_ceiling_decides_and_is_named(
    price: tuple[int, int], requested: Any, configured: Any, source: str | None
) -> None:
    call = Call(bench=Bench(limits=SignerLimits(max_price_per_unit=Fraction(configured))))
    call.offer = info(price=price)
    call.change_state(initial_price=call.state.initial_price._replace(price_per_unit=2), type="fixed")
    call.fields.update(type="fixed", maxPrice=wei(requested, "fixed"))
    answer = call.post()
    assert answer.status == (481 if source else 200), answer
    assert source is None or source in message(answer)


# --- section 3.6 and 5.6: the ticket and its sender -------------------------------------------------------------------

HALF = (2**256 - 1) // 2
CERTAIN = 2**256 - 1


@pytest.mark.parametrize(
    ("face_value_wei", "win_prob", "escrow", "limits", "text"),
    [
        (202, HALF, {}, {"max_ticket_ev_wei": 1}, "ticket EV 101.00000 > max ticket EV 1.00000"),
        (1000, CERTAIN, {}, {}, "ticket faceValue too low faceValue=1000"),
        (1111, HALF, {"deposit_wei": 1}, {"deposit_multiplier": 2}, "ticket faceValue 1111 > max faceValue 0"),
        (1111, HALF, {"deposit_wei": 2224}, {"deposit_multiplier": 2}, None),
        (200, HALF, {"deposit_wei": 400}, {"deposit_multiplier": 2}, None),
        (201, HALF, {"deposit_wei": 401}, {"deposit_multiplier": 2}, "ticket faceValue 201 > max faceValue 200"),
        (200, HALF, {"withdraw_round": 3502}, {}, "deposit and reserve is set to unlock soon"),
        (200, HALF, {"withdraw_round": 3503}, {}, None),
        (200, HALF, {"withdraw_round": 2, "reserve_wei": 0}, {}, "set to unlock soon"),
        (200, HALF, {"reserve_wei": 0, "deposit_wei": 0}, {}, "no sender reserve"),
        (200, HALF, {"deposit_wei": 0}, {}, "no sender deposit"),
        (200, HALF, {}, {"max_total_ev_wei": 99}, "total ticket EV 100.00000 > max total ticket EV 99.00000"),
    ],
)
def test_a_ticket_beyond_the_limits_is_refused_by_name(
    face_value_wei: int, win_prob: int, escrow: dict[str, int], limits: dict[str, int], text: str | None
) -> None:
    bench = Bench(limits=SignerLimits(**limits))
    bench.escrow.reading = replace(ESCROW, **escrow)
    offer = info()
    offer.ticket_params.face_value = minimal(face_value_wei)
    offer.ticket_params.win_prob = minimal(win_prob)
    answer = bench.post(body(offer, inPixels=1))
    assert answer.status == (400 if text else 200), answer
    assert text is None or (message(answer).startswith(REFRESH) and message(answer).endswith(text))


@pytest.mark.parametrize(
    ("expiration_block", "status"),
    [(0, 400), (2**64, 400), (1, 480), (L1_BLOCK + 1, 480), (L1_BLOCK + 2, 200), (2**255 + 1, 200)],
)
def test_params_expire_one_block_early(expiration_block: int, status: int) -> None:
    offer = info()
    offer.ticket_params.expiration_block = minimal(expiration_block)
    assert Bench().post(body(offer, inPixels=1)).status == status


@pytest.mark.parametrize(("expires_in_s", "status"), [(179, 480), (180, 200), (181, 200)])
def test_a_token_is_refreshed_180_seconds_before_its_end(expires_in_s: int, status: int) -> None:
    assert Bench().post(body(info(expires_in_s=expires_in_s), inPixels=1)).status == status


def test_a_worthless_ticket_pays_nothing() -> None:
    offer = info()
    offer.ticket_params.win_prob = b""
    answer = Bench().post(body(offer, inPixels=1))
    assert (answer.status, message(answer)) == (482, "no tickets")


# --- bytes ------------------------------------------------------------------------------------------------------------

ROOT = Path(__file__).parents[3]
VECTORS = next(
    (
        path
        for path in (ROOT / "tests/vectors/protocol.json", ROOT.parent / "shared/vectors/protocol.json")
        if path.is_file()
    ),
    None,
)


@pytest.fixture
def vector() -> dict[str, Any]:
    if VECTORS is None:
        pytest.skip("NO PROTOCOL VECTORS: byte compatibility with the reference signer is not tested here")
    payment = json.loads(VECTORS.read_text())["payment"]
    assert isinstance(payment, dict)
    return payment


def vector_signer(vector: dict[str, Any]) -> NativeSigner:
    key, params = SigningKey(bytes.fromhex(vector["privateKey"])), vector["ticketParams"]
    escrow = DeclaredEscrow(
        sender=key.address,
        deposit_wei=10**18,
        reserve_wei=10**18,
        last_initialized_round=1,
        last_initialized_round_block_hash=keccak(b"another round"),
        previous_initialized_round=int(params["creationRound"]),
        previous_initialized_round_block_hash=bytes.fromhex(params["creationRoundBlockHash"]),
        last_seen_l1_block=int(params["expirationBlock"]) - 2,
    )
    return NativeSigner(key=key, escrow=escrow, now_unix_ns=lambda: NOW_UNIX_NS, new_state_id=lambda: "f1405ced")


def vector_info(vector: dict[str, Any]) -> pb.OrchestratorInfo:
    params, token = vector["ticketParams"], vector["segment"]["authToken"]
    return pb.OrchestratorInfo(
        address=bytes.fromhex(params["recipient"]),
        ticket_params=pb.TicketParams(
            recipient=bytes.fromhex(params["recipient"]),
            # Leading zeros, and more of the message than a payment may carry: both must not come back.
            face_value=int(params["faceValue"]).to_bytes(32, "big"),
            win_prob=int(params["winProb"]).to_bytes(32, "big"),
            recipient_rand_hash=bytes.fromhex(params["recipientRandHash"]),
            seed=int(params["seed"]).to_bytes(32, "big"),
            expiration_block=int(params["expirationBlock"]).to_bytes(8, "big"),
            expiration_params=pb.TicketExpirationParams(
                creation_round=int(params["creationRound"]),
                creation_round_block_hash=bytes.fromhex(params["creationRoundBlockHash"]),
            ),
        ),
        price_info=pb.PriceInfo(
            pricePerUnit=int(vector["expectedPrice"]["pricePerUnit"]),
            pixelsPerUnit=int(vector["expectedPrice"]["pixelsPerUnit"]),
        ),
        auth_token=pb.AuthToken(
            token=token["token"].encode(), session_id=token["sessionId"], expiration=int(token["expiration"])
        ),
    )


def test_the_complete_payment_of_the_vectors_is_reproduced_to_the_byte(vector: dict[str, Any]) -> None:
    signer = vector_signer(vector)
    request = decode_payment_request(body(vector_info(vector), ManifestID="deadbeef", inPixels=10**10))
    answer = asyncio.run(signer.generate_payment(request, auth_id=""))
    document = json.loads(answer.body)
    assert document["payment"] == vector["livepeerPayment_base64"]
    assert document["segCreds"] == vector["segment"]["livepeerSegment_base64"]
    assert answer.body == json.dumps(document, separators=(",", ":")).encode() + b"\n"

    # The vector's balance and type are declared, not derived: every other byte must be the same.
    state = base64.b64decode(document["state"]["State"])
    ev = Fraction(int(vector["ticketParams"]["faceValue"]) * int(vector["ticketParams"]["winProb"]), CERTAIN)
    balance = 2 * ev - Fraction(10**10 * 150, 175)
    expected = vector["state"]["json"].replace('"500"', f'"{balance}"').replace('"lv2v"', '""')
    assert state.decode() == expected
    assert recover_eth_signer(state, base64.b64decode(document["state"]["Sig"])) == signer.address


def test_the_signed_state_of_the_vectors_is_continued(vector: dict[str, Any]) -> None:
    signer = vector_signer(vector)
    request = payment_request(
        orchestrator=vector_info(vector).SerializeToString(),
        state=SignedState(vector["state"]["json"].encode(), bytes.fromhex(vector["state"]["sig"])),
        manifest_id="deadbeef",
        app="",
        in_pixels=0,
        type="lv2v",
        max_price=None,
        capabilities=b"",
    )
    answer = asyncio.run(signer.generate_payment(request, auth_id=""))
    payment = pb.Payment.FromString(base64.b64decode(json.loads(answer.body)["payment"]))
    assert [ticket.sender_nonce for ticket in payment.ticket_sender_params] == [3]


def test_the_orchestrator_info_signature_of_the_vectors_is_reproduced(vector: dict[str, Any]) -> None:
    answer = asyncio.run(vector_signer(vector).sign_orchestrator_info())
    signature = vector["orchestratorInfoSignature"]
    assert answer.body == f'{{"address":"0x{vector["address"]}","signature":"0x{signature}"}}\n'.encode()


def test_every_ticket_carries_a_signature_over_its_own_hash() -> None:
    paid = Bench().pay(info(), inPixels=7)
    params = paid.payment.ticket_params
    for number, sent in enumerate(paid.payment.ticket_sender_params, 1):
        ticket = Ticket(
            RECIPIENT,
            KEY.address,
            int.from_bytes(params.face_value, "big"),
            int.from_bytes(params.win_prob, "big"),
            number,
            params.recipient_rand_hash,
            3500,
            keccak(b"round 3500"),
        )
        assert sent.sender_nonce == number
        assert recover_eth_signer(ticket_hash(ticket), sent.sig) == KEY.address


@pytest.mark.parametrize("missing", ["creation_round", "creation_round_block_hash"])
def test_without_a_creation_round_the_last_initialized_one_is_signed(missing: str) -> None:
    offer = info()
    offer.ticket_params.expiration_params.ClearField(missing)
    sent = Bench().pay(offer, inPixels=1).payment.expiration_params
    assert (sent.creation_round, sent.creation_round_block_hash) == (3501, keccak(b"round 3501"))


def test_seg_creds_sign_the_manifest_and_an_empty_segment() -> None:
    paid = Bench().pay(info(), inPixels=1, ManifestID="manifest")
    assert (paid.segment.manifestId, paid.segment.profiles, paid.segment.hash) == (b"manifest", b"invalid", keccak(b""))
    assert recover_eth_signer(keccak(flatten_segment(b"manifest")), paid.segment.sig) == KEY.address
    assert not paid.segment.HasField("capabilities")


def test_a_new_session_without_a_manifest_gets_a_random_one() -> None:
    manifests = {Bench().pay(info(), inPixels=1).segment.manifestId for _ in range(20)}
    assert len(manifests) == 20
    assert all(len(manifest) == 8 and int(manifest, 16) >= 0 for manifest in manifests)


def test_state_ids_are_128_random_bits() -> None:
    ids = {Bench().pay(info(), inPixels=1).state.state_id for _ in range(20)}
    assert len(ids) == 20
    assert all(len(bytes.fromhex(state_id)) == 16 for state_id in ids)


def test_an_error_is_escaped_as_gos_encoder_escapes_it() -> None:
    answer = Bench(limits=SignerLimits(max_ticket_ev_wei=0)).post(body(info(), inPixels=1))
    assert b"ticket EV 1.00000 \\u003e max ticket EV 0.00000" in answer.body


# --- sessions ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("creation_round", "block_hash", "status"),
    [
        (3501, keccak(b"round 3501"), 200),
        (3500, keccak(b"round 3500"), 200),
        (3499, keccak(b"round 3499"), 480),
        (3502, keccak(b"round 3502"), 480),
        (3501, keccak(b"round 3500"), 480),
    ],
)
def test_only_the_last_two_rounds_are_signed(creation_round: int, block_hash: bytes, status: int) -> None:
    offer = info()
    offer.ticket_params.expiration_params.creation_round = creation_round
    offer.ticket_params.expiration_params.creation_round_block_hash = block_hash
    answer = Bench().post(body(offer, inPixels=1))
    assert (answer.status, answer.orchestrator_url) == (status, offer.transcoder if status == 480 else None)


def test_fresh_params_restart_the_nonces_and_keep_the_session() -> None:
    bench = Bench()
    first = bench.pay(info(), inPixels=3)
    second = bench.pay(info(recipient_rand=11), inPixels=2, ManifestID="m", state=first.signed_state)
    assert (first.nonces, second.nonces) == ([1, 2, 3], [1, 2])
    assert (second.state.state_id, second.state.sequence_number) == (first.state.state_id, 1)


def test_an_untyped_session_may_become_typed_once() -> None:
    bench = Bench()
    first = bench.pay(info(), inPixels=1)
    second = bench.pay(info(), type="fixed", ManifestID="m", state=first.signed_state)
    assert second.state.type == "fixed"
    back = bench.post(body(info(), inPixels=1, ManifestID="m", state=second.signed_state))
    assert message(back) == "job type mismatch"


def test_another_signer_with_the_same_key_continues_the_session() -> None:
    first = Bench().pay(info(), inPixels=1)
    assert Bench().pay(info(), inPixels=1, ManifestID="m", state=first.signed_state).nonces == [2]


def test_the_same_request_twice_is_answered_alike_because_nothing_remembered_decides() -> None:
    """A16: the reference's balances and sessions live in shared maps, where one request disturbs another."""
    call = Call()
    signer = call.bench.signer()

    async def storm() -> set[bytes]:
        requests = [decode_payment_request(call.body()) for _ in range(32)]
        answers = await asyncio.gather(*(signer.generate_payment(request, auth_id="tenant") for request in requests))
        return {answer.body for answer in answers}

    assert len(asyncio.run(storm())) == 1


def first_and_second(bench: Bench) -> tuple[NativeSigner, dict[str, str], dict[str, str]]:
    """A signer that has just signed two states of two sessions, and so remembers both."""
    signer = bench.signer()
    paid = [Paid(answered(signer, body(info(), inPixels=1, ManifestID="m"))) for _ in range(2)]
    return signer, paid[0].signed_state, paid[1].signed_state


def answered(signer: NativeSigner, request_body: bytes) -> SignerAnswer:
    return asyncio.run(signer.generate_payment(decode_payment_request(request_body), auth_id=""))


def flipped(data: str, byte: int) -> str:
    raw = bytearray(base64.b64decode(data))
    raw[byte] ^= 1
    return b64(bytes(raw))


def test_what_only_resembles_a_remembered_state_is_refused() -> None:
    """The genuine one is known without a look at its curve point; everything else must still be looked at."""
    signer, genuine, other = first_and_second(Bench())
    length = len(base64.b64decode(genuine["State"]))
    forged = [{**genuine, "State": flipped(genuine["State"], byte)} for byte in range(length)]
    forged += [{**genuine, "Sig": flipped(genuine["Sig"], byte)} for byte in range(65)]
    forged += [{**genuine, "Sig": other["Sig"]}, {**genuine, "State": other["State"]}]
    forged += [{**genuine, "Sig": b64(OTHER_KEY.eth_sign(base64.b64decode(genuine["State"])))}]
    forged += [{**genuine, "Sig": ""}, {**genuine, "State": ""}, {**genuine, "Sig": genuine["Sig"][:-4]}]
    for state in forged:
        answer = answered(signer, body(info(), inPixels=1, ManifestID="m", state=state))
        assert (answer.status, message(answer)) == (400, "invalid sig"), state
    assert answered(signer, body(info(), inPixels=1, ManifestID="m", state=genuine)).status == 200


def test_a_remembered_state_is_held_to_every_other_check() -> None:
    signer, genuine, _ = first_and_second(Bench())
    fields = {"inPixels": 1, "ManifestID": "m", "state": genuine}
    assert message(answered(signer, body(info(), **fields | {"app": "b"}))) == "app mismatch"
    elsewhere = info()
    elsewhere.address = b"\x02"
    assert message(answered(signer, body(elsewhere, **fields))) == "orchestratorAddress mismatch"
    assert message(answered(signer, body(info(), **fields | {"ManifestID": ""}))) == "missing manifestID"


def test_only_a_state_that_was_not_signed_here_lately_is_recovered(monkeypatch: pytest.MonkeyPatch) -> None:
    recovered: list[bytes] = []

    def recover(message: bytes, signature: bytes) -> bytes:
        recovered.append(signature)
        return recover_eth_signer(message, signature)

    monkeypatch.setattr(native, "recover_eth_signer", recover)
    bench = Bench()
    signer, genuine, _ = first_and_second(bench)
    request_body = body(info(), inPixels=1, ManifestID="m", state=genuine)
    known = answered(signer, request_body)
    assert recovered == []
    assert answered(bench.signer(), request_body) == known
    assert recovered == [base64.b64decode(genuine["Sig"])]


calls_of_a_session = st.lists(
    st.tuples(
        st.integers(0, 40),  # pixels: none is a refusal, and many are several tickets
        st.sampled_from([(1, 1), (2, 3), (1, 7)]),
        st.sampled_from([CERTAIN // 5, CERTAIN // 5 - 2, 2**255 - 19, 3**150]),
        st.sampled_from([10, 11]),
        st.integers(0, 10**10),
        st.sampled_from(["", "tenant", "other"]),
    ),
    min_size=2,
    max_size=8,
)


@given(calls_of_a_session)
@settings(max_examples=100)
def test_a_signer_that_remembers_answers_as_one_that_begins_anew(calls: list[tuple[Any, ...]]) -> None:
    """Byte for byte, whatever came before: prices, odds, clocks and callers may change between the calls."""
    clock, escrow = Clock(), Escrow()

    def signer() -> NativeSigner:
        return NativeSigner(key=KEY, escrow=escrow, now_unix_ns=clock, new_state_id=lambda: "00ff")

    remembers, state = signer(), {}
    for in_pixels, price, win_prob, rand, elapsed_ns, auth_id in calls:
        clock.unix_ns += elapsed_ns
        offer = info(price=price, ev_wei=3, recipient_rand=rand)
        offer.ticket_params.win_prob = minimal(win_prob)
        request_body = body(offer, inPixels=in_pixels, ManifestID="m", state=state)
        answers = [
            asyncio.run(each.generate_payment(decode_payment_request(request_body), auth_id=auth_id))
            for each in (remembers, signer())
        ]
        assert answers[0] == answers[1]
        if answers[0].status == 200:
            state = json.loads(answers[0].body)["state"]


@pytest.mark.parametrize(
    ("held", "given_id", "status", "next_id"),
    [
        ("", "", 200, ""),
        ("", "tenant", 200, "tenant"),
        ("tenant", "tenant", 200, "tenant"),
        ("tenant", "", 200, "tenant"),
        ("tenant", "other", 500, None),
        ("", "x" * 257, 400, None),
    ],
)
def test_a_session_keeps_the_first_auth_id(held: str, given_id: str, status: int, next_id: str | None) -> None:
    call = Call(auth_id=given_id)
    call.change_state(auth_id=held)
    answer = call.post()
    assert answer.status == status
    if status == 200:
        state = json.loads(base64.b64decode(json.loads(answer.body)["state"]["State"]))
        assert state["AuthID"] == next_id


def test_auth_expiry_of_a_webhook_survives() -> None:
    call = Call()
    call.change_state(auth_expiry_unix_s=123)
    state = json.loads(base64.b64decode(json.loads(call.post().body)["state"]["State"]))
    assert state["AuthExpiry"] == 123


# --- stricter than the reference (section 10) -------------------------------------------------------------------------


@pytest.mark.parametrize("job_type", ["live", "lv2v"])
def test_a_clock_that_went_back_is_refused_and_not_billed_again(job_type: str) -> None:
    call = Call()
    call.change_state(last_update_unix_ns=NOW_UNIX_NS + SECOND_NS, type=job_type)
    call.fields["type"] = job_type
    answer = call.post()
    assert (answer.status, message(answer).startswith("state was updated 1000000000 ns after")) == (400, True)


def test_a_job_that_is_not_billed_by_time_does_not_mind_the_clock() -> None:
    call = Call()
    call.change_state(last_update_unix_ns=NOW_UNIX_NS + SECOND_NS, type="fixed")
    call.fields["type"] = "fixed"
    assert call.post().status == 200


def test_a_number_of_tickets_beyond_64_bits_does_not_wrap() -> None:
    """A15: the reference would sign one ticket for 2^64 + 1."""
    call = Call()
    call.change_state(balance=Fraction(-(2**64) + 4))
    assert message(call.post()) == f"numTickets {2**64 + 1} exceeds maximum of 100"


@pytest.mark.parametrize("reading", [None, replace(ESCROW, sender=OTHER_KEY.address)])
def test_without_a_reading_of_its_escrow_the_signer_is_unavailable(reading: Any) -> None:
    bench = Bench()
    bench.escrow.reading = reading
    with pytest.raises(SignersUnavailable):
        bench.post(body(info(), inPixels=1))
    assert bench.post(body(info(expires_in_s=0), inPixels=1)).status == 480  # what needs no escrow still answers


def test_a_hostile_transcoder_cannot_write_headers() -> None:
    offer = info(expires_in_s=0)
    offer.transcoder = "http://x\r\nSet-Cookie: a=b\u2028é"
    assert Bench().post(body(offer, inPixels=1)).orchestrator_url == "http://x  Set-Cookie: a=b"


@pytest.mark.parametrize(("tickets", "threads"), [(10, 0), (11, 1), (100, 1)])
def test_a_large_batch_is_signed_off_the_event_loop(
    tickets: int, threads: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    signed_in: list[int] = []
    original = NativeSigner._sign

    def sign(self: NativeSigner, *args: Any) -> Any:
        signed_in.append(threading.get_ident())
        return original(self, *args)

    monkeypatch.setattr(NativeSigner, "_sign", sign)
    paid = Bench().pay(info(), inPixels=tickets)
    assert paid.nonces == list(range(1, tickets + 1))
    assert [ident != threading.get_ident() for ident in signed_in] == [threads == 1]


@pytest.mark.parametrize(
    ("price", "text"),
    [((1, 3), "0.333"), ((2, 3), "0.667"), ((1, 2000), "0.001"), ((1, 2001), "0.000"), ((1999999, 2000), "1000.000")],
)
def test_prices_in_messages_have_three_decimals_and_a_half_rounds_up(price: tuple[int, int], text: str) -> None:
    limits = SignerLimits(max_price_per_unit=Fraction(1, 10**9))
    answer = Bench(limits=limits).post(body(info(price=price), inPixels=1))
    assert message(answer) == f"orchestrator price {text} exceeds configured maximum price ceiling 0.000"


# --- nothing a caller sends is our fault ------------------------------------------------------------------------------

scalars = st.none() | st.booleans() | st.integers() | st.text(max_size=20) | st.binary(max_size=40).map(b64)
values = st.recursive(scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner))
keys = st.sampled_from(["state", "orchestrator", "ManifestID", "app", "inPixels", "type", "maxPrice", "capabilities"])


@given(st.dictionaries(keys | st.text(max_size=12), values))
@settings(max_examples=300)
def test_no_document_in_place_of_a_good_one_is_an_internal_error(fields: dict[str, Any]) -> None:
    call = Call()
    call.fields.update(fields)
    assert call.post().status in {200, 400, 480, 481, 482}


@given(st.integers(0, 2**16), st.binary(max_size=6))
@settings(max_examples=300)
def test_no_damage_to_the_offer_is_an_internal_error(position: int, damage: bytes) -> None:
    call = Call()
    offer = call.offer.SerializeToString()
    at = position % len(offer)
    call.offer_bytes = offer[:at] + damage + offer[at + len(damage) :]
    assert call.post().status in {200, 400, 480, 481, 482}
