"""Bad input gets a precise 4xx in the route's own format, and never moves money."""

from __future__ import annotations

import asyncio
import base64
import json
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from chain.pb import lp_rpc_pb2 as net
from tests.parts import client
from tests.parts.client import Answer
from tests.parts.service import GO_LIVEPEER, OURS, Service, our_body
from tests.parts.stack import Clock, Stream, TestGateway, offer

ROUTES = [GO_LIVEPEER, OURS]
KEEPING = settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.fixture
async def gateway(service: Service) -> TestGateway:
    return await service.house.new_gateway(tickets=10_000)


def spelled(path: str, document: dict[str, Any]) -> dict[str, Any]:
    return our_body(document) if path == OURS else document


def require_precise(path: str, answer: Answer, what: object) -> None:
    """A 4xx with a code and a sentence, in the format of the route."""
    assert 400 <= answer.status < 500, (what, answer.status, answer.body[:300])
    assert answer.code, (what, answer.headers)
    if path == OURS:
        assert answer.header("content-type") == "application/problem+json", what
        problem = answer.json
        assert problem["status"] == answer.status
        assert problem["code"] == answer.code
    else:
        assert answer.header("content-type") == "application/json", what
        assert set(answer.json) == {"error"}, what
        assert answer.body.endswith(b"}\n"), what
    assert len(answer.message) > 5, what


async def require_refused(
    service: Service, gateway: TestGateway, bodies: dict[str, bytes], path: str, statuses: tuple[int, ...] = (400,)
) -> None:
    before = service.house.fingerprint()
    for what, body in bodies.items():
        answer = await service.sign(gateway, body, path=path)
        require_precise(path, answer, what)
        assert answer.status in statuses, (what, answer.status, answer.body[:300])
    assert service.house.fingerprint() == before


# --- not JSON, or more than one JSON ----------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ROUTES)
async def test_what_is_not_one_json_object_is_refused(service: Service, gateway: TestGateway, path: str) -> None:
    good = json.dumps(spelled(path, service.new_stream().document()))
    key = "app"
    bodies = {
        "nothing": b"",
        "blank": b"   \n",
        "null": b"null",
        "a number": b"7",
        "a string": b'"{}"',
        "a list": b"[]",
        "empty object": b"{}",
        "100,000 lists deep": b"[" * 100_000,
        "100,000 objects deep": b'{"a":' * 100_000 + b"1" + b"}" * 100_000,
        "deep inside an unknown key": good.replace("{", '{"deep":' + "[" * 100_000 + "]" * 100_000 + ",", 1).encode(),
        "trailing garbage": good.encode() + b"x",
        "a second object": good.encode() * 2,
        "trailing comma": good.encode()[:-1] + b",}",
        "a byte order mark": b"\xef\xbb\xbf" + good.encode(),
        "UTF-16": good.encode("utf-16"),
        "not UTF-8": good.replace("{", '{"app":"\xff",', 1).encode("latin-1"),
        "NaN": good.replace("{", '{"x":NaN,', 1).encode(),
        "Infinity": good.replace("{", '{"x":-Infinity,', 1).encode(),
        "a number of 10,000 digits": good.replace("{", '{"x":' + "9" * 10_000 + ",", 1).encode(),
        "duplicate key": good.replace("{", f'{{"{key}":"a","{key}":"b",', 1).encode(),
        "duplicate key spelled with an escape": good.replace("{", '{"app":"a","\\u0061pp":"b",', 1).encode(),
        "duplicate key inside": good.replace("{", '{"state":{"Sig":"","Sig":""},', 1).encode(),
        "lone surrogate": good.replace("{", '{"app":"\\ud800",', 1).encode(),
        "lone surrogate in a key": good.replace("{", '{"\\udfff":1,', 1).encode(),
        "a control character": good.replace("{", '{"app":"\x01",', 1).encode(),
    }
    if path == OURS:
        bodies["unknown key"] = good.replace("{", '{"maxprice":{"price":"1"},', 1).encode()
    else:
        for variant in ("MANIFESTID", "manifestid", "Orchestrator", "APP", "inpixels", "State", "MaxPrice", "TYPE"):
            bodies[f"case variant {variant}"] = good.replace("{", f'{{"{variant}":null,', 1).encode()
        bodies["case variant by Unicode folding"] = good.replace(
            "{", '{"max\u017fprice":1,"\u017ftate":null,', 1
        ).encode()
    await require_refused(service, gateway, bodies, path)


@pytest.mark.parametrize("path", ROUTES)
async def test_a_body_that_is_too_large_is_refused_without_being_read(
    service: Service, gateway: TestGateway, path: str
) -> None:
    good = json.dumps(spelled(path, service.new_stream().document())).encode()
    bodies = {"10 MiB": good + b" " * (10 << 20), "one byte too many": good + b" " * ((1 << 20) - len(good) + 1)}
    await require_refused(service, gateway, bodies, path, statuses=(413,))
    largest = good + b" " * ((1 << 20) - len(good))
    assert (await service.sign(gateway, largest, path=path)).status == 200


async def test_a_body_without_end_is_cut_off(service: Service, gateway: TestGateway) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", service.port)
    writer.write(b"POST /generate-live-payment HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n")
    sent = 0
    try:
        async with asyncio.timeout(10):
            while not reader.at_eof() and sent < 64 << 20:
                writer.write(b"10000\r\n" + b" " * 0x10000 + b"\r\n")
                sent += 0x10000
                await writer.drain()
                await asyncio.sleep(0)
                if reader._buffer:  # type: ignore[attr-defined]
                    break
            assert b" 413 " in await reader.readline()
    except ConnectionError:
        pass
    finally:
        writer.transport.abort()
    assert sent < 64 << 20


# --- JSON, but not a payment request ----------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ROUTES)
async def test_wrong_values_are_refused(service: Service, gateway: TestGateway, path: str) -> None:
    stream = service.new_stream()
    good = spelled(path, stream.document())
    names = spelled(path, {name: name for name in ("ManifestID", "inPixels", "maxPrice")})
    manifest, pixels, max_price = (key for key in names)
    any_string: list[Any] = [7, True, [], {}, 1.5]
    wrong: dict[str, list[Any]] = {
        "orchestrator": [None, "", *any_string, "%%%", "AQ", "AQ==\x00", "AQ-_", "////", "AAAA", "Cg=="],
        manifest: [*any_string, "\x00", "a\nb", "é", "x" * 129, "\x7f", "\u2028"],
        "app": [*any_string, "\x00", "a\rb", "x" * 257, "\x1b[31m", "\x85"],
        "type": [*any_string, "unknown", "FIXED", " fixed", "x" * 257, "\x00"],
        pixels: ["7", 1.5, 2**63, -(2**63) - 1, True, [], 10**400],
        "capabilities": [7, "%%%", "////", "AQ=="],
        max_price: [7, "4", [], {}, {"price": "-1", "currency": "wei", "unit": "fixed"},
                    {"price": "0", "currency": "wei", "unit": "fixed"},
                    {"price": "1e999999999", "currency": "wei", "unit": "fixed"},
                    {"price": "NaN", "currency": "wei", "unit": "fixed"},
                    {"price": "1", "currency": "usd", "unit": "fixed"},
                    {"price": "1", "currency": "wei", "unit": "seconds"},
                    {"price": "1" * 300, "currency": "wei", "unit": "fixed"},
                    {"price": "1", "currency": "wei\x00", "unit": "fixed"}],
        "state": [7, "AA==", [], {"State" if path == GO_LIVEPEER else "state": "AA=="},
                  {"State" if path == GO_LIVEPEER else "state": 7}],
    }  # fmt: skip
    if path == OURS:
        wrong |= {
            "idempotency_key": [7, "\x00", "x" * 256, "a\nb", "\u200b"],
            "end_user": [7, "\x00", "x" * 256, "a\tb"],
        }
    bodies = {
        f"{key} = {json.dumps(value)[:80]}": json.dumps({**good, key: value}).encode()
        for key, values in wrong.items()
        for value in values
    }
    await require_refused(service, gateway, bodies, path, statuses=(400, 481))


async def test_bad_headers_are_refused(service: Service, gateway: TestGateway) -> None:
    before = service.house.fingerprint()
    for name, value in (
        ("Idempotency-Key", "x" * 256),
        ("Idempotency-Key", "a\x7fb"),
        ("Idempotency-Key", "a\x01b"),
        ("Idempotency-Key", "a\x85b"),
        ("Clearinghouse-End-User", "x" * 256),
        ("Clearinghouse-End-User", "a\tb"),
        ("Clearinghouse-End-User", "\x1b]0;owned"),
    ):
        answer = await service.sign(gateway, service.new_stream().body(), (name, value))
        assert answer.status == 400, (name, value, answer.body)
    assert service.house.fingerprint() == before


# --- a payment request, but an impossible offer -----------------------------------------------------------------------


def _offers() -> dict[str, net.OrchestratorInfo]:
    """Name by name, an offer with one thing wrong."""
    wrong: dict[str, net.OrchestratorInfo] = {}

    def case(name: str) -> net.OrchestratorInfo:
        wrong[name] = offer(Clock())
        return wrong[name]

    case("no price").ClearField("price_info")
    case("no ticket parameters").ClearField("ticket_params")
    case("no auth token").ClearField("auth_token")
    case("price of nothing").price_info.pricePerUnit = 0
    case("units of nothing").price_info.pixelsPerUnit = 0
    case("negative price").price_info.pricePerUnit = -1
    both = case("negative price of negative units")
    both.price_info.pricePerUnit, both.price_info.pixelsPerUnit = -1, -1
    case("largest price").price_info.pricePerUnit = 2**63 - 1
    case("expiration block 0").ticket_params.expiration_block = b""
    case("expiration block 2^64").ticket_params.expiration_block = (2**64).to_bytes(9, "big")
    case("face value 2^256").ticket_params.face_value = (2**256).to_bytes(33, "big")
    case("face value 2^256 - 1").ticket_params.face_value = b"\xff" * 32
    case("face value of 10,000 bytes").ticket_params.face_value = b"\xff" * 10_000
    case("win probability 2^256").ticket_params.win_prob = (2**256).to_bytes(33, "big")
    case("win probability 1").ticket_params.win_prob = b"\xff" * 32
    case("win probability of 10,000 bytes").ticket_params.win_prob = b"\xff" * 10_000
    huge = case("everything huge")
    huge.ticket_params.face_value = huge.ticket_params.win_prob = b"\xff" * 30_000
    case("face value above the deposit").ticket_params.face_value = (10**19 + 1).to_bytes(9, "big")
    tiny = case("tickets worth nothing, and very many due")
    tiny.ticket_params.face_value, tiny.ticket_params.win_prob = b"\x02", b"\x01"
    tiny.price_info.pricePerUnit = 2**63 - 1
    case("negative round").ticket_params.expiration_params.creation_round = -1
    case("NUL in the transcoder").transcoder = "https://o.example\x00:8935"
    case("a transcoder of 10,000 characters").transcoder = "h" * 10_000
    return wrong


@pytest.mark.parametrize("path", ROUTES)
async def test_impossible_offers_are_refused(service: Service, gateway: TestGateway, path: str) -> None:
    bodies = {
        f"{name}, type {job_type!r}": json.dumps(spelled(path, Stream(one, job_type=job_type).document())).encode()
        for name, one in _offers().items()
        for job_type in ("fixed", "lv2v")
    }
    await require_refused(service, gateway, bodies, path, statuses=(400, 402, 403, 480, 481, 482))


async def test_tickets_that_win_never_are_nothing_due(service: Service, gateway: TestGateway) -> None:
    for field in ("face_value", "win_prob"):
        stream = service.new_stream()
        stream.offer.ticket_params.ClearField(field)
        answer = await service.sign(gateway, stream.body())
        assert (answer.status, answer.code) == (482, "no_tickets")


async def test_a_url_in_a_480_cannot_smuggle_a_header(service: Service, gateway: TestGateway) -> None:
    stream = service.new_stream()
    stream.offer.transcoder = "https://o.example\r\nSet-Cookie: stolen\r\n\r\n<html>"
    stream.offer.auth_token.expiration = 1
    answer = await service.sign(gateway, stream.body())
    assert answer.status == 480
    assert answer.header("set-cookie") is None
    assert b"<html>" not in answer.body


async def test_texts_in_capabilities_never_break_a_call(service: Service, gateway: TestGateway) -> None:
    """Names are recorded where they can be; a name that cannot be recorded is no reason for a 500."""
    for name in ("\x00", "a\x00b", "x" * 5000, "\n", "\u202e", "é", ""):
        capabilities = net.Capabilities(version=name, bitstring=[1 << 35], capacities={35: 1})
        capabilities.constraints.PerCapability[35].models[name].warm = True
        body = service.new_stream(capabilities=capabilities.SerializeToString()).body()
        answer = await service.sign(gateway, body)
        assert answer.status < 500, (name, answer.body)
    await service.house.require_sound_books()


# --- mutations of a valid request -------------------------------------------------------------------------------------


async def require_harmless(service: Service, gateway: TestGateway, body: bytes, path: str) -> None:
    before = service.house.fingerprint()
    answer = await service.sign(gateway, body, path=path)
    if answer.status == 200:
        assert service.house.fingerprint() != before
    else:
        require_precise(path, answer, body[:2000])
        assert service.house.fingerprint() == before, "refused, and yet something was recorded"


#: Taken modulo the length, which differs from one request to the next.
PLACES = st.integers(0, 2**16)


@given(data=st.data())
@KEEPING
async def test_no_change_of_bytes_breaks_the_service(
    service: Service, gateway: TestGateway, data: st.DataObject
) -> None:
    path = data.draw(st.sampled_from(ROUTES))
    body = bytearray(json.dumps(spelled(path, service.new_stream().document())).encode())
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(PLACES) % len(body)
        match data.draw(st.sampled_from(["change", "drop", "add", "cut"])):
            case "change":
                body[at] = data.draw(st.integers(0, 255))
            case "drop":
                del body[at]
            case "add":
                body[at:at] = data.draw(st.binary(min_size=1, max_size=4))
            case _:
                del body[at + 1 :]
    await require_harmless(service, gateway, bytes(body), path)


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=10), inner, max_size=3),
    max_leaves=6,
)


@given(data=st.data())
@KEEPING
async def test_no_value_of_a_key_breaks_the_service(
    service: Service, gateway: TestGateway, data: st.DataObject
) -> None:
    path = data.draw(st.sampled_from(ROUTES))
    document = spelled(path, {**service.new_stream().document(), "state": None, "maxPrice": None, "inPixels": 0,
                              "app": "", "capabilities": None} | {"state": {"State": "", "Sig": ""}})  # fmt: skip
    for key in data.draw(st.lists(st.sampled_from(sorted(document)), min_size=1, max_size=3, unique=True)):
        if data.draw(st.booleans()):
            del document[key]
        else:
            document[key] = data.draw(JSON_VALUES)
    await require_harmless(service, gateway, json.dumps(document).encode(), path)


@given(data=st.data())
@KEEPING
async def test_no_change_of_the_protobuf_breaks_the_service(
    service: Service, gateway: TestGateway, data: st.DataObject
) -> None:
    path = data.draw(st.sampled_from(ROUTES))
    stream = service.new_stream()
    encoded = bytearray(stream.offer.SerializeToString())
    for _ in range(data.draw(st.integers(1, 5))):
        encoded[data.draw(PLACES) % len(encoded)] = data.draw(st.integers(0, 255))
    document = spelled(path, stream.document(orchestrator=base64.b64encode(encoded).decode()))
    await require_harmless(service, gateway, json.dumps(document).encode(), path)


OFFER_FIELDS = [
    "face_value",
    "win_prob",
    "seed",
    "expiration_block",
    "recipient",
    "recipient_rand_hash",
    "round",
    "hash",
    "price",
    "units",
    "expiry",
    "address",
    "transcoder",
]


@given(data=st.data())
@KEEPING
async def test_no_field_of_the_offer_breaks_the_service(
    service: Service, gateway: TestGateway, data: st.DataObject
) -> None:
    path = data.draw(st.sampled_from(ROUTES))
    stream = service.new_stream(job_type=data.draw(st.sampled_from(["fixed", "lv2v", "live", ""])))
    stream.in_pixels = data.draw(st.sampled_from([0, 1, 2**63 - 1]))
    info, params = stream.offer, stream.offer.ticket_params
    numbers = st.sampled_from([b"", b"\x00", b"\x01", b"\xff" * 8, b"\xff" * 32, b"\x01" + b"\x00" * 32, b"\xff" * 64])
    longs = st.sampled_from([-(2**63), -1, 0, 1, 2**31, 2**63 - 1])
    for field in data.draw(st.lists(st.sampled_from(OFFER_FIELDS), min_size=1, max_size=4, unique=True)):
        if field == "round":
            params.expiration_params.creation_round = data.draw(longs)
        elif field == "hash":
            params.expiration_params.creation_round_block_hash = data.draw(numbers)
        elif field == "price":
            info.price_info.pricePerUnit = data.draw(longs)
        elif field == "units":
            info.price_info.pixelsPerUnit = data.draw(longs)
        elif field == "expiry":
            info.auth_token.expiration = data.draw(longs)
        elif field == "address":
            info.address = data.draw(numbers)
        elif field == "transcoder":
            info.transcoder = data.draw(st.text(max_size=30))
        else:
            setattr(params, field, data.draw(numbers))
    await require_harmless(service, gateway, json.dumps(spelled(path, stream.document())).encode(), path)


async def test_wrong_methods_and_paths_are_refused_as_go_does(service: Service) -> None:
    for method in ("GET", "PUT", "DELETE"):
        answer = await client.call(service.port, method, GO_LIVEPEER)
        assert (answer.status, answer.header("allow"), answer.body) == (405, "POST", b"Method Not Allowed\n")
        assert (await client.call(service.port, method, OURS)).code == "method_not_allowed"
    for path in ("/generate-live-payment/", "/Generate-Live-Payment", "/v1/signticket", "/sign-byoc-job"):
        assert (await client.call(service.port, "POST", path)).status == 404
