"""Sees everything that rules judge by, in one transaction: what other processes have left in the database.

Nothing is asked of the outside here: readings of the chain, heartbeats of services and checks of the books are left by
whoever makes them, each with its time.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Final

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from clearinghouse.coverage.snapshots import Snapshot, newest_of_all, newest_with_outlook
from clearinghouse.ids import show
from clearinghouse.job_runs import Outcome, Standing, standings
from clearinghouse.ledger.claims.claim import shown
from settlement.alerts.observed import (
    CorrectionsRefused,
    ForeignRedemptions,
    JobHealth,
    Observed,
    PaymentsNow,
    Redemptions,
    SenderFunds,
    ServiceCheck,
    StripeInbox,
    TopupStanding,
    Undelivered,
)

#: A sender that was not evaluated for so long is not used any more.
FUNDS_SEEN_WITHIN: Final = timedelta(days=2)
#: An outlook is computed with every snapshot of the schedule, once a minute unless configured otherwise.
OUTLOOK_WITHIN: Final = timedelta(minutes=10)
#: Tickets issued within each are held against chance: a burst that has just begun shows in the shortest.
BURST_WINDOWS_S: Final = (6 * 3600, 24 * 3600, 72 * 3600)
_GIVEN_UP_WITHIN: Final = timedelta(days=1)
#: A chain does not forget: what nobody has repeated for so long is over.
FOREIGN_WITHIN: Final = timedelta(days=7)
#: Nobody can take back that a correction was refused: it is told for a day.
REFUSED_WITHIN: Final = timedelta(days=1)


async def observe(connection: AsyncConnection, now: datetime) -> Observed:
    """Everything as it is now."""
    findings = await _signer_findings(connection)
    jobs = await standings(connection)
    return Observed(
        now=now,
        funds=await _funds(connection, now),
        checks=await _checks(connection),
        foreign=await _foreign(connection, now),
        redemptions=await _redemptions(connection, now),
        signer_findings_critical=findings["critical"],
        signer_findings_warning=findings["warning"],
        signer_finding_critical_newest=await _newest_critical(connection),
        topups=await _topups(connection),
        jobs=tuple(_job(standing, now) for standing in jobs),
        undelivered=await _undelivered(connection, now),
        stripe=await _stripe(connection),
        payments=await _payments(connection),
        corrections_refused=await _corrections_refused(connection, now),
        chain_indexed_at=await _chain_indexed_at(connection),
        unpaid_invoices_count=await _unpaid_invoices(connection, now),
    )


async def _funds(connection: AsyncConnection, now: datetime) -> tuple[SenderFunds, ...]:
    newest = [seen for seen in await newest_of_all(connection) if seen.observed_at > now - FUNDS_SEEN_WITHIN]
    return tuple([await _funds_of(connection, seen) for seen in newest])


async def _funds_of(connection: AsyncConnection, seen: Snapshot) -> SenderFunds:
    """What is known of the future may be some minutes older than the rest: whoever is told of a level at the moment at
    which it is reached must hear of it, too."""
    ahead = seen
    if not seen.has_outlook:
        since = seen.observed_at - OUTLOOK_WITHIN
        ahead = await newest_with_outlook(connection, seen.sender, since=since) or seen
    return SenderFunds(
        sender=seen.sender, observed_at=seen.observed_at, is_simulated=seen.simulated,
        deposit_wei=seen.deposit_wei, reserve_wei=seen.reserve_wei, lock=seen.lock, level=seen.level,
        coverage_bps=seen.coverage_bps, burn_wei_per_day=ahead.burn_wei_per_day,
        empty_median_s=ahead.empty_median_s, empty_pessimistic_s=ahead.empty_pessimistic_s,
        top_up_deposit_wei=_still_missing(ahead.top_up_deposit_wei, ahead.deposit_wei, seen.deposit_wei),
        top_up_reserve_wei=_still_missing(ahead.top_up_reserve_wei, ahead.reserve_wei, seen.reserve_wei),
    )  # fmt: skip


def _still_missing(advised_wei: int | None, had_wei: int, has_wei: int) -> int | None:
    """Advice says where an amount should get to; what it has lost or gained since is counted."""
    return max(had_wei + advised_wei - has_wei, 0) if advised_wei else advised_wei


async def _checks(connection: AsyncConnection) -> tuple[ServiceCheck, ...]:
    query = "SELECT process, name, is_well, detail, since, seen_at FROM service_condition ORDER BY process, name"
    return tuple(ServiceCheck(*row) for row in await connection.execute(text(query)))


async def _foreign(connection: AsyncConnection, now: datetime) -> tuple[ForeignRedemptions, ...]:
    query = """SELECT sender::bytea, count(*), sum(face_value_wei),
                      (array_agg(transaction_hash::bytea ORDER BY block_number DESC, log_index DESC))[1]
                 FROM winning_ticket WHERE status IN ('foreign', 'altered') AND recorded_at > :since
                GROUP BY sender ORDER BY sender"""
    rows = await connection.execute(text(query), {"since": now - FOREIGN_WITHIN})
    return tuple(
        ForeignRedemptions(bytes(sender), count, int(face_value_wei), bytes(newest))
        for sender, count, face_value_wei, newest in rows
    )


# Winners among the tickets of a window, as far as they were redeemed, and how many there are to be expected. The book
# has no chances of tickets that the webhook approved: where there are such, nothing is known.
_REDEMPTIONS: Final = """
    WITH book AS (
        SELECT sender, sum(num_tickets * win_prob) / (2::numeric ^ 256 - 1) AS expected,
               bool_or(win_prob IS NULL AND num_tickets > 0) AS has_unseen
          FROM exposure_book WHERE issued_hour >= date_trunc('hour', CAST(:begins_at AS timestamptz), 'UTC')
         GROUP BY sender),
    redeemed AS (
        SELECT sender, count(*) AS count, sum(win_prob) / (2::numeric ^ 256 - 1) AS expected FROM winning_ticket
         WHERE status = 'matched' AND issuance_id >= uuid7_from(CAST(:begins_at AS timestamptz)) GROUP BY sender)
    SELECT sender::bytea, redeemed.count,
           CASE WHEN coalesce(has_unseen, false) THEN NULL
                ELSE (coalesce(book.expected, 0) + redeemed.expected)::float8 END AS expected
      FROM redeemed LEFT JOIN book USING (sender) ORDER BY sender
"""


async def _redemptions(connection: AsyncConnection, now: datetime) -> tuple[Redemptions, ...]:
    """Of each sender whose tickets were redeemed. What is matched has left the book, and is counted all the same."""
    seen = []
    for window_s in BURST_WINDOWS_S:
        rows = await connection.execute(text(_REDEMPTIONS), {"begins_at": now - timedelta(seconds=window_s)})
        seen += [Redemptions(bytes(sender), window_s, count, expected) for sender, count, expected in rows]
    return tuple(seen)


async def _signer_findings(connection: AsyncConnection) -> dict[str, dict[str, int]]:
    query = "SELECT severity, kind, count(*) FROM open_signer_event_finding GROUP BY severity, kind"
    findings: dict[str, dict[str, int]] = {"critical": {}, "warning": {}, "info": {}}
    for severity, kind, count in await connection.execute(text(query)):
        findings[severity][kind] = count
    return findings


async def _newest_critical(connection: AsyncConnection) -> str:
    """Also one that is over: it must not seem that an older one has come anew."""
    query = """SELECT kind || ' ' || subject FROM signer_event_finding WHERE severity = 'critical'
                ORDER BY first_seen_at DESC, kind, subject LIMIT 1"""
    return (await connection.execute(text(query))).scalar_one_or_none() or ""


async def _topups(connection: AsyncConnection) -> TopupStanding | None:
    query = "SELECT condition, said, since, payer::bytea, balance_wei, balance_is_low FROM topup_standing"
    row = (await connection.execute(text(query))).one_or_none()
    if row is None:
        return None
    payer = bytes(row.payer) if row.payer is not None else None
    balance_wei = int(row.balance_wei) if row.balance_wei is not None else None
    return TopupStanding(row.condition, row.said, row.since, payer, balance_wei, row.balance_is_low)


def _job(standing: Standing, now: datetime) -> JobHealth:
    last = standing.last
    has_failed = last is not None and last.outcome is Outcome.FAILED
    return JobHealth(
        standing.name, standing.late(now), standing.failures_count,
        error_kind=(last.error_kind or "") if last is not None and has_failed else "",
        error=(last.error or "") if last is not None and has_failed else "",
    )  # fmt: skip


# A message that got through since shows that the channel works again.
_UNDELIVERED: Final = """
    SELECT channel, given_up_count, waiting_since, error
      FROM (SELECT channel,
                   count(*) FILTER (WHERE state = 'dead' AND ended_at > greatest(:since, delivered.at))
                       AS given_up_count,
                   min(created_at) FILTER (WHERE state = 'waiting' AND attempts_count > 0) AS waiting_since,
                   max(error) FILTER (WHERE state <> 'delivered') AS error
              FROM (SELECT * FROM delivery WHERE kind = 'alert' AND state = 'waiting'
                    UNION ALL
                    SELECT * FROM delivery WHERE kind = 'alert' AND state = 'dead' AND ended_at > :since) AS stuck
              LEFT JOIN LATERAL (SELECT max(ended_at) AS at FROM delivery
                                  WHERE kind = 'alert' AND channel = stuck.channel AND state = 'delivered'
                                    AND ended_at > :since) AS delivered ON true
             GROUP BY channel) AS by_channel
     WHERE given_up_count > 0 OR waiting_since IS NOT NULL ORDER BY channel
"""


async def _undelivered(connection: AsyncConnection, now: datetime) -> tuple[Undelivered, ...]:
    rows = await connection.execute(text(_UNDELIVERED), {"since": now - _GIVEN_UP_WITHIN})
    return tuple(Undelivered(row.channel, row.given_up_count, row.waiting_since, row.error or "") for row in rows)


_STRIPE: Final = """
    SELECT (SELECT count(*) FROM stripe_event WHERE state = 'parked') AS parked_count,
           parked.id AS parked_newest, parked.said AS parked_reason, waiting.count AS waiting_count,
           waiting.since AS waiting_since
      FROM (SELECT count(*), min(received_at) AS since FROM stripe_event
             WHERE state IN ('received', 'processing')) AS waiting
      LEFT JOIN LATERAL (SELECT id, said FROM stripe_event WHERE state = 'parked'
                          ORDER BY ended_at DESC, id LIMIT 1) AS parked ON true
"""


async def _stripe(connection: AsyncConnection) -> StripeInbox:
    row = (await connection.execute(text(_STRIPE))).one()
    return StripeInbox(
        row.parked_count, row.parked_newest or "", row.parked_reason or "", row.waiting_count, row.waiting_since
    )


_PAYMENTS: Final = """
    SELECT disputed.count AS disputes_count, disputed.newest, disputed.due_by, waiting.count AS waiting_count,
           waiting.since
      FROM (SELECT count(*), (array_agg(id ORDER BY created_at DESC, id))[1] AS newest, min(due_by) AS due_by
              FROM dispute WHERE status IN ('needs_response', 'warning_needs_response')) AS disputed,
           (SELECT count(*), min(created_at) AS since FROM (
                SELECT created_at FROM payment WHERE state = 'requested' AND method NOT IN ('wire', 'stablecoin')
                 UNION ALL SELECT created_at FROM refund WHERE state = 'requested') AS asked) AS waiting
"""


async def _payments(connection: AsyncConnection) -> PaymentsNow:
    row = (await connection.execute(text(_PAYMENTS))).one()
    return PaymentsNow(row.disputes_count, row.newest or "", row.due_by, row.waiting_count, row.since)


_RERATING: Final = shown("rrt", "rerating.id")
#: The job that goes on with them says it once; nobody may have looked. Left out is what has another in its place, and
#: the note of a re-rating, which tells of that itself.
_CORRECTIONS: Final = f"""
    SELECT prefix, id, problem, count(*) OVER () AS refused_count FROM (
        SELECT 'rrt' AS prefix, id, problem, ended_at FROM rerating AS refused
         WHERE state = 'refused' AND NOT EXISTS (
               SELECT FROM rerating AS other WHERE other.gateway_id = refused.gateway_id
                  AND other.begins_at = refused.begins_at AND other.id > refused.id AND other.state <> 'refused')
         UNION ALL
        SELECT 'crn', id, problem, ended_at FROM credit_note AS refused
         WHERE state = 'refused' AND NOT EXISTS (
               SELECT FROM credit_note AS other WHERE other.invoice_id = refused.invoice_id
                  AND other.reason = refused.reason AND other.state <> 'refused')
           AND NOT EXISTS (
               SELECT FROM rerating WHERE rerating.invoice_id = refused.invoice_id
                  AND right(refused.reason, length({_RERATING}) + 2) = '(' || {_RERATING} || ')')) AS refused
     WHERE ended_at > :since ORDER BY ended_at DESC, id DESC LIMIT 1
"""  # noqa: S608 - our words


async def _corrections_refused(connection: AsyncConnection, now: datetime) -> CorrectionsRefused:
    newest = (await connection.execute(text(_CORRECTIONS), {"since": now - REFUSED_WITHIN})).one_or_none()
    if newest is None:
        return CorrectionsRefused(0, "", "")
    return CorrectionsRefused(newest.refused_count, show(newest.prefix, newest.id), newest.problem or "")


async def _chain_indexed_at(connection: AsyncConnection) -> datetime | None:
    return (await connection.execute(text("SELECT read_at FROM chain_follower"))).scalar_one_or_none()


async def _unpaid_invoices(connection: AsyncConnection, now: datetime) -> int:
    """What was given up as uncollectible is nothing to be reminded of."""
    query = (
        "SELECT count(*) FROM invoice WHERE state IN ('finalized', 'open') AND remaining_minor > 0 AND due_at < :now"
    )
    return int((await connection.execute(text(query), {"now": now})).scalar_one())
