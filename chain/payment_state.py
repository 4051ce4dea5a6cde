"""The payment state a signer hands to its caller and gets back with the next call (remote-signer protocol, section 2).

It is JSON signed over its exact bytes, so it is written as Go writes it: keys in this order, no spaces, HTML characters
escaped, times in RFC 3339 with nanoseconds, the balance as a reduced fraction. States of a go-livepeer signer with the
same key are read as well. Lengths are limited before anything is computed (section 10, A13).
"""

from __future__ import annotations

import hashlib
import json
import re
import time
from dataclasses import dataclass
from datetime import date
from fractions import Fraction
from functools import lru_cache
from json.encoder import encode_basestring
from typing import Any, Final, NamedTuple

from chain.messages import Price, base64_chars, decode_base64
from chain.remembered import remembered
from chain.shallow_json import require_shallow

#: A usual state has 400 bytes. Larger ones could fill the memory, so they are not kept.
REMEMBERED_STATE_BYTES_MAX: Final = 1024
REMEMBERED_STATES_MAX_COUNT: Final = 8192
STATE_BYTES_MAX: Final = 16 * 1024
STRING_CHARS_MAX: Final = 256
#: Numerator and denominator of a balance: products of 256-bit numbers and small ones fit with room to spare.
BALANCE_DIGITS_MAX: Final = 400

_INT64: Final = (-(2**63), 2**63 - 1)
_UINT32: Final = (0, 2**32 - 1)
_UINT64: Final = (0, 2**64 - 1)

_KEYS: Final = (
    "StateID",
    "PMSessionID",
    "LastUpdate",
    "OrchestratorAddress",
    "App",
    "AuthExpiry",
    "SenderNonce",
    "Balance",
    "InitialPricePerUnit",
    "InitialPixelsPerUnit",
    "Type",
    "SequenceNumber",
    "AuthID",
)
_KNOWN: Final = frozenset(_KEYS)
_KNOWN_LOWER: Final = frozenset(key.lower() for key in _KEYS)

_ZERO_TIME: Final = "0001-01-01T00:00:00Z"
_EPOCH_DAY: Final = date(1970, 1, 1).toordinal()
_ZERO_TIME_UNIX_NS: Final = (date(1, 1, 1).toordinal() - _EPOCH_DAY) * 86_400 * 1_000_000_000

_NEEDS_ESCAPE = re.compile(r'[\x00-\x1f"\\<>&\u2028\u2029]')
_GO_ESCAPES: Final = str.maketrans(
    {"<": "\\u003c", ">": "\\u003e", "&": "\\u0026", "\u2028": "\\u2028", "\u2029": "\\u2029"}
)
_BALANCE = re.compile(r"(-?[0-9]+)(?:/([0-9]+))?")
_HASH = re.compile(r"0x[0-9a-fA-F]{64}")
_ADDRESS = re.compile(r"0x[0-9a-fA-F]{40}")
_SECOND: Final = "([0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2})"
_TIME = re.compile(rf"{_SECOND}(?:\.([0-9]{{1,9}}))?(?:Z|([+-])([0-9]{{2}}):([0-9]{{2}}))")

#: Printable ASCII without quotes and escapes, and numbers of so few digits that they are within any bounds.
_USUAL_TEXT: Final = r'"([ !#-\[\]-~]{0,256})"'
_USUAL_UINT32: Final = "(0|[1-9][0-9]{0,8})"
_USUAL_INT64: Final = "(0|[1-9][0-9]{0,17})"
#: Nearly every state: as `encode_state` writes it, all of whose members are read by what the pattern alone says. What
#: it does not match may still be a state, and is read as JSON.
_USUAL: Final = re.compile(
    rf'\{{"StateID":{_USUAL_TEXT},"PMSessionID":"0x([0-9a-f]{{64}})","LastUpdate":"{_SECOND}(?:\.([0-9]{{1,9}}))?Z",'
    rf'"OrchestratorAddress":"0x([0-9a-f]{{40}})","App":{_USUAL_TEXT},"AuthExpiry":{_USUAL_INT64},'
    rf'"SenderNonce":{_USUAL_UINT32},"Balance":"(-?[0-9]{{1,300}})(?:/([1-9][0-9]{{0,299}}))?",'
    rf'"InitialPricePerUnit":{_USUAL_INT64},"InitialPixelsPerUnit":{_USUAL_INT64},"Type":{_USUAL_TEXT},'
    rf'"SequenceNumber":{_USUAL_INT64},"AuthID":{_USUAL_TEXT}\}}'
)


class StateError(ValueError):
    """A state that cannot be read or written. States are signed, so reading fails only for what we never signed."""


@dataclass(frozen=True, slots=True)
class SignedState:
    """The bytes of a state and the signature over exactly those bytes."""

    state: bytes
    sig: bytes


class PaymentState(NamedTuple):
    """Where a session stands after its last call. `balance` is in wei; what is None was absent or Go's zero value."""

    state_id: str
    #: recipientRandHash of the last tickets, 32 bytes; empty where there is none.
    pm_session_id: bytes
    last_update_unix_ns: int | None
    orchestrator_address: bytes
    app: str
    auth_expiry_unix_s: int
    sender_nonce: int
    balance: Fraction | None
    initial_price: Price
    type: str
    sequence_number: int
    auth_id: str


def encode_state(state: PaymentState) -> bytes:
    """The state's JSON, byte for byte as go-livepeer in the time zone UTC writes it.

    Raises StateError for text that is not Unicode and a time outside the years 1 to 9999.
    """
    price = state.initial_price
    session = f"0x{state.pm_session_id.hex()}" if state.pm_session_id else ""
    text = (
        f'{{"StateID":{_string(state.state_id)},"PMSessionID":"{session}",'
        f'"LastUpdate":"{_time_text(state.last_update_unix_ns)}",'
        f'"OrchestratorAddress":"0x{state.orchestrator_address.hex()}","App":{_string(state.app)},'
        f'"AuthExpiry":{state.auth_expiry_unix_s},"SenderNonce":{state.sender_nonce},'
        f'"Balance":"{"" if state.balance is None else state.balance}",'
        f'"InitialPricePerUnit":{price.price_per_unit},"InitialPixelsPerUnit":{price.pixels_per_unit},'
        f'"Type":{_string(state.type)},"SequenceNumber":{state.sequence_number},"AuthID":{_string(state.auth_id)}}}'
    )
    try:
        return text.encode()
    except UnicodeEncodeError:
        raise StateError("a state's text must be Unicode without lone surrogates") from None


def _string(value: str) -> str:
    """A JSON string as Go's encoder writes it: what HTML and JavaScript would read as markup is escaped."""
    if _NEEDS_ESCAPE.search(value) is None:
        return f'"{value}"'
    return encode_basestring(value).translate(_GO_ESCAPES)


def _time_text(unix_ns: int | None) -> str:
    """RFC 3339 in UTC; as many decimals of the second as it needs, none where it is whole."""
    if unix_ns is None:
        return _ZERO_TIME
    unix_s, ns = divmod(unix_ns, 1_000_000_000)
    fraction = f".{ns:09d}".rstrip("0") if ns else ""
    return f"{_second_text(unix_s)}{fraction}Z"


@lru_cache(16)  # the states of one second share it
def _second_text(unix_s: int) -> str:
    try:
        utc = time.gmtime(unix_s)
    except (OverflowError, OSError, ValueError):
        raise StateError(f"no such time: {unix_s} s since 1970") from None
    if not 1 <= utc.tm_year <= 9999:
        raise StateError(f"the year {utc.tm_year} is not within 1 to 9999")
    return f"{utc.tm_year:04d}-{utc.tm_mon:02d}-{utc.tm_mday:02d}T{utc.tm_hour:02d}:{utc.tm_min:02d}:{utc.tm_sec:02d}"


class ReadState(NamedTuple):
    """What a state says, and the SHA-256 of its bytes: what its session's next state is known to follow."""

    state: PaymentState
    hash: bytes


@remembered(length_max=REMEMBERED_STATE_BYTES_MAX, count_max=REMEMBERED_STATES_MAX_COUNT)
def read_state(data: bytes) -> ReadState:
    """`decode_state` and the hash, remembered: a state is read when it is issued, and when the next call comes with it.

    Raises StateError.
    """
    return ReadState(decode_state(data), hashlib.sha256(data).digest())


def decode_state(data: bytes) -> PaymentState:
    """Reads a state whose signature was verified. Absent or null members have Go's zero values.

    Raises StateError for anything but one JSON object, a member of the wrong type or range, a repeated member, and a
    member that differs from a known one only in its case: Go would take the last of them, and so two readers could
    see two states.
    """
    if len(data) > STATE_BYTES_MAX:
        raise StateError(f"a state has at most {STATE_BYTES_MAX} bytes, got {len(data)}")
    try:
        text = data.decode()
    except UnicodeDecodeError:
        raise StateError("a state must be one JSON object in UTF-8") from None
    return _decode_json(text) if (match := _USUAL.fullmatch(text)) is None else _usual_state(match)


def _usual_state(match: re.Match[str]) -> PaymentState:
    """What `_decode_json` makes of the same text, in less than half the time. StateError for a time that is none."""
    (
        state_id, session, second, decimals, orchestrator, app, auth_expiry, nonce, balance, divisor, price, pixels,
        job_type, sequence, auth_id,
    ) = match.groups()  # fmt: skip
    return PaymentState(
        state_id=state_id,
        pm_session_id=bytes.fromhex(session),
        last_update_unix_ns=_nanoseconds(_unix_s(second), decimals),
        orchestrator_address=bytes.fromhex(orchestrator),
        app=app,
        auth_expiry_unix_s=int(auth_expiry),
        sender_nonce=int(nonce),
        balance=Fraction(int(balance), int(divisor)) if divisor is not None else Fraction(int(balance)),
        initial_price=Price(int(price), int(pixels)),
        type=job_type,
        sequence_number=int(sequence),
        auth_id=auth_id,
    )


def _decode_json(text: str) -> PaymentState:
    try:
        require_shallow(text)
        fields = _DECODER.decode(text)
    except StateError:
        raise
    except ValueError:  # not JSON, or nested beyond any state
        raise StateError("a state must be one JSON object in UTF-8") from None
    if not isinstance(fields, dict):
        raise StateError("a state must be one JSON object in UTF-8")
    return _state_of(fields)


def payment_state_of(fields: dict[str, Any]) -> PaymentState:
    """A state whose JSON was read as part of a larger document, each name once. Raises StateError as decode_state."""
    _require_exact_names(fields)
    return _state_of(fields)


def _state_of(fields: dict[str, Any]) -> PaymentState:
    get = fields.get
    return PaymentState(
        state_id=_text(get("StateID"), "StateID"),
        pm_session_id=_hex(get("PMSessionID"), "PMSessionID", _HASH),
        last_update_unix_ns=_unix_ns(get("LastUpdate")),
        orchestrator_address=_hex(get("OrchestratorAddress"), "OrchestratorAddress", _ADDRESS) or bytes(20),
        app=_text(get("App"), "App"),
        auth_expiry_unix_s=_whole(get("AuthExpiry"), "AuthExpiry", _INT64),
        sender_nonce=_whole(get("SenderNonce"), "SenderNonce", _UINT32),
        balance=_balance(get("Balance")),
        initial_price=Price(
            _whole(get("InitialPricePerUnit"), "InitialPricePerUnit", _INT64),
            _whole(get("InitialPixelsPerUnit"), "InitialPixelsPerUnit", _INT64),
        ),
        type=_text(get("Type"), "Type"),
        sequence_number=_whole(get("SequenceNumber"), "SequenceNumber", _UINT64),
        auth_id=_text(get("AuthID"), "AuthID"),
    )


@remembered(length_max=base64_chars(REMEMBERED_STATE_BYTES_MAX), count_max=REMEMBERED_STATES_MAX_COUNT)
def decode_state_text(text: str) -> bytes:
    """`decode_base64` of a state, remembered as states are: what is known of the same object is found sooner.

    Raises MessageError.
    """
    return decode_base64(text)


def _members(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """One JSON object. Members we do not know stay, unread: a newer signer may have written them."""
    fields = dict(pairs)
    if len(fields) != len(pairs):
        raise StateError("a state names a member twice")
    _require_exact_names(fields)
    return fields


def _require_exact_names(fields: dict[str, Any]) -> None:
    if not fields.keys() <= _KNOWN:
        for key in fields.keys() - _KNOWN:
            if key.lower() in _KNOWN_LOWER:
                raise StateError(f"a state's member has the wrong case: {key[:32]!r}")


def _no_constant(name: str) -> Any:
    """NaN and the infinities, which Python's parser would take, are not JSON."""
    raise StateError(f"{name} is not JSON")


def _not_whole(_text: str) -> object:
    """Stands for a number with a fraction or an exponent, which no member of a state may be."""
    return _NOT_WHOLE


_NOT_WHOLE: Final = object()
#: Built once, because building one costs more than reading a state with it.
_DECODER: Final = json.JSONDecoder(object_pairs_hook=_members, parse_constant=_no_constant, parse_float=_not_whole)


def _text(value: Any, name: str) -> str:
    if value is None:
        return ""
    if type(value) is not str or len(value) > STRING_CHARS_MAX:
        raise StateError(f"{name} must be text of at most {STRING_CHARS_MAX} characters")
    if not value.isascii():
        try:
            value.encode()
        except UnicodeEncodeError:
            raise StateError(f"{name} must be Unicode without lone surrogates") from None
    return value


def _whole(value: Any, name: str, bounds: tuple[int, int]) -> int:
    if value is None:
        return 0
    if type(value) is not int or not bounds[0] <= value <= bounds[1]:  # a bool is an int too, and no number
        raise StateError(f"{name} must be a whole number in [{bounds[0]}, {bounds[1]}]")
    return value


def _hex(value: Any, name: str, pattern: re.Pattern[str]) -> bytes:
    """Bytes behind 0x; none where the member is absent, null or empty."""
    if value is None or value == "":
        return b""
    if type(value) is not str or pattern.fullmatch(value) is None:
        raise StateError(f"{name} must match {pattern.pattern}")
    return bytes.fromhex(value[2:])


def _balance(value: Any) -> Fraction | None:
    """Wei as "n" or "n/d". None where it is absent, null or empty."""
    if value is None or value == "":
        return None
    match = _BALANCE.fullmatch(value) if type(value) is str and len(value) <= 2 * BALANCE_DIGITS_MAX else None
    if match is None:
        raise StateError(f"Balance must be a whole number or a fraction of at most {BALANCE_DIGITS_MAX} digits each")
    numerator, denominator = match.groups()
    if denominator is None:
        return Fraction(int(numerator))
    divisor = int(denominator)
    if divisor == 0:
        raise StateError("Balance must not divide by zero")
    return Fraction(int(numerator), divisor)


def _unix_ns(value: Any) -> int | None:
    """Nanoseconds since 1970 of an RFC 3339 time with any offset, exactly. None for Go's zero time."""
    if value is None:
        return None
    match = _TIME.fullmatch(value) if type(value) is str else None
    if match is None:
        raise StateError("LastUpdate must be an RFC 3339 time with at most 9 decimals of the second")
    second, decimals, sign, offset_h, offset_min = match.groups()
    unix_s = _unix_s(second)
    if sign is not None:
        if offset_h > "23" or offset_min > "59":
            raise StateError("LastUpdate has no offset of a time zone")
        offset_s = (int(offset_h) * 60 + int(offset_min)) * 60
        unix_s -= offset_s if sign == "+" else -offset_s
    return _nanoseconds(unix_s, decimals)


@lru_cache(16)  # the states of one second share it
def _unix_s(second: str) -> int:
    """Seconds since 1970 of what _SECOND matches, in UTC."""
    try:
        days = date(int(second[:4]), int(second[5:7]), int(second[8:10])).toordinal() - _EPOCH_DAY
    except ValueError:
        raise StateError("LastUpdate is no date of the calendar") from None
    hour, minute, rest_s = second[11:13], second[14:16], second[17:]
    if hour > "23" or minute > "59" or rest_s > "59":
        raise StateError("LastUpdate is no time of the day")
    return days * 86_400 + (int(hour) * 60 + int(minute)) * 60 + int(rest_s)


def _nanoseconds(unix_s: int, decimals: str | None) -> int | None:
    """Since 1970; None for Go's zero time."""
    unix_ns = unix_s * 1_000_000_000 + (int(decimals.ljust(9, "0")) if decimals else 0)
    return None if unix_ns == _ZERO_TIME_UNIX_NS else unix_ns
