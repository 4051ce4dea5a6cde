"""How much open tickets may draw from the deposit, as a probability distribution: the tail of a sum of lotteries.

Face values differ, so no single Poisson or normal tail is right (remote-signer protocol, 8.6). The payouts are put on a
lattice of CELLS amounts and their characteristic function is inverted: log φ is a sum over the tickets, and
with log(1 + x) as a series so is every term of it, which makes a book of any size one vector and one FFT.

A face value between two cells is split between them so that its mean is kept; that spreads the sum a little and never
narrows it. Where the face values are multiples of the step nothing is split and the distribution is exact to about
1e-13, which is what FFTs of probabilities give. Floats are for probabilities alone: amounts come in and go out as wei.

Imported by what computes coverage, never by what signs: numpy takes memory and time to load.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cached_property
from math import comb, gcd, log, sqrt
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from chain.exposure import OpenTickets
from chain.tickets import WIN_PROB_CERTAIN

#: Amounts that are told apart.
CELLS: Final = 2**16
#: What the lattice leaves out at its far end, and about what the inversion errs by.
PRECISION: Final = 1e-13
#: Tickets that win more often than this are computed without a series.
_RARE_WIN_PROB: Final = WIN_PROB_CERTAIN // 1000
_SERIES_TERMS: Final = 5
#: And as many kinds of them as this one by one, which takes as long as 10,000 kinds of rare ones.
_APART_MAX: Final = 32
_DAY_S: Final = 86_400

_Cells = NDArray[np.int64]
_Reals = NDArray[np.float64]
_Complexes = NDArray[np.complex128]


class Flow(NamedTuple):
    """Tickets that go on being released at the present rate: `num_tickets` in every `period_s`."""

    face_value_wei: int
    win_prob: int
    num_tickets: int
    period_s: int = _DAY_S


class Payouts:
    """What open tickets, and those that are still to be released, will have drawn from the deposit by a horizon.

    The deposit only falls until it is funded again, so that it is exhausted by then exactly when the payouts exceed it.
    Tickets released towards the end of the horizon are redeemed after it: counting them errs on the safe side.
    """

    def __init__(self, tickets: Sequence[OpenTickets], flow: Sequence[Flow] = (), *, horizon_max_s: int = 0) -> None:
        """`horizon_max_s` is the longest horizon that may be asked for; 0 is the open tickets alone."""
        self.horizon_max_s = horizon_max_s
        rare = _Kinds([each for each in tickets if each.win_prob <= _RARE_WIN_PROB])
        spreading, others = _apart([each for each in tickets if each.win_prob > _RARE_WIN_PROB])
        apart, poisson, released = _Kinds(spreading), _Kinds(others), _Kinds(flow)
        self._step_wei = step_wei = _step_wei([rare, apart], [(poisson, 1), (released, horizon_max_s)])
        series = rare.series(step_wei, terms=_SERIES_TERMS) + poisson.series(step_wei)
        #: φ of the open tickets, at every frequency.
        self._open: _Complexes = np.exp(np.fft.rfft(series))
        for phi, ticket in zip(apart.one_by_one(step_wei), spreading, strict=True):
            self._open *= phi**ticket.num_tickets
        #: log φ of what is released in a second.
        self._flow = np.fft.rfft(released.series(step_wei))

    def exceed(self, amount_wei: int, *, horizon_s: int = 0) -> float:
        """The probability that more than `amount_wei` is drawn; 0 where it is below PRECISION."""
        cell = amount_wei // self._step_wei
        if cell >= CELLS - 1:
            return 0.0
        probability = float(self._distribution(horizon_s)[cell + 1 :].sum())
        return min(probability, 1.0) if probability > PRECISION else 0.0

    def quantile_wei(self, confidence: float, *, horizon_s: int = 0) -> int:
        """The least amount on the lattice that covers all payouts with this probability, which is ValueError near 1."""
        if not 0 < confidence < 1 - PRECISION * 10:
            raise ValueError(f"a confidence must be above 0 and below 1 - {PRECISION * 10:g}, got {confidence}")
        tail = np.cumsum(self._distribution(horizon_s)[::-1])[::-1]  # tail[k] = P(payouts >= k steps)
        beyond = np.append(tail[1:], 0.0)
        return int(np.argmax(beyond <= 1 - confidence)) * self._step_wei

    def exceeded_after_s(self, amount_wei: int, probability: float) -> int | None:
        """When more than `amount_wei` will have been drawn with this probability; None if not within the horizon."""
        if self.exceed(amount_wei, horizon_s=self.horizon_max_s) < probability:
            return None
        beyond = self._beyond(amount_wei // self._step_wei)
        reached_s, reached = 0, self._open  # φ by then

        def is_early(phi: _Complexes) -> bool:
            return float((phi * beyond).real.sum()) < probability

        if not is_early(reached):
            return 0
        for power in reversed(range(self.horizon_max_s.bit_length())):
            if reached_s + 2**power <= self.horizon_max_s and is_early(later := reached * self._in_powers_s[power]):
                reached_s, reached = reached_s + 2**power, later
        return reached_s + 1

    @cached_property
    def _in_powers_s(self) -> list[_Complexes]:
        """φ of what is released in 1, 2, 4, … s: that of any time is a product of a few."""
        return [np.exp(2**power * self._flow) for power in range(self.horizon_max_s.bit_length())]

    def _beyond(self, cell: int) -> _Complexes:
        """What φ is multiplied by for its sum to be the probability of more than `cell` steps."""
        is_beyond = np.zeros(CELLS)
        is_beyond[cell + 1 :] = 2 / CELLS
        beyond: _Complexes = np.fft.rfft(is_beyond).conj()
        beyond[[0, -1]] /= 2  # the other frequencies are there twice
        return beyond

    def _distribution(self, horizon_s: int) -> _Reals:
        """The probability of each amount, in steps."""
        if not 0 <= horizon_s <= self.horizon_max_s:
            raise ValueError(f"a horizon must be within 0 and {self.horizon_max_s} s, got {horizon_s}")
        return np.fft.irfft(self._open * np.exp(horizon_s * self._flow), CELLS)


class _Kinds:
    """Tickets as columns: what is computed of each kind is computed of all at once."""

    def __init__(self, tickets: Sequence[OpenTickets] | Sequence[Flow]) -> None:
        """Of a flow the numbers are those of a second. Raises ValueError for a negative number, and a p above 1."""
        self.face_values_wei = [each.face_value_wei for each in tickets]
        self.p: _Reals = np.array([each.win_prob / WIN_PROB_CERTAIN for each in tickets])
        self.numbers: _Reals = np.array([_number(each) for each in tickets])
        if min(self.face_values_wei, default=0) < 0 or (self.numbers < 0).any() or (abs(self.p - 0.5) > 0.5).any():
            raise ValueError("payouts of tickets out of range")

    @property
    def winners(self) -> _Reals:
        """To be expected of each kind."""
        return self.numbers * self.p

    def sums(self, factors: _Reals | float, *, power: int) -> float:
        """Σ number · factor · face value^power."""
        return float((self.numbers * factors) @ np.array(self.face_values_wei, dtype=float) ** power)

    def series(self, step_wei: int, *, terms: int = 1) -> _Reals:
        """Σ number · log(1 + p(z - 1)) as a series in p(z - 1), where z is the payout of one winner.

        One term makes them a Poisson stream. For rare ones the term after the last is below PRECISION.
        """
        series: _Reals = np.zeros(CELLS)
        cells, fractions = self._places(step_wei)
        for power in range(1, terms + 1):
            weights = self.winners * (-1) ** (power + 1) * self.p ** (power - 1) / power
            _add_power(series, cells, fractions, power, weights)
        return series

    def one_by_one(self, step_wei: int) -> Iterator[_Complexes]:
        """φ of one ticket of each kind: 1 + p(z - 1)."""
        for cell, fraction, p in zip(*self._places(step_wei), self.p, strict=True):
            paid = np.zeros(CELLS)
            paid[0] += 1 - p
            paid[cell] += p * (1 - fraction)
            paid[cell + 1] += p * fraction
            yield np.fft.rfft(paid)

    def _places(self, step_wei: int) -> tuple[_Cells, _Reals]:
        """Between which two cells the payout of a winner is split, and how much of it goes to the upper one."""
        places = [divmod(face_value_wei, step_wei) for face_value_wei in self.face_values_wei]
        cells = np.array([cell for cell, _ in places], dtype=np.int64)
        return cells, np.array([rest_wei / step_wei for _, rest_wei in places])


def _number(tickets: OpenTickets | Flow) -> float:
    return tickets.num_tickets / tickets.period_s if isinstance(tickets, Flow) else float(tickets.num_tickets)


def _apart(often: list[OpenTickets]) -> tuple[list[OpenTickets], list[OpenTickets]]:
    """Those that are computed one by one, which are the ones that spread the payouts most, and the others.

    The others are taken for Poisson streams: the same mean, and a wider spread. Whoever quotes many kinds of tickets
    that win often can make the answer that much more careful, but not late.
    """
    spread = sorted(often, key=lambda each: each.num_tickets * each.face_value_wei**2 * each.win_prob, reverse=True)
    return spread[:_APART_MAX], spread[_APART_MAX:]


def _add_power(series: _Reals, cells: _Cells, fractions: _Reals, power: int, weights: _Reals) -> None:
    """Adds weight · (z - 1)^power, where z is the split payout of one winner."""
    for factors in range(power + 1):
        signed = weights * (comb(power, factors) * (-1) ** (power - factors))
        for upper in range(factors + 1):
            share = comb(factors, upper) * fractions**upper * (1 - fractions) ** (factors - upper)
            np.add.at(series, (factors * cells + upper) % CELLS, signed * share)


def _step_wei(tickets: Sequence[_Kinds], streams: Sequence[tuple[_Kinds, int]]) -> int:
    """The step of a lattice that the payouts leave with a probability below PRECISION, by Bernstein's inequality.

    Streams are taken as many times as said, and have no worst case. The greatest common divisor of the face values,
    where that is coarse enough: then nothing is split.
    """
    face_values_wei = [each for kinds in [*tickets, *(kinds for kinds, _ in streams)] for each in kinds.face_values_wei]
    largest_wei = max(face_values_wei, default=0)
    mean = sum(kinds.sums(kinds.p, power=1) for kinds in tickets)
    mean_of_streams = sum(times * kinds.sums(kinds.p, power=1) for kinds, times in streams)
    variance = sum(kinds.sums(kinds.p * (1 - kinds.p), power=2) for kinds in tickets)
    variance += sum(times * kinds.sums(kinds.p, power=2) for kinds, times in streams)
    unlikely = -log(PRECISION)
    reach = largest_wei * unlikely / 3
    most = mean + mean_of_streams + reach + sqrt(reach**2 + 2 * unlikely * variance)
    if not mean_of_streams:
        most = min(most, sum(kinds.sums(1.0, power=1) for kinds in tickets))
    finest_wei = int(most + largest_wei) // (CELLS - 2) + 1
    common_wei = gcd(*face_values_wei) or 1
    return common_wei * -(-finest_wei // common_wei) if common_wei * 8 >= finest_wei else finest_wei
