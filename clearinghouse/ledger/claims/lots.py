"""What must be true of subscriptions and of credit that expires."""

from __future__ import annotations

from typing import Final

from clearinghouse.ledger.claims.claim import ACCOUNT, TRANSFER, Claim, amount, shown

_FEE_DUE: Final = "CASE WHEN period.lapsed THEN 0 ELSE period.fee END"

_SUBSCRIPTIONS_ARE_BOOKED = f"""
    SELECT {shown("gw", "period.gateway_id")} AS subject,
           format('the subscription from %s was charged, and of its fee of %s the books have %s', period.first_day,
                  {amount(_FEE_DUE)}, {amount("coalesce(paid.amount, 0)")}) AS detail
      FROM subscription_period AS period
      LEFT JOIN transfer AS paid ON paid.id = period.fee_id AND paid.kind = 'fee' AND paid.source = period.gateway_id
     WHERE period.booked_at IS NOT NULL AND coalesce(paid.amount, 0) <> {_FEE_DUE}
"""  # noqa: S608

_LOT_KIND: Final = "CASE lot.rank WHEN 0 THEN 'grant' ELSE 'included' END"

_LOTS_ARE_GRANTED = f"""
    SELECT {shown("tr", "lot.id")} AS subject,
           CASE WHEN transfer.id IS NULL OR transfer.kind <> {_LOT_KIND} THEN 'the credit lot was never granted'
                ELSE format('the credit lot has %s of %s, the grant %s of %s', {amount("lot.amount")},
                            {shown("gw", "lot.account_id")}, {amount("transfer.amount")},
                            {shown("gw", "transfer.destination")}) END AS detail
      FROM credit_lot AS lot LEFT JOIN transfer ON transfer.id = lot.id
     WHERE (transfer.kind, transfer.destination, transfer.amount)
           IS DISTINCT FROM ({_LOT_KIND}, lot.account_id, lot.amount)
"""  # noqa: S608

_EXPIRIES_HAVE_LOTS = f"""
    SELECT {TRANSFER} AS subject,
           CASE WHEN lot.id IS NULL THEN 'nothing was granted that could have expired'
                WHEN lot.remaining > 0
                THEN format('the lot expired, but has %s left', {amount("lot.remaining")})
                ELSE format('%s expired of a lot of %s', {amount("transfer.amount")}, {amount("lot.amount")})
           END AS detail
      FROM transfer LEFT JOIN credit_lot AS lot ON transfer.key = 'expiry:' || lot.id
                                               AND lot.account_id = transfer.source
     WHERE transfer.kind = 'expiry' AND (lot.id IS NULL OR lot.remaining > 0 OR transfer.amount > lot.amount)
"""  # noqa: S608

_LOTS_FIT = f"""
    WITH open_lot AS (SELECT account_id, sum(remaining) AS remaining, min(expires_at) AS next_expiry_at,
                             coalesce(sum(remaining) FILTER (WHERE rank = 0), 0) AS granted
                        FROM credit_lot WHERE remaining > 0 GROUP BY account_id)
    SELECT {ACCOUNT} AS subject,
           format('next_expiry_at is %s, the earliest open lot expires at %s', account.next_expiry_at,
                  open_lot.next_expiry_at) AS detail
      FROM account LEFT JOIN open_lot ON open_lot.account_id = account.id
     WHERE account.next_expiry_at IS DISTINCT FROM open_lot.next_expiry_at
    UNION ALL
    SELECT {ACCOUNT}, format('lots_usage is %s, outside 0 and usage_total %s', {amount("account.lots_usage")},
                              {amount("account.usage_total")})
      FROM account WHERE account.lots_usage NOT BETWEEN 0 AND account.usage_total
    UNION ALL
    SELECT {ACCOUNT}, format('lots hold %s, of which usage has taken %s, but the balance is only %s',
                              {amount("open_lot.remaining")}, {amount("account.usage_total - account.lots_usage")},
                              {amount("account.balance")})
      FROM account JOIN open_lot ON open_lot.account_id = account.id
     -- What is included in a subscription is no part of the balance that anybody paid for: debts do not touch it.
     WHERE open_lot.granted > account.usage_total - account.lots_usage
       AND open_lot.remaining - (account.usage_total - account.lots_usage) > greatest(account.balance, 0)
"""  # noqa: S608

LOTS: Final = (
    Claim(
        "subscription_fee",
        "Every period of a subscription that did not lapse is charged its fee once.",
        _SUBSCRIPTIONS_ARE_BOOKED,
    ),
    Claim("lot_grant", "Every credit lot was granted, to its account, with its amount.", _LOTS_ARE_GRANTED),
    Claim("lot_expiry", "What expired had been granted to expire, and nothing is left of it.", _EXPIRIES_HAVE_LOTS),
    Claim("lot_balance", "What credit lots still hold is part of the balance, and their expiry is noted.", _LOTS_FIT),
)
