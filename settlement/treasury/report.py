"""What a period earned: the calls of each gateway, their cost in two ways, and the luck of their tickets.

The cost at the price of each call is in no sum that is kept, so the issuances of the period are added up themselves;
their charges and expected values come along, of the same instant.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from fractions import Fraction
from typing import Final, NamedTuple
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from clearinghouse.config import Settings
from clearinghouse.database.connect import database_now, snapshot
from clearinghouse.ids import made_between
from settlement.reconciliation.chain_read import chain_read
from settlement.reconciliation.redemptions import Luck, luck_of
from settlement.reconciliation.report import Period
from settlement.treasury.margins import GatewayMargin, Margin, Used, margin_of, prices_by_currency, total_of
from settlement.treasury.records import Conversion, conversions_between


@dataclass(frozen=True, slots=True)
class TreasuryReport:
    """`luck` is None where nothing was read of the chain; `not_known` says what is missing, and why."""

    period: Period
    taken_at: datetime
    conversions: Sequence[Conversion]
    gateways: Sequence[GatewayMargin]
    #: One for each currency.
    totals: Sequence[Margin]
    luck: Luck | None
    not_known: Sequence[str]


class _GatewayUsed(NamedTuple):
    gateway_id: UUID
    gateway: str
    used: Used


async def treasury_report(engine: AsyncEngine, settings: Settings, period: Period) -> TreasuryReport:
    """Reads only, at one instant. Any role that may read the treasury."""
    async with snapshot(engine) as books:
        now = await database_now(books)
        conversions = await conversions_between(books, *period)
        prices = prices_by_currency(each.trade for each in conversions)
        gateways = [
            GatewayMargin(each.gateway_id, each.gateway, margin_of(each.used, prices.get(each.used.currency)))
            for each in await _used(books, period)
        ]
        luck, not_known = await _luck(books, settings, period, now)
    totals = _totals(gateways, prices)
    not_known += [
        f"what calls charged in {total.used.currency} cost as bought: the period has no conversion of that currency"
        for total in totals
        if total.cost_as_bought is None
    ]
    return TreasuryReport(period, now, conversions, gateways, totals, luck, not_known)


async def _used(books: AsyncConnection, period: Period) -> list[_GatewayUsed]:
    """Of each gateway that had calls in the period, by currency and name."""
    first_id, end_id = made_between(*period)
    values = {**period._asdict(), "first_id": first_id, "end_id": end_id}
    rerated = {
        (row.gateway_id, row.currency): row.difference for row in await books.execute(text(_RERATED), values)
    }  # fmt: skip
    return [
        _GatewayUsed(
            row.gateway_id,
            row.gateway,
            Used(
                currency=row.currency,
                calls_count=row.calls_count,
                ev_wei=int(row.ev_wei),
                charged=row.charged,
                rerated=rerated.get((row.gateway_id, row.currency), Decimal(0)),
                cost_as_priced=row.cost_as_priced,
            ),
        )
        for row in await books.execute(text(_CALLS), values)
    ]


def _totals(gateways: Sequence[GatewayMargin], prices: Mapping[str, Fraction]) -> list[Margin]:
    used = [each.margin.used for each in gateways]
    return [
        margin_of(total_of(each for each in used if each.currency == currency), prices.get(currency))
        for currency in dict.fromkeys(each.currency for each in used)
    ]


async def _luck(
    books: AsyncConnection, settings: Settings, period: Period, now: datetime
) -> tuple[Luck | None, list[str]]:
    """And what is not known of it."""
    read = await chain_read(books, is_configured=settings.chain.is_configured)
    if isinstance(read, str):
        return None, [f"luck: {read}"]
    luck, missing = await luck_of(books, period), read.missing(min(period.ends_at, now))
    not_known = [missing] if missing is not None else []
    if luck.unseen_count:
        not_known.append(f"the deviation of {luck.unseen_count} tickets that the webhook approved and was not shown")
    return luck, not_known


_CALLS: Final = """
    SELECT gateway_id, gateway.name AS gateway, currency, calls_count, ev_wei, charged, cost_as_priced
      FROM (SELECT gateway_id, currency, count(*) AS calls_count, sum(ev_wei::numeric) AS ev_wei,
                   sum(charge::numeric) AS charged, sum(rate_cost(ev_wei, price)) AS cost_as_priced
              FROM issuance WHERE created_at >= :begins_at AND created_at < :ends_at
             GROUP BY gateway_id, currency) AS issued
      JOIN gateway ON gateway.id = gateway_id
     ORDER BY currency, gateway.name, gateway_id
"""
#: What calls are charged anew, by the newest of their re-ratings: the issuance keeps what it was charged.
_RERATED: Final = """
    SELECT issuance.gateway_id, issuance.currency, sum(anew.charge - issuance.charge) AS difference
      FROM (SELECT DISTINCT ON (call.issuance_id) call.issuance_id, call.charge, rerating.gateway_id
              FROM rerating JOIN rerated_call AS call ON call.rerating_id = rerating.id
             WHERE rerating.state = 'done' AND call.issuance_id >= :first_id AND call.issuance_id < :end_id
             ORDER BY call.issuance_id, rerating.as_of DESC) AS anew
      JOIN issuance ON issuance.gateway_id = anew.gateway_id AND issuance.id = anew.issuance_id
     WHERE issuance.created_at >= :begins_at AND issuance.created_at < :ends_at
     GROUP BY 1, 2
"""
