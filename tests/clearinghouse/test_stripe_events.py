"""What of Stripe's events is read, and what is none."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import pytest

from clearinghouse.stripe_events import NotAnEvent, event_of

EVENT: dict[str, Any] = {
    "id": "evt_1Nv0FGQ9RKHgCVdK",
    "object": "event",
    "api_version": "2026-10-28.endive",
    "created": 1_700_000_000,
    "data": {"object": {"id": "in_1", "object": "invoice", "note": "a\u0000b \ud800"}},
    "livemode": False,
    "type": "invoice.paid",
}


def changed(**fields: Any) -> bytes:
    return json.dumps({**EVENT, **fields}).encode()


def test_an_event_names_its_object() -> None:
    event = event_of(changed())
    assert (event.id, event.type, event.object_type, event.object_id) == (
        EVENT["id"],
        "invoice.paid",
        "invoice",
        "in_1",
    )
    assert (event.api_version, event.livemode) == ("2026-10-28.endive", False)
    assert event.created_at == datetime.fromtimestamp(1_700_000_000, UTC)
    assert json.loads(event.payload) == EVENT


def test_an_object_without_an_id_and_an_event_without_a_version_are_events_too() -> None:
    event = event_of(changed(api_version=None, data={"object": {"object": "balance"}}))
    assert (event.api_version, event.object_type, event.object_id) == (None, "balance", None)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"\xff",
        b"[]",
        b"{}",
        b"null",
        b'{"object": "event"',
        b"[" * 100_000,
        changed(object="v2.core.event"),
        changed(id=None),
        changed(id="evt_"),
        changed(id="in_1"),
        changed(id="evt_1'; --"),
        changed(id="evt_" + "a" * 251),
        changed(type=""),
        changed(type=7),
        changed(type="a b"),
        changed(created=True),
        changed(created=-1),
        changed(created=10**30),
        changed(created="1700000000"),
        changed(livemode=0),
        changed(livemode=None),
        changed(api_version="a\nb"),
        changed(data=None),
        changed(data=[]),
        changed(data={"object": []}),
        changed(data={"object": {}}),
        changed(data={"object": {"object": "invoice", "id": 7}}),
        changed(data={"object": {"object": "invoice", "id": "a" * 256}}),
        changed(data={"object": {"object": "invoice", "id": ""}}),
    ],
)
def test_what_is_no_event_is_refused_without_being_quoted(body: bytes) -> None:
    with pytest.raises(NotAnEvent) as caught:
        event_of(body)
    assert "--" not in str(caught.value)
