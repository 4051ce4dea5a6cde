"""The job that holds and releases gateways by what they have not paid. Derived anew at each turn: payment lifts it."""

from __future__ import annotations

from typing import Final

import structlog
from sqlalchemy import text

from clearinghouse.config_dunning import DunningSettings
from clearinghouse.dunning_steps import policy_of
from clearinghouse.ids import show
from settlement.customers.holds import Hold, set_billing_hold
from settlement.dunning.open_invoices import open_invoices
from settlement.dunning.stages import Held, hold_for
from settlement.schedule import Job, Tick

log = structlog.get_logger(__name__)

#: A payment that has arrived is heard of so soon, and signing goes on.
EVERY_S: Final = 5

# What disputes and operators have against a gateway is theirs to lift.
_HELD: Final = """
    SELECT gateway.id, coalesce(held.hold, 'none') AS hold, coalesce(held.reason, '') AS reason
      FROM gateway LEFT JOIN billing_hold AS held ON held.gateway_id = gateway.id AND held.source = 'dunning'
     WHERE held.hold IS NOT NULL OR gateway.id = ANY (:owing) ORDER BY gateway.id
"""


class Dunning:
    """A job's tick."""

    def __init__(self, settings: DunningSettings) -> None:
        self._policy = policy_of(settings)

    async def tick(self, tick: Tick) -> str:
        changed_count = 0
        async with tick.transaction() as connection:
            owing = await open_invoices(connection)
            for row in (await connection.execute(text(_HELD), {"owing": list(owing)})).all():
                held = hold_for(owing.get(row.id, ()), tick.now, self._policy)
                hold, reason = held.hold, reason_of(held)
                if (row.hold, row.reason) == (hold, reason):
                    continue
                await set_billing_hold(connection, row.id, hold, reason, source="dunning")
                changed_count += 1
                log.info("billing_hold_changed", gateway_id=show("gw", row.id), hold=hold.value)
        return f"{changed_count} holds changed" if changed_count else "no hold changed"


def reason_of(held: Held) -> str:
    """What the gateway reads with each refusal."""
    if held.hold is Hold.NONE or held.invoice is None:
        return ""
    where = f" Pay it at {held.invoice.url}" if held.invoice.url else ""
    return f"Invoice {held.invoice.number} of {held.invoice.amount} was due on {held.invoice.due_at:%Y-%m-%d}.{where}"


def dunning_job(settings: DunningSettings) -> Job:
    return Job("dunning", EVERY_S, Dunning(settings).tick)
