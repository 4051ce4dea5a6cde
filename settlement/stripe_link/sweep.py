"""What may have changed at Stripe without an event that said so: our rows that are not final, held against Stripe.

Each type's ids are gone through in their order, some in each turn, and then from the beginning. The handler is the one
of the type's events, so there is one way in which our rows follow Stripe.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Final

import structlog
from sqlalchemy import text

from settlement.runs import words_of
from settlement.schedule import JobFailed, Tick
from settlement.stripe_link.client import StripeAway, StripeNotAllowed
from settlement.stripe_link.desk import Desk, Handler, Park, Sweepable

log = structlog.get_logger(__name__)

#: Of one type in one turn. At Stripe's pace this takes some ten seconds.
COUNT_MAX: Final = 250
_HANDLER_TIMEOUT_S: Final = 150
_DESCRIBED_MAX_COUNT: Final = 3


class NotSwept(JobFailed):
    """Objects of Stripe's that our rows could not be brought up to. The text names some of them."""


class StripeNotThere(JobFailed):
    """Stripe is away: nothing was missed, the next turn goes on from here."""


async def sweep(tick: Tick, desk: Desk, handlers: Mapping[str, Handler], sweepables: Mapping[str, Sweepable]) -> str:
    """A turn. Raises StripeNotThere, and NotSwept once everything else was done."""
    failed: list[str] = []
    counts: dict[str, int] = {}
    for object_type, sweepable in sweepables.items():
        counts[object_type], wrong = await _sweep_type(tick, desk, object_type, handlers[object_type], sweepable)
        failed += wrong
    if failed:
        raise NotSwept(f"{len(failed)} of {sum(counts.values())} objects: {'; '.join(failed[:_DESCRIBED_MAX_COUNT])}")
    return ", ".join(f"{count} {name}" for name, count in counts.items()) or "nothing is to be swept"


async def _sweep_type(
    tick: Tick, desk: Desk, object_type: str, handler: Handler, sweepable: Sweepable
) -> tuple[int, list[str]]:
    """How many it has looked at, and what is wrong with some.

    The cursor moves with the last of them: what is looked at again changes nothing.
    """
    async with tick.engine.connect() as connection:
        query = text("SELECT after_id FROM stripe_sweep WHERE object_type = :type")
        after = (await connection.execute(query, {"type": object_type})).scalar_one_or_none() or ""
        ids = await sweepable(connection, after, COUNT_MAX)
    failed = []
    for object_id in ids:
        if (reason := await _swept(desk, handler, object_id)) is not None:
            failed.append(f"{object_id}: {reason}")
    async with tick.transaction() as connection:
        after = ids[-1] if len(ids) == COUNT_MAX else ""
        await connection.execute(text(_MOVE), {"type": object_type, "after": after, "now": tick.now})
    return len(ids), failed


async def _swept(desk: Desk, handler: Handler, object_id: str) -> str | None:
    """None, or what is wrong with it. Raises StripeNotThere."""
    try:
        async with asyncio.timeout(_HANDLER_TIMEOUT_S):
            said = await handler(desk, object_id)
    except StripeAway as reason:
        if isinstance(reason, StripeNotAllowed) or reason.key_is_spent:
            return str(reason)  # of this one, or of its type: others must not wait until somebody mends it
        raise StripeNotThere(str(reason)) from reason
    except Park as reason:
        return str(reason)
    except Exception as error:
        log.exception("stripe_object_not_swept", object=object_id)
        return f"{type(error).__name__}: {words_of(error)}"
    log.debug("stripe_object_swept", object=object_id, said=said)
    return None


_MOVE: Final = """
    INSERT INTO stripe_sweep VALUES (:type, :after, :now)
    ON CONFLICT (object_type) DO UPDATE SET after_id = excluded.after_id, swept_at = excluded.swept_at
"""
