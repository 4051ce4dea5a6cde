"""What an ETH costs by the word of an HTTP service: one number in a JSON document, taken out digit by digit.

Where it is in the document is said by the URL's fragment, a JSON pointer (RFC 6901, section 6), as in
`https://api.example/v2/prices/ETH-USD/spot#/data/amount`. The URL is a secret, because services put keys into it: no
error and no repr has it, and nothing of an answer is quoted.
"""

from __future__ import annotations

import json
import re
from decimal import Decimal
from typing import Any, Final
from urllib.parse import unquote

from chain.http_client import ExchangeError
from chain.http_target import parse_target
from chain.rates import PRICE_DECIMALS
from chain.shallow_json import require_shallow

ANSWER_BYTES_MAX: Final = 256 * 1024
#: As JSON writes a number, and as services write one into a string. Neither has a sign: a price is positive.
_NUMBER: Final = re.compile(r"[0-9]{1,40}(\.[0-9]{1,60})?([eE][+-]?[0-9]{1,2})?", re.ASCII)
_INDEX: Final = re.compile(r"0|[1-9][0-9]{0,5}", re.ASCII)


class HttpPriceUnknown(Exception):
    """The service gave no price. The text says why, as a clause."""


class HttpPrice:
    """One price of one service. Connects on first use; belongs to one event loop.

    `name` is what logs call it. Raises ValueError, without quoting it, for a URL that cannot be used.
    """

    def __init__(self, url: str, *, name: str) -> None:
        self.name = name
        target = parse_target(url, name=name)
        self._pointer = parse_pointer(unquote(target.fragment))
        self._request = target.head("GET") + b"\r\n"
        self._client = target.client(body_max_bytes=ANSWER_BYTES_MAX)

    async def read(self, *, timeout_s: float) -> Decimal:
        """One attempt; redirects are not followed. Raises HttpPriceUnknown."""
        try:
            answer = await self._client.exchange(self._request, timeout_s=timeout_s)
        except ExchangeError as error:  # not chained: its cause may quote an address
            raise HttpPriceUnknown(f"no complete answer ({type(error).__name__})") from None
        if answer.status != 200:
            raise HttpPriceUnknown(f"HTTP status {answer.status}")
        return price_in(answer.body, self._pointer)

    async def close(self) -> None:
        """May be called twice."""
        await self._client.close()

    def __repr__(self) -> str:
        return f"HttpPrice({self.name})"


def parse_pointer(text: str) -> tuple[str, ...]:
    """The steps of a JSON pointer; none is the whole document. Raises ValueError."""
    if text and not text.startswith("/"):
        raise ValueError("a JSON pointer begins with /, as in #/data/amount")
    if re.search(r"~(?![01])", text):
        raise ValueError("in a JSON pointer ~ is written ~0, and / within a name ~1")
    return tuple(step.replace("~1", "/").replace("~0", "~") for step in text.split("/")[1:])


def price_in(body: bytes, pointer: tuple[str, ...]) -> Decimal:
    """The number there, or the string that is one: exactly as written, never through a float. HttpPriceUnknown."""
    try:
        text = body.decode()
        require_shallow(text)
        found: Any = json.loads(text, parse_float=_Digits, parse_int=_Digits, parse_constant=_refuse)
    except ValueError:
        raise HttpPriceUnknown("the answer is not JSON") from None
    for step in pointer:
        found = _step(found, step)
    if not isinstance(found, str) or not _NUMBER.fullmatch(found):
        raise HttpPriceUnknown("what is found there is no price")
    price = Decimal(found)
    if not price or not -PRICE_DECIMALS <= price.adjusted() <= PRICE_DECIMALS:
        raise HttpPriceUnknown("what is found there cannot be the price of an ETH")
    return price


class _Digits(str):
    """A JSON number as it was written."""

    __slots__ = ()


def _refuse(_constant: str) -> Any:
    raise ValueError("NaN and infinities are not JSON")


def _step(found: Any, step: str) -> Any:
    if isinstance(found, dict) and step in found:
        return found[step]
    if isinstance(found, list) and _INDEX.fullmatch(step) and int(step) < len(found):
        return found[int(step)]
    raise HttpPriceUnknown("the answer has nothing where the price should be")
