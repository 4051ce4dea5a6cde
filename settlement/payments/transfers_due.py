"""Bank transfers that were announced and did not come: after a while nothing is waited for any more."""

from __future__ import annotations

from typing import Final

from sqlalchemy import text

from clearinghouse.config_stripe import StripeSettings
from settlement.payments.intents import cancel, intent_changed
from settlement.schedule import Job, JobFailed, Tick
from settlement.stripe_link.client import StripeAway
from settlement.stripe_link.desk import Desk, Park, desk_of

EVERY_S: Final = 3600
_AT_ONCE_COUNT: Final = 200
_LATE: Final = """
    SELECT stripe_intent_id FROM payment
     WHERE method = 'bank_transfer' AND state = 'open' AND expires_at <= :now ORDER BY expires_at LIMIT :count
"""


def transfers_due_job(stripe: StripeSettings) -> Job:
    async def tick(tick: Tick) -> str:
        async with desk_of(stripe, tick) as desk:
            return await give_up_transfers(tick, desk)

    return Job("late-bank-transfers", EVERY_S, tick)


async def give_up_transfers(tick: Tick, desk: Desk) -> str:
    """A turn. Money that comes later is credited all the same, as a transfer that was not asked for."""
    async with tick.engine.connect() as connection:
        values = {"now": tick.now, "count": _AT_ONCE_COUNT}
        late = list((await connection.execute(text(_LATE), values)).scalars())
    wrong = list[str]()
    for done, intent_id in enumerate(late):
        try:
            await cancel(desk, intent_id)
            await intent_changed(desk, intent_id)
        except StripeAway as away:
            return f"{done} of {len(late)} given up: {away}"
        except Park as reason:  # it keeps no other
            wrong.append(str(reason))
    if wrong:
        raise JobFailed(f"{len(wrong)} of {len(late)} could not be given up: {wrong[0]}")
    return f"{len(late)} transfers given up" if late else "no transfer is late"
