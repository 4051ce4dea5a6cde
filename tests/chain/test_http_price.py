"""A price by HTTP: the digits that were sent, or none with a reason that holds no secret."""

from __future__ import annotations

import json
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chain.http_price import ANSWER_BYTES_MAX, HttpPrice, HttpPriceUnknown, parse_pointer, price_in
from tests.clearinghouse.signers.receiver import Receiver, http_answer, receiving

SECRET = "k3y-of-the-price-service"


async def asked(receiver: Receiver, pointer: str = "/data/amount", timeout_s: float = 2) -> Decimal:
    service = HttpPrice(f"{receiver.origin}/v2/{SECRET}/spot?token={SECRET}#{pointer}", name="second opinion USD")
    try:
        return await service.read(timeout_s=timeout_s)
    finally:
        await service.close()


# --- where it is, and what it is --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("pointer", "document"),
    [
        ("", "3000.5"),
        ("/data/amount", '{"data": {"amount": "3000.5"}}'),
        ("/0/price", '[{"price": 3000.5}]'),
        ("/a~1b/c~0d", '{"a/b": {"c~d": 3.0005e3}}'),
        ("//", '{"": {"": 3000.50}}'),
        ("/data/1", '{"data": {"1": 3000.5}}'),
    ],
)
def test_the_pointer_leads_to_the_price(pointer: str, document: str) -> None:
    assert price_in(document.encode(), parse_pointer(pointer)) == Decimal("3000.5")


@given(st.integers(0, 60).flatmap(lambda places: st.decimals("1e-12", "9999999999999", places=places)), st.booleans())
def test_every_digit_that_was_sent_is_kept(price: Decimal, is_text: bool) -> None:
    written = format(price, "f")
    document = f'{{"price": "{written}"}}' if is_text else f'{{"price": {written}}}'
    assert price_in(document.encode(), ("price",)) == price


def test_a_number_is_never_bent_into_a_float() -> None:
    assert price_in(b"3000.123456789012345678", ()) == Decimal("3000.123456789012345678")


@pytest.mark.parametrize(
    "document",
    ["null", "true", '"NaN"', '"Infinity"', '"-3000"', "-3000", "0", '"0.0"', '""', '" 3000"', '"3,000"', '"0x10"',
     "[3000]", '{"a": 3000}', '"1e99"', '"1e-13"', '"' + "9" * 41 + '"', '"\uff13\uff10"'],
)  # fmt: skip
def test_what_is_no_price_is_refused(document: str) -> None:
    with pytest.raises(HttpPriceUnknown, match="what is found there"):
        price_in(document.encode(), ())


@pytest.mark.parametrize("body", [b"", b"<html>", b"\xff", b"NaN", b"Infinity", b"[" * 100_000, b"1 2"])
def test_what_is_not_json_is_refused(body: bytes) -> None:
    with pytest.raises(HttpPriceUnknown, match="not JSON"):
        price_in(body, ())


@pytest.mark.parametrize("pointer", ["/b", "/a/x", "/list/2", "/list/-1", "/list/01", "/list/-", "/text/0"])
def test_a_pointer_to_nothing_is_no_price(pointer: str) -> None:
    document = json.dumps({"a": {"b": 1}, "list": [1, 2], "text": "3000"}).encode()
    with pytest.raises(HttpPriceUnknown, match="nothing where the price should be"):
        price_in(document, parse_pointer(pointer))


@pytest.mark.parametrize("pointer", ["data", "data/amount", "/a~2", "/a~"])
def test_a_pointer_that_is_none_is_refused_at_once(pointer: str) -> None:
    with pytest.raises(ValueError, match="JSON pointer"):
        parse_pointer(pointer)


# --- over a socket ----------------------------------------------------------------------------------------------------


async def test_a_price_is_asked_for_with_get_and_without_the_fragment() -> None:
    async with receiving(http_answer(b'{"data":{"amount":"3012.3400"}}')) as receiver:
        assert await asked(receiver) == Decimal("3012.34")
        (question,) = receiver.questions
        assert question.request_line == f"GET /v2/{SECRET}/spot?token={SECRET} HTTP/1.1"
        assert question.headers["host"] == receiver.origin.removeprefix("http://")


FAULTS = {
    "hangs": (None, "TimeIsUpError"),
    "redirects": (http_answer(b"", status="302 Found", headers="Location: http://127.0.0.1/\r\n"), "HTTP status 302"),
    "is limited": (http_answer(SECRET.encode(), status="429 Too Many"), "HTTP status 429"),
    "is too large": (http_answer(b" " * (ANSWER_BYTES_MAX + 1)), "TooLargeError"),
    "is cut": (b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\nConnection: close\r\n\r\n3000", "TruncatedError"),
    "is not HTTP": (SECRET.encode() + b"\r\n\r\nconnection: close", "NotHttpError"),
    "quotes": (http_answer(json.dumps({"error": SECRET}).encode()), "nothing where the price should be"),
}


@pytest.mark.parametrize(("answer", "reason"), FAULTS.values(), ids=FAULTS)
async def test_a_service_that_fails_gives_no_price_and_no_secret(answer: bytes | None, reason: str) -> None:
    async with receiving(answer) as receiver:
        with pytest.raises(HttpPriceUnknown, match=reason) as unknown:
            await asked(receiver, timeout_s=0.3)
    assert SECRET not in repr(unknown.value) + str(unknown.value.__cause__)


async def test_a_service_that_is_away_gives_no_price() -> None:
    async with receiving() as receiver:
        pass
    with pytest.raises(HttpPriceUnknown, match="ConnectError"):
        await asked(receiver)


@pytest.mark.parametrize(
    "url", [f"ftp://{SECRET}/", f"https:///{SECRET}", f"https://a/{SECRET} b", f"https://a:{SECRET}/"]
)
def test_a_url_that_cannot_be_used_is_refused_without_being_shown(url: str) -> None:
    with pytest.raises(ValueError, match="second opinion USD") as refused:
        HttpPrice(url, name="second opinion USD")
    assert SECRET not in str(refused.value)


async def test_it_never_shows_its_url() -> None:
    service = HttpPrice(f"https://user:{SECRET}@a.example/{SECRET}", name="second opinion USD")
    assert repr(service) == "HttpPrice(second opinion USD)"
