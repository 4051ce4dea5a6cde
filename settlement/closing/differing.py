"""Gateways whose books differ: what that came to is kept, and looked at again after ever longer pauses.

To look is to read every entry since their last period, each time. Meanwhile they are reported as they were found; a run
by hand looks at all of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from decimal import Decimal
from typing import TYPE_CHECKING, Final, NamedTuple
from uuid import UUID

from sqlalchemy import text

from settlement.closing.due import Due
from settlement.schedule import Tick

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncConnection

_LONGEST_PAUSE_MIN: Final = 60


class Difference(NamedTuple):
    """What a gateway's account says less what its entries make it: of its balance, and of all it ever used."""

    balance: Decimal
    usage: Decimal


async def resting(tick: Tick, due: Sequence[Due]) -> dict[UUID, Difference]:
    """Those of which it is too early for another look, as they were found by the last."""
    query = text("""
        SELECT gateway_id, difference, usage_difference FROM billing_difference
          JOIN unnest(CAST(:gateways AS uuid[]), CAST(:begins AS timestamptz[])) AS due (gateway_id, begins_at)
               USING (gateway_id, begins_at)
         WHERE next_look_at > :now AND NOT EXISTS (SELECT FROM job_run WHERE id = :run_id AND by_hand)
    """)
    values = {"gateways": [each.gateway_id for each in due], "begins": [each.begin for each in due]}
    async with tick.engine.connect() as connection:
        rows = await connection.execute(query, {**values, "now": tick.now, "run_id": tick.run_id})
        return {gateway_id: Difference(balance, usage) for gateway_id, balance, usage in rows}


async def note_differing(connection: AsyncConnection, found: Sequence[tuple[Due, Difference]], now: datetime) -> None:
    """That they were looked at. The pause doubles from two minutes to an hour, for as long as it is the same."""
    for due, difference in found:
        values = {
            "gateway": due.gateway_id, "begin": due.begin, "balance": difference.balance, "usage": difference.usage,
            "now": now, "longest": _LONGEST_PAUSE_MIN,
        }  # fmt: skip
        await connection.execute(text(_NOTE), values)


_NOTE: Final = """
    INSERT INTO billing_difference AS known
           (gateway_id, begins_at, difference, usage_difference, pause_min, next_look_at)
    VALUES (:gateway, :begin, :balance, :usage, 2, CAST(:now AS timestamptz) + interval '2 minutes')
    ON CONFLICT (gateway_id) DO UPDATE
       SET (begins_at, difference, usage_difference, pause_min, next_look_at) = (
           SELECT excluded.begins_at, excluded.difference, excluded.usage_difference, pause.min,
                  CAST(:now AS timestamptz) + pause.min * interval '1 minute'
             FROM (SELECT CASE WHEN (known.begins_at, known.difference, known.usage_difference)
                                    = (excluded.begins_at, excluded.difference, excluded.usage_difference)
                               THEN least(2 * known.pause_min, :longest) ELSE 2 END AS min) AS pause)
"""
