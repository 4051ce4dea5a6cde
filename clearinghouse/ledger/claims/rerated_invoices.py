"""What must be true of invoices whose period was rated anew."""

from __future__ import annotations

from typing import Final

from clearinghouse.ledger.claims.claim import Claim, shown

_RERATING: Final = shown("rrt", "rerating.id")
_TOLD: Final = f"""
    SELECT rerating.id, rerating.state, rerating.invoice_id, note.id AS note_id, note.state AS note_state,
           invoice.gateway_id = rerating.gateway_id AND invoice.kind = 'usage'
               AND invoice.begins_at = rerating.begins_at AS is_its,
           note.amount_minor = invoice.total_minor AS is_whole, invoice.replaced_at, own.transfer_id AS own_id,
           own.effective_at >= rerating.begins_at AND own.effective_at < period.ends_at
               AND (rerating.included_id IS NULL OR included.effective_at = own.effective_at) AS is_within,
           EXISTS (SELECT FROM invoice AS later WHERE later.gateway_id = invoice.gateway_id
                      AND later.kind = invoice.kind AND later.begins_at = invoice.begins_at
                      AND later.revision > invoice.revision) AS is_asked_anew
      FROM rerating JOIN billing_period AS period USING (gateway_id, begins_at)
      LEFT JOIN invoice ON invoice.id = rerating.invoice_id
      LEFT JOIN credit_note AS note ON note.invoice_id = rerating.invoice_id AND note.state <> 'refused'
            AND right(note.reason, length({_RERATING}) + 2) = '(' || {_RERATING} || ')'
      LEFT JOIN entry_of_period AS own ON own.transfer_id = rerating.transfer_id
      LEFT JOIN entry_of_period AS included ON included.transfer_id = rerating.included_id
"""  # noqa: S608
_VIOLATIONS: Final = f"""
    SELECT {_RERATING} AS subject, detail
      FROM (SELECT id, CASE
            WHEN NOT is_its THEN 'its invoice is not that of its period'
            WHEN state = 'refused' AND note_id IS NOT NULL
            THEN format('it was refused, and its credit note %s is %s', {shown("crn", "note_id")}, note_state)
            WHEN invoice_id IS NULL AND own_id IS NOT NULL
            THEN 'nobody was asked for its period, which has its difference all the same'
            WHEN state = 'done' AND (note_state = 'issued' AND is_whole) IS NOT TRUE AND invoice_id IS NOT NULL
            THEN 'it is done, and no credit note over the whole invoice was issued'
            WHEN state = 'done' AND invoice_id IS NOT NULL
                 AND (replaced_at IS NULL OR is_within IS NOT TRUE OR NOT is_asked_anew)
            THEN format('it is done; its invoice gave way: %s, another asks: %s, the difference is of its period: %s',
                        replaced_at IS NOT NULL, is_asked_anew, is_within IS TRUE) END AS detail
              FROM ({_TOLD}) AS told) AS rerating
     WHERE detail IS NOT NULL
    UNION ALL
    SELECT {shown("inv", "invoice.id")}, format('it gave its place to another, by %s re-ratings', done.count)
      FROM invoice CROSS JOIN LATERAL (
          SELECT count(*) AS count FROM rerating WHERE invoice_id = invoice.id AND state = 'done') AS done
     WHERE invoice.replaced_at IS NOT NULL AND done.count <> 1
    UNION ALL
    SELECT {shown("tr", "own.transfer_id")}, 'it is of a closed period, and of no re-rating of its invoice'
      FROM entry_of_period AS own
     WHERE NOT EXISTS (SELECT FROM rerating WHERE own.transfer_id IN (rerating.transfer_id, rerating.included_id)
                          AND rerating.state = 'done' AND rerating.invoice_id IS NOT NULL)
"""  # noqa: S608

RERATED_INVOICES: Final = Claim(
    "rerated_invoices",
    "Every invoice whose period was rated anew was credited in whole, and gave its place to another, once.",
    _VIOLATIONS,
)
