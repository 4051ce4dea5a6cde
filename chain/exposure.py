"""The book of open tickets as numbers: what they can cost the deposit, exactly (remote-signer protocol, 8.5 and 8.6).

An open ticket was released, has not expired, and was not redeemed as far as the chain has told. Nobody but its
orchestrator knows whether it won until it is redeemed. Tickets with the same face value and win probability are alike
to the deposit and are counted together, so that a book of a hundred million tickets is as small as one of a thousand.

Amounts are exact: sums are kept over WIN_PROB_CERTAIN and divided once, rounded against us. What is a probability
is in `chain.payouts`.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from math import isqrt
from typing import NamedTuple

from chain.tickets import WIN_PROB_CERTAIN


class OpenTickets(NamedTuple):
    """`num_tickets` open tickets that are alike; `win_prob` is over WIN_PROB_CERTAIN."""

    face_value_wei: int
    win_prob: int
    num_tickets: int


@dataclass(frozen=True, slots=True)
class Exposure:
    """What open tickets may cost: exact sums over WIN_PROB_CERTAIN, which can be added up and taken apart again."""

    num_tickets: int
    #: Σ face value · win probability.
    ev_numerator: int
    #: Σ face value² · p · (1 - p), over WIN_PROB_CERTAIN².
    variance_numerator: int
    face_value_max_wei: int
    #: Σ face value: every open ticket wins.
    worst_case_wei: int

    @property
    def expected_wei(self) -> int:
        """Expected liability μ, rounded up."""
        return -(-self.ev_numerator // WIN_PROB_CERTAIN)

    @property
    def deviation_wei(self) -> int:
        """Standard deviation σ, rounded up."""
        return -(-_isqrt_up(self.variance_numerator) // WIN_PROB_CERTAIN)

    def likely_wei(self, sigmas: int) -> int:
        """What the tickets will hardly exceed: μ + z·σ."""
        return self.expected_wei + sigmas * self.deviation_wei

    def needed_wei(self, sigmas: int) -> int:
        """What should cover them: that and one more of the largest winners."""
        return self.likely_wei(sigmas) + self.face_value_max_wei

    def needed_with_wei(self, ev_wei: int, *, face_value_wei: int, sigmas: int) -> int:
        """The most that it can come to need by tickets worth `ev_wei` together, none larger than `face_value_wei`.

        Whatever tickets these are, their variance Σ f²·p·(1 - p) is F·Σ f·p at most.
        """
        added = ev_wei * WIN_PROB_CERTAIN
        with_them = replace(
            self,
            ev_numerator=self.ev_numerator + added,
            variance_numerator=self.variance_numerator + added * face_value_wei * WIN_PROB_CERTAIN,
            face_value_max_wei=max(self.face_value_max_wei, face_value_wei),
        )
        return with_them.needed_wei(sigmas)


def exposure(tickets: Iterable[OpenTickets]) -> Exposure:
    """The sums of a book. Raises ValueError for a negative number or a probability above 1."""
    count = ev = variance = worst_case = largest = 0
    for face_value_wei, win_prob, alike in tickets:
        if face_value_wei < 0 or alike < 0 or not 0 <= win_prob <= WIN_PROB_CERTAIN:
            raise ValueError(f"open tickets out of range: {alike} of {face_value_wei} wei with {win_prob}")
        if not alike:
            continue
        each = face_value_wei * win_prob
        count += alike
        ev += alike * each
        variance += alike * each * face_value_wei * (WIN_PROB_CERTAIN - win_prob)
        worst_case += alike * face_value_wei
        largest = max(largest, face_value_wei)
    return Exposure(count, ev, variance, largest, worst_case)


def merged(tickets: Iterable[OpenTickets]) -> list[OpenTickets]:
    """The same book with what is alike counted together, and without what cannot win."""
    counts: dict[tuple[int, int], int] = {}
    for face_value_wei, win_prob, alike in tickets:
        if face_value_wei and win_prob and alike:
            key = face_value_wei, win_prob
            counts[key] = counts.get(key, 0) + alike
    return [OpenTickets(face_value_wei, win_prob, alike) for (face_value_wei, win_prob), alike in counts.items()]


def coverage_bps(deposit_wei: int, book: Exposure, *, sigmas: int = 3) -> int | None:
    """κ = deposit / (μ + z·σ + F) in basis points, rounded down; None where nothing is open. Want 10,000 or more."""
    needed_wei = book.needed_wei(sigmas)
    return deposit_wei * 10_000 // needed_wei if needed_wei else None


class Delays:
    """How long after their issue winners were redeemed, as observed: what silence says about an open ticket.

    One winner that is redeemed at the last moment is added to those that were seen, so that few observations say little
    and none says nothing: the estimate errs on the side of more liability.
    """

    def __init__(self, delays_s: Iterable[int], *, delay_max_s: int) -> None:
        """`delay_max_s`: when a ticket can no longer be redeemed. Raises ValueError for a delay that is not in it."""
        self._delays_s = sorted(delays_s)
        if self._delays_s and not 0 <= self._delays_s[0] <= self._delays_s[-1] <= delay_max_s:
            raise ValueError(f"redemption delays must be within 0 and {delay_max_s} s")
        self._delay_max_s = delay_max_s

    @property
    def observed_count(self) -> int:
        """Of redemptions that this is drawn from."""
        return len(self._delays_s)

    def outstanding(self, age_s: int) -> tuple[int, int]:
        """The share of winners that are redeemed later than `age_s` after their issue: numerator, denominator."""
        if age_s < 0:
            return 1, 1
        if age_s >= self._delay_max_s:
            return 0, 1
        later = len(self._delays_s) - bisect_right(self._delays_s, age_s)
        return later + 1, len(self._delays_s) + 1

    def posterior(self, tickets: OpenTickets, age_s: int) -> OpenTickets:
        """The same tickets with the win probability they have left, by Bayes: p·s / (p·s + 1 - p), rounded up."""
        share_n, share_d = self.outstanding(age_s)
        won_and_silent = tickets.win_prob * share_n
        silent = won_and_silent + (WIN_PROB_CERTAIN - tickets.win_prob) * share_d
        left = -(-won_and_silent * WIN_PROB_CERTAIN // silent) if silent else 0
        return tickets._replace(win_prob=left)


class Float(NamedTuple):
    """What an orchestrator will compute of a sender (8.5)."""

    #: A_o: its share of the reserve that it has not claimed in this round.
    reserve_share_wei: int
    #: The most it takes in one face value, beyond which it shrinks its tickets, or refuses the sender at 0.
    max_float_wei: int


def orchestrator_float(
    *,
    deposit_wei: int,
    reserve_wei: int,
    claimed_in_round_wei: int,
    pool_size_count: int,
    claimed_by_it_wei: int = 0,
    pending_wei: int = 0,
) -> Float:
    """A_o and maxFloat of one orchestrator; `pending_wei` is Q_o, its redemptions in flight."""
    share_wei = 0
    if pool_size_count > 0:
        share_wei = max((reserve_wei + claimed_in_round_wei) // pool_size_count - claimed_by_it_wei, 0)
    if pending_wei > 0 and deposit_wei >= 3 * pending_wei:
        return Float(share_wei, share_wei)
    return Float(share_wei, max(share_wei - pending_wei, 0))


def largest_face_value_wei(*, deposit_wei: int, divisor_count: int, float_wei: int, needed_wei: int) -> int:
    """The largest ticket we may still issue: within our share of the deposit, an orchestrator's float, and what the
    open tickets leave of the deposit (`needed_wei` of it is spoken for)."""
    return max(0, min(deposit_wei // divisor_count, float_wei, deposit_wei - needed_wei))


class TopUp(NamedTuple):
    """What to send to the TicketBroker, and to which of its two pots."""

    reserve_wei: int
    deposit_wei: int

    @property
    def total_wei(self) -> int:
        return self.reserve_wei + self.deposit_wei


def top_up(
    *,
    deposit_wei: int,
    reserve_wei: int,
    claimed_in_round_wei: int,
    pool_size_count: int,
    needed_deposit_wei: int,
    face_value_wei: int,
    divisor_count: int,
    pending_by_orchestrator_wei: Sequence[int] = (),
) -> TopUp:
    """What is missing for a target, the reserve first: without it orchestrators shrink or refuse every ticket (8.5).

    `needed_deposit_wei` is the quantile of the payouts that the target asks to cover; on top of it comes what lets the
    next ticket be issued (`divisor_count` face values), and three times the largest sum in redemption.
    """
    pending_max_wei = max(pending_by_orchestrator_wei, default=0)
    reserve_target_wei = pool_size_count * (face_value_wei + pending_max_wei) - claimed_in_round_wei
    deposit_target_wei = max(needed_deposit_wei + divisor_count * face_value_wei, 3 * pending_max_wei)
    return TopUp(max(reserve_target_wei - reserve_wei, 0), max(deposit_target_wei - deposit_wei, 0))


def _isqrt_up(number: int) -> int:
    root = isqrt(number)
    return root if root * root == number else root + 1
