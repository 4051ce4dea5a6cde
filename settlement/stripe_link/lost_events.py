"""Events that Stripe has and never delivered: read from its own list, and put into the inbox like any other."""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime, timedelta
from typing import Final

import stripe
import structlog
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from clearinghouse.stripe_events import NotAnEvent, StripeEvent, event_of, store
from settlement.schedule import Tick
from settlement.stripe_link.client import StripeLink

log = structlog.get_logger(__name__)

#: Of the very first look: what came before there was a clearinghouse is not its affair.
FIRST_LOOK: Final = timedelta(days=3)
#: Stripe lists its events for so long.
STRIPE_KEEPS: Final = timedelta(days=30)
#: A little of what was read is read again: Stripe's clock is not the database's.
OVERLAP: Final = timedelta(hours=1)
#: Younger ones may still be on their way, and are not lost.
ON_THE_WAY: Final = timedelta(minutes=10)
_STORED_AT_ONCE_COUNT: Final = 100


async def find_lost_events(tick: Tick, link: StripeLink, object_types: Collection[str]) -> str:
    """Stores those about objects of these types that are not there yet. Raises StripeAway.

    The cursor moves once everything up to it is stored: cut off in between, the next turn reads the same again.
    """
    until = tick.now - ON_THE_WAY
    async with tick.engine.connect() as connection:
        since = _since(await _listed_to(connection), tick.now)
    seen_count, lost_count, waiting = 0, 0, list[StripeEvent]()
    period = {"created": {"gte": int(since.timestamp()), "lt": int(until.timestamp())}}
    async for listed in link.each(link.client.v1.events.list_async, params=period):
        seen_count += 1
        event = _event(listed)
        if event is not None and event.object_type in object_types:
            waiting.append(event)
        if len(waiting) >= _STORED_AT_ONCE_COUNT:
            lost_count += await _stored(tick, waiting)
            waiting = []
    lost_count += await _stored(tick, waiting, until)
    if lost_count:
        log.warning("stripe_events_were_lost", count=lost_count, since=str(since))
    return f"{lost_count} of {seen_count} events were never delivered"


def _event(listed: stripe.Event) -> StripeEvent | None:
    """Read as if it had been delivered; None where it would have been refused. It keeps no other from being found."""
    try:
        return event_of(str(listed).encode())
    except NotAnEvent as reason:
        log.warning("stripe_event_not_read", event_id=listed.id, type=listed.type, reason=str(reason))
        return None


def _since(listed_to: datetime | None, now: datetime) -> datetime:
    return now - FIRST_LOOK if listed_to is None else max(listed_to - OVERLAP, now - STRIPE_KEEPS)


async def _stored(tick: Tick, events: list[StripeEvent], listed_to: datetime | None = None) -> int:
    async with tick.transaction() as connection:
        count = await store(connection, events, "listed")
        if listed_to is not None:
            await connection.execute(text(_MOVE), {"listed_to": listed_to})
        return count


async def _listed_to(connection: AsyncConnection) -> datetime | None:
    return (await connection.execute(text("SELECT listed_to FROM stripe_listing"))).scalar_one_or_none()


_MOVE: Final = """
    INSERT INTO stripe_listing (listed_to) VALUES (:listed_to)
    ON CONFLICT (is_one) DO UPDATE SET listed_to = greatest(stripe_listing.listed_to, excluded.listed_to)
"""
