"""Billing holds: what is not signed for a gateway because of what it owes. Judged by the commit, and before it."""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING, Literal
from uuid import UUID

from sqlalchemy import text

from clearinghouse.ledger.transfers import check_reason

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncConnection


class Hold(StrEnum):
    """What is not signed, the mildest first. As gateway.billing_hold has it."""

    NONE = "none"
    NEW_SESSIONS = "new_sessions"
    SIGNING = "signing"


#: Each says what it has against a gateway, and takes back only that. The strongest holds.
Source = Literal["dunning", "dispute", "operator"]


async def set_billing_hold(
    connection: AsyncConnection, gateway_id: UUID, hold: Hold, reason: str, *, source: Source
) -> bool:
    """Whether what holds of all sources together is another now. It does so for the next call of the gateway.

    `reason` is shown to the gateway; Hold.NONE needs none. Roles clearinghouse_work and clearinghouse_admin.
    """
    if hold is not Hold.NONE:
        check_reason(reason)
    query = text("SELECT set_billing_hold(:gateway_id, :hold, :reason, :source)")
    values = {"gateway_id": gateway_id, "hold": hold.value, "reason": reason, "source": source}
    changed: bool = (await connection.execute(query, values)).scalar_one()
    return changed
