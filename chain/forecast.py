"""Which deposit and reserve carry a plan of sessions, and how long given ones do: played and computed, side by side.

`chain.simulation` plays the plan twice: with demand that varies, which is the answer, and with steady demand, which
`chain.payouts` can also compute, so that the two check each other.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil
from typing import Final, NamedTuple

import numpy as np

from chain.exposure import OpenTickets, exposure, top_up
from chain.payouts import Flow, Payouts
from chain.simulation import (
    HORIZON_MAX_S,
    HORIZON_MIN_S,
    AfterRuin,
    AmountEstimate,
    Estimate,
    Played,
    Progress,
    play,
    redeemed_share,
    waiting_s,
)
from chain.traffic import DAY_S, REDEEMED_AFTER_MIN_S, ROUND_S, PlannedFunds, Traffic

#: How probable it is that the deposit is empty by the pessimistic time.
PESSIMISTIC: Final = 0.05
_EMPTYING_RUNS_MAX: Final = 2_000


class Beside(NamedTuple):
    """One probability three times."""

    computed: float
    steady: Estimate
    played: Estimate


class AmountBeside(NamedTuple):
    """One amount three times."""

    computed_wei: int
    steady: AmountEstimate
    played: AmountEstimate


class Emptying(NamedTuple):
    """When the deposit is exhausted, in s; None if not within a year."""

    computed_s: int | None
    played_s: int | None


@dataclass(frozen=True, slots=True)
class Question:
    """Raises ValueError for what cannot be asked."""

    traffic: Traffic
    #: None: the recommended ones.
    deposit_wei: int | None
    reserve_wei: int | None
    pool_size_count: int
    divisor_count: int
    #: Among whom the traffic is divided; the reserve is divided among the pool.
    orchestrators_count: int
    horizon_s: int
    ruin_probability: float
    runs_count: int
    seed: int

    def __post_init__(self) -> None:
        for name in ("pool_size_count", "divisor_count", "orchestrators_count"):
            if getattr(self, name) <= 0:
                raise ValueError(f"{name} must be above 0, got {getattr(self, name)}")
        for name in ("deposit_wei", "reserve_wei"):
            if (getattr(self, name) or 0) < 0:
                raise ValueError(f"{name} must not be negative, got {getattr(self, name)}")
        if self.orchestrators_count > self.pool_size_count:
            raise ValueError(
                f"only active orchestrators are paid: {self.orchestrators_count} are more than "
                f"the {self.pool_size_count} of the pool"
            )
        if not 0 < self.ruin_probability < 1:
            raise ValueError(f"a ruin probability must be above 0 and below 1, got {self.ruin_probability:g}")
        if self.runs_count * self.ruin_probability < 10:
            raise ValueError(
                f"{self.runs_count} runs do not show a probability of {self.ruin_probability:g}: "
                f"it takes {ceil(10 / self.ruin_probability)}, of which 10 are ruined"
            )


@dataclass(frozen=True, slots=True)
class Forecast:
    """The answers. What is 'played' varies by the day as the plan says."""

    #: Exhausted with the wanted probability.
    needed: AmountBeside
    #: What `needed` would be for a book in which all open tickets may still win: `clearinghouse` counts so (8.6).
    needed_by_book_wei: int
    #: Keeps ruin below the wanted probability, by the upper end of the interval; signs to the end; full face values.
    recommended: PlannedFunds
    #: What the rest is said of: as asked, or as recommended.
    funds: PlannedFunds
    ruin: Beside
    #: The deposit is too small for the next ticket, and the signer refuses.
    refusing: Beside
    #: Whether the computed ruin and deposit are those of the steady plays, within three times the interval: six
    #: standard deviations, so that chance alone does not say no.
    do_agree: bool
    after_ruin: AfterRuin
    empty_median: Emptying
    empty_pessimistic: Emptying
    burn_per_day_wei: int
    burn_per_day: AmountEstimate
    fees_per_day_wei: int
    winners_per_day: float
    open_tickets_count: int
    open_tickets_played_count: int
    #: Of all open tickets.
    expected_liability_wei: int
    #: Of winners that wait for their redemption: what is left of it, knowing how long redemption takes.
    waiting_wei: int
    waiting: AmountEstimate
    #: What orchestrators will make a ticket, at most; the plan's face value may be beyond it.
    quoted_face_value_max_wei: int
    #: What the signer lets through, at most.
    signed_face_value_max_wei: int
    #: By the end of each step of `step_s`: the amounts drawn by the luckiest 5 %, half, and 95 % of the runs.
    step_s: float
    drawn_wei: tuple[list[int], list[int], list[int]]


def forecast(question: Question, progress: Progress | None = None) -> Forecast:
    """Plays and computes. Raises ValueError for a horizon, seed or number of runs that is out of range."""
    traffic, horizon_s = question.traffic, question.horizon_s
    in_all = 2 * question.runs_count + min(question.runs_count, _EMPTYING_RUNS_MAX)
    varied = _play(question, _shifted(progress, 0, in_all))
    steady = _play(question, _shifted(progress, question.runs_count, in_all), is_steady=True)
    computed = Payouts([], [_flow(traffic)], horizon_max_s=horizon_s)
    confidence = 1 - question.ruin_probability
    needed = AmountBeside(
        computed.quantile_wei(confidence, horizon_s=horizon_s),
        steady.deposit_wei(question.ruin_probability),
        varied.deposit_wei(question.ruin_probability),
    )
    recommended = _recommended(question, needed.played.high_wei)
    funds = _funds(question, recommended)
    ruin = _beside(funds.deposit_wei, computed, steady, varied)
    next_ticket_wei = funds.divisor_count * traffic.face_value_wei
    open_tickets = [_open_tickets(traffic)]
    book = exposure(open_tickets)
    empty_median, empty_pessimistic = _emptying(question, funds, _shifted(progress, 2 * question.runs_count, in_all))
    return Forecast(
        needed=needed,
        needed_by_book_wei=Payouts(open_tickets, [_flow(traffic)], horizon_max_s=horizon_s).quantile_wei(
            confidence, horizon_s=horizon_s
        ),
        recommended=recommended,
        funds=funds,
        ruin=ruin,
        refusing=_beside(funds.deposit_wei - next_ticket_wei, computed, steady, varied),
        do_agree=_do_agree(ruin) and _do_agree_amounts(needed, traffic.face_value_wei),
        after_ruin=varied.after_ruin(
            funds,
            orchestrators_count=question.orchestrators_count,
            rng=np.random.default_rng([question.seed, 2]),
        ),
        empty_median=empty_median,
        empty_pessimistic=empty_pessimistic,
        burn_per_day_wei=round(_winners_per_day(traffic) * 10**9) * traffic.face_value_wei // 10**9,
        burn_per_day=varied.per_day_wei(),
        fees_per_day_wei=int(traffic.fee_wei_per_s * traffic.sessions_count * DAY_S),
        winners_per_day=_winners_per_day(traffic),
        open_tickets_count=open_tickets[0].num_tickets,
        open_tickets_played_count=round(varied.open_tickets.mean()),
        expected_liability_wei=book.expected_wei,
        waiting_wei=_waiting_wei(traffic),
        waiting=varied.waiting_wei(),
        quoted_face_value_max_wei=funds.quoted().max_float_wei,
        signed_face_value_max_wei=funds.deposit_wei // funds.divisor_count,
        step_s=varied.step_s,
        drawn_wei=(varied.drawn_wei(0.05), varied.drawn_wei(0.5), varied.drawn_wei(0.95)),
    )


def _play(question: Question, progress: Progress | None, *, is_steady: bool = False) -> Played:
    return play(
        question.traffic,
        horizon_s=question.horizon_s,
        runs_count=question.runs_count,
        seed=question.seed + is_steady,
        is_steady=is_steady,
        progress=progress,
    )


def _shifted(progress: Progress | None, done_before: int, in_all: int) -> Progress | None:
    return (lambda done, _: progress(done_before + done, in_all)) if progress else None


def _winners_per_day(traffic: Traffic) -> float:
    """That are redeemed before they expire."""
    return traffic.pace().tickets_per_day * traffic.win_probability * redeemed_share(traffic)


def _flow(traffic: Traffic) -> Flow:
    """In the steady state as many winners are redeemed in a day as are issued in one, without those that expire."""
    tickets_per_day = round(traffic.pace().tickets_per_day * redeemed_share(traffic))
    return Flow(traffic.face_value_wei, traffic.win_prob, max(1, tickets_per_day))


def _open_tickets(traffic: Traffic) -> OpenTickets:
    """Tickets live for a round and a half on average; the few that are redeemed are open for less."""
    per_s = traffic.pace().tickets_per_day / DAY_S
    return OpenTickets(traffic.face_value_wei, traffic.win_prob, ceil(per_s * 1.5 * ROUND_S))


def _waiting_wei(traffic: Traffic) -> int:
    winners = traffic.pace().tickets_per_day / DAY_S * traffic.win_probability * waiting_s(traffic)
    return round(winners * 10**9) * traffic.face_value_wei // 10**9


def _recommended(question: Question, needed_wei: int) -> PlannedFunds:
    missing = top_up(
        deposit_wei=0,
        reserve_wei=0,
        claimed_in_round_wei=0,
        pool_size_count=question.pool_size_count,
        needed_deposit_wei=needed_wei,
        face_value_wei=question.traffic.face_value_wei,
        divisor_count=question.divisor_count,
    )
    return PlannedFunds(missing.deposit_wei, missing.reserve_wei, question.pool_size_count, question.divisor_count)


def _funds(question: Question, recommended: PlannedFunds) -> PlannedFunds:
    deposit_wei = recommended.deposit_wei if question.deposit_wei is None else question.deposit_wei
    reserve_wei = recommended.reserve_wei if question.reserve_wei is None else question.reserve_wei
    return PlannedFunds(deposit_wei, reserve_wei, question.pool_size_count, question.divisor_count)


def _beside(amount_wei: int, computed: Payouts, steady: Played, varied: Played) -> Beside:
    if amount_wei < 0:
        certain = Estimate(1.0, 1.0, 1.0)
        return Beside(1.0, certain, certain)
    return Beside(
        computed.exceed(amount_wei, horizon_s=computed.horizon_max_s),
        steady.exceed(amount_wei),
        varied.exceed(amount_wei),
    )


def _do_agree(beside: Beside) -> bool:
    low, high = beside.steady.low, beside.steady.high
    return low - (high - low) <= beside.computed <= high + (high - low)


def _do_agree_amounts(beside: AmountBeside, face_value_wei: int) -> bool:
    """To a winner more, because amounts are whole winners."""
    low_wei, high_wei = beside.steady.low_wei, beside.steady.high_wei
    width_wei = high_wei - low_wei + face_value_wei
    return low_wei - width_wei <= beside.computed_wei <= high_wei + width_wei


def _emptying(question: Question, funds: PlannedFunds, progress: Progress | None) -> tuple[Emptying, Emptying]:
    """Over as long as it is likely to take, which may be another time than the horizon."""
    traffic = question.traffic
    winners = funds.deposit_wei // traffic.face_value_wei + 1
    likely_s = (winners + 4 * winners**0.5 + 4) / _winners_per_day(traffic) * DAY_S + 10 * REDEEMED_AFTER_MIN_S
    horizon_s = ceil(min(max(likely_s, HORIZON_MIN_S), HORIZON_MAX_S))
    computed = Payouts([], [_flow(traffic)], horizon_max_s=horizon_s)
    played = play(
        traffic,
        horizon_s=horizon_s,
        runs_count=min(question.runs_count, _EMPTYING_RUNS_MAX),
        seed=question.seed + 3,
        progress=progress,
    )
    median, pessimistic = (
        Emptying(
            computed.exceeded_after_s(funds.deposit_wei, probability),
            played.emptied_after_s(funds.deposit_wei, probability),
        )
        for probability in (0.5, PESSIMISTIC)
    )
    return median, pessimistic
