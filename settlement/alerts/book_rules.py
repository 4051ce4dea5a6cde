"""Rules about what the books, the chain's events, the schedule and the channels say. Pure."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Final

from chain.signatures import checksum_address
from clearinghouse.instants import rfc3339
from settlement.alerts.burst import chance_of_at_least
from settlement.alerts.conditions import Condition, Group, Severity
from settlement.alerts.observed import Observed, Redemptions, Undelivered
from settlement.alerts.thresholds import Thresholds
from settlement.alerts.words import eth, span
from settlement.closing.close import PeriodsDiffer
from settlement.own_jobs import LedgerNotInOrder
from settlement.topups.conditions import Condition as Waiting
from settlement.topups.conditions import what_next

BOOK_RULES: Final = (
    "foreign_redemption", "redemption_burst", "signer_used_elsewhere", "signer_events_missing", "ledger_verify_failed",
    "periods_differ", "gas_low", "topup_waits", "job_late", "job_failing", "channel_failing", "chain_not_indexed",
    "invoices_unpaid", "correction_refused", "stripe_events_parked", "stripe_events_waiting",
)  # fmt: skip
#: The indexer reads every few seconds; with that much behind it redeemed tickets are not seen.
INDEX_AGE_MAX_S: Final = 120
#: A job that fails once may have met a database that was away.
FAILURES_MIN: Final = 2
#: A receiver that takes nothing for so long.
WAITING_MAX_S: Final = 600
#: An event is acted upon within a second; Stripe itself may be away for minutes.
STRIPE_WAITING_MAX_S: Final = 600
#: One that is to be done again is old, and is done in a moment.
STRIPE_AGAIN_S: Final = 60
#: What hinders a top-up may pass by itself: at a start nothing was computed yet, endpoints disagree for a block.
HINDERED_FOR_S: Final = 30
_PPM: Final = 1_000_000
#: Failures of jobs that have a rule of their own.
_TOLD_BY_THEMSELVES: Final = (LedgerNotInOrder.__name__, PeriodsDiffer.__name__)


def book_conditions(observed: Observed, thresholds: Thresholds) -> Iterator[Condition]:
    yield from _foreign(observed)
    yield from _bursts(observed, thresholds)
    yield from _signer_events(observed)
    yield from _ledger(observed)
    yield from _topups(observed)
    yield from _jobs(observed)
    yield from _undelivered(observed)
    yield from _index(observed)
    yield from _invoices(observed)
    yield from _corrections(observed)
    yield from _stripe(observed)


def _foreign(observed: Observed) -> Iterator[Condition]:
    for foreign in observed.foreign:
        address = checksum_address(foreign.sender)
        yield Condition(
            "foreign_redemption", Group.FUNDS, Severity.CRITICAL,
            f"{foreign.count} redeemed tickets of {address} were not issued here",
            labels=(("sender", address),), news=foreign.newest_transaction.hex(),
            facts=(
                ("sender", address), ("tickets", str(foreign.count)), ("face value", eth(foreign.face_value_wei)),
                ("newest transaction", f"0x{foreign.newest_transaction.hex()}"),
            ),
            advice="The key signs elsewhere. Look at `clearinghouse chain events --foreign`, and move the deposit to "
            "another key.",
        )  # fmt: skip


def _bursts(observed: Observed, thresholds: Thresholds) -> Iterator[Condition]:
    """Of each sender the window that chance explains least."""
    by_sender: dict[bytes, list[Redemptions]] = defaultdict(list)
    for seen in observed.redemptions:
        by_sender[seen.sender].append(seen)
    for sender, windows in by_sender.items():
        address = checksum_address(sender)
        unknown = Condition(
            "redemption_burst", Group.FUNDS, Severity.WARNING, f"redemptions of {address}", holds=None,
            labels=(("sender", address),),
        )  # fmt: skip
        judged = [(chance_of_at_least(at.count, at.expected), at) for at in windows if at.expected is not None]
        if len(judged) < len(windows):
            yield unknown
            continue
        chance, least = min(judged, key=lambda one: one[0])
        if chance * _PPM < thresholds.burst_probability_max_ppm:
            yield replace(
                unknown, holds=True,
                summary=f"{least.count} of the tickets that {address} issued within {span(least.window_s)} were "
                "redeemed: more than chance has",
                facts=(
                    ("sender", address), ("redeemed", str(least.count)), ("expected at most", f"{least.expected:.3g}"),
                    ("probability", f"{chance:.2g}"),
                    ("threshold", f"{thresholds.burst_probability_max_ppm} in a million"),
                ),
                advice="See who is paid: `clearinghouse chain events`. Whoever can choose what wins draws the deposit.",
            )  # fmt: skip


def _signer_events(observed: Observed) -> Iterator[Condition]:
    parts = (
        ("signer_used_elsewhere", Severity.CRITICAL, observed.signer_findings_critical,
         "Signers report what the books do not have", observed.signer_finding_critical_newest),
        ("signer_events_missing", Severity.WARNING, observed.signer_findings_warning,
         "Signers' reports are missing, or differ from the books", ""),
    )  # fmt: skip
    for rule, severity, findings, summary, news in parts:
        if findings is None:
            yield Condition(rule, Group.BOOKS, severity, summary, holds=None)
        elif any(findings.values()):
            yield Condition(
                rule, Group.BOOKS, severity, summary, facts=_counted(findings), news=news,
                advice="`clearinghouse reconcile signer-events` has them one by one.",
            )  # fmt: skip


def _ledger(observed: Observed) -> Iterator[Condition]:
    for job in observed.jobs:
        if job.error_kind == LedgerNotInOrder.__name__:
            yield Condition(
                "ledger_verify_failed", Group.BOOKS, Severity.CRITICAL, "The books do not add up",
                facts=(("found", job.error),),
                advice="`clearinghouse ledger verify` names every row. Nothing may be invoiced before this is "
                "understood.",
            )  # fmt: skip
        if job.error_kind == PeriodsDiffer.__name__:
            yield Condition(
                "periods_differ", Group.BOOKS, Severity.CRITICAL, "A billing period is not closed: its books differ",
                facts=(("found", job.error),),
                advice="`clearinghouse ledger verify` says what is wrong with these gateways; the others are closed.",
            )  # fmt: skip


def _topups(observed: Observed) -> Iterator[Condition]:
    standing = observed.topups
    if standing is None:
        return
    if standing.balance_is_low and standing.payer is not None and standing.balance_wei is not None:
        wallet = checksum_address(standing.payer)
        yield Condition(
            "gas_low", Group.FUNDS, Severity.WARNING, f"The wallet {wallet} has {eth(standing.balance_wei)} left",
            labels=(("wallet", wallet),), facts=(("wallet", wallet), ("balance", eth(standing.balance_wei))),
            advice=f"Send ETH to {wallet}: it pays for top-ups and their gas. topups.wallet_balance_min_wei is the "
            "threshold.",
        )  # fmt: skip
    if standing.condition is not None:
        yield Condition(
            "topup_waits", Group.FUNDS, Severity.WARNING, f"A top-up is not sent: {standing.said}",
            labels=(("condition", standing.condition),), facts=(("reason", standing.condition),),
            advice=what_next(standing.condition), since=standing.since,
            for_s=0 if standing.condition == Waiting.DRY_RUN else HINDERED_FOR_S,
        )  # fmt: skip


def _jobs(observed: Observed) -> Iterator[Condition]:
    for job in observed.jobs:
        labels = (("job", job.name),)
        if job.late is not None:
            yield Condition(
                "job_late", Group.WORK, Severity.WARNING, f"The job {job.name} {job.late}",
                labels=labels, facts=(("job", job.name),),
                advice="See `clearinghouse jobs`: it may hang, or the worker may be too slow.",
            )  # fmt: skip
        if job.failed_count >= FAILURES_MIN and job.error_kind not in _TOLD_BY_THEMSELVES:
            yield Condition(
                "job_failing", Group.WORK, Severity.WARNING, f"The job {job.name} fails",
                labels=labels,
                facts=(("job", job.name), ("failures", str(job.failed_count)), ("error", job.error)),
                advice="See `clearinghouse jobs`, and the log of the worker.",
            )  # fmt: skip


def _undelivered(observed: Observed) -> Iterator[Condition]:
    for stuck in observed.undelivered:
        waits_s = _waits_s(stuck, observed)
        if stuck.given_up_count or waits_s > WAITING_MAX_S:
            yield Condition(
                "channel_failing", Group.WORK, Severity.WARNING, f"Messages do not reach the channel {stuck.channel}",
                labels=(("channel", stuck.channel),),
                facts=(
                    ("channel", stuck.channel), ("given up", str(stuck.given_up_count)),
                    ("waiting for", span(waits_s)), ("error", stuck.error),
                ),
                advice="Correct alerts.channels, and try it: `clearinghouse alerts test`.",
            )  # fmt: skip


def _waits_s(stuck: Undelivered, observed: Observed) -> int:
    return int((observed.now - stuck.waiting_since).total_seconds()) if stuck.waiting_since is not None else 0


def _index(observed: Observed) -> Iterator[Condition]:
    if observed.chain_indexed_at is None:
        return
    age_s = int((observed.now - observed.chain_indexed_at).total_seconds())
    if age_s > INDEX_AGE_MAX_S:
        yield Condition(
            "chain_not_indexed", Group.CHAIN, Severity.WARNING,
            f"The chain's events were last read {span(age_s)} ago", since=observed.chain_indexed_at,
            facts=(("last read", rfc3339(observed.chain_indexed_at)),),
            advice="`chain_not_indexed` in the log says why. Redeemed tickets are not seen meanwhile; nothing is lost.",
        )  # fmt: skip


def _invoices(observed: Observed) -> Iterator[Condition]:
    if observed.unpaid_invoices_count:
        yield Condition(
            "invoices_unpaid", Group.BOOKS, Severity.WARNING,
            f"{observed.unpaid_invoices_count} invoices are overdue and not paid",
            facts=(("invoices", str(observed.unpaid_invoices_count)),),
            advice="Their gateways are reminded, and held in time, by themselves: call those you do not want to lose.",
        )  # fmt: skip


def _corrections(observed: Observed) -> Iterator[Condition]:
    refused = observed.corrections_refused
    if refused is not None and refused.count:
        yield Condition(
            "correction_refused", Group.BOOKS, Severity.WARNING,
            f"{refused.count} credit notes or re-ratings that were begun came to nothing",
            news=refused.newest,
            facts=(("refused", str(refused.count)), ("newest", refused.newest), ("says", refused.says)),
            advice="`clearinghouse invoices show` of the invoice has them. Whoever asked for one thinks that it is "
            "done: ask for it anew, or tell them.",
        )  # fmt: skip


def _stripe(observed: Observed) -> Iterator[Condition]:
    inbox = observed.stripe
    if inbox is None:
        return
    if inbox.parked_count:
        yield Condition(
            "stripe_events_parked", Group.BOOKS, Severity.CRITICAL,
            f"{inbox.parked_count} of Stripe's events are parked: money may have moved that the books do not have",
            news=inbox.parked_newest,
            facts=(("events", str(inbox.parked_count)), ("newest", inbox.parked_newest), ("says", inbox.parked_reason)),
            advice="`clearinghouse stripe events list --state parked` has the reasons; once that is mended, "
            "`clearinghouse stripe events redrive`.",
        )  # fmt: skip
    if inbox.waiting_since is not None:
        waits_s = int((observed.now - inbox.waiting_since).total_seconds())
        if waits_s > STRIPE_WAITING_MAX_S:
            yield Condition(
                "stripe_events_waiting", Group.BOOKS, Severity.WARNING,
                f"Stripe's events wait for {span(waits_s)}", for_s=STRIPE_AGAIN_S,
                facts=(("events", str(inbox.waiting_count)), ("waiting for", span(waits_s))),
                advice="Payments are booked late. Does a `clearinghouse work` run with stripe.api_key_file, and is "
                "Stripe there? `stripe_event_waits` in its log says why.",
            )  # fmt: skip


def _counted(counts: Mapping[str, int]) -> tuple[tuple[str, str], ...]:
    return tuple((name, str(count)) for name, count in sorted(counts.items()) if count)
