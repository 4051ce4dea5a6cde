"""What must be true of what subscriptions include, where their periods were rated anew."""

from __future__ import annotations

from typing import Final

from clearinghouse.ledger.claims.claim import Claim, amount, shown

#: Of usage U, min(included, U) is paid by what is included; what of that had ended unused was paid at first.
_VIOLATIONS: Final = f"""
    SELECT {shown("gw", "period.gateway_id")} AS subject,
           format('the subscription from %s includes %s, and used %s anew: its re-ratings have %s more of it pay',
                  period.first_day, {amount("coalesce(lot.amount, 0)")}, {amount("period.usage + anew.difference")},
                  {amount("anew.included")}) AS detail
      FROM (SELECT gateway_id, begins_at, sum(difference) AS difference, sum(included) AS included
              FROM rerating WHERE state = 'done' GROUP BY gateway_id, begins_at) AS anew
      JOIN billing_period AS period USING (gateway_id, begins_at)
      LEFT JOIN credit_lot AS lot ON lot.account_id = period.gateway_id AND lot.rank = 1
            AND lot.expires_at = period.ends_at
      LEFT JOIN transfer AS unused ON unused.key = 'expiry:' || lot.id
     WHERE anew.included <> coalesce(
               least(lot.amount, period.usage + anew.difference) - (lot.amount - coalesce(unused.amount, 0)), 0)
"""  # noqa: S608

RERATED_INCLUDED: Final = Claim(
    "rerated_included",
    "What a subscription includes pays of a period that was rated anew as much as of any.",
    _VIOLATIONS,
)
