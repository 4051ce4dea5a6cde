"""The future of the deposit, played with dice: sessions begin and end, issue tickets, and some of them win.

What is alike is counted, not listed, which is exact: sessions that may end are a binomial, tickets that may win too,
and winners are spread over the steps in which they will be redeemed. A run costs the same for ten sessions and for ten
million. The plays begin in the steady state: sessions are open, and winners of the past are still to be redeemed.

One set of runs serves every deposit, because a deposit is exhausted when what was paid exceeds it. Floats are for
probabilities and rates; amounts are whole winners times their face value.

Imported by what plans coverage, never by what signs: numpy takes memory and time to load.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import ceil, sqrt
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from chain.traffic import DAY_S, REDEEMED_AFTER_MIN_S, ROUND_S, PlannedFunds, Traffic

RUNS_MAX: Final = 100_000
HORIZON_MIN_S: Final = 3_600
#: A year. A step of a longer play would be longer than a day, by which demand varies.
HORIZON_MAX_S: Final = 366 * DAY_S
_STEPS_MAX: Final = 240
_STEP_MIN_S: Final = 300
_RUNS_AT_ONCE: Final = 1_000
#: Delays less likely than this are counted with the longest that are told apart.
_NEVER: Final = 1e-12
#: Of the standard normal distribution: 95 % are within.
_DEVIATIONS: Final = 1.96

_Counts = NDArray[np.int64]
_Reals = NDArray[np.float64]

#: Called with the runs that are done, and how many there will be.
Progress = Callable[[int, int], None]


class Estimate(NamedTuple):
    """A number out of dice, and the interval that covers what it estimates with 95 %."""

    value: float
    low: float
    high: float

    def has(self, number: float) -> bool:
        return self.low <= number <= self.high


class AmountEstimate(NamedTuple):
    """An amount out of dice, and its interval."""

    wei: int
    low_wei: int
    high_wei: int


class AfterRuin(NamedTuple):
    """What an emptied deposit still owes, when no more tickets are signed: means of the runs that emptied it."""

    runs_count: int
    from_reserve_wei: int
    unpaid_wei: int
    #: Of the runs that have a winner which neither deposit nor reserve paid.
    unpaid_runs_count: int


@dataclass(frozen=True, slots=True)
class Played:
    """All runs: winners by the end of each step, a row a run. Step 0 is the present."""

    face_value_wei: int
    step_s: float
    #: Redeemed since the present.
    redeemed: _Counts
    #: Issued, still to be redeemed in time.
    waiting: _Counts
    #: Neither redeemed nor expired at the horizon: a run's number.
    open_tickets: _Reals

    @property
    def runs_count(self) -> int:
        return len(self.redeemed)

    def exceed(self, amount_wei: int) -> Estimate:
        """The probability that more than `amount_wei` is drawn by the horizon."""
        return proportion(self._exceeding(amount_wei), self.runs_count)

    def deposit_wei(self, probability: float) -> AmountEstimate:
        """The deposit that is exhausted with this probability at most. Its interval needs no assumption on the tail:
        it is between two runs, counted from the most expensive. Raises ValueError for too few runs to tell."""
        exceeding = self.runs_count * probability
        if exceeding < 10:
            raise ValueError(
                f"{self.runs_count} runs do not show a probability of {probability:g}: "
                f"it takes {ceil(10 / probability)}, of which 10 are ruined"
            )
        winners = np.sort(self.redeemed[:, -1])[::-1]
        error = _DEVIATIONS * sqrt(exceeding * (1 - probability))
        ranks = (int(exceeding), ceil(exceeding + error), int(exceeding - error))
        drawn = (int(winners[min(max(rank, 0), len(winners) - 1)]) for rank in ranks)
        return AmountEstimate(*(count * self.face_value_wei for count in drawn))

    def per_day_wei(self) -> AmountEstimate:
        """What is drawn in a day."""
        return self._mean(self.redeemed[:, -1].astype(np.float64) / self._days)

    def waiting_wei(self) -> AmountEstimate:
        """What open tickets will still cost: those that won and are not redeemed yet, at the horizon."""
        return self._mean(self.waiting[:, -1].astype(np.float64))

    def emptied_after_s(self, deposit_wei: int, probability: float) -> int | None:
        """When the deposit is exhausted with this probability, to a step; None if not within the horizon."""
        exhausted = np.sort(self._exhausted_step(deposit_wei))
        step = int(exhausted[min(ceil(self.runs_count * probability), self.runs_count) - 1])
        return None if step > self._steps else round(step * self.step_s)

    def drawn_wei(self, probability: float) -> list[int]:
        """What is drawn by the end of each step, or less, with this probability."""
        winners = np.quantile(self.redeemed, probability, axis=0, method="inverted_cdf")
        return [int(count) * self.face_value_wei for count in winners]

    def after_ruin(self, funds: PlannedFunds, *, orchestrators_count: int, rng: np.random.Generator) -> AfterRuin:
        """What becomes of the winners that an exhausted deposit leaves, `orchestrators_count` sharing the traffic.

        They are taken to come in one round, in which an orchestrator has one share of the reserve: the safe side.
        """
        steps = self._exhausted_step(funds.deposit_wei)
        runs = np.flatnonzero(steps <= self._steps)
        if not len(runs):
            return AfterRuin(0, 0, 0, 0)
        paid, rest_wei = divmod(funds.deposit_wei, self.face_value_wei)
        at = steps[runs]
        owed = self.redeemed[runs, at] - paid + self.waiting[runs, at]
        per_orchestrator = rng.multinomial(owed, np.full(orchestrators_count, 1 / orchestrators_count))
        share_wei = funds.quoted().reserve_share_wei
        from_reserve_wei = unpaid_wei = unpaid_runs = 0
        for winners in per_orchestrator.tolist():
            claims_wei = [count * self.face_value_wei for count in winners]
            largest = claims_wei.index(max(claims_wei))
            claims_wei[largest] -= rest_wei  # the last of the deposit goes to somebody's winner
            claimed_wei = sum(min(claim_wei, share_wei) for claim_wei in claims_wei)
            from_reserve_wei += claimed_wei
            unpaid_wei += sum(claims_wei) - claimed_wei
            unpaid_runs += sum(claims_wei) > claimed_wei
        return AfterRuin(len(runs), from_reserve_wei // len(runs), -(-unpaid_wei // len(runs)), unpaid_runs)

    @property
    def _steps(self) -> int:
        return int(self.redeemed.shape[1]) - 1

    @property
    def _days(self) -> float:
        return self._steps * self.step_s / DAY_S

    def _exceeding(self, amount_wei: int) -> int:
        return int(np.count_nonzero(self.redeemed[:, -1] > amount_wei // self.face_value_wei))

    def _exhausted_step(self, deposit_wei: int) -> _Counts:
        """The first step at whose end more was drawn; one more than there are where that does not happen."""
        exceeded = self.redeemed > deposit_wei // self.face_value_wei
        exhausted: _Counts = np.where(exceeded[:, -1], exceeded.argmax(axis=1), self._steps + 1)
        return exhausted

    def _mean(self, winners: _Reals) -> AmountEstimate:
        """Of winners, as an amount."""
        mean = float(winners.mean())
        error = _DEVIATIONS * float(winners.std()) / sqrt(self.runs_count)
        billionths = (round(each * 10**9) for each in (mean, mean - error, mean + error))
        return AmountEstimate(*(each * self.face_value_wei // 10**9 for each in billionths))


def proportion(count: int, of: int) -> Estimate:
    """The probability of what happened `count` times, with Wilson's interval, which also holds where that is 0."""
    square = _DEVIATIONS**2
    middle = (count + square / 2) / (of + square)
    error = _DEVIATIONS * sqrt(count * (of - count) / of + square / 4) / (of + square)
    return Estimate(count / of, max(0.0, middle - error), min(1.0, middle + error))


def redeemed_share(traffic: Traffic) -> float:
    """The share of winners that are redeemed before they expire."""
    return float(_delays(traffic)[0].sum())


def waiting_s(traffic: Traffic) -> float:
    """How long winners wait for their redemption, on average, the ones that expire as 0: Little's law wants that."""
    shares, delays_s = _delays(traffic)
    return float((shares * delays_s).sum())


def play(
    traffic: Traffic,
    *,
    horizon_s: int,
    runs_count: int,
    seed: int,
    is_steady: bool = False,
    progress: Progress | None = None,
) -> Played:
    """Plays `runs_count` futures; the same seed plays the same ones. `is_steady`: demand does not vary by the day.

    Raises ValueError for a horizon or a number of runs that is out of range.
    """
    if not HORIZON_MIN_S <= horizon_s <= HORIZON_MAX_S:
        raise ValueError(f"a horizon must be within {HORIZON_MIN_S} and {HORIZON_MAX_S} s, got {horizon_s}")
    if not 1 <= runs_count <= RUNS_MAX:
        raise ValueError(f"there may be 1 to {RUNS_MAX} runs, got {runs_count}")
    if seed < 0:
        raise ValueError(f"a seed must not be negative, got {seed}")
    steps = min(_STEPS_MAX, ceil(horizon_s / _STEP_MIN_S))
    game = _Game(traffic, horizon_s / steps, steps, is_steady)
    redeemed = np.zeros((runs_count, steps + 1), dtype=np.int64)
    waiting = np.zeros_like(redeemed)
    open_tickets = np.zeros(runs_count)
    starts = range(0, runs_count, _RUNS_AT_ONCE)
    for start, one_seed in zip(starts, np.random.SeedSequence(seed).spawn(len(starts)), strict=True):
        some = slice(start, min(start + _RUNS_AT_ONCE, runs_count))
        game.play(np.random.default_rng(one_seed), redeemed[some], waiting[some], open_tickets[some])
        if progress:
            progress(some.stop, runs_count)
    return Played(traffic.face_value_wei, horizon_s / steps, redeemed, waiting, open_tickets)


class _Game:
    """The rules of one step."""

    def __init__(self, traffic: Traffic, step_s: float, steps: int, is_steady: bool) -> None:
        self._pace = traffic.pace()
        self._step_s, self._steps = step_s, steps
        self._sessions_count = traffic.sessions_count
        self._win_probability = traffic.win_probability
        self._stay = float(np.exp(-step_s / traffic.session_s))
        #: Of sessions that begin within a step, those that are open at its end.
        self._new_stay = (1 - self._stay) * traffic.session_s / step_s
        self._redemptions = _redemptions(traffic, step_s)
        #: Shape of the gamma distribution of all gateways' demand on a day: a mean of as many.
        square = 0.0 if is_steady else float(traffic.demand_variation) ** 2
        self._shape = traffic.gateways_count / square if square else None
        ages_s = (steps - np.arange(steps) - 0.5) * step_s
        self._in_time = np.array([traffic.in_time(age_s) for age_s in ages_s])
        before_s = np.linspace(steps * step_s, max(steps * step_s, 2 * ROUND_S), 1000)
        left = np.array([traffic.in_time(age_s) for age_s in before_s])
        #: Tickets from before the present that are still open at the horizon.
        self._open_before = float(np.trapezoid(left, before_s)) / DAY_S * self._pace.tickets_per_day

    def play(self, rng: np.random.Generator, redeemed: _Counts, waiting: _Counts, open_tickets: _Reals) -> None:
        runs, spread = len(redeemed), len(self._redemptions)
        #: Winners by the step in which they will be redeemed.
        due = np.zeros((runs, self._steps + spread), dtype=np.int64)
        self._of_the_past(rng, due)
        left = due.sum(axis=1)
        waiting[:, 0] = left
        open_tickets += self._open_before
        sessions = rng.poisson(self._sessions_count, runs)
        demand = np.ones(runs)
        day = -1
        for step in range(self._steps):
            if self._shape and int(step * self._step_s / DAY_S) > day:
                day = int(step * self._step_s / DAY_S)
                demand = rng.gamma(self._shape, 1 / self._shape, runs)
            begun = rng.poisson(self._pace.sessions_per_s * self._step_s * demand)
            remaining = rng.binomial(sessions, self._stay) + rng.binomial(begun, self._new_stay)
            tickets = self._tickets(rng, begun, (sessions + remaining) / 2)
            sessions = remaining
            won = rng.multinomial(rng.binomial(tickets, self._win_probability), self._with_expired)[:, :-1]
            due[:, step : step + spread] += won
            open_tickets += tickets * self._in_time[step]
            redeemed[:, step + 1] = redeemed[:, step] + due[:, step]
            left += won.sum(axis=1) - due[:, step]
            waiting[:, step + 1] = left

    @property
    def _with_expired(self) -> _Reals:
        """Of winners: redeemed in this step, in the next, and so on; the last ones never."""
        return np.append(self._redemptions, max(0.0, 1 - self._redemptions.sum()))

    def _tickets(self, rng: np.random.Generator, begun: _Counts, open_sessions: _Reals) -> _Counts:
        """Issued in a step. A part of a ticket is one with that probability."""
        exact = begun * self._pace.first_tickets + open_sessions * (self._pace.tickets_per_s * self._step_s)
        return np.floor(exact + rng.random(len(begun))).astype(np.int64)

    def _of_the_past(self, rng: np.random.Generator, due: _Counts) -> None:
        """Winners from before the present, which will be redeemed in each step: longer after their issue than it is."""
        winners = self._pace.tickets_per_day * self._step_s / DAY_S * self._win_probability
        later = np.cumsum(self._redemptions[::-1])[::-1][1:]
        if len(later):
            due[:, : len(later)] = rng.poisson(winners * later, (len(due), len(later)))


def _delays(traffic: Traffic) -> tuple[_Reals, _Reals]:
    """Shares of winners by the delay of their redemption in s, those that expire before it left out."""
    grid_s = np.linspace(0, 2 * ROUND_S, 40_001)
    if not traffic.redemption_s:
        reached = (grid_s >= REDEEMED_AFTER_MIN_S) * 1.0
    else:
        reached = -np.expm1(-np.maximum(grid_s - REDEEMED_AFTER_MIN_S, 0) / traffic.redemption_s)
    middle_s = (grid_s[1:] + grid_s[:-1]) / 2
    in_time = np.array([traffic.in_time(age_s) for age_s in middle_s])
    return np.diff(reached) * in_time, middle_s


def _redemptions(traffic: Traffic, step_s: float) -> _Reals:
    """Shares of the winners of a step that are redeemed in it, in the next, and so on.

    They are issued anywhere in the step: a delay of d is k = floor(d / step) steps, or one more, with the rest's
    probability.
    """
    shares, delays_s = _delays(traffic)
    steps, rest = np.divmod(delays_s / step_s, 1)
    whole = steps.astype(np.int64)
    length = int(whole.max()) + 2
    spread = np.zeros(length)
    np.add.at(spread, whole, shares * (1 - rest))
    np.add.at(spread, whole + 1, shares * rest)
    told_apart = max(1, int(np.count_nonzero(np.cumsum(spread[::-1])[::-1] > _NEVER)))
    return spread[:told_apart]
