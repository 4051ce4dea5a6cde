"""Lines of events: what is read, what is named as bad, and that no caller can make an event unreadable."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clearinghouse.ids import uuid7
from clearinghouse.sessions import auth_id
from clearinghouse.signer_events.read import (
    EVENT_BYTES_MAX,
    BadEvent,
    NewPayment,
    SignedTicket,
    digest,
    lines_of,
    read_event,
)

GATEWAY, SESSION = uuid7(), uuid7()
DATA: dict[str, Any] = {
    "app": "", "auth_id": auth_id(GATEWAY, SESSION), "billable_secs": 1.5, "computed_fee": "12", "cost": "1.0000000000",
    "manifest_id": "m1", "num_tickets": 3, "orch_address": "0x" + "11" * 20, "pixels": 0, "pm_session_id": "ab" * 32,
    "sequence_number": 4, "session_balance": "-7", "session_id": "5e55", "session_status": "continuing",
}  # fmt: skip
ENVELOPE: dict[str, Any] = {
    "id": "6e1bb0cc-54b5-4ac8-9a9e-0f3a3a1f3b10", "type": "create_signed_ticket", "timestamp": "1795255000123",
    "gateway": "", "data": DATA,
}  # fmt: skip


def line(envelope: dict[str, Any] | None = None, **data: Any) -> bytes:
    fields = {key: value for key, value in {**DATA, **data}.items() if value is not ...}
    return json.dumps({**ENVELOPE, "data": fields, **(envelope or {})}).encode()


def ticket(content: bytes) -> SignedTicket:
    event = read_event(content)
    assert isinstance(event, SignedTicket)
    return event


def test_an_event_is_read_with_its_owner_and_whole_numbers() -> None:
    event = ticket(line())
    assert (event.gateway_id, event.session_id) == (GATEWAY, SESSION)
    assert (event.sequence, event.num_tickets, event.fee_wei, event.balance_wei) == (4, 3, 12, -7)
    assert event.recipient_rand_hash == b"\xab" * 32
    assert event.happened_at.isoformat() == "2026-11-21T09:56:40.123000+00:00"


@pytest.mark.parametrize(
    ("face_value", "wei"),
    [("3400000000000000 WEI", 34 * 10**14), ("0.25 ETH", 25 * 10**16), ("2 ETH", 2 * 10**18), ("0 WEI", 0)],
)
def test_a_new_payment_has_its_amount_in_either_unit(face_value: str, wei: int) -> None:
    data = {
        "faceValue": face_value, "manifestID": "m", "numTickets": "2", "recipient": "0x" + "22" * 20,
        "sender": "0x" + "33" * 20,
    }  # fmt: skip
    event = read_event(line({"type": "create_new_payment", "data": data}))
    assert isinstance(event, NewPayment)
    assert (event.face_value_wei, event.num_tickets, event.sender) == (wei, 2, b"\x33" * 20)


def test_other_types_are_not_for_us_whatever_their_data() -> None:
    assert read_event(b'{"type":"network_capabilities","data":[1,2]}') is None


@pytest.mark.parametrize(
    "content",
    [
        None, b"", b"nonsense", b"[]", b'{"type":3}', b"\xff", b'{"type":"create_signed_ticket"}', b"[" * 5000,
        line({"id": "6e1b"}), line({"timestamp": 1795255000123}), line({"timestamp": "soon"}), line({"data": []}),
        line(sequence_number=-1), line(sequence_number=1.0), line(sequence_number=2**63), line(num_tickets=True),
        line(computed_fee="1e3"), line(computed_fee=3), line(pm_session_id="xyz"), line(session_id=...),
        line(x="y" * EVENT_BYTES_MAX), b'{"a":' + b"9" * 5000 + b"}",
    ],
)  # fmt: skip
def test_what_is_no_event_is_bad_and_says_why_without_quoting_it(content: bytes | None) -> None:
    with pytest.raises(BadEvent) as bad:
        read_event(content)
    assert len(str(bad.value)) < 100


@given(st.text(max_size=1000) | st.just("\0\ud800") | st.integers() | st.none() | st.lists(st.text()))
def test_no_text_of_a_caller_makes_an_event_unreadable(hostile: Any) -> None:
    """Whoever signs behind our back chooses these."""
    event = ticket(line(auth_id=hostile, manifest_id=hostile, app=hostile, orch_url=hostile, gateway=hostile))
    assert (event.gateway_id, event.session_id) == (None, None)
    for text in (event.auth_id, event.manifest_id):
        assert len(text) <= 256
        assert "\0" not in text
        text.encode()


def test_copies_are_equal_however_they_are_written() -> None:
    spaced = json.dumps(json.loads(line()), indent=2, sort_keys=True).encode()
    assert digest(ticket(line())) == digest(ticket(spaced))
    assert digest(ticket(line())) != digest(ticket(line(num_tickets=4)))


def test_lines_are_numbered_as_an_editor_does_and_too_long_ones_cost_no_memory(tmp_path: Path) -> None:
    file = tmp_path / "events.jsonl"
    file.write_bytes(b"one\r\n\n" + b"x" * (3 * EVENT_BYTES_MAX) + b"\nfour\n  \nsix")
    assert [(each.number, each.content) for each in lines_of(file)] == [
        (1, b"one"), (3, None), (4, b"four"), (6, b"six"),
    ]  # fmt: skip
