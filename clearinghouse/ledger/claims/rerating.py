"""What must be true of periods that were rated anew."""

from __future__ import annotations

from typing import Final

from clearinghouse.ledger.claims.claim import Claim, amount, shown
from clearinghouse.ledger.claims.rates import RATED_CHARGE, rated
from clearinghouse.ledger.claims.rerated_calls import RERATED_CALLS
from clearinghouse.ledger.claims.rerated_included import RERATED_INCLUDED
from clearinghouse.ledger.claims.rerated_invoices import RERATED_INVOICES

_CALL: Final = shown("iss", "issuance.id")
_RERATING: Final = shown("rrt", "rerating.id")
#: Calls with what they are charged anew in place of what they were.
_ANEW: Final = """(
    SELECT issuance.id, issuance.gateway_id, issuance.ev_wei, issuance.price, issuance.created_at, call.charge,
           call.rate_rule, call.quantity, call.at_least_cost, call.volume_before, call.lead_before
      FROM rerated_call AS call JOIN issuance ON issuance.id = call.issuance_id) AS issuance"""
_CHARGES = f"""
    SELECT {_CALL} AS subject,
           format('anew the charge is %s, but by version %s of the rate card %s it comes to %s',
                  {amount("issuance.charge")}, issuance.version, issuance.card, {amount(RATED_CHARGE)}) AS detail
      FROM ({rated(_ANEW)}) AS issuance WHERE issuance.charge <> {RATED_CHARGE}
    UNION ALL
    SELECT {_CALL}, format('it was charged %s before it was rated anew, not %s', {amount("was.charge")},
                           {amount("call.charged")})
      FROM rerated_call AS call JOIN issuance ON issuance.id = call.issuance_id
      JOIN rerating AS own ON own.id = call.rerating_id AND own.state <> 'refused'
      CROSS JOIN LATERAL (
          SELECT coalesce((SELECT earlier.charge FROM rerated_call AS earlier
                             JOIN rerating ON rerating.id = earlier.rerating_id AND rerating.state = 'done'
                            WHERE earlier.issuance_id = call.issuance_id AND rerating.as_of < own.as_of
                            ORDER BY rerating.as_of DESC LIMIT 1), issuance.charge) AS charge) AS was
     WHERE was.charge <> call.charged
"""  # noqa: S608
_SUMS = f"""
    SELECT {_RERATING} AS subject,
           format('its difference is %s, of which %s is included; its calls differ by %s, its lines by %s, and %s was '
                  'booked', {amount("rerating.difference")}, {amount("rerating.included")},
                  {amount("calls.difference")}, {amount("lines.difference")}, {amount("booked.amount")}) AS detail
      FROM rerating
      CROSS JOIN LATERAL (SELECT coalesce(sum(charge - charged), 0) AS difference, count(*) AS count FROM rerated_call
                           WHERE rerating_id = rerating.id) AS calls
      CROSS JOIN LATERAL (SELECT coalesce(sum(charge - charged), 0) AS difference FROM rerated_line
                           WHERE rerating_id = rerating.id) AS lines
      CROSS JOIN LATERAL (SELECT coalesce(sum(CASE WHEN source = rerating.gateway_id THEN amount ELSE -amount END), 0)
                                     AS amount
                            FROM transfer WHERE (id, kind) IN ((rerating.transfer_id, 'adjustment'),
                                                               (rerating.included_id, 'included'))) AS booked
     WHERE (calls.difference, lines.difference, calls.count)
           IS DISTINCT FROM (rerating.difference, rerating.difference, rerating.calls_count)
        OR rerating.state = 'done' AND booked.amount <> rerating.difference - rerating.included
    UNION ALL
    SELECT {_RERATING}, format('%s is a call of its period that it leaves out, or of none of its own', {_CALL})
      FROM rerating JOIN billing_period AS period USING (gateway_id, begins_at)
      JOIN issuance ON issuance.gateway_id = rerating.gateway_id AND issuance.rate_rule IS NOT NULL
      LEFT JOIN rerated_call AS call ON call.rerating_id = rerating.id AND call.issuance_id = issuance.id
     WHERE (call.issuance_id IS NOT NULL)
           <> (issuance.created_at >= period.begins_at AND issuance.created_at < period.ends_at)
"""  # noqa: S608

RERATING: Final = (
    Claim("rerated_charge", "What calls are charged anew is what its rule comes to.", _CHARGES),
    Claim(
        "rerated_sums",
        "Every difference of a period rated anew is its calls', and is booked once, less what is included of it.",
        _SUMS,
    ),
    RERATED_CALLS,
    RERATED_INCLUDED,
    RERATED_INVOICES,
)
