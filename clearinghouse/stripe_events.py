"""Stripe's events as they arrive: what of one is kept, and its one place in the database.

Nothing here acts upon an event, and nothing believes it: it only says which object has news. The floor above asks
Stripe for that object (settlement/stripe_link).
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any, Final, Literal

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from chain.shallow_json import loads

#: What our requests are written for, and what webhook endpoints are to be set to. The SDK's types are of it.
STRIPE_API_VERSION: Final = "2026-10-28.endive"

#: Where a service hears of events.
STRIPE_WEBHOOK_PATH: Final = "/webhooks/stripe"

_EVENT_ID: Final = re.compile(r"evt_[0-9A-Za-z_]{1,250}", re.ASCII)
_WORD: Final = re.compile(r"[0-9A-Za-z_.\-]{1,200}", re.ASCII)
_CREATED_MAX_S: Final = 2**34  # of the year 2514: what follows from a larger one is an error of the calendar
_Source = Literal["delivered", "listed"]


class NotAnEvent(ValueError):
    """The document is no event as Stripe writes them. The text says what is wrong and quotes nothing."""


@dataclass(frozen=True, slots=True)
class StripeEvent:
    """One event. `payload` is the document as it came. `object_id` is None for the few objects that have none."""

    id: str
    type: str
    object_type: str
    object_id: str | None
    api_version: str | None
    created_at: datetime
    livemode: bool
    payload: str


def event_of(body: bytes) -> StripeEvent:
    """Raises NotAnEvent."""
    try:
        payload = body.decode()
        document = loads(payload)
    except ValueError as error:
        raise NotAnEvent("the body is not JSON in UTF-8") from error
    if not isinstance(document, dict) or document.get("object") != "event":
        raise NotAnEvent("the body is no event with a snapshot (`object` is not `event`)")
    about = document.get("data")
    subject = about.get("object") if isinstance(about, dict) else None
    if not isinstance(subject, dict):
        raise NotAnEvent("data.object is missing")
    created_s, livemode = document.get("created"), document.get("livemode")
    if type(created_s) is not int or not 0 <= created_s < _CREATED_MAX_S or type(livemode) is not bool:
        raise NotAnEvent("created or livemode is missing, or of another kind")
    return StripeEvent(
        id=_matching(_EVENT_ID, document, "id"),
        type=_matching(_WORD, document, "type"),
        object_type=_matching(_WORD, subject, "object"),
        object_id=_matching(_WORD, subject, "id") if subject.get("id") is not None else None,
        api_version=_matching(_WORD, document, "api_version") if document.get("api_version") is not None else None,
        created_at=datetime.fromtimestamp(created_s, UTC),
        livemode=livemode,
        payload=payload,
    )


def _matching(pattern: re.Pattern[str], document: dict[str, Any], name: str) -> str:
    value = document.get(name)
    if not isinstance(value, str) or pattern.fullmatch(value) is None:
        raise NotAnEvent(f"{name} is missing, or is not written as Stripe writes it")
    return value


# Whoever may insert need not be able to read: so no row is returned, and no conflict is named.
_INSERT: Final = """
    INSERT INTO stripe_event (id, type, object_type, object_id, api_version, created_at, source, payload)
    VALUES (:id, :type, :object_type, :object_id, :api_version, :created_at, :source, :payload)
    ON CONFLICT DO NOTHING
"""


async def store(connection: AsyncConnection, events: Iterable[StripeEvent], source: _Source) -> int:
    """How many of them are new. A second time changes nothing, wherever it comes from."""
    await connection.execute(text("SET LOCAL synchronous_commit = on"))  # whoever is told that it is stored forgets it
    stored_count = 0
    for event in events:
        values = {name: value for name, value in asdict(event).items() if name != "livemode"}
        stored_count += (await connection.execute(text(_INSERT), {**values, "source": source})).rowcount
    return stored_count
