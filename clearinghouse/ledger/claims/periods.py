"""What must be true of closed billing periods."""

from __future__ import annotations

from typing import Final

from clearinghouse.ledger.claims.claim import Claim, amount, shown

_PERIOD: Final = f"{shown('gw', 'period.gateway_id')} || ' from ' || period.first_day"
_PERIODS_FOLLOW = f"""
    SELECT {_PERIOD} AS subject,
           format('it begins at %s with %s, after usage of %s; before it were %s, %s and %s', period.begins_at,
                  {amount("period.opening")}, {amount("period.usage_to_date - period.usage")}, period.ended_at,
                  {amount("period.closed_with")}, {amount("period.used_before")}) AS detail
      FROM (SELECT period.*, coalesce(lag(period.ends_at) OVER of_gateway, gateway.created_at) AS ended_at,
                   coalesce(lag(period.closing) OVER of_gateway, 0) AS closed_with,
                   coalesce(lag(period.usage_to_date) OVER of_gateway, 0) AS used_before
              FROM billing_period AS period LEFT JOIN gateway ON gateway.id = period.gateway_id
            WINDOW of_gateway AS (PARTITION BY period.gateway_id ORDER BY period.begins_at)) AS period
     WHERE (period.begins_at, period.opening, period.usage_to_date - period.usage)
           IS DISTINCT FROM (period.ended_at, period.closed_with, period.used_before)
"""  # noqa: S608

_PERIODS_ADD_UP = f"""
    SELECT {_PERIOD} AS subject,
           format('it closes with %s; %s at first, %s moved and %s used make %s. %s calls for %s, of %s wei; its lines '
                  'have %s, %s and %s', {amount("period.closing")}, {amount("period.opening")},
                  {amount("coalesce(moved.amount, 0)")}, {amount("period.usage")},
                  {amount("period.opening + coalesce(moved.amount, 0) - period.usage")}, period.calls_count,
                  {amount("period.usage")}, period.ev_wei, coalesce(lines.calls_count, 0),
                  {amount("coalesce(lines.charge, 0)")}, coalesce(lines.ev_wei, 0)) AS detail
      FROM billing_period AS period
      LEFT JOIN (SELECT gateway_id, begins_at, sum(amount) AS amount FROM billing_movement GROUP BY 1, 2) AS moved
             ON (moved.gateway_id, moved.begins_at) = (period.gateway_id, period.begins_at)
      LEFT JOIN (SELECT gateway_id, begins_at, sum(calls_count) AS calls_count, sum(charge) AS charge,
                        sum(ev_wei) AS ev_wei FROM billing_line GROUP BY 1, 2) AS lines
             ON (lines.gateway_id, lines.begins_at) = (period.gateway_id, period.begins_at)
     WHERE period.closing <> period.opening + coalesce(moved.amount, 0) - period.usage
        OR (period.calls_count, period.usage, period.ev_wei)
           <> (coalesce(lines.calls_count, 0), coalesce(lines.charge, 0), coalesce(lines.ev_wei, 0))
"""  # noqa: S608

# An entry's time never changes, and none comes to a time that is past, unless a clock was put back.
_PERIODS_HAVE_THEIR_ENTRIES = f"""
    SELECT {_PERIOD} AS subject,
           format('it has %s calls for %s, of %s wei; the issuances of its time are %s for %s, of %s wei',
                  period.calls_count, {amount("period.usage")}, period.ev_wei, coalesce(used.calls_count, 0),
                  {amount("coalesce(used.charge, 0)")}, coalesce(used.ev_wei, 0)) AS detail
      FROM billing_period AS period
      LEFT JOIN (SELECT period.gateway_id, period.begins_at, count(*) AS calls_count, sum(issuance.charge) AS charge,
                        sum(issuance.ev_wei) AS ev_wei
                   FROM billing_period AS period
                   JOIN issuance ON issuance.gateway_id = period.gateway_id
                                AND issuance.created_at >= period.begins_at AND issuance.created_at < period.ends_at
                  GROUP BY 1, 2) AS used
             ON (used.gateway_id, used.begins_at) = (period.gateway_id, period.begins_at)
     WHERE (period.calls_count, period.usage, period.ev_wei)
           <> (coalesce(used.calls_count, 0), coalesce(used.charge, 0), coalesce(used.ev_wei, 0))
    UNION ALL
    SELECT {_PERIOD},
           format('of kind %s it has %s, the transfers of its time make %s', coalesce(noted.kind, moved.kind),
                  {amount("coalesce(noted.amount, 0)")}, {amount("coalesce(moved.amount, 0)")})
      FROM billing_movement AS noted
      FULL JOIN (SELECT period.gateway_id, period.begins_at, posted.kind, sum(posted.amount) AS amount
                   FROM billing_period AS period
                   JOIN (SELECT source AS account_id, kind, -amount AS amount, created_at FROM transfer
                          UNION ALL SELECT destination, kind, amount, created_at FROM transfer) AS posted
                     ON posted.account_id = period.gateway_id
                    AND posted.created_at >= period.begins_at AND posted.created_at < period.ends_at
                  GROUP BY 1, 2, 3) AS moved
             ON moved.gateway_id = noted.gateway_id AND moved.begins_at = noted.begins_at AND moved.kind = noted.kind
      JOIN billing_period AS period ON period.gateway_id = coalesce(noted.gateway_id, moved.gateway_id)
                                   AND period.begins_at = coalesce(noted.begins_at, moved.begins_at)
     WHERE noted.amount IS DISTINCT FROM moved.amount
"""  # noqa: S608

PERIODS: Final = (
    Claim(
        "period_chain",
        "A closed period begins where the one before it ended, and with what was left.",
        _PERIODS_FOLLOW,
    ),
    Claim("period_sums", "A closed period's movements and lines make its closing balance and usage.", _PERIODS_ADD_UP),
    Claim(
        "period_entries",
        "A closed period has what the issuances and transfers of its time sum to.",
        _PERIODS_HAVE_THEIR_ENTRIES,
    ),
)
