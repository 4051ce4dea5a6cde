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

from collections.abc import Sequence
from math import comb, gcd, log, sqrt
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from chain.exposure import OpenTickets, exposure
from chain.tickets import WIN_PROB_CERTAIN

#: Amounts that are told apart.
CELLS: Final = 2**16
#: What the lattice leaves out at its far end, and about what the inversion errs by.
PRECISION: Final = 1e-13
#: Tickets that win more often than this are computed without a series.
_RARE: Final = 1e-3
_SERIES_TERMS: Final = 5

_Reals = NDArray[np.float64]
_Complexes = NDArray[np.complex128]


class Flow(NamedTuple):
    """Tickets that go on being released at the present rate."""

    face_value_wei: int
    win_prob: int
    tickets_per_day: int


class Payouts:
    """What open tickets, and those that are still to be released, will have drawn from the deposit by a horizon.

    The deposit only falls until it is funded again, so that it is exhausted by then exactly when the payouts exceed it.
    Tickets released towards the end of the horizon are redeemed after it: counting them errs on the safe side.
    """

    def __init__(self, tickets: Sequence[OpenTickets], flow: Sequence[Flow] = (), *, horizon_max_s: int = 0) -> None:
        """`horizon_max_s` is the longest horizon that may be asked for; 0 is the open tickets alone."""
        self.horizon_max_s = horizon_max_s
        self._step_wei = _step_wei(tickets, flow, horizon_max_s)
        often = np.ones(CELLS // 2 + 1, dtype=np.complex128)
        series = np.zeros(CELLS)
        for each in tickets:
            if each.win_prob > _RARE * WIN_PROB_CERTAIN:
                often *= self._one(each) ** each.num_tickets
            else:
                self._add_rare(series, each)
        #: φ of the open tickets, at every frequency.
        self._open = often * np.exp(np.fft.rfft(series))
        released = np.zeros(CELLS)
        for face_value_wei, win_prob, tickets_per_day in flow:
            winners_per_s = tickets_per_day * (win_prob / WIN_PROB_CERTAIN) / 86_400
            self._add_power(released, face_value_wei, 1, winners_per_s)
        #: log φ of what is released in a second.
        self._flow = np.fft.rfft(released)

    def exceed(self, amount_wei: int, *, horizon_s: int = 0) -> float:
        """The probability that more than `amount_wei` is drawn."""
        cell = amount_wei // self._step_wei
        if cell >= CELLS - 1:
            return 0.0
        return float(min(max(self._distribution(horizon_s)[cell + 1 :].sum(), 0.0), 1.0))

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
        low_s, high_s = -1, self.horizon_max_s
        while high_s - low_s > 1:
            middle_s = (low_s + high_s) // 2
            if self.exceed(amount_wei, horizon_s=middle_s) < probability:
                low_s = middle_s
            else:
                high_s = middle_s
        return high_s

    def _distribution(self, horizon_s: int) -> _Reals:
        """The probability of each amount, in steps."""
        if not 0 <= horizon_s <= self.horizon_max_s:
            raise ValueError(f"a horizon must be within 0 and {self.horizon_max_s} s, got {horizon_s}")
        return np.fft.irfft(self._open * np.exp(horizon_s * self._flow), CELLS)

    def _add_rare(self, series: _Reals, tickets: OpenTickets) -> None:
        """log(1 + p(z - 1)) as a series in p(z - 1), of which the term after the last is below PRECISION."""
        p = tickets.win_prob / WIN_PROB_CERTAIN
        for power in range(1, _SERIES_TERMS + 1):
            weight = tickets.num_tickets * (-1) ** (power + 1) * p**power / power
            self._add_power(series, tickets.face_value_wei, power, weight)

    def _add_power(self, series: _Reals, face_value_wei: int, power: int, weight: float) -> None:
        """Adds weight · (z - 1)^power, where z is the split payout of one winner."""
        cell, fraction = self._place(face_value_wei)
        for factors in range(power + 1):
            sign = weight * comb(power, factors) * (-1) ** (power - factors)
            for upper in range(factors + 1):
                share = comb(factors, upper) * fraction**upper * (1 - fraction) ** (factors - upper)
                series[(factors * cell + upper) % CELLS] += sign * share

    def _one(self, tickets: OpenTickets) -> _Complexes:
        """φ of one of the tickets: 1 + p(z - 1)."""
        p = tickets.win_prob / WIN_PROB_CERTAIN
        cell, fraction = self._place(tickets.face_value_wei)
        paid = np.zeros(CELLS)
        paid[0] += 1 - p
        paid[cell] += p * (1 - fraction)
        paid[cell + 1] += p * fraction
        return np.fft.rfft(paid)

    def _place(self, face_value_wei: int) -> tuple[int, float]:
        cell, rest_wei = divmod(face_value_wei, self._step_wei)
        return cell, rest_wei / self._step_wei


def _step_wei(tickets: Sequence[OpenTickets], flow: Sequence[Flow], horizon_s: int) -> int:
    """The step of a lattice that the payouts leave with a probability below PRECISION, by Bernstein's inequality.

    The greatest common divisor of the face values, where that is coarse enough: then nothing is split.
    """
    to_come = [OpenTickets(face, win_prob, -(-per_day * horizon_s // 86_400)) for face, win_prob, per_day in flow]
    sums = exposure([*tickets, *to_come])
    unlikely = -log(PRECISION)
    reach = sums.face_value_max_wei * unlikely / 3
    spread = sqrt(reach**2 + 2 * unlikely * float(sums.variance_numerator) / float(WIN_PROB_CERTAIN) ** 2)
    range_wei = min(sums.expected_wei + int(reach + spread), sums.worst_case_wei) + sums.face_value_max_wei
    finest_wei = -(-range_wei // (CELLS - 2)) or 1
    common_wei = gcd(*(each.face_value_wei for each in [*tickets, *to_come])) or 1
    return common_wei * -(-finest_wei // common_wei) if common_wei * 8 >= finest_wei else finest_wei
