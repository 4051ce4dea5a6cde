"""The job that adds up usage for dashboards, and puts it right where the database's clock was set back."""

from __future__ import annotations

from datetime import timedelta
from typing import Final

from clearinghouse.ids import show
from clearinghouse.instants import rfc3339
from clearinghouse.usage_rollups import Transaction, differences, mend, mended_at, roll_up, rolled_up_until
from settlement.schedule import Job, JobFailed, Tick

#: What was issued since is read one by one by whoever asks a dashboard.
ROLL_UP_EVERY_S: Final = 30
#: Of a long history a part in each turn: the next goes on there.
_WITHIN_S: Final = 20
_MEND_BACK: Final = timedelta(days=1)
_MEND_AGAIN_AFTER: Final = timedelta(minutes=10)


class UsageSumsWrong(JobFailed):
    """Sums for dashboards are not what was charged. Invoices and balances do not depend on them."""


def usage_roll_up() -> Job:
    """Adds what was issued since the last turn."""
    return Job("usage-roll-up", ROLL_UP_EVERY_S, _tick)


async def _tick(tick: Tick) -> str:
    rolled_up = await roll_up(tick.transaction, within_s=_WITHIN_S)
    said = f"{rolled_up.issuances} issuances added, until {rfc3339(rolled_up.until)}"
    if rolled_up.waits:
        return f"{said}; a transaction that began before is still under way"
    if rolled_up.is_behind:
        return f"{said}; there are more"
    if not await differences(tick.transaction):
        return said
    return f"{said}; {await _mended(tick.transaction)}"


async def _mended(transaction: Transaction) -> str:
    if await rolled_up_until(transaction) - await mended_at(transaction) > _MEND_AGAIN_AFTER:
        wrong = await mend(transaction, back=_MEND_BACK)
        if not await differences(transaction):
            return f"{wrong} sums were wrong and are mended"
    found = await differences(transaction)
    shown = "; ".join(
        f"{show('gw', each.gateway_id)}: {each.counted} and {each.counted_wei} wei instead of "
        f"{each.charged} and {each.released_wei} wei"
        for each in found[:3]
    )
    raise UsageSumsWrong(
        f"the sums of {len(found)} gateways are not what was charged ({shown}): run `clearinghouse ledger verify`, "
        "then `clearinghouse usage rebuild`"
    )
