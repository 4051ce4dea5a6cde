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
    if (await connection.execute(text(_IS_BESIDE), values)).scalar_one():
        raise NotToBeRerated(
            "Other credit that ends may have paid for usage of the period beside what its subscription includes: how "
            "much of either would have been left cannot be told apart."
        )
    if row.paid != min(row.included, row.usage):  # as where no worker had written the period down when it began
        raise NotToBeRerated(
            f"Of {show_amount(row.included)} that the subscription includes, {show_amount(row.paid)} have paid for "
            f"{show_amount(row.usage)} of usage: what they would pay anew cannot be told."
        )
    return EXACT.subtract(min(row.included, EXACT.add(row.usage, difference)), row.paid)


#: `included` is what was booked, `paid` what of it did not end unused, and `usage` the period's; these two as
#: re-ratings until now have made them.
_PAID: Final = """
    SELECT lot.id IS NOT NULL AS is_included, lot.amount AS included,
           lot.amount - (SELECT coalesce(sum(amount), 0) FROM transfer WHERE key = 'expiry:' || lot.id) + anew.included
               AS paid,
           period.usage + anew.difference AS usage
      FROM billing_period AS period
      LEFT JOIN credit_lot AS lot ON lot.account_id = period.gateway_id AND lot.rank = 1
            AND lot.expires_at = period.ends_at
      CROSS JOIN LATERAL (
           SELECT coalesce(sum(difference), 0) AS difference, coalesce(sum(included), 0) AS included FROM rerating
            WHERE rerating.gateway_id = period.gateway_id AND rerating.begins_at = period.begins_at
              AND state = 'done') AS anew
     WHERE period.gateway_id = :gateway_id AND period.begins_at = :begins_at
"""
#: Whether there were grants that end, which pay first (settle_lots, migrations/sql/0001_credit.sql), unless the closed
#: periods between the newest of them and this one had usage for all that could still be used then: 5.00 were granted in
#: March until December, and April used 7.00; so from May on nothing was left of them, though none has ended.
_IS_BESIDE: Final = """
    WITH period AS (SELECT * FROM billing_period WHERE gateway_id = :gateway_id AND begins_at = :begins_at),
    granted AS (
        SELECT lot.amount, lot.expires_at, transfer.created_at
          FROM period JOIN credit_lot AS lot ON lot.account_id = period.gateway_id AND lot.rank = 0
          JOIN transfer ON transfer.id = lot.id AND transfer.created_at < period.ends_at),
    newest AS (SELECT max(granted.created_at) AS at FROM granted JOIN period ON granted.expires_at > period.begins_at)
    SELECT newest.at IS NOT NULL AND (SELECT sum(amount) FROM granted WHERE expires_at > newest.at) > (
               SELECT coalesce(sum(earlier.usage), 0) FROM billing_period AS earlier
                WHERE earlier.gateway_id = period.gateway_id AND earlier.begins_at >= newest.at
                  AND earlier.ends_at <= period.begins_at)
      FROM period, newest
"""
