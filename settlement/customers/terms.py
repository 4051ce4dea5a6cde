"""The way a gateway is billed, and since when: values, and which of them hold at an instant."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Final
from uuid import UUID

from sqlalchemy import text

from clearinghouse import billing
from settlement.cadence import Cadence, Every
from settlement.periods import Way

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sqlalchemy.ext.asyncio import AsyncConnection


@dataclass(frozen=True, slots=True)
class Refill:
    """An automatic top-up: below the first amount up to the second; so far apart; so much in a day, a month of UTC."""

    below: Decimal
    to: Decimal
    cooldown_s: int
    day_max: Decimal
    month_max: Decimal


@dataclass(frozen=True, slots=True)
class Subscription:
    """The price of a period, paid in advance, and the usage that is in it, which is lost with its end."""

    fee: Decimal
    included: Decimal


@dataclass(frozen=True, slots=True)
class Terms:
    """From `begins_at` on, which is None for those that nobody had to agree on. Amounts are in the account's currency.

    `ends_at` is that of free terms only: nothing is signed from then on, until others begin. `zone` has an IANA name.
    """

    way: Way
    cadence: Cadence
    zone: str
    credit_limit: Decimal = Decimal(0)
    refill: Refill | None = None
    subscription: Subscription | None = None
    ends_at: datetime | None = None
    begins_at: datetime | None = None


async def all_terms(connection: AsyncConnection, gateway_id: UUID) -> list[Terms]:
    """Those that were agreed on with a gateway, past and to come, oldest first."""
    query = text("SELECT * FROM billing_terms WHERE gateway_id = :gateway_id ORDER BY begins_at")
    return [terms_of(row) for row in (await connection.execute(query, {"gateway_id": gateway_id})).mappings()]


def terms_of(row: Mapping[Any, Any]) -> Terms:
    """A row of billing_terms."""
    return Terms(
        way=Way(row["way"]),
        cadence=Cadence(Every(row["cadence"]), row["anchor_day"]),
        zone=row["time_zone"],
        credit_limit=row["credit_limit"],
        refill=None
        if row["refill_to"] is None
        else Refill(
            below=row["refill_below"],
            to=row["refill_to"],
            cooldown_s=row["refill_cooldown_s"],
            day_max=row["refill_day_max"],
            month_max=row["refill_month_max"],
        ),
        subscription=None if row["fee"] is None else Subscription(row["fee"], row["included"]),
        ends_at=row["ends_at"],
        begins_at=row["begins_at"],
    )


#: Of a gateway for which nothing else was said.
DEFAULT_TERMS: Final = terms_of(billing.DEFAULT_TERMS)


def terms_row(terms: Terms) -> dict[str, Any]:
    """The reverse, but for whose they are."""
    refill, subscription = terms.refill, terms.subscription
    return {
        "begins_at": terms.begins_at,
        "way": terms.way.value,
        "cadence": terms.cadence.every.value,
        "anchor_day": terms.cadence.anchor,
        "time_zone": terms.zone,
        "credit_limit": terms.credit_limit,
        "refill_below": refill.below if refill else None,
        "refill_to": refill.to if refill else None,
        "refill_cooldown_s": refill.cooldown_s if refill else None,
        "refill_day_max": refill.day_max if refill else None,
        "refill_month_max": refill.month_max if refill else None,
        "fee": subscription.fee if subscription else None,
        "included": subscription.included if subscription else None,
        "ends_at": terms.ends_at,
    }
