"""The sums of a book of open tickets, what silence says of one, and what orchestrators and a top-up need."""

from __future__ import annotations

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chain.exposure import (
    Delays,
    OpenTickets,
    coverage_bps,
    exposure,
    largest_face_value_wei,
    orchestrator_float,
    top_up,
)
from chain.tickets import WIN_PROB_CERTAIN, batch_ev_wei

ETH = 10**18
BOOKS = st.lists(
    st.builds(
        OpenTickets,
        face_value_wei=st.integers(0, 10**24),
        win_prob=st.integers(0, WIN_PROB_CERTAIN),
        num_tickets=st.integers(0, 10**8),
    ),
    max_size=20,
)


@given(BOOKS)
def test_the_sums_are_those_of_the_lotteries_one_by_one(book: list[OpenTickets]) -> None:
    sums = exposure(book)
    p = [Fraction(each.win_prob, WIN_PROB_CERTAIN) for each in book]
    mean = sum((each.num_tickets * each.face_value_wei * p_i for each, p_i in zip(book, p, strict=True)), Fraction(0))
    variance = sum(
        (each.num_tickets * each.face_value_wei**2 * p_i * (1 - p_i) for each, p_i in zip(book, p, strict=True)),
        Fraction(0),
    )
    assert sums.num_tickets == sum(each.num_tickets for each in book)
    assert mean <= sums.expected_wei < mean + 1
    assert variance <= Fraction(sums.deviation_wei) ** 2
    assert sums.deviation_wei == 0 or Fraction(sums.deviation_wei - 2) ** 2 < variance or sums.deviation_wei < 2
    assert sums.expected_wei <= sums.worst_case_wei


@given(BOOKS, BOOKS)
def test_books_add_up(one: list[OpenTickets], other: list[OpenTickets]) -> None:
    both = exposure([*one, *other])
    assert both.ev_numerator == exposure(one).ev_numerator + exposure(other).ev_numerator
    assert both.variance_numerator == exposure(one).variance_numerator + exposure(other).variance_numerator
    assert both.face_value_max_wei == max(exposure(one).face_value_max_wei, exposure(other).face_value_max_wei)


def test_the_expected_value_is_what_the_tickets_were_charged_at() -> None:
    win_prob = WIN_PROB_CERTAIN // 1_000_003
    assert exposure([OpenTickets(10**16, win_prob, 61)]).expected_wei == batch_ev_wei(10**16, win_prob, 61)


@pytest.mark.parametrize(
    "wrong",
    [OpenTickets(-1, 1, 1), OpenTickets(1, -1, 1), OpenTickets(1, WIN_PROB_CERTAIN + 1, 1), OpenTickets(1, 1, -1)],
)
def test_what_no_ticket_can_have_is_an_error(wrong: OpenTickets) -> None:
    with pytest.raises(ValueError, match="out of range"):
        exposure([wrong])


def test_coverage_is_the_deposit_over_mean_spread_and_one_more_winner() -> None:
    book = exposure(
        [OpenTickets(10**16, WIN_PROB_CERTAIN // 10_000, 10_000)]
    )  # mean 0.01 ETH, sigma 0.01 ETH less 0.005 %
    assert coverage_bps(5 * 10**16, book) == 10_000
    assert coverage_bps(49 * 10**15, book) == 9_800
    assert coverage_bps(0, book) == 0
    assert coverage_bps(ETH, exposure([])) is None


def test_a_ticket_that_nobody_redeemed_for_long_has_probably_lost() -> None:
    delays = Delays([60, 120, 120, 600, 3600], delay_max_s=100_000)
    tickets = OpenTickets(10**16, WIN_PROB_CERTAIN // 2, 7)
    left = [delays.posterior(tickets, age_s) for age_s in (0, 60, 119, 120, 3599, 3600, 99_999, 100_000)]
    shares = [6, 5, 5, 3, 2, 1, 1, 0]  # of six: one more than was seen is taken to be late
    for posterior, share in zip(left, shares, strict=True):
        exact = Fraction(share, share + 6) * WIN_PROB_CERTAIN
        assert abs(posterior.win_prob - exact) <= 2
        assert posterior.win_prob >= exact - Fraction(1, 2)  # half of 2^256 - 1 is no whole number
    assert left[-1].win_prob == 0
    assert left[0].num_tickets == 7


@given(st.integers(0, WIN_PROB_CERTAIN), st.lists(st.integers(0, 1000)), st.integers(0, 1100), st.integers(0, 1100))
def test_silence_never_makes_winning_likelier(win_prob: int, seen: list[int], age_s: int, later_s: int) -> None:
    delays = Delays(seen, delay_max_s=1000)
    tickets = OpenTickets(1, win_prob, 1)
    early, late = sorted((age_s, later_s))
    assert delays.posterior(tickets, late).win_prob <= delays.posterior(tickets, early).win_prob <= win_prob


def test_without_observations_a_ticket_may_win_until_it_expires() -> None:
    delays = Delays([], delay_max_s=1000)
    tickets = OpenTickets(10**16, 12345, 7)
    assert delays.posterior(tickets, 999) == tickets
    assert delays.posterior(tickets, 1000).win_prob == 0
    assert delays.posterior(tickets, -5) == tickets  # a clock that is ahead
    assert delays.observed_count == 0
    with pytest.raises(ValueError, match="within 0 and 1000 s"):
        Delays([1001], delay_max_s=1000)


@pytest.mark.parametrize(
    ("deposit_wei", "pending_wei", "claimed_by_it_wei", "share_wei", "max_float_wei"),
    [
        (ETH, 0, 0, ETH // 100, ETH // 100),
        (3 * ETH // 1000, ETH // 1000, 0, ETH // 100, ETH // 100),  # the deposit is three times what is pending
        (3 * ETH // 1000 - 1, ETH // 1000, 0, ETH // 100, 9 * ETH // 1000),
        (0, ETH, 0, ETH // 100, 0),
        (ETH, 0, ETH // 200, ETH // 200, ETH // 200),
        (ETH, 0, ETH, 0, 0),
    ],
)
def test_an_orchestrators_float_is_its_share_of_the_reserve(
    deposit_wei: int, pending_wei: int, claimed_by_it_wei: int, share_wei: int, max_float_wei: int
) -> None:
    assert orchestrator_float(
        deposit_wei=deposit_wei,
        reserve_wei=8 * ETH // 10,
        claimed_in_round_wei=2 * ETH // 10,
        pool_size_count=100,
        claimed_by_it_wei=claimed_by_it_wei,
        pending_wei=pending_wei,
    ) == (share_wei, max_float_wei)


def test_without_a_pool_nobody_has_a_share() -> None:
    assert orchestrator_float(deposit_wei=ETH, reserve_wei=ETH, claimed_in_round_wei=0, pool_size_count=0) == (0, 0)


def test_the_largest_ticket_is_bounded_by_deposit_float_and_what_is_spoken_for() -> None:
    def largest(**but: int) -> int:
        usual = {"deposit_wei": ETH, "divisor_count": 50, "float_wei": ETH, "needed_wei": 0}
        return largest_face_value_wei(**(usual | but))

    assert largest() == ETH // 50
    assert largest(float_wei=ETH // 100) == ETH // 100
    assert largest(needed_wei=ETH - 7) == 7
    assert largest(needed_wei=2 * ETH) == 0


def test_a_top_up_fills_the_reserve_first_and_then_the_deposit() -> None:
    missing = top_up(
        deposit_wei=ETH,
        reserve_wei=ETH // 2,
        claimed_in_round_wei=ETH // 10,
        pool_size_count=100,
        needed_deposit_wei=9 * ETH // 10,
        face_value_wei=ETH // 100,
        divisor_count=50,
        pending_by_orchestrator_wei=[ETH // 1000, ETH // 100],
    )
    assert (
        missing.reserve_wei == 2 * ETH - ETH // 10 - ETH // 2
    )  # a hundred orchestrators, each a ticket and what is pending
    assert missing.deposit_wei == 9 * ETH // 10 + ETH // 2 - ETH
    assert missing.total_wei == missing.reserve_wei + missing.deposit_wei
    after = top_up(
        deposit_wei=ETH + missing.deposit_wei,
        reserve_wei=ETH // 2 + missing.reserve_wei,
        claimed_in_round_wei=ETH // 10,
        pool_size_count=100,
        needed_deposit_wei=9 * ETH // 10,
        face_value_wei=ETH // 100,
        divisor_count=50,
        pending_by_orchestrator_wei=[ETH // 1000, ETH // 100],
    )
    assert after.total_wei == 0
