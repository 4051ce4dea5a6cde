"""Identifiers: UUIDs that sort by time, shown with a prefix that says what they name (`gw_0190…`).

    uuid7 (RFC 9562)     48 bits unix time in ms | 4 version | 12 random | 2 variant | 62 random

The random bits are no secret: whoever learns an identifier still needs a key of the gateway that owns the thing.
"""

from __future__ import annotations

import os
import re
import threading
import time
from datetime import UTC, datetime, timedelta
from typing import Final, Literal, get_args
from uuid import UUID

Kind = Literal[
    "gw", "key", "ses", "iss", "tr", "whs", "alr", "sil", "ntc", "inv", "pay", "rfd", "crn", "rrt", "cnv", "mov"
]

_THINGS: Final[dict[Kind, str]] = {
    "gw": "a gateway", "key": "an API key", "ses": "a session", "iss": "an issuance", "tr": "a transfer",
    "whs": "a webhook signer", "alr": "an alert", "sil": "a silence", "ntc": "a notice", "inv": "an invoice",
    "pay": "a payment", "rfd": "a refund", "crn": "a credit note", "rrt": "a re-rating",
    "cnv": "a conversion", "mov": "a movement",
}  # fmt: skip
_SHOWN: Final = re.compile(r"([a-z]{2,3})_([0-9a-f]{32})", re.ASCII)

_RANDOM_BITS: Final = 74  # 12 + 62
_LOW_BITS: Final = 62
_LOW_MASK: Final = (1 << _LOW_BITS) - 1
_VERSION_7: Final = 0x7 << 76
_VARIANT_RFC: Final = 0b10 << 62
assert _RANDOM_BITS == 12 + _LOW_BITS


class _MonotonicUuid7:
    """Every value is greater than the one before, also within a millisecond and when the clock is set back."""

    __slots__ = ("_last", "_lock")

    def __init__(self) -> None:
        self._last = 0  # time and random bits together, without version and variant
        self._lock = threading.Lock()

    def __call__(self) -> UUID:
        """The next identifier. Not from `random`: forked processes would share its state."""
        entropy = int.from_bytes(os.urandom(10), "big")
        now = (time.time_ns() // 1_000_000) << _RANDOM_BITS | entropy >> (80 - _RANDOM_BITS)
        with self._lock:
            if now <= self._last:
                now = self._last + 1 + (entropy & 0xFFFF_FFFF)  # a random step, so that neighbours stay unguessable
            self._last = now
        high = now >> _LOW_BITS
        return UUID(int=high >> 12 << 80 | _VERSION_7 | (high & 0xFFF) << 64 | _VARIANT_RFC | now & _LOW_MASK)


uuid7: Final = _MonotonicUuid7()


#: Clocks that make ids differ from the database's by less than this; a service that is further off answers to nobody.
CLOCKS_DIFFER_MAX: Final = timedelta(days=1)


def uuid7_from(at: datetime) -> UUID:
    """The smallest identifier of the millisecond."""
    milliseconds = (at - datetime.fromtimestamp(0, UTC)) // timedelta(milliseconds=1)
    return UUID(int=milliseconds << 80 | _VERSION_7 | _VARIANT_RFC)


def made_between(begin: datetime, end: datetime) -> tuple[UUID, UUID]:
    """What the identifiers of all that the database gives a time in [begin, end) lie between: by index, near enough."""
    return uuid7_from(begin - CLOCKS_DIFFER_MAX), uuid7_from(end + CLOCKS_DIFFER_MAX)


def show(kind: Kind, id: UUID) -> str:  # noqa: A002 (what it is)
    """`gw_` and 32 lower-case hex digits: 35 or 36 characters."""
    return f"{kind}_{id.hex}"


def parse(kind: Kind, text: str) -> UUID:
    """The reverse of `show`, of its one spelling only. ValueError says what was expected; the caller decides."""
    found = _SHOWN.fullmatch(text)
    if found is None or found[1] not in get_args(Kind):
        raise ValueError(f"not the id of {_THINGS[kind]}: expected {kind}_ and 32 lower-case hex digits")
    if found[1] != kind:
        raise ValueError(f"{text} is the id of {_THINGS[found[1]]}, not of {_THINGS[kind]}")  # type: ignore[index]
    return UUID(hex=found[2])
