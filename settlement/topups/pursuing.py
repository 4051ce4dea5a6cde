"""What is next for a top-up that is in flight: decided from its rows and from what the chain says. No clock, no chain.

While none of its transactions is mined, the newest of them is kept alive. Once one is mined, or another transaction has
the nonce, nothing is done but to wait until that is deep enough: a chain that is reorganised takes it all back.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import NamedTuple
from uuid import UUID

from chain.funding import Amounts
from chain.transactions import Fees
from chain.wallet_chain import Fate, Followed, Mined


class State(StrEnum):
    """migrations/sql/0001_topups.sql has the picture."""

    PLANNED = "planned"
    SIGNED = "signed"
    SENT = "sent"
    CONFIRMED = "confirmed"
    FAILED = "failed"
    CANCELLED = "cancelled"
    DISPLACED = "displaced"
    ABANDONED = "abandoned"


class Purpose(StrEnum):
    FUND = "fund"
    CANCEL = "cancel"


@dataclass(frozen=True, slots=True)
class Attempt:
    """A transaction that was signed; the raw bytes are what is sent."""

    number: int
    purpose: Purpose
    hash: bytes
    raw: bytes
    fees: Fees
    gas_limit_count: int
    signed_at: datetime


@dataclass(frozen=True, slots=True)
class Topup:
    """A row, with its transactions in their order. Times are UTC."""

    id: UUID
    state: State
    chain_id: int
    ticket_broker: bytes
    sender: bytes
    payer: bytes
    amounts: Amounts
    nonce: int | None
    observed: Amounts
    is_cancelling: bool
    overtaken_since_block: int | None
    created_at: datetime
    ended_at: datetime | None
    mined_block: int | None
    fee_wei: int | None
    actor: str
    reason: str
    attempts: tuple[Attempt, ...]

    @property
    def is_open(self) -> bool:
        return self.state in {State.PLANNED, State.SIGNED, State.SENT}

    @property
    def newest(self) -> Attempt:
        return self.attempts[-1]


class Sign(NamedTuple):
    """Sign the first transaction."""


class Abandon(NamedTuple):
    """Nothing was signed, and it is too late now for what was planned."""


class Send(NamedTuple):
    """Send the newest transaction, for the first time or again."""


class Replace(NamedTuple):
    """Sign one with higher fees."""


class Wait(NamedTuple):
    """Nothing can be done now."""


class Unclear(NamedTuple):
    """Nothing can be done, and endpoints have been of different minds for too long: somebody has to look."""


class Overtaken(NamedTuple):
    """Take note from which block on another transaction has the nonce; None: it no longer has."""

    block: int | None


class End(NamedTuple):
    """It is over. `mined` is what the chain has of it."""

    state: State
    mined: Mined | None


Step = Sign | Abandon | Send | Replace | Wait | Unclear | Overtaken | End


class Patience(NamedTuple):
    """`plan_valid_s`: how old a plan may be of which nothing is signed yet."""

    confirmations_count: int
    stuck_after_s: int
    plan_valid_s: int


def step_before_sending(topup: Topup, now: datetime, patience: Patience) -> Step | None:
    """What is next where nothing was sent; None where the chain has to be asked."""
    if topup.state is State.PLANNED:
        is_late = now - topup.created_at > timedelta(seconds=patience.plan_valid_s)
        return Abandon() if is_late or now < topup.created_at - timedelta(seconds=patience.plan_valid_s) else Sign()
    return None


def next_step(topup: Topup, seen: Followed, now: datetime, patience: Patience) -> Step:
    """What is next for one that is signed."""
    if seen.fate is Fate.OVERTAKEN:
        if topup.overtaken_since_block is None:
            return Overtaken(seen.head_number)
        is_deep = seen.head_number - topup.overtaken_since_block >= patience.confirmations_count
        return End(State.DISPLACED, None) if is_deep else Wait()
    if topup.overtaken_since_block is not None and seen.fate is not Fate.UNDECIDED:
        return Overtaken(None)
    if seen.mined is not None:
        is_deep = seen.head_number - seen.mined.block_number >= patience.confirmations_count
        return End(_outcome(topup, seen.mined), seen.mined) if is_deep else Wait()
    is_stuck = now - topup.newest.signed_at >= timedelta(seconds=patience.stuck_after_s)
    if seen.fate is Fate.UNDECIDED:
        return Unclear() if is_stuck else Wait()
    if topup.state is State.SIGNED:
        return Send()
    if is_stuck:
        return Replace()
    return Send() if seen.fate is Fate.UNKNOWN else Wait()


def is_otherwise(topup: Topup, seen: Followed) -> bool:
    """Whether one that has ended is in flight again, or has another end: the chain was reorganised below its depth.

    One that failed, or whose nonce somebody else had, and of which the chain has nothing now, is left alone: another
    may have been sent in its place, and sent again it could be paid besides. Should it be mined, that shows here.
    """
    if seen.mined is not None:
        return _outcome(topup, seen.mined) is not topup.state
    return seen.fate is not Fate.UNDECIDED and topup.state in {State.CONFIRMED, State.CANCELLED}


def _outcome(topup: Topup, mined: Mined) -> State:
    (attempt,) = [each for each in topup.attempts if each.hash == mined.hash]
    if attempt.purpose is Purpose.CANCEL:
        return State.CANCELLED
    return State.CONFIRMED if mined.has_succeeded else State.FAILED
