"""When what a gateway can spend is low, and when it is gone: by its own bounds, or by those of the settings.

GET /v1/balance and the notices (settlement/notices) go by the same bounds, so that they never say different things.
"""

from __future__ import annotations

from decimal import Decimal
from enum import StrEnum
from typing import TYPE_CHECKING, NamedTuple
from uuid import UUID

from sqlalchemy import text

from clearinghouse.config_alerts import NoticeSettings

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncConnection


class BalanceStatus(StrEnum):
    OK = "ok"
    LOW = "low"
    DEPLETED = "depleted"


class BalanceBounds(NamedTuple):
    """In the account's currency, compared with what is available. None: nothing is low before it is gone."""

    low_balance: Decimal | None
    depleted_below: Decimal

    def status(self, available: Decimal) -> BalanceStatus:
        """What is exactly at a bound is not below it; but nothing at all is depleted, whatever the bound."""
        if available <= 0 or available < self.depleted_below:
            return BalanceStatus.DEPLETED
        if self.low_balance is not None and available < self.low_balance:
            return BalanceStatus.LOW
        return BalanceStatus.OK


def bounds_in(
    currency: str, settings: NoticeSettings, *, low_balance: Decimal | None, depleted_below: Decimal | None
) -> BalanceBounds:
    """The gateway's own bounds, where it has any, over those of the settings for its currency."""
    return BalanceBounds(
        low_balance if low_balance is not None else settings.low_balance.get(currency),
        depleted_below if depleted_below is not None else settings.depleted_below.get(currency, Decimal(0)),
    )


async def bounds_of(
    connection: AsyncConnection, gateway_id: UUID, currency: str, settings: NoticeSettings
) -> BalanceBounds:
    query = text("SELECT low_balance, depleted_below FROM notice_target WHERE gateway_id = :id")
    own = (await connection.execute(query, {"id": gateway_id})).one_or_none()
    low_balance, depleted_below = (own.low_balance, own.depleted_below) if own is not None else (None, None)
    return bounds_in(currency, settings, low_balance=low_balance, depleted_below=depleted_below)
