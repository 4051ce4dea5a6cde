"""What may be wrong between events and issuances, and the one query that finds all of it in a window of time."""

# ruff: noqa: S608 - the parts of the query are constants

from __future__ import annotations

from enum import StrEnum
from typing import Final


class Severity(StrEnum):
    CRITICAL = "critical"
    WARNING = "warning"
    INFO = "info"


class Found(StrEnum):
    """What may be wrong: a metric's label."""

    EVENT_WITHOUT_ISSUANCE = "event_without_issuance"
    SEQUENCE_NOT_ISSUED = "sequence_not_issued"
    TICKETS_DIFFER = "tickets_differ"
    AMOUNT_DIFFERS = "amount_differs"
    COPIES_DIFFER = "copies_differ"
    PAYMENT_OUTSIDE_POLICY = "payment_outside_policy"
    FEE_DIFFERS = "fee_differs"
    ISSUANCE_WITHOUT_EVENT = "issuance_without_event"
    SEQUENCE_MISSING = "sequence_missing"
    DUPLICATE = "duplicate"


SEVERITY: Final = {
    Found.EVENT_WITHOUT_ISSUANCE: Severity.CRITICAL,
    Found.SEQUENCE_NOT_ISSUED: Severity.CRITICAL,
    Found.TICKETS_DIFFER: Severity.CRITICAL,
    Found.AMOUNT_DIFFERS: Severity.CRITICAL,
    Found.COPIES_DIFFER: Severity.CRITICAL,
    Found.PAYMENT_OUTSIDE_POLICY: Severity.CRITICAL,
    Found.FEE_DIFFERS: Severity.WARNING,
    Found.ISSUANCE_WITHOUT_EVENT: Severity.WARNING,  # delivery is best effort
    Found.SEQUENCE_MISSING: Severity.WARNING,
    Found.DUPLICATE: Severity.INFO,
}
assert set(SEVERITY) == set(Found)


#: Everything near the window, read by time, each once. Three sides: `issued`, `thrown_away` and `near`, the events.
#: `matched` has the events beside what they belong to: `rank` orders those of one payment, the one that fits its
#: issuance best before the others, and `known` is how many of them are explained.
_SIDES: Final = """
    issued AS MATERIALIZED (
        SELECT near.gateway_id, near.id, near.session_id, near.sequence, near.recipient_rand_hash, near.fee_wei,
               near.num_tickets::bigint AS num_tickets, near.ev_wei::numeric AS ev_wei,
               -- of its id, by which windows are told apart: created_at is a little later
               to_timestamp(('x' || left(near.id::text, 8) || substr(near.id::text, 10, 4))::bit(48)::bigint / 1000.0)
                   AS happened_at
          FROM gateway
          JOIN LATERAL (SELECT * FROM issuance WHERE issuance.gateway_id = gateway.id AND issuance.id >= :near_first_id
                           AND issuance.id < :near_end_id OFFSET 0) AS near ON true),
    thrown_away AS MATERIALIZED (
        SELECT gateway_id, session_id, sequence, recipient_rand_hash, sum(signatures)::bigint AS signatures
          FROM unreleased WHERE at >= :near_begins_at AND at < :near_ends_at GROUP BY 1, 2, 3, 4),
    near AS MATERIALIZED (
        SELECT id, happened_at, auth_id, gateway_id, session_id, state_id, sequence, recipient_rand_hash, num_tickets,
               fee_wei, balance_wei, copies, differing_copies,
               happened_at >= :begins_at AND happened_at < :ends_at AS is_judged
          FROM signer_event WHERE happened_at >= :near_begins_at AND happened_at < :near_ends_at),
    matched AS MATERIALIZED (
        SELECT near.*, issued.id AS issuance_id, issued.num_tickets AS issued_tickets, issued.fee_wei AS issued_fee_wei,
               issued.ev_wei, coalesce(thrown_away.signatures, 0) AS signatures_thrown_away,
               coalesce(thrown_away.signatures, 0) + (issued.id IS NOT NULL)::integer AS known,
               count(*) OVER payment AS events,
               row_number() OVER (payment ORDER BY near.num_tickets IS DISTINCT FROM issued.num_tickets,
                                  near.fee_wei IS DISTINCT FROM issued.fee_wei, near.happened_at, near.id) AS rank
          FROM near
          LEFT JOIN issued USING (gateway_id, session_id, sequence, recipient_rand_hash)
          LEFT JOIN thrown_away USING (gateway_id, session_id, sequence, recipient_rand_hash)
        WINDOW payment AS (PARTITION BY near.gateway_id, near.session_id, near.sequence, near.recipient_rand_hash)),
    judged AS (SELECT * FROM matched WHERE is_judged),
    -- Of each event the states before it, as far as they were reported. With a fork there are several of one number.
    chained AS MATERIALIZED (
        SELECT judged.*, before.sequence AS before_sequence, before.happened_at AS before_at, before.fits
          FROM judged
          LEFT JOIN LATERAL (
              SELECT max(sequence) AS sequence, max(happened_at) AS happened_at,
                     bool_or(judged.balance_wei - balance_wei + judged.fee_wei - judged.ev_wei BETWEEN -2 AND 1)
                         FILTER (WHERE sequence = judged.sequence - 1) AS fits
                FROM (SELECT sequence, happened_at, balance_wei FROM signer_event
                       WHERE state_id = judged.state_id AND sequence < judged.sequence AND auth_id = judged.auth_id
                       ORDER BY sequence DESC LIMIT 4) AS earlier
              ) AS before ON true),
    gap AS MATERIALIZED (
        SELECT gateway_id, session_id, state_id, before_sequence + 1 AS first, sequence - 1 AS last,
               bool_and(before_at >= :near_begins_at) AS is_near, min(happened_at) AS happened_at
          FROM chained WHERE before_sequence < sequence - 1 GROUP BY 1, 2, 3, 4, 5),
    unissued AS (  -- one number of a gap that no issuance near has; of a very long gap the first thousand are looked at
        SELECT gap.state_id, gap.last, min(number) AS number
          FROM gap
         CROSS JOIN LATERAL generate_series(gap.first, least(gap.last, gap.first + 999)) AS number
          LEFT JOIN issued ON issued.gateway_id = gap.gateway_id AND issued.session_id = gap.session_id
                          AND issued.sequence = number
         WHERE gap.is_near AND issued.id IS NULL
         GROUP BY 1, 2)
"""

#: n·EV is what the balance grew by and the fee took. The signer rounds the three amounts, and the issuance rounds up.
_GREW: Final = "CASE WHEN sequence = 0 THEN balance_wei + fee_wei - ev_wei BETWEEN -2 AND 1 ELSE fits END"
#: The event of the issuance itself, rather than one of a payment that was thrown away.
_IS_ISSUED: Final = "issuance_id IS NOT NULL AND rank = 1 AND events > signatures_thrown_away"
_SHOWN_SESSION: Final = "coalesce('ses_' || replace(session_id::text, '-', ''), 'none of ours')"

_CHECKS: Final = {
    Found.EVENT_WITHOUT_ISSUANCE: f"""
        SELECT id::text, happened_at,
               format('%s ticket(s), sequence %s of state %s, session %s, AuthID %s, recipientRandHash %s', num_tickets,
                      sequence, state_id, {_SHOWN_SESSION}, to_json(auth_id), encode(recipient_rand_hash, 'hex')),
               fee_wei
          FROM judged WHERE rank > known
         UNION ALL  -- what names no session of ours need not wait for anything
        SELECT id::text, happened_at,
               format('%s ticket(s), sequence %s of state %s, session %s, AuthID %s, recipientRandHash %s', num_tickets,
                      sequence, state_id, {_SHOWN_SESSION}, to_json(auth_id), encode(recipient_rand_hash, 'hex')),
               fee_wei
          FROM signer_event WHERE session_id IS NULL AND happened_at >= :foreign_begins_at""",
    Found.SEQUENCE_NOT_ISSUED: """
        SELECT format('%s:%s-%s', gap.state_id, gap.first, gap.last), gap.happened_at,
               format('number %s of this state was signed, and neither an event nor an issuance tells of it', number),
               NULL::numeric
          FROM gap JOIN unissued ON unissued.state_id = gap.state_id AND unissued.last = gap.last""",
    Found.SEQUENCE_MISSING: f"""
        SELECT format('%s:%s-%s', state_id, first, last), happened_at,
               format('no event for these numbers, session %s', {_SHOWN_SESSION}), NULL::numeric
          FROM gap
         WHERE NOT EXISTS (SELECT FROM unissued
                            WHERE unissued.state_id = gap.state_id AND unissued.last = gap.last)""",
    Found.TICKETS_DIFFER: f"""
        SELECT id::text, happened_at,
               format('the event has %s ticket(s), issuance iss_%s has %s', num_tickets,
                      replace(issuance_id::text, '-', ''), issued_tickets), ev_wei
          FROM judged WHERE {_IS_ISSUED} AND num_tickets <> issued_tickets""",
    Found.AMOUNT_DIFFERS: f"""
        SELECT id::text, happened_at,
               format('by its balances the event is worth another amount than the %s wei of issuance iss_%s', ev_wei,
                      replace(issuance_id::text, '-', '')), ev_wei
          FROM chained WHERE {_IS_ISSUED} AND num_tickets = issued_tickets AND NOT {_GREW}""",
    Found.FEE_DIFFERS: f"""
        SELECT id::text, happened_at,
               format('the event has a fee of %s wei, issuance iss_%s of %s wei', fee_wei,
                      replace(issuance_id::text, '-', ''), issued_fee_wei), fee_wei - issued_fee_wei
          FROM judged WHERE {_IS_ISSUED} AND fee_wei <> issued_fee_wei""",
    Found.ISSUANCE_WITHOUT_EVENT: """
        SELECT 'iss_' || replace(id::text, '-', ''), happened_at,
               format('%s ticket(s) in session ses_%s, sequence %s', num_tickets, replace(session_id::text, '-', ''),
                      sequence), ev_wei
          FROM issued
         WHERE id >= :first_id AND id < :end_id
           -- Between the first and the newest event: before and after them, nobody listened.
           AND happened_at >= (SELECT happened_at FROM signer_event ORDER BY happened_at LIMIT 1)
           AND happened_at <= (SELECT happened_at FROM signer_event ORDER BY happened_at DESC LIMIT 1)
           AND NOT EXISTS (
               SELECT FROM near
                WHERE near.gateway_id = issued.gateway_id AND near.session_id = issued.session_id
                  AND near.sequence = issued.sequence AND near.recipient_rand_hash = issued.recipient_rand_hash)""",
    Found.DUPLICATE: """
        SELECT id::text, happened_at, format('told %s times', copies), 0
          FROM judged WHERE copies > 1 AND differing_copies = 0""",
    Found.COPIES_DIFFER: """
        SELECT id::text, happened_at, format('told %s times, %s of them otherwise', copies, differing_copies), fee_wei
          FROM judged WHERE differing_copies > 0
         UNION ALL
        SELECT id::text, happened_at, format('told %s times, %s of them otherwise', copies, differing_copies),
               num_tickets * face_value_wei
          FROM signer_payment
         WHERE happened_at >= :begins_at AND happened_at < :ends_at AND differing_copies > 0""",
    Found.PAYMENT_OUTSIDE_POLICY: """
        SELECT id::text, happened_at,
               format('%s ticket(s) of %s wei each to 0x%s, signed by 0x%s', num_tickets, face_value_wei,
                      encode(recipient, 'hex'), encode(sender, 'hex')), num_tickets * face_value_wei
          FROM signer_payment AS made
         WHERE happened_at >= :begins_at AND happened_at < :ends_at
           AND (sender <> CAST(:sender AS bytea)
                AND NOT EXISTS (SELECT FROM webhook_signer AS asks WHERE asks.sender = made.sender)
                OR face_value_wei > coalesce((SELECT min(face_value_max_wei)::numeric FROM webhook_signer AS asks
                                               WHERE asks.sender = made.sender), CAST(:face_value_max_wei AS numeric))
                OR recipient <> ALL (nullif(CAST(:recipients AS bytea[]), '{}')))""",
}
assert set(_CHECKS) == set(Found)

FAULTS: Final = (
    f"WITH {_SIDES}, fault AS ("
    + " UNION ALL ".join(
        f"SELECT '{kind}' AS kind, * FROM ({check}) AS c (subject, happened_at, detail, amount_wei)"
        for kind, check in _CHECKS.items()
    )
    + """), numbered AS (
        SELECT *, count(*) OVER (PARTITION BY kind) AS total,
               row_number() OVER (PARTITION BY kind ORDER BY happened_at, subject) AS number FROM fault)
    SELECT kind, subject, detail, happened_at, amount_wei, total FROM numbered
     WHERE CAST(:findings_max AS bigint) IS NULL OR number <= :findings_max"""
)
