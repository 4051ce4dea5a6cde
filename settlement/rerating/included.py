"""What a subscription's included usage pays of a period at corrected rates: the same amount as ever, and no more.

Included usage pays before anything else that lasts, so of usage U it pays min(included, U). What it paid too much had
ended with the period, and ends anew; what it would have paid besides, it pays now.
"""

from __future__ import annotations

from datetime import datetime
from decimal import Decimal
from typing import Final
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from clearinghouse.ledger.money import EXACT, show_amount
from settlement.rerating.refusals import NotToBeRerated


async def included_anew(
    connection: AsyncConnection, gateway_id: UUID, begins_at: datetime, difference: Decimal
) -> Decimal:
    """How much of `difference` included usage pays; below 0, how much less it pays. 0 where nothing was included.

    Raises NotToBeRerated where other credit that ends paid for a part of the period, or where calls came before what
    was included did.
    """
    values = {"gateway_id": gateway_id, "begins_at": begins_at}
    row = (await connection.execute(text(_PAID), values)).one()
    if not row.is_included:
        return Decimal(0)
    if row.has_others:
        raise NotToBeRerated(
            "Credit that ends has paid for usage of the period beside what its subscription includes: how much of "
            "either would have been left cannot be told apart."
        )
    if row.paid != min(row.included, row.usage):  # as where no worker had written the period down when it began
        raise NotToBeRerated(
            f"Of {show_amount(row.included)} that the subscription includes, {show_amount(row.paid)} have paid for "
            f"{show_amount(row.usage)} of usage: what they would pay anew cannot be told."
        )
    return EXACT.subtract(min(row.included, EXACT.add(row.usage, difference)), row.paid)


#: `included` is what was booked, `paid` what of it did not end unused, and `usage` the period's; these two as
#: re-ratings until now have made them. Credit that ends is used up in the order of settle_lots (0001_credit.sql).
_PAID: Final = """
    SELECT coalesce(lot.amount, 0) AS included,
           coalesce(lot.amount - (SELECT coalesce(sum(amount), 0) FROM transfer WHERE key = 'expiry:' || lot.id), 0)
               + anew.included AS paid,
           period.usage + anew.difference AS usage,
           open.is_included, open.has_others
      FROM billing_period AS period
      CROSS JOIN LATERAL (
           SELECT coalesce(bool_or(rank = 1), false) AS is_included,
                  coalesce(bool_or(rank = 0 OR expires_at <> period.ends_at), false) AS has_others
             FROM credit_lot JOIN transfer ON transfer.id = credit_lot.id
            WHERE account_id = period.gateway_id AND expires_at > period.begins_at
              AND transfer.created_at < period.ends_at) AS open
      LEFT JOIN LATERAL (
           SELECT id, amount FROM credit_lot
            WHERE account_id = period.gateway_id AND rank = 1 AND expires_at = period.ends_at) AS lot ON true
      CROSS JOIN LATERAL (
           SELECT coalesce(sum(difference), 0) AS difference, coalesce(sum(included), 0) AS included FROM rerating
            WHERE rerating.gateway_id = period.gateway_id AND rerating.begins_at = period.begins_at
              AND state = 'done') AS anew
     WHERE period.gateway_id = :gateway_id AND period.begins_at = :begins_at
"""
