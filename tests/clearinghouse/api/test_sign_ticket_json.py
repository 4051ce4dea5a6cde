"""POST /v1/signTicket reads the same requests as go-livepeer's route, in one spelling, and refuses every other one."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest

from chain.fees import MaxPrice
from chain.payment_state import SignedState
from chain.pb import lp_rpc_pb2 as pb
from clearinghouse.api.sign_ticket_json import REQUEST_KEYS, SignTicketBody, decode_sign_ticket
from clearinghouse.errors import InvalidRequest, RequestTooLarge
from clearinghouse.requests import MAX_BODY_BYTES, decode_payment_request

OFFER = pb.OrchestratorInfo(
    transcoder="https://orch.example:8935",
    address=b"\x01" * 20,
    ticket_params=pb.TicketParams(recipient=b"\x02" * 20, face_value=b"\x05"),
    price_info=pb.PriceInfo(pricePerUnit=1, pixelsPerUnit=2),
).SerializeToString()
CAPABILITIES = pb.Capabilities(bitstring=[1 << 35], version="0.9.1").SerializeToString()


def b64(data: bytes) -> str:
    return base64.b64encode(data).decode()


EVERYTHING: dict[str, Any] = {
    "orchestrator": b64(OFFER),
    "state": {"state": b64(b"{}"), "sig": b64(b"\x07" * 65)},
    "manifest_id": "stream-1",
    "app": "studio",
    "in_pixels": 640 * 360,
    "type": "lv2v",
    "max_price": {"price": "4.5", "currency": "wei", "unit": "720p-pixel-seconds"},
    "capabilities": b64(CAPABILITIES),
    "idempotency_key": "k-1",
    "end_user": "alice",
}


def decode(document: dict[str, Any]) -> SignTicketBody:
    return decode_sign_ticket(json.dumps(document).encode())


def refusal(body: bytes | dict[str, Any]) -> str:
    with pytest.raises(InvalidRequest) as refused:
        decode_sign_ticket(body if isinstance(body, bytes) else json.dumps(body).encode())
    return refused.value.message


def changed(**fields: Any) -> dict[str, Any]:
    return {**EVERYTHING, **fields}


def test_the_body_has_every_field_that_is_known() -> None:
    assert set(EVERYTHING) == REQUEST_KEYS


def test_everything_given_is_read() -> None:
    request, idempotency_key, end_user = decode(EVERYTHING)

    assert request.state == SignedState(state=b"{}", sig=b"\x07" * 65)
    assert (request.manifest_id, request.app, request.type) == ("stream-1", "studio", "lv2v")
    assert request.in_pixels == 640 * 360
    assert request.max_price == MaxPrice(price="4.5", currency="wei", unit="720p-pixel-seconds")
    assert request.capabilities == CAPABILITIES
    assert (idempotency_key, end_user) == ("k-1", "alice")


def test_it_is_the_same_request_as_in_go_livepeers_spelling() -> None:
    theirs = {
        "orchestrator": EVERYTHING["orchestrator"],
        "state": {"State": EVERYTHING["state"]["state"], "Sig": EVERYTHING["state"]["sig"]},
        "ManifestID": "stream-1",
        "app": "studio",
        "inPixels": 640 * 360,
        "type": "lv2v",
        "maxPrice": {"price": 4.5, "currency": "wei", "unit": "720p-pixel-seconds"},
        "capabilities": EVERYTHING["capabilities"],
    }

    assert decode(EVERYTHING).request.canonical == decode_payment_request(json.dumps(theirs).encode()).canonical


def test_only_the_orchestrator_is_required_and_null_means_not_given() -> None:
    alone = decode({"orchestrator": b64(OFFER)})
    nulls = decode(dict.fromkeys(EVERYTHING) | {"orchestrator": b64(OFFER)})

    assert alone == nulls
    assert (alone.idempotency_key, alone.end_user, alone.request.state, alone.request.max_price) == ("", "", None, None)
    assert refusal({}) == "missing orchestrator"


@pytest.mark.parametrize(
    ("key", "meant"),
    [
        ("ManifestID", "manifest_id"),
        ("inPixels", "in_pixels"),
        ("maxPrice", "max_price"),
        ("max-price", "max_price"),
        ("Idempotency-Key", "idempotency_key"),
        ("orchestator", "orchestrator"),
        ("State", "state"),
    ],
)
def test_an_unknown_key_is_refused_by_name_with_the_key_that_was_meant(key: str, meant: str) -> None:
    assert refusal(changed(**{key: "x"})) == f"unknown key {key!r}: did you mean {meant}?"


def test_an_unknown_key_that_resembles_nothing_is_told_what_is_known() -> None:
    message = refusal(changed(zzz=1))

    assert message.startswith("unknown key 'zzz': known are app, capabilities,")


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"state": {"State": ""}}, "unknown key 'State' in state: did you mean state.state?"),
        ({"state": {"signature": ""}}, "unknown key 'signature' in state"),
        ({"max_price": {"price": "1", "Unit": "s"}}, "unknown key 'Unit' in max_price: did you mean max_price.unit?"),
    ],
)
def test_keys_inside_are_as_strict(fields: dict[str, Any], message: str) -> None:
    assert refusal(changed(**fields)).startswith(message)


@pytest.mark.parametrize(
    ("price", "given"), [(4, "number 4"), (4.5, "number 4.5"), (None, "nothing"), (True, "bool"), ("", "string")]
)
def test_a_price_is_a_decimal_string(price: object, given: str) -> None:
    message = refusal(changed(max_price={"price": price, "currency": "wei"}))

    assert message == f'max_price.price must be a decimal string, such as "4.5", not {given}'


@pytest.mark.parametrize(
    ("fields", "part"),
    [
        ({"in_pixels": 1.0}, "cannot unmarshal number 1.0 into in_pixels"),
        ({"in_pixels": "1"}, "cannot unmarshal string into in_pixels"),
        ({"in_pixels": 2**63}, "into in_pixels of type int64"),
        ({"idempotency_key": 7}, "cannot unmarshal number 7 into idempotency_key"),
        ({"end_user": ["a"]}, "cannot unmarshal array into end_user"),
        ({"state": "opaque"}, "cannot unmarshal string into state"),
        ({"state": {"state": "!"}}, "illegal base64 data in state.state"),
        ({"capabilities": "_-8="}, "illegal base64 data in capabilities"),
        ({"orchestrator": b64(b"\xff\xff")}, "proto:"),
        ({"max_price": {"price": "four"}}, "invalid number literal 'four'"),
        ({"type": "a\nb"}, "type contains a control character"),
    ],
)
def test_a_value_of_the_wrong_kind_is_refused_with_its_place(fields: dict[str, Any], part: str) -> None:
    assert part in refusal(changed(**fields))


@pytest.mark.parametrize(
    ("body", "part"),
    [
        (b"", "unexpected end of JSON input"),
        (b"[]", "it must be an object"),
        (b'{"app":"a","app":"b"}', "duplicate key 'app'"),
        (b'{"state":{"sig":"","sig":""}}', "duplicate key 'sig'"),
        (b'{"app":"a"} {}', "invalid character"),
        (b'{"in_pixels":NaN}', "NaN is not JSON"),
        (b'{"app":"\xff"}', "body is not UTF-8"),
        (b'{"app":' + b"[" * 100_000, "nested too deeply"),
        (b'{"in_pixels":' + b"9" * 10_000 + b"}", "a number that is too long"),
    ],
)
def test_a_body_that_is_not_one_json_object_is_refused(body: bytes, part: str) -> None:
    assert part in refusal(body)


def test_a_body_beyond_the_limit_is_refused_before_it_is_parsed() -> None:
    with pytest.raises(RequestTooLarge):
        decode_sign_ticket(b"[" * (MAX_BODY_BYTES + 1))
