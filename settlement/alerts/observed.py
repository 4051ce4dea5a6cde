"""What rules judge by: everything that was seen at one time, as plain values. None: not known."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from chain.chain_reading import Lock
from chain.coverage import Level


@dataclass(frozen=True, slots=True)
class SenderFunds:
    """Deposit and reserve of a sender as last evaluated (clearinghouse/coverage). Amounts in wei, times in seconds.

    `empty_*_s` are from `observed_at`; None: not foreseen. `burn_wei_per_day` and the advised top-up are None where
    the outlook did not come to an end.
    """

    sender: bytes
    observed_at: datetime
    is_simulated: bool
    deposit_wei: int
    reserve_wei: int
    lock: Lock
    level: Level
    coverage_bps: int | None = None
    burn_wei_per_day: int | None = None
    empty_median_s: int | None = None
    empty_pessimistic_s: int | None = None
    top_up_deposit_wei: int | None = None
    top_up_reserve_wei: int | None = None


@dataclass(frozen=True, slots=True)
class ServiceCheck:
    """What a serving process says of one of its parts. `since` is when that became so."""

    process: str
    name: str
    is_well: bool
    detail: str
    since: datetime
    seen_at: datetime


@dataclass(frozen=True, slots=True)
class ForeignRedemptions:
    """Redeemed tickets of a sender that were not issued as they are, of those that were read of late."""

    sender: bytes
    count: int
    face_value_wei: int
    newest_transaction: bytes


@dataclass(frozen=True, slots=True)
class Redemptions:
    """Of the tickets that a sender issued in the last `window_s`, how many were redeemed, and how many winners they are
    expected to have.

    `expected` None: among them are tickets whose chances nobody has seen.
    """

    sender: bytes
    window_s: int
    count: int
    expected: float | None


@dataclass(frozen=True, slots=True)
class TopupStanding:
    """How top-ups stand (settlement/topups). `condition`: why nothing is sent that should be, since when; None: all is
    well. `payer` is the wallet that pays, `balance_wei` what it has, None where it was not read."""

    condition: str | None
    said: str
    since: datetime
    payer: bytes | None
    balance_wei: int | None
    balance_is_low: bool


@dataclass(frozen=True, slots=True)
class JobHealth:
    """A job of the schedule. `late`: what is late, in words. `failed_count` are the failures in a row up to now; kind
    and text of the error are those of the newest run, where that failed."""

    name: str
    late: str | None
    failed_count: int
    error_kind: str = ""
    error: str = ""


@dataclass(frozen=True, slots=True)
class Undelivered:
    """A channel that takes no messages: how many were given up within a day, and since when the oldest waits."""

    channel: str
    given_up_count: int
    waiting_since: datetime | None
    error: str


@dataclass(frozen=True, slots=True)
class StripeInbox:
    """Stripe's events: how many are parked, which one last, and since when the oldest waits that should have been acted
    upon."""

    parked_count: int
    parked_newest: str
    parked_reason: str
    waiting_count: int
    waiting_since: datetime | None


@dataclass(frozen=True, slots=True)
class PaymentsNow:
    """Disputes that can be answered, the newest of them and until when the first; and since when the oldest request
    waits that should have been asked of Stripe."""

    disputes_count: int
    dispute_newest: str
    dispute_due_by: datetime | None
    unanswered_count: int
    unanswered_since: datetime | None


@dataclass(frozen=True, slots=True)
class CorrectionsRefused:
    """Credit notes and re-ratings that came to nothing after they were begun, within a day, and have no other in their
    place: how many, which one last ("" for none), and why."""

    count: int
    newest: str
    says: str


@dataclass(frozen=True, slots=True)
class Observed:
    """`now` is the time of all of it. `unpaid_invoices_count`: open ones that are past due."""

    now: datetime
    funds: tuple[SenderFunds, ...] = ()
    checks: tuple[ServiceCheck, ...] = ()
    foreign: tuple[ForeignRedemptions, ...] = ()
    redemptions: tuple[Redemptions, ...] = ()
    #: Open findings between signers' reports and issuances, by kind: those that are critical, and those that are not.
    signer_findings_critical: Mapping[str, int] | None = None
    signer_findings_warning: Mapping[str, int] | None = None
    #: Which critical finding was the last, over or not; "" where there was none.
    signer_finding_critical_newest: str = ""
    topups: TopupStanding | None = None
    jobs: tuple[JobHealth, ...] = ()
    undelivered: tuple[Undelivered, ...] = ()
    stripe: StripeInbox | None = None
    payments: PaymentsNow | None = None
    corrections_refused: CorrectionsRefused | None = None
    #: When the chain's events were last read; None where none ever were.
    chain_indexed_at: datetime | None = None
    unpaid_invoices_count: int = 0
