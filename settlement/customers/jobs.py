"""The jobs of customers: Stripe is told what changed, and the calendars of gateways are reckoned."""

from __future__ import annotations

from typing import Final

from sqlalchemy import text

from clearinghouse.config import Settings
from settlement.customers import calendar
from settlement.customers.stripe_copy import ensure_customer
from settlement.schedule import Job, JobFailed, Tick
from settlement.stripe_link.client import StripeAway, StripeRefused
from settlement.stripe_link.desk import Desk, desk_of

EVERY_S: Final = 60
#: Of one turn: a minute's worth of changes at Stripe's rate for tests.
_AT_ONCE_COUNT: Final = 500


class CustomersRefused(JobFailed):
    """Stripe does not take what some customers are described with. `clearinghouse customers list` names them."""


def customer_jobs(settings: Settings) -> tuple[Job, ...]:
    """Stripe is told only where there is an account."""
    calendars = Job("calendars", calendar.EVERY_S, calendar.reckon_calendars)
    if settings.stripe.api_key is None:
        return (calendars,)

    async def tick(tick: Tick) -> str:
        async with desk_of(settings.stripe, tick) as desk:
            return await tell_stripe(tick, desk)

    return (calendars, Job("stripe-customers", EVERY_S, tick))


async def tell_stripe(tick: Tick, desk: Desk) -> str:
    """One turn: every customer that Stripe has no newest copy of. Raises CustomersRefused, StripeAway.

    What Stripe refused waits until somebody has described it otherwise; the job fails for as long as there is such.
    """
    told_count = 0
    async with tick.engine.connect() as connection:
        waiting = (await connection.execute(text(_WAITING), {"count": _AT_ONCE_COUNT})).scalars().all()
    for gateway_id in waiting:
        try:
            await ensure_customer(desk, gateway_id)
            told_count += 1
        except StripeRefused:
            continue  # kept with the customer, and counted below
        except StripeAway as away:
            raise JobFailed(f"{told_count} of {len(waiting)} customers told to Stripe, then: {away}") from away
    async with tick.engine.connect() as connection:
        refused_count = (await connection.execute(text(_REFUSED))).scalar_one()
    if refused_count:
        raise CustomersRefused(f"{told_count} customers told to Stripe, which does not take {refused_count}")
    return f"{told_count} customers told to Stripe"


_WAITING: Final = """
    SELECT gateway_id FROM customer WHERE stripe_version IS DISTINCT FROM version AND stripe_refusal IS NULL
     ORDER BY changed_at, gateway_id LIMIT :count
"""
_REFUSED: Final = "SELECT count(*) FROM customer WHERE stripe_refusal IS NOT NULL"
