"""Whether the deposit covers the open tickets, in four levels, and what may still be added to them.

Exact integers throughout: this decides what is signed. It is evaluated every few seconds, so it takes no probabilities
and no numpy; those are in `chain.outlook`. Nobody's customers are known here: what remains is divided among keys.

The level goes by the view in which every open ticket may still win. The other view, which weighs silence, is shown
beside it: it rests on how fast orchestrators redeemed so far, and they may take their time when it suits them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Final, NamedTuple, TypeVar

from chain.exposure import (
    Exposure,
    Float,
    OpenTickets,
    coverage_bps,
    largest_face_value_wei,
    orchestrator_float,
)
from chain.tickets import WIN_PROB_CERTAIN

_BPS: Final = 10_000
K = TypeVar("K")


class Level(StrEnum):
    """From the best to the worst."""

    OK = "ok"
    WATCH = "watch"
    #: New sessions are refused.
    LOW = "low"
    #: And so is what goes beyond a gateway's part of what remains.
    CRITICAL = "critical"

    def is_worse_than(self, other: Level) -> bool:
        return _FROM_THE_BEST.index(self) > _FROM_THE_BEST.index(other)


_FROM_THE_BEST: Final = tuple(Level)


@dataclass(frozen=True, slots=True)
class Thresholds:
    """Coverages below which a level begins, in basis points of the deposit over what the open tickets need."""

    watch_bps: int = 20_000
    low_bps: int = 15_000
    critical_bps: int = 12_500
    #: Nothing is signed that would bring the coverage below this.
    floor_bps: int = 10_000
    #: By how much more than its threshold a coverage has to be for a level to end.
    hysteresis_bps: int = 1_000
    #: Standard deviations that are covered beyond the expected liability.
    sigmas: int = 3

    def __post_init__(self) -> None:
        """Raises ValueError for thresholds that are not in order."""
        if not self.watch_bps >= self.low_bps >= self.critical_bps >= self.floor_bps > 0:
            raise ValueError(
                "coverage thresholds must fall from watch over low and critical to the floor, which is above 0: "
                f"{self.watch_bps}, {self.low_bps}, {self.critical_bps}, {self.floor_bps} bps"
            )
        if self.hysteresis_bps < 0 or self.sigmas < 0:
            raise ValueError(
                f"hysteresis and sigmas must not be negative: {self.hysteresis_bps} bps, {self.sigmas} deviations"
            )


class Funds(NamedTuple):
    """What the TicketBroker holds for a sender, as last read."""

    deposit_wei: int
    reserve_wei: int
    claimed_in_round_wei: int
    #: Orchestrators among whom the reserve is divided.
    pool_size_count: int
    #: Unlocking or unlocked: orchestrators refuse the sender's tickets, and the funds may be withdrawn.
    is_leaving: bool

    @property
    def spendable_wei(self) -> int:
        """The deposit as far as it covers tickets: nothing of one that leaves, and nothing without a reserve, since
        neither a signer nor an orchestrator takes a sender that has none (remote-signer protocol, 3.6 and 8.5)."""
        return 0 if self.is_leaving or not self.reserve_wei else self.deposit_wei

    def quoted(self, *, claimed_by_it_wei: int = 0) -> Float:
        """What an orchestrator that has claimed so much in this round computes of the sender (8.5)."""
        if self.is_leaving:
            return Float(0, 0)
        return orchestrator_float(
            deposit_wei=self.deposit_wei,
            reserve_wei=self.reserve_wei,
            claimed_in_round_wei=self.claimed_in_round_wei,
            pool_size_count=self.pool_size_count,
            claimed_by_it_wei=claimed_by_it_wei,
        )


class AgedTickets(NamedTuple):
    """Open tickets that were issued together; `age_s` of the youngest of them, so that silence never says too much."""

    tickets: OpenTickets
    age_s: int


@dataclass(frozen=True, slots=True)
class Standing:
    """How a sender's deposit covers its open tickets."""

    funds: Funds
    #: Every open ticket may still win.
    worst: Exposure
    #: None where no ticket is open.
    coverage_bps: int | None
    level: Level
    #: What orchestrators compute of the sender, and so the largest face value they quote.
    quoted: Float
    #: The largest ticket that may still be issued, within what orchestrators quote. For people.
    issuable_face_value_wei: int
    #: The largest ticket that is let through, whatever orchestrators quote; None where other limits say all there is
    #: to say. For gates.
    face_value_max_wei: int | None
    #: The most expected value that may still be added, in tickets of at most that face value or, where it is more, that
    #: of those which the cap does not bound.
    remaining_ev_wei: int


def stands(
    before: Level | None,
    funds: Funds,
    worst: Exposure,
    *,
    divisor_count: int,
    thresholds: Thresholds,
    uncapped_face_value_wei: int = 0,
) -> Standing:
    """The coverage of one sender by the sums of its book. `before` is the level of the last time; None: there was none.

    A face value may be `1 / divisor_count` of the deposit at most; that of tickets whose face value nobody is shown
    before they are signed, `uncapped_face_value_wei`, whatever the cap. 0: there are no such tickets.
    """
    spendable_wei = funds.spendable_wei
    covered_bps = coverage_bps(spendable_wei, worst, sigmas=thresholds.sigmas)
    level = next_level(before, covered_bps, funds, thresholds)
    left_wei = _most_needed_wei(funds, thresholds) - worst.likely_wei(thresholds.sigmas)
    share_wei = spendable_wei // divisor_count
    # While critical, tickets do not grow: a larger one would take the cover of many.
    face_value_wei = min(share_wei, worst.face_value_max_wei if level is Level.CRITICAL else max(left_wei, 0))
    largest_wei = max(face_value_wei, uncapped_face_value_wei)
    remaining_wei = remaining_ev_wei(funds, worst, face_value_wei=largest_wei, thresholds=thresholds)
    # Where nothing remains, that is why a ticket is refused, not its size.
    is_all_refused = level is Level.CRITICAL and not remaining_wei
    quoted = funds.quoted()
    return Standing(
        funds=funds,
        worst=worst,
        coverage_bps=covered_bps,
        level=level,
        quoted=quoted,
        issuable_face_value_wei=largest_face_value_wei(
            deposit_wei=spendable_wei,
            divisor_count=divisor_count,
            float_wei=quoted.max_float_wei,
            needed_wei=spendable_wei - left_wei,
        ),
        face_value_max_wei=None if is_all_refused else face_value_wei,
        remaining_ev_wei=remaining_wei,
    )


def next_level(before: Level | None, covered_bps: int | None, funds: Funds, thresholds: Thresholds) -> Level:
    """The level after `before`: worse at once, better only where the coverage is past the threshold by the hysteresis.

    `covered_bps` None is no open ticket, which any deposit covers; without a deposit that counts it is critical.
    """
    if not funds.spendable_wei:
        return Level.CRITICAL
    if covered_bps is None:
        return Level.OK
    now = _level(covered_bps, thresholds)
    if before is None or not before.is_worse_than(now):
        return now
    surely = _level(covered_bps - thresholds.hysteresis_bps, thresholds)
    return before if surely.is_worse_than(before) else surely


def remaining_ev_wei(funds: Funds, book: Exposure, *, face_value_wei: int, thresholds: Thresholds) -> int:
    """The most expected value that may be added in tickets of at most `face_value_wei`, with the coverage staying at
    the floor or above.

    Of tickets worth x together, none larger than F, the variance is Σ f²·p·(1 - p) <= F·x: that is what is added, so
    that whatever tickets come, the coverage is not less than computed. 0 where the coverage is below the floor already.
    """
    most_wei = _most_needed_wei(funds, thresholds)

    def is_covered(ev_wei: int) -> bool:
        needed_wei = book.needed_with_wei(ev_wei, face_value_wei=face_value_wei, sigmas=thresholds.sigmas)
        return needed_wei <= most_wei

    if not is_covered(1):
        return 0
    low_wei, high_wei = 1, most_wei + 1  # low is covered; the expected value alone is more than high
    while high_wei - low_wei > 1:
        middle_wei = (low_wei + high_wei) // 2
        if is_covered(middle_wei):
            low_wei = middle_wei
        else:
            high_wei = middle_wei
    return low_wei


def deposit_for_ok_wei(book: Exposure, thresholds: Thresholds) -> int:
    """The least deposit with which the level is ok again, whatever it is now."""
    return -(-book.needed_wei(thresholds.sigmas) * (thresholds.watch_bps + thresholds.hysteresis_bps) // _BPS)


def divided(remaining_wei: int, open_ev_wei: Mapping[K, int]) -> dict[K, int]:
    """What remains, divided so that those with the least open expected value are raised first, to one common level.

    Nobody gets more by having more open, and who is above the level gets nothing while others still get their part.
    Less than a wei for each is left over. Ask it for those alone that may spend: what one does not spend is divided
    among all the next time. Raises ValueError for a negative amount.
    """
    if remaining_wei < 0 or any(ev_wei < 0 for ev_wei in open_ev_wei.values()):
        raise ValueError("neither what remains nor what is open can be negative")
    level_wei = _common_level_wei(remaining_wei, sorted(open_ev_wei.values()))
    return {key: max(level_wei - ev_wei, 0) for key, ev_wei in open_ev_wei.items()}


def unseen(ev_numerator: int, num_tickets: int, *, face_value_wei: int) -> OpenTickets:
    """Tickets of which only the sum of face value · win probability is known, as the riskiest there may be.

    `face_value_wei` is the largest that any of them can have. For the same expected value nothing varies more than
    tickets that all have it, each with the same win probability, which is rounded up. Where that many tickets cannot be
    worth that much they are taken to be more. Raises ValueError for a negative number.
    """
    if min(ev_numerator, num_tickets, face_value_wei) < 0:
        raise ValueError(f"unseen tickets out of range: {num_tickets} of {face_value_wei} wei worth {ev_numerator}")
    face_value_wei = max(face_value_wei, 1)
    num_tickets = max(num_tickets, -(-ev_numerator // (face_value_wei * WIN_PROB_CERTAIN)))
    win_prob = -(-ev_numerator // (face_value_wei * num_tickets)) if num_tickets else 0
    return OpenTickets(face_value_wei, win_prob, num_tickets)


def _level(covered_bps: int, thresholds: Thresholds) -> Level:
    if covered_bps < thresholds.critical_bps:
        return Level.CRITICAL
    if covered_bps < thresholds.low_bps:
        return Level.LOW
    return Level.WATCH if covered_bps < thresholds.watch_bps else Level.OK


def _most_needed_wei(funds: Funds, thresholds: Thresholds) -> int:
    """The most that a book may need for the coverage to be at the floor."""
    return funds.spendable_wei * _BPS // thresholds.floor_bps


def _common_level_wei(remaining_wei: int, from_the_least_wei: list[int]) -> int:
    """The highest to which all that are below it can be raised."""
    below_wei = level_wei = 0
    for count, ev_wei in enumerate(from_the_least_wei):
        if count and level_wei <= ev_wei:
            return level_wei
        below_wei += ev_wei
        level_wei = (remaining_wei + below_wei) // (count + 1)
    return level_wei
