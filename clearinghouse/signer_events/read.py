"""A signer's event, from its envelope to a frozen value (remote-signer protocol, section 7).

    {"id": uuid, "type": "create_signed_ticket", "timestamp": "unix ms", "gateway": "…", "data": {…}}

Much of an event is what a caller wrote: AuthID, manifest, the address of an orchestrator. Such texts are cut and
cleaned, never refused: whoever signs behind our back must not be able to make its event unreadable. Only what a signer
writes itself (ids, numbers, times) must have its form; where it has not, the line is bad and named.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final, NamedTuple
from uuid import UUID

from chain import shallow_json
from clearinghouse.sessions import read_auth_id

#: A go-livepeer event has about 1 kB.
EVENT_BYTES_MAX: Final = 64 * 1024
TEXT_CHARS_MAX: Final = 256
SIGNED_TICKET: Final = "create_signed_ticket"
NEW_PAYMENT: Final = "create_new_payment"

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_INTEGER: Final = re.compile(r"-?[0-9]{1,100}", re.ASCII)
_TIMESTAMP_MS: Final = re.compile(r"[0-9]{10,14}", re.ASCII)  # 1970 to 5138
_BYTES: Final = re.compile(r"(?:0x)?((?:[0-9a-fA-F]{2}){0,64})", re.ASCII)
_AMOUNT: Final = re.compile(r"([0-9]{1,78})(?:\.([0-9]{1,18}))? (WEI|ETH)", re.ASCII)
_UUID: Final = re.compile(r"[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}", re.ASCII)
_ETH_DECIMALS: Final = 18


class BadEvent(Exception):
    """The line is no event that can be recorded. The text says what is wrong with it, and quotes nothing of it."""


class SignedTicket(NamedTuple):
    """`create_signed_ticket`: a payment that a signer signed, whether or not anybody was given it.

    The amounts are wei, rounded by the signer. `gateway_id` and `session_id` are what the AuthID names; both None where
    it is none of ours.
    """

    id: UUID
    happened_at: datetime
    auth_id: str
    gateway_id: UUID | None
    session_id: UUID | None
    state_id: str
    sequence: int
    recipient_rand_hash: bytes
    num_tickets: int
    fee_wei: int
    balance_wei: int
    orchestrator: bytes
    manifest_id: str


class NewPayment(NamedTuple):
    """`create_new_payment`: a payment as it was made, before a webhook was asked. `face_value_wei` is one ticket's."""

    id: UUID
    happened_at: datetime
    sender: bytes
    recipient: bytes
    face_value_wei: int
    num_tickets: int
    manifest_id: str


Event = SignedTicket | NewPayment


@dataclass(frozen=True, slots=True)
class Line:
    """One line of a file. `content` is None where it is longer than an event can be."""

    number: int
    content: bytes | None


def read_event(content: bytes | None) -> Event | None:
    """The event, or None for one of another type. Raises BadEvent; None and b"" are bad too."""
    if not content or len(content) > EVENT_BYTES_MAX:
        raise BadEvent("empty" if content == b"" else f"not an event: nothing, or more than {EVENT_BYTES_MAX} bytes")
    try:
        envelope = shallow_json.loads(content)
    except ValueError as error:
        raise BadEvent("not JSON") from error
    if type(envelope) is not dict or type(kind := envelope.get("type")) is not str:
        raise BadEvent("no envelope with a type")
    if kind == SIGNED_TICKET:
        return _signed_ticket(envelope, _data(envelope))
    if kind == NEW_PAYMENT:
        return _new_payment(envelope, _data(envelope))
    return None


def digest(event: Event) -> bytes:
    """Equal for copies of one event, however its JSON was written: 16 bytes of SHA-256 over the values."""
    return hashlib.sha256(repr(tuple(event)).encode()).digest()[:16]


def lines_of(path: Path) -> Iterator[Line]:
    """The lines of a file, numbered from 1, blank ones left out, in bounded memory however long a line is. OSError."""
    with path.open("rb") as file:
        number = 0
        while raw := file.readline(EVENT_BYTES_MAX + 1):
            number += 1
            is_too_long = len(raw) > EVENT_BYTES_MAX and not raw.endswith(b"\n")
            while is_too_long and raw and not raw.endswith(b"\n"):
                raw = file.readline(EVENT_BYTES_MAX + 1)
            if is_too_long:
                yield Line(number, None)
            elif content := raw.strip():
                yield Line(number, content)


def _signed_ticket(envelope: dict[str, Any], data: dict[str, Any]) -> SignedTicket:
    auth_id = _text(data, "auth_id")
    gateway_id, session_id = _owner(auth_id)
    return SignedTicket(
        id=_id(envelope),
        happened_at=_instant(envelope),
        auth_id=auth_id,
        gateway_id=gateway_id,
        session_id=session_id,
        state_id=_state_id(data),
        sequence=_count(data, "sequence_number"),
        recipient_rand_hash=_bytes(data, "pm_session_id"),
        num_tickets=_count(data, "num_tickets"),
        fee_wei=_wei(data, "computed_fee"),
        balance_wei=_wei(data, "session_balance"),
        orchestrator=_bytes(data, "orch_address"),
        manifest_id=_text(data, "manifest_id"),
    )


def _new_payment(envelope: dict[str, Any], data: dict[str, Any]) -> NewPayment:
    return NewPayment(
        id=_id(envelope),
        happened_at=_instant(envelope),
        sender=_bytes(data, "sender"),
        recipient=_bytes(data, "recipient"),
        face_value_wei=_amount(data, "faceValue"),
        num_tickets=_count(data, "numTickets"),
        manifest_id=_text(data, "manifestID"),
    )


def _owner(auth_id: str) -> tuple[UUID, UUID] | tuple[None, None]:
    try:
        return read_auth_id(auth_id)
    except ValueError:
        return None, None


def _data(envelope: dict[str, Any]) -> dict[str, Any]:
    data = envelope.get("data")
    if type(data) is not dict:
        raise BadEvent("data is no object")
    return data


def _id(envelope: dict[str, Any]) -> UUID:
    value = envelope.get("id")
    if type(value) is not str or not _UUID.fullmatch(value):
        raise BadEvent("id is no UUID")
    return UUID(value)


def _instant(envelope: dict[str, Any]) -> datetime:
    value = envelope.get("timestamp")
    if type(value) is not str or not _TIMESTAMP_MS.fullmatch(value):
        raise BadEvent("timestamp is no text of unix milliseconds")
    return _EPOCH + timedelta(milliseconds=int(value))


def _text(data: dict[str, Any], key: str) -> str:
    """As PostgreSQL can keep it: cut, and without NUL and lone surrogates. "" where there is no text."""
    value = data.get(key)
    if type(value) is not str:
        return ""
    clean = value[: TEXT_CHARS_MAX + 1].replace("\0", "\ufffd").encode("utf-8", "replace").decode()
    return clean if len(value) <= TEXT_CHARS_MAX else clean[: TEXT_CHARS_MAX - 1] + "…"


def _state_id(data: dict[str, Any]) -> str:
    if not (state_id := _text(data, "session_id")):
        raise BadEvent("session_id is no text")  # the signer's own name for a chain of states
    return state_id


def _count(data: dict[str, Any], key: str) -> int:
    value: object = data.get(key)
    if type(value) is str and value.isascii() and value.isdigit() and len(value) <= 19:
        value = int(value)  # create_new_payment has texts only
    if type(value) is int and 0 <= value < 2**63:
        return value
    raise BadEvent(f"{key} is no count")


def _wei(data: dict[str, Any], key: str) -> int:
    value = data.get(key)
    if type(value) is not str or not _INTEGER.fullmatch(value):
        raise BadEvent(f"{key} is no text of a whole number")
    return int(value)


def _amount(data: dict[str, Any], key: str) -> int:
    """ "5 WEI" or "0.25 ETH", as go-livepeer writes small and large ones."""
    value = data.get(key)
    found = _AMOUNT.fullmatch(value) if type(value) is str else None
    if found is None or (found[2] and found[3] == "WEI"):
        raise BadEvent(f"{key} is no amount in WEI or ETH")
    if found[3] == "WEI":
        return int(found[1])
    return int(found[1] + (found[2] or "").ljust(_ETH_DECIMALS, "0"))


def _bytes(data: dict[str, Any], key: str) -> bytes:
    value = data.get(key)
    found = _BYTES.fullmatch(value) if type(value) is str else None
    if found is None:
        raise BadEvent(f"{key} is no hexadecimal text")
    return bytes.fromhex(found[1])
