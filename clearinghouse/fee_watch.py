"""A1, watched: gateways that take tickets and abandon their sessions show in their fees.

A ticket is charged at what it is worth, whatever its session comes to (promise 1), so the clearinghouse loses nothing.
A session that goes on uses its tickets up, and over a day fees come to nearly the expected value of the tickets. Where
they stay far below, somebody buys tickets and no work: on borrowed credit, for an orchestrator of his own.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Final, NamedTuple
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

NOTED_AGAIN_AFTER: Final = timedelta(hours=1)


class FeeWatch(NamedTuple):
    """Below which ratio of a day's fees to its expected value a gateway is noted, and from what expected value on."""

    ratio_min_bps: int
    ev_min_wei: int


class LowFees(NamedTuple):
    """A gateway and its day so far."""

    gateway_id: UUID
    fee_wei: int
    ev_wei: int


async def note_low_fees(engine: AsyncEngine, watch: FeeWatch, *, every: timedelta = NOTED_AGAIN_AFTER) -> list[LowFees]:
    """The gateways to look at. Each is given once in `every` at most, to one of all the processes that ask."""
    query = text("SELECT * FROM note_low_fees(:ratio_bps, :ev_min, :every)")
    parameters = {"ratio_bps": watch.ratio_min_bps, "ev_min": watch.ev_min_wei, "every": every}
    async with engine.begin() as connection:
        rows = (await connection.execute(query, parameters)).all()
    return [LowFees(gateway_id, int(fee), int(ev)) for gateway_id, fee, ev in rows]
