"""What is due by time about Stripe's events: those that were lost, rows that nobody told us about, and forgetting."""

from __future__ import annotations

from datetime import timedelta
from typing import Final

from clearinghouse.config_stripe import StripeSettings
from settlement.own_jobs import forgetting
from settlement.schedule import Job, Tick
from settlement.stripe_link.client import StripeAway, stripe_link
from settlement.stripe_link.desk import desk_of
from settlement.stripe_link.handlers import HANDLERS, SWEEPABLES
from settlement.stripe_link.lost_events import find_lost_events
from settlement.stripe_link.sweep import StripeNotThere, sweep

LOST_EVERY_S: Final = 900
SWEEP_EVERY_S: Final = 600


def stripe_jobs(settings: StripeSettings) -> tuple[Job, ...]:
    """None of them without an API key."""
    if settings.api_key is None:
        return ()

    async def lost(tick: Tick) -> str:
        async with stripe_link(settings) as link:
            try:
                return await find_lost_events(tick, link, HANDLERS.keys())
            except StripeAway as reason:
                raise StripeNotThere(str(reason)) from reason

    async def swept(tick: Tick) -> str:
        async with desk_of(settings, tick) as desk:
            return await sweep(tick, desk, HANDLERS, SWEEPABLES)

    return (
        Job("stripe-lost-events", LOST_EVERY_S, lost),
        Job("stripe-sweep", SWEEP_EVERY_S, swept),
        forgetting("forget-stripe-events", _FORGET, "events", kept=timedelta(days=settings.events_kept_days)),
    )


# Those that were acted upon. Parked ones stay.
_FORGET: Final = """
    DELETE FROM stripe_event WHERE id IN (
        SELECT id FROM stripe_event WHERE state = 'done' AND ended_at < :before LIMIT :count
    )
"""
