"""A gateway's billing periods, from its terms in the database. Reads only, in the caller's transaction."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import text

from clearinghouse import ids
from clearinghouse.errors import NotFound
from settlement.cadence import Cadence, Every
from settlement.customers import terms as agreed_on
from settlement.periods import Change, Terms, Timeline, Way
from settlement.time_zones import local_day

if TYPE_CHECKING:
    from datetime import datetime
    from uuid import UUID

    from sqlalchemy import Row
    from sqlalchemy.ext.asyncio import AsyncConnection

#: Of a gateway that nothing was agreed on with: as far as its periods go.
DEFAULT_TERMS: Final = Terms(agreed_on.DEFAULT_TERMS.cadence, agreed_on.DEFAULT_TERMS.zone, agreed_on.DEFAULT_TERMS.way)

_TERMS: Final = text(
    """SELECT gateway.created_at, begins_at, way, cadence, anchor_day, time_zone
         FROM gateway LEFT JOIN billing_terms ON gateway_id = gateway.id
        WHERE gateway.id = :gateway_id ORDER BY begins_at"""
)


async def timeline_of(connection: AsyncConnection, gateway_id: UUID) -> Timeline:
    """All periods of the gateway. NotFound without it; ValueError where its terms do not begin where periods end."""
    rows = (await connection.execute(_TERMS, {"gateway_id": gateway_id})).all()
    if not rows:
        raise NotFound(f"there is no gateway {ids.show('gw', gateway_id)}")
    agreed = [(row.begins_at, _terms(row)) for row in rows if row.begins_at is not None]
    return timeline(rows[0].created_at, agreed)


def timeline(opened_at: datetime, agreed: list[tuple[datetime, Terms]]) -> Timeline:
    """`agreed` are terms and when they begin, oldest first. Before the first the default ones hold, unless it begins
    no later than the gateway.
    """
    first = DEFAULT_TERMS
    while agreed and agreed[0][0] <= opened_at:
        first, agreed = agreed[0][1], agreed[1:]
    changes: list[Change] = []
    zone = first.zone
    for begins_at, terms in agreed:
        changes.append(Change(local_day(begins_at, zone), terms))
        zone = terms.zone
    return Timeline(opened_at, first, tuple(changes))


def _terms(row: Row[Any]) -> Terms:
    return Terms(Cadence(Every(row.cadence), row.anchor_day), row.time_zone, Way(row.way))
