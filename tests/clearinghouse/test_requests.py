"""One body has one reading or none, and a precise refusal for everything else."""

from __future__ import annotations

import base64
import json
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chain.fees import MaxPrice
from chain.payment_state import SignedState
from chain.pb import lp_rpc_pb2 as pb
from clearinghouse.errors import InvalidRequest, Refusal, RequestTooLarge
from clearinghouse.requests import (
    MAX_BODY_BYTES,
    MAX_CAPABILITIES_BYTES,
    PaymentRequest,
    decode_payment_request,
    payment_request,
    require_manifest_and_capabilities,
)


def offer(**changes: Any) -> pb.OrchestratorInfo:
    fields: dict[str, Any] = {
        "transcoder": "https://orch.example:8935",
        "address": b"\x01" * 20,
        "ticket_params": pb.TicketParams(recipient=b"\x02" * 20, face_value=b"\x05"),
        "price_info": pb.PriceInfo(pricePerUnit=1, pixelsPerUnit=2),
    }
    return pb.OrchestratorInfo(**{**fields, **changes})


def b64(data: bytes) -> str:
    return base64.b64encode(data).decode()


OFFER = b64(offer().SerializeToString())
MANY_CAPABILITIES = pb.Capabilities(bitstring=[1 << 35], version="0.9.1")
for _model in ("a", "b", "c", "d"):
    MANY_CAPABILITIES.constraints.PerCapability[35].models[_model].capacityInUse = 3


def body(**fields: Any) -> bytes:
    return json.dumps({"orchestrator": OFFER, **fields}).encode()


def raw(members: str) -> bytes:
    return f'{{"orchestrator":"{OFFER}"{members}}}'.encode()


def typed(**fields: Any) -> PaymentRequest:
    known: dict[str, Any] = {
        "orchestrator": offer().SerializeToString(),
        "state": None,
        "manifest_id": "",
        "app": "",
        "in_pixels": 0,
        "type": "",
        "max_price": None,
        "capabilities": b"",
    }
    return payment_request(**{**known, **fields})


def refusal(request_body: bytes) -> str:
    with pytest.raises(InvalidRequest) as refused:
        decode_payment_request(request_body)
    return refused.value.message


# --- what is read -----------------------------------------------------------------------------------------------------


def test_everything_given_is_read() -> None:
    request = decode_payment_request(
        body(
            state={"State": b64(b"the state"), "Sig": b64(b"its signature")},
            ManifestID="manifest",
            app="app",
            inPixels=2**63 - 1,
            type="live",
            maxPrice={"price": 4.5, "currency": " WEI", "unit": "Seconds "},
            capabilities=b64(MANY_CAPABILITIES.SerializeToString()),
        )
    )
    assert request.state == SignedState(b"the state", b"its signature")
    assert (request.manifest_id, request.app, request.in_pixels, request.type) == (
        "manifest",
        "app",
        2**63 - 1,
        "live",
    )
    assert request.max_price == MaxPrice("4.5", "wei", "seconds")
    assert request.capabilities == MANY_CAPABILITIES.SerializeToString()
    assert (request.info.transcoder, request.info.address) == ("https://orch.example:8935", b"\x01" * 20)


def test_what_the_go_gateway_sends_first_is_read() -> None:
    request = decode_payment_request(
        body(state={"State": None, "Sig": None}, ManifestID="", inPixels=0, type="lv2v", capabilities=None)
    )
    assert request == typed(type="lv2v")


def test_null_is_the_same_as_nothing_given() -> None:
    keys = ("state", "ManifestID", "app", "inPixels", "type", "maxPrice", "capabilities")
    assert decode_payment_request(body(**dict.fromkeys(keys))) == decode_payment_request(body())


def test_a_state_is_one_where_either_part_is_not_empty() -> None:
    assert decode_payment_request(body(state={})).state is None
    assert decode_payment_request(body(state={"Sig": b64(b"x")})).state == SignedState(b"", b"x")
    assert typed(state=SignedState(b"", b"")).state is None


def test_unknown_keys_are_tolerated_and_dropped() -> None:
    request = decode_payment_request(
        body(capability="byoc", nested={"deep": [1.5, {"x": None}]}, state={"State": "", "Nonce": 1})
    )
    assert request == decode_payment_request(body())
    assert request.canonical == decode_payment_request(body()).canonical


def test_line_breaks_inside_base64_are_ignored() -> None:
    assert decode_payment_request(body(orchestrator=f"{OFFER[:20]}\r\n{OFFER[20:]}\n")) == decode_payment_request(
        body()
    )


# --- what is refused, and in which words ------------------------------------------------------------------------------

DEEP = b'{"x":' + b"[" * 100_000 + b"]" * 100_000 + b"}"

REFUSED: dict[str, tuple[bytes, str]] = {
    "no JSON": (b"{not-json", "invalid character 'n' at offset 1"),
    "empty": (b"", "unexpected end of JSON input"),
    "cut off": (body()[:-1], "unexpected end of JSON input"),
    "trailing data": (body() + b"{}", "invalid character '{' at offset"),
    "trailing NUL": (body() + b"\0", "invalid character '\\x00' at offset"),
    "byte order mark": (b"\xef\xbb\xbf" + body(), "invalid character '\\ufeff' at offset 0"),
    "not UTF-8": (raw(',"app":"').replace(b'"}', b'\xff"}'), "invalid character 0xff: body is not UTF-8"),
    "control character": (raw(',"app":"\x01"'), "invalid character '\\x01'"),
    "NaN": (raw(',"inPixels":NaN'), "invalid character 'N' looking for beginning of value"),
    "Infinity": (raw(',"x":[-Infinity]'), "invalid character '-' looking for beginning of value"),
    "array": (b"[]", "cannot unmarshal array into a payment request"),
    "null": (b"null", "cannot unmarshal null into a payment request"),
    "string": (b'"x"', "cannot unmarshal string into a payment request"),
    "number": (b"1.5", "cannot unmarshal number 1.5 into a payment request"),
    "nesting bomb": (DEEP, "nested too deeply"),
    "endless number": (raw(',"inPixels":' + "9" * 5000), "a number that is too long"),
    "lone surrogate": (raw(',"app":"\\ud800"'), "a lone UTF-16 surrogate"),
    "lone surrogate in a key": (raw(',"\\udc00":1'), "a lone UTF-16 surrogate"),
    "lone surrogate where nobody reads": (raw(',"x":[{"y":"\\ud800x"}]'), "a lone UTF-16 surrogate"),
    "duplicate": (raw(f',"orchestrator":"{OFFER}"'), "duplicate key 'orchestrator'"),
    "duplicate by escape": (raw(',"app":"a","\\u0061pp":"b"'), "duplicate key 'app'"),
    "duplicate unknown": (raw(',"x":1,"x":1'), "duplicate key 'x'"),
    "duplicate deep down": (raw(',"x":[{"y":1,"y":2}]'), "duplicate key 'y'"),
    "case variant": (raw(',"manifestid":"evil"'), "key 'manifestid' must be spelled ManifestID"),
    "case variant beside": (raw(',"ManifestID":"ok","MANIFESTID":"evil"'), "key 'MANIFESTID' must be"),
    "case variant by Unicode": (raw(',"\u017ftate":null'), "key '\\u017ftate' must be spelled state"),
    "case variant in state": (raw(',"state":{"state":""}'), "key 'state' must be spelled state.State"),
    "case variant in maxPrice": (raw(',"maxPrice":{"Price":1}'), "key 'Price' must be spelled maxPrice.price"),
    "no offer": (b"{}", "missing orchestrator"),
    "empty offer": (body(orchestrator=""), "missing orchestrator"),
    "null offer": (body(orchestrator=None), "missing orchestrator"),
    "offer not base64": (body(orchestrator="%%"), "illegal base64 data in orchestrator"),
    "offer without padding": (body(orchestrator="AQ"), "illegal base64 data in orchestrator"),
    "offer in URL alphabet": (body(orchestrator="__8="), "illegal base64 data in orchestrator"),
    "offer not ASCII": (body(orchestrator="é"), "illegal base64 data in orchestrator"),
    "offer an array": (body(orchestrator=[1, 2]), "cannot unmarshal array into orchestrator of type string"),
    "offer no protobuf": (body(orchestrator=b64(b"not-proto")), "proto:"),
    "no price": (body(orchestrator=b64(b"\x0a\x01x")), "missing or zero priceInfo"),
    "negative price": (
        body(orchestrator=b64(offer(price_info=pb.PriceInfo(pricePerUnit=-1, pixelsPerUnit=-1)).SerializeToString())),
        "must both be positive",
    ),
    "no params": (
        body(orchestrator=b64(offer(ticket_params=None).SerializeToString())),
        "missing ticketParams in OrchestratorInfo",
    ),
    "long transcoder": (
        body(orchestrator=b64(offer(transcoder="h" * 2049).SerializeToString())),
        "transcoder in OrchestratorInfo is longer than 2048 characters",
    ),
    "state a string": (body(state="x"), "cannot unmarshal string into state of type object"),
    "State a number": (body(state={"State": 1}), "cannot unmarshal number 1 into state.State of type string"),
    "Sig not base64": (body(state={"Sig": "bad"}), "illegal base64 data in state.Sig"),
    "app a number": (body(app=1), "cannot unmarshal number 1 into app of type string"),
    "app a fraction": (raw(',"app":1.0'), "cannot unmarshal number 1.0 into app of type string"),
    "app too long": (body(app="x" * 257), "app is longer than 256 characters"),
    "app with NUL": (body(app="a\0b"), "app contains a control character"),
    "type too long": (body(type="x" * 257), "type is longer than 256 characters"),
    "ManifestID not ASCII": (body(ManifestID="é"), "ManifestID must be at most 128 printable ASCII characters"),
    "ManifestID not printable": (body(ManifestID="a\nb"), "ManifestID must be at most 128 printable ASCII"),
    "ManifestID too long": (body(ManifestID="m" * 129), "ManifestID must be at most 128 printable ASCII"),
    "inPixels a bool": (body(inPixels=True), "cannot unmarshal bool into inPixels of type int64"),
    "inPixels a fraction": (raw(',"inPixels":1.0'), "cannot unmarshal number 1.0 into inPixels of type int64"),
    "inPixels an exponent": (raw(',"inPixels":1e3'), "cannot unmarshal number 1e3 into inPixels of type int64"),
    "inPixels a string": (body(inPixels="1"), "cannot unmarshal string into inPixels of type int64"),
    "inPixels too large": (body(inPixels=2**63), f"cannot unmarshal number {2**63} into inPixels of type int64"),
    "inPixels too small": (body(inPixels=-(2**63) - 1), "into inPixels of type int64"),
    "price a word": (body(maxPrice={"price": "wat"}), "invalid number literal 'wat' in maxPrice.price"),
    "price an empty string": (body(maxPrice={"price": ""}), "cannot unmarshal string into maxPrice.price"),
    "price with a plus": (body(maxPrice={"price": "+1"}), "invalid number literal '+1' in maxPrice.price"),
    "price in other digits": (body(maxPrice={"price": "\u0661"}), "invalid number literal '\\u0661'"),
    "price a bool": (body(maxPrice={"price": False}), "cannot unmarshal bool into maxPrice.price"),
    "price too long": (body(maxPrice={"price": "9" * 257}), "maxPrice.price is longer than 256 characters"),
    "price out of range": (raw(f',"maxPrice":{{"price":1e{"9" * 30}}}'), "its exponent is out of range"),
    "currency a number": (body(maxPrice={"currency": 1}), "cannot unmarshal number 1 into maxPrice.currency"),
    "unit too long": (body(maxPrice={"unit": "x" * 257}), "maxPrice.unit is longer than 256 characters"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_bad_body_is_refused_precisely(case: str) -> None:
    request_body, text = REFUSED[case]
    assert text in refusal(request_body)


def test_a_body_above_one_mebibyte_is_not_looked_at() -> None:
    padded = body(x="x" * MAX_BODY_BYTES)
    with pytest.raises(RequestTooLarge):
        decode_payment_request(padded)
    assert decode_payment_request(body() + b" " * (MAX_BODY_BYTES - len(body()))).info.transcoder


def test_an_escaped_backslash_is_no_surrogate_and_a_pair_is_one_character() -> None:
    assert decode_payment_request(raw(',"app":"\\\\ud800"')).app == "\\ud800"
    assert decode_payment_request(raw(',"app":"\\ud83d\\ude00"')).app == "\U0001f600"


def test_numbers_with_a_fraction_never_become_floats() -> None:
    request = decode_payment_request(raw(',"maxPrice":{"price":0.1000000000000000055511151231257827}'))
    assert request.max_price is not None
    assert request.max_price.price == "0.1000000000000000055511151231257827"


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        ({"orchestrator": b""}, "missing orchestrator"),
        ({"manifest_id": "m" * 129}, "ManifestID must be"),
        ({"app": "\ud800"}, "app contains a control character"),
        ({"in_pixels": 2**63}, "inPixels does not fit in 64 bits"),
        ({"max_price": MaxPrice("1/2", "wei", "fixed")}, "invalid number literal '1/2'"),
    ],
)
def test_typed_fields_are_checked_alike(fields: dict[str, Any], text: str) -> None:
    with pytest.raises(InvalidRequest, match=text):
        typed(**fields)


def test_typed_bytes_are_bounded_alike() -> None:
    with pytest.raises(RequestTooLarge):
        typed(capabilities=bytes(MAX_BODY_BYTES), state=SignedState(b"x", b""))
    with pytest.raises(InvalidRequest, match="capabilities are larger than 16384 bytes"):
        typed(capabilities=bytes(MAX_CAPABILITIES_BYTES + 1))


def test_a_continued_session_names_its_manifest_before_its_capabilities_are_read() -> None:
    continued = typed(state=SignedState(b"x", b"y"), capabilities=b"\xff")
    with pytest.raises(InvalidRequest, match="missing manifestID"):
        require_manifest_and_capabilities(continued)
    with pytest.raises(InvalidRequest, match="cannot parse invalid wire-format data"):
        require_manifest_and_capabilities(replace(continued, manifest_id="m"))
    require_manifest_and_capabilities(typed())


# --- the canonical form -----------------------------------------------------------------------------------------------


def test_the_canonical_form_reads_as_the_request_it_came_from() -> None:
    request = decode_payment_request(
        body(
            state={"State": b64(b"<state>"), "Sig": b64(b"sig")},
            ManifestID="manifest",
            app="\U0001f600",
            inPixels=-3,
            type="live",
            maxPrice={"price": "1e-7", "currency": "wei", "unit": "seconds"},
            capabilities=b64(MANY_CAPABILITIES.SerializeToString()),
        )
    )
    again = decode_payment_request(request.canonical)
    assert again.canonical == request.canonical
    assert replace(again, capabilities=b"") == replace(request, capabilities=b"")
    assert again.decoded_capabilities() == request.decoded_capabilities()
    keys = ["state", "orchestrator", "ManifestID", "app", "inPixels", "type", "maxPrice", "capabilities"]
    assert list(json.loads(request.canonical)) == keys


SAME: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "price as text": ({"maxPrice": {"price": 4}}, {"maxPrice": {"price": "4.0"}}),
    "price with exponent": ({"maxPrice": {"price": 4}}, {"maxPrice": {"price": "40e-1"}}),
    "price with large exponent": ({"maxPrice": {"price": "1e90"}}, {"maxPrice": {"price": f"1{'0' * 90}.000"}}),
    "price zero": ({"maxPrice": {"price": 0}}, {"maxPrice": {"price": "-0.0e7"}}),
    "currency": ({"maxPrice": {"currency": "wei"}}, {"maxPrice": {"currency": "\tWEI\n"}}),
    "empty state": ({}, {"state": {"State": "", "Sig": None}}),
    "line breaks in the base64": (
        {"state": {"State": "AQID", "Sig": "AQ=="}},
        {"state": {"State": "AQ\nID", "Sig": "A\rQ=="}, "orchestrator": OFFER[:9] + "\r\n" + OFFER[9:]},
    ),
    "spare bits in the base64": ({"state": {"State": "AQ=="}}, {"state": {"State": "AR=="}}),
    "unknown in the offer": (
        {},
        {"orchestrator": b64(offer().SerializeToString() + b"\xfa\x3f\x01x")},
    ),
    "repeated in the offer": (
        {},
        {"orchestrator": b64(offer(transcoder="first").SerializeToString() + offer().SerializeToString())},
    ),
    "capabilities written in another order": (
        {"capabilities": b64(b"\x0a\x01\x01\x22\x01v")},
        {"capabilities": b64(b"\x22\x01v\x0a\x01\x01")},
    ),
}


@pytest.mark.parametrize("case", SAME)
def test_requests_that_mean_the_same_have_the_same_bytes(case: str) -> None:
    one, other = SAME[case]
    assert decode_payment_request(body(**one)).canonical == decode_payment_request(body(**other)).canonical


@pytest.mark.parametrize(
    "other",
    [
        {"ManifestID": "m"},
        {"app": "a"},
        {"type": "live"},
        {"inPixels": 2},
        {"maxPrice": {}},
        {"maxPrice": {"price": "0.1"}},
        {"state": {"State": "AQ=="}},
        {"state": {"Sig": "AQ=="}},
        {"capabilities": "CgEB"},
        {"orchestrator": b64(offer(transcoder="x").SerializeToString())},
    ],
)
def test_requests_that_differ_have_different_bytes(other: dict[str, Any]) -> None:
    assert decode_payment_request(body(**other)).canonical != decode_payment_request(body()).canonical


def test_maps_in_capabilities_have_one_order() -> None:
    orders = [MANY_CAPABILITIES, pb.Capabilities(bitstring=[1 << 35], version="0.9.1")]
    for model in ("d", "c", "b", "a"):
        orders[1].constraints.PerCapability[35].models[model].warm = False
    bodies = {decode_payment_request(body(capabilities=b64(order.SerializeToString()))).canonical for order in orders}
    assert len(bodies) == 1


# --- anything at all --------------------------------------------------------------------------------------------------


def decoded(request_body: bytes) -> PaymentRequest | None:
    """Nothing but a Refusal may come out of decoding."""
    try:
        request = decode_payment_request(request_body)
        require_manifest_and_capabilities(request)
    except Refusal as refused:
        answer = (refused.http_status, refused.message)
    else:
        return request
    assert 400 <= answer[0] < 500
    assert answer[1]
    return None


@given(st.binary(max_size=300))
@settings(max_examples=500)
def test_arbitrary_bytes_are_refused(request_body: bytes) -> None:
    assert decoded(request_body) is None


@given(st.integers(0, 10_000), st.integers(0, 8), st.binary(max_size=8))
@settings(max_examples=500)
def test_a_damaged_body_is_read_or_refused(position: int, removed: int, inserted: bytes) -> None:
    whole = body(
        state={"State": "AQ==", "Sig": "Ag=="},
        ManifestID="m",
        maxPrice={"price": 1.5, "currency": "wei", "unit": "fixed"},
        capabilities=b64(MANY_CAPABILITIES.SerializeToString()),
    )
    at = position % len(whole)
    request = decoded(whole[:at] + inserted + whole[at + removed :])
    if request is not None:
        again = decode_payment_request(request.canonical)
        assert again.canonical == request.canonical


numbers = st.from_regex(r"-?(0|[1-9][0-9]{0,30})(\.[0-9]{1,30})?([eE][+-]?[0-9]{1,20})?", fullmatch=True)


@given(numbers)
@settings(max_examples=300)
def test_every_number_has_one_canonical_text_as_literal_and_as_string(number: str) -> None:
    literal = decoded(raw(f',"maxPrice":{{"price":{number}}}'))
    text = decoded(raw(f',"maxPrice":{{"price":"{number}"}}'))
    assert (literal is None) == (text is None)
    if literal is not None and text is not None:
        assert literal.canonical == text.canonical == decode_payment_request(literal.canonical).canonical
