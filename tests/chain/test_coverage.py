"""The levels of coverage, what may still be added to the open tickets, and how it is divided."""

from __future__ import annotations

import subprocess
import sys
from fractions import Fraction
from itertools import pairwise
from math import isqrt
from random import Random

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from chain.coverage import (
    Funds,
    Level,
    Standing,
    Thresholds,
    deposit_for_ok_wei,
    divided,
    next_level,
    remaining_ev_wei,
    stands,
    unseen,
)
from chain.exposure import Exposure, OpenTickets, coverage_bps, exposure
from chain.tickets import WIN_PROB_CERTAIN, batch_ev_wei

ETH = 10**18
FINNEY = 10**15
USUAL = Thresholds()
FUNDS = Funds(deposit_wei=10 * ETH, reserve_wei=ETH, claimed_in_round_wei=0, pool_size_count=100, is_leaving=False)


def tickets_of(face_values: st.SearchStrategy[int], counts: st.SearchStrategy[int]) -> st.SearchStrategy[OpenTickets]:
    return st.builds(
        OpenTickets,
        face_value_wei=face_values,
        win_prob=st.one_of(st.integers(0, WIN_PROB_CERTAIN), st.integers(0, WIN_PROB_CERTAIN // 10**6)),
        num_tickets=counts,
    )


BOOKS = st.lists(tickets_of(st.integers(0, ETH), st.integers(0, 10**6)), max_size=8)
SMALL_BOOKS = st.lists(tickets_of(st.integers(0, 40), st.integers(0, 3)), max_size=4)
THRESHOLDS = st.builds(
    lambda bps, hysteresis_bps, sigmas: Thresholds(*sorted(bps, reverse=True), hysteresis_bps, sigmas),
    st.lists(st.integers(1, 40_000), min_size=4, max_size=4),
    st.integers(0, 5_000),
    st.integers(0, 5),
)


def funds_of(deposit_wei: int, **but: int) -> Funds:
    return FUNDS._replace(deposit_wei=deposit_wei, **but)


def grown(book: Exposure, ev_wei: int, face_value_wei: int) -> Exposure:
    """By the riskiest tickets of that worth: as rare as they like."""
    return Exposure(
        book.num_tickets,
        book.ev_numerator + ev_wei * WIN_PROB_CERTAIN,
        book.variance_numerator + ev_wei * face_value_wei * WIN_PROB_CERTAIN**2,
        max(book.face_value_max_wei, face_value_wei),
        book.worst_case_wei,
    )


def is_at_the_floor(deposit_wei: int, book: Exposure, thresholds: Thresholds) -> bool:
    covered_bps = coverage_bps(deposit_wei, book, sigmas=thresholds.sigmas)
    return covered_bps is None or covered_bps >= thresholds.floor_bps


# What may still be added.


@given(SMALL_BOOKS, st.integers(0, 300), st.integers(0, 60), THRESHOLDS)
def test_what_remains_is_the_most_that_counting_up_finds(
    book: list[OpenTickets], deposit_wei: int, face_value_wei: int, thresholds: Thresholds
) -> None:
    thresholds = Thresholds(40_000, 40_000, 40_000, max(thresholds.floor_bps, 5_000), 0, thresholds.sigmas)
    sums, most_wei = exposure(book), 0
    while is_at_the_floor(deposit_wei, grown(sums, most_wei + 1, face_value_wei), thresholds):
        most_wei += 1
    found_wei = remaining_ev_wei(funds_of(deposit_wei), sums, face_value_wei=face_value_wei, thresholds=thresholds)
    assert found_wei == most_wei


@given(BOOKS, st.integers(0, 10**24), st.integers(0, ETH), THRESHOLDS)
def test_a_wei_more_than_what_remains_would_break_the_floor(
    book: list[OpenTickets], deposit_wei: int, face_value_wei: int, thresholds: Thresholds
) -> None:
    sums = exposure(book)
    most_wei = remaining_ev_wei(funds_of(deposit_wei), sums, face_value_wei=face_value_wei, thresholds=thresholds)
    assert not is_at_the_floor(deposit_wei, grown(sums, most_wei + 1, face_value_wei), thresholds)
    assert most_wei == 0 or is_at_the_floor(deposit_wei, grown(sums, most_wei, face_value_wei), thresholds)


@given(BOOKS, BOOKS, st.integers(0, 10**24), THRESHOLDS)
def test_whatever_tickets_are_added_within_what_remains_the_coverage_stays_at_the_floor(
    book: list[OpenTickets], added: list[OpenTickets], deposit_wei: int, thresholds: Thresholds
) -> None:
    face_value_wei = max((each.face_value_wei for each in added), default=0)
    left_wei = remaining_ev_wei(
        funds_of(deposit_wei), exposure(book), face_value_wei=face_value_wei, thresholds=thresholds
    )
    assume(left_wei > 0)
    for each in added:
        ev_wei = batch_ev_wei(*each)
        if ev_wei <= left_wei:
            left_wei -= ev_wei
            book = [*book, each]
    assert is_at_the_floor(deposit_wei, exposure(book), thresholds)


def test_what_remains_of_an_empty_book_by_hand() -> None:
    """x + 3·√(x·F) + F = D with D = 11 F is x = 4 F."""
    face_value_wei = FINNEY
    remaining_wei = remaining_ev_wei(
        funds_of(11 * FINNEY), exposure([]), face_value_wei=face_value_wei, thresholds=USUAL
    )
    assert abs(remaining_wei - 4 * FINNEY) <= 1
    assert Fraction(remaining_wei) + 3 * isqrt(remaining_wei * FINNEY) + FINNEY <= 11 * FINNEY


@pytest.mark.parametrize("nothing", [{"is_leaving": True}, {"reserve_wei": 0}, {"deposit_wei": 0}])
def test_nothing_remains_of_funds_that_do_not_count(nothing: dict[str, int]) -> None:
    assert remaining_ev_wei(FUNDS._replace(**nothing), exposure([]), face_value_wei=1, thresholds=USUAL) == 0
    assert remaining_ev_wei(FUNDS, exposure([]), face_value_wei=1, thresholds=USUAL) > 0


# Its division.

OPEN_EV = st.dictionaries(st.integers(), st.integers(0, 60), max_size=8)


@given(OPEN_EV, st.integers(0, 200))
def test_what_remains_is_divided_to_the_highest_level_that_raising_one_by_one_reaches(
    open_ev_wei: dict[int, int], remaining_wei: int
) -> None:
    def cost_wei(level_wei: int) -> int:
        return sum(max(level_wei - each, 0) for each in open_ev_wei.values())

    level_wei = 0
    while open_ev_wei and cost_wei(level_wei + 1) <= remaining_wei:
        level_wei += 1
    assert divided(remaining_wei, open_ev_wei) == {key: max(level_wei - ev, 0) for key, ev in open_ev_wei.items()}


LARGE_EV = st.dictionaries(st.integers(), st.integers(0, 10**24), min_size=1, max_size=20)


@given(LARGE_EV, st.integers(0, 10**24), st.integers(0, 10**24))
def test_a_division_gives_no_more_than_there_is_and_nobody_less_of_more(
    open_ev_wei: dict[int, int], one_wei: int, other_wei: int
) -> None:
    less_wei, more_wei = sorted((one_wei, other_wei))
    less, more = divided(less_wei, open_ev_wei), divided(more_wei, open_ev_wei)
    for remaining_wei, shares in ((less_wei, less), (more_wei, more)):
        assert 0 <= remaining_wei - sum(shares.values()) < len(shares)
    assert all(less[key] <= more[key] for key in open_ev_wei)


@given(LARGE_EV, st.integers(0, 10**24), st.randoms())
def test_a_division_does_not_depend_on_the_order(
    open_ev_wei: dict[int, int], remaining_wei: int, random: Random
) -> None:
    keys = list(open_ev_wei)
    random.shuffle(keys)
    assert divided(remaining_wei, {key: open_ev_wei[key] for key in keys}) == divided(remaining_wei, open_ev_wei)


@given(LARGE_EV, st.integers(0, 10**24))
def test_who_has_less_open_never_gets_less_and_the_raised_end_on_one_level(
    open_ev_wei: dict[int, int], remaining_wei: int
) -> None:
    shares = divided(remaining_wei, open_ev_wei)
    by_ev = sorted(open_ev_wei, key=lambda key: open_ev_wei[key])
    assert [shares[key] for key in by_ev] == sorted(shares.values(), reverse=True)
    assert len({open_ev_wei[key] + share for key, share in shares.items() if share}) <= 1


def test_one_gateway_with_much_open_gets_nothing_while_the_others_get_their_part() -> None:
    shares = divided(9 * ETH, {"huge": 1000 * ETH, "small": ETH, "new": 0})
    assert shares == {"huge": 0, "small": 4 * ETH, "new": 5 * ETH}
    assert divided(5, {}) == {}
    with pytest.raises(ValueError, match="can be negative"):
        divided(-1, {"one": 0})
    with pytest.raises(ValueError, match="can be negative"):
        divided(1, {"one": -1})


# The levels.


@pytest.mark.parametrize(
    ("before", "covered_bps", "after"),
    [
        (None, 20_000, Level.OK),
        (None, 19_999, Level.WATCH),
        (None, 15_000, Level.WATCH),
        (None, 14_999, Level.LOW),
        (None, 12_500, Level.LOW),
        (None, 12_499, Level.CRITICAL),
        (Level.OK, 0, Level.CRITICAL),  # worse at once, by as many levels as it takes
        (Level.OK, 14_999, Level.LOW),
        (Level.WATCH, 20_999, Level.WATCH),  # better only past the threshold
        (Level.WATCH, 21_000, Level.OK),
        (Level.CRITICAL, 13_499, Level.CRITICAL),
        (Level.CRITICAL, 13_500, Level.LOW),
        (Level.CRITICAL, 15_999, Level.LOW),  # past one threshold, not yet past the next
        (Level.CRITICAL, 16_000, Level.WATCH),
        (Level.CRITICAL, 21_000, Level.OK),
        (Level.CRITICAL, None, Level.OK),  # nothing is open any more
    ],
)
def test_a_level_follows_from_the_coverage_and_the_level_before(
    before: Level | None, covered_bps: int | None, after: Level
) -> None:
    assert next_level(before, covered_bps, FUNDS, USUAL) is after


@pytest.mark.parametrize("nothing", [{"is_leaving": True}, {"reserve_wei": 0}, {"deposit_wei": 0}])
@pytest.mark.parametrize("covered_bps", [None, 10**9])
def test_without_funds_that_count_it_is_critical_whatever_is_open(
    nothing: dict[str, int], covered_bps: int | None
) -> None:
    assert next_level(Level.OK, covered_bps, FUNDS._replace(**nothing), USUAL) is Level.CRITICAL


def levels_of(walk: list[int], before: Level | None, thresholds: Thresholds) -> list[Level]:
    levels = []
    for covered_bps in walk:
        before = next_level(before, covered_bps, FUNDS, thresholds)
        levels.append(before)
    return levels


@given(st.lists(st.integers(0, 45_000)), st.sampled_from([None, *Level]), THRESHOLDS)
def test_a_level_is_never_better_than_the_coverage_and_worse_by_the_hysteresis_at_most(
    walk: list[int], before: Level | None, thresholds: Thresholds
) -> None:
    for covered_bps, level in zip(walk, levels_of(walk, before, thresholds), strict=True):
        assert not next_level(None, covered_bps, FUNDS, thresholds).is_worse_than(level)
        assert not level.is_worse_than(next_level(None, covered_bps - thresholds.hysteresis_bps, FUNDS, thresholds))


@given(st.data(), st.sampled_from([None, *Level]), THRESHOLDS)
def test_a_coverage_that_wavers_by_no_more_than_the_hysteresis_does_not_make_the_level_waver(
    data: st.DataObject, before: Level | None, thresholds: Thresholds
) -> None:
    least_bps = data.draw(st.integers(0, 45_000))
    walk = data.draw(st.lists(st.integers(least_bps, least_bps + thresholds.hysteresis_bps)))
    levels = [each for each in [before, *levels_of(walk, before, thresholds)] if each is not None]
    steps = list(pairwise(levels))
    assert not any(later.is_worse_than(now) for now, later in steps) or not any(
        now.is_worse_than(later) for now, later in steps
    )


def test_without_hysteresis_it_would_waver() -> None:
    walk = [12_600, 12_400] * 10
    assert len(set(levels_of(walk, Level.LOW, USUAL)[1:])) == 1
    assert len(set(levels_of(walk, Level.LOW, Thresholds(hysteresis_bps=0))[1:])) == 2


def test_levels_are_ordered_by_severity_not_by_their_letters() -> None:
    assert Level.CRITICAL.is_worse_than(Level.LOW)
    assert Level.LOW.is_worse_than(Level.WATCH)
    assert Level.WATCH.is_worse_than(Level.OK)
    assert not Level.OK.is_worse_than(Level.OK)


@pytest.mark.parametrize(
    "wrong",
    [
        {"watch_bps": 14_000},
        {"low_bps": 12_000},
        {"critical_bps": 9_000},
        {"floor_bps": 0, "critical_bps": 1},
        {"hysteresis_bps": -1},
        {"sigmas": -1},
    ],
)
def test_thresholds_out_of_order_are_refused(wrong: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="must"):
        Thresholds(**wrong)


@given(BOOKS, THRESHOLDS, st.sampled_from(Level))
def test_the_deposit_for_ok_is_the_least_that_ends_every_level(
    book: list[OpenTickets], thresholds: Thresholds, before: Level
) -> None:
    sums = exposure(book)
    deposit_wei = deposit_for_ok_wei(sums, thresholds)
    assume(deposit_wei > 1)

    def level(deposit_wei: int, before: Level) -> Level:
        covered_bps = coverage_bps(deposit_wei, sums, sigmas=thresholds.sigmas)
        return next_level(before, covered_bps, funds_of(deposit_wei), thresholds)

    assert level(deposit_wei, before) is Level.OK
    assert level(deposit_wei - 1, Level.CRITICAL) is not Level.OK


# The whole of it.


def standing(funds: Funds, *tickets: OpenTickets, divisor_count: int = 50, thresholds: Thresholds = USUAL) -> Standing:
    return stands(None, funds, exposure(tickets), divisor_count=divisor_count, thresholds=thresholds)


def alike(face_value_wei: int, probability: Fraction, count: int) -> OpenTickets:
    return OpenTickets(face_value_wei, int(probability * WIN_PROB_CERTAIN), count)


def test_an_empty_book_is_covered_by_any_deposit() -> None:
    found = standing(FUNDS)
    assert (found.level, found.coverage_bps) == (Level.OK, None)
    assert found.face_value_max_wei == 10 * ETH // 50
    assert found.issuable_face_value_wei == ETH // 100  # what orchestrators quote
    assert 0 < found.remaining_ev_wei < 10 * ETH


def test_the_largest_ticket_follows_the_deposit_and_what_the_open_ones_leave() -> None:
    assert [standing(funds_of(deposit_wei)).face_value_max_wei for deposit_wei in (ETH, ETH // 2)] == [
        ETH // 50,
        ETH // 100,
    ]
    # With one wide part of the deposit allowed, what the open tickets leave of it is less: mean 0.3, no spread.
    certain = alike(3 * ETH // 10, Fraction(1), 1)
    narrow = Thresholds(10_000, 10_000, 10_000)
    found = standing(funds_of(ETH), certain, divisor_count=1, thresholds=narrow)
    assert found.face_value_max_wei == 7 * ETH // 10
    assert found.issuable_face_value_wei == ETH // 100
    widely_quoted = standing(funds_of(ETH, reserve_wei=100 * ETH), certain, divisor_count=1, thresholds=narrow)
    assert widely_quoted.issuable_face_value_wei == 7 * ETH // 10


def test_orchestrators_of_an_empty_pool_quote_nothing_but_the_deposit_still_covers() -> None:
    found = standing(FUNDS._replace(pool_size_count=0))
    assert found.quoted == (0, 0)
    assert found.issuable_face_value_wei == 0
    assert found.face_value_max_wei == 10 * ETH // 50
    assert found.level is Level.OK


@pytest.mark.parametrize("nothing", [{"is_leaving": True}, {"reserve_wei": 0}, {"deposit_wei": 0}])
def test_funds_that_do_not_count_cover_nothing_and_the_size_of_a_ticket_is_not_why(nothing: dict[str, int]) -> None:
    found = standing(FUNDS._replace(**nothing), alike(FINNEY, Fraction(1, 1000), 10))
    assert (found.level, found.coverage_bps) == (Level.CRITICAL, 0)
    assert (found.remaining_ev_wei, found.issuable_face_value_wei, found.face_value_max_wei) == (0, 0, None)


def test_orchestrators_quote_nothing_to_a_sender_that_leaves() -> None:
    assert FUNDS.quoted() == (ETH // 100, ETH // 100)
    assert FUNDS._replace(is_leaving=True).quoted() == (0, 0)


def test_while_critical_tickets_do_not_grow_and_what_remains_is_counted_for_their_size() -> None:
    open_tickets = alike(FINNEY, Fraction(1, 1000), 10**6)  # 1 ETH expected, deviation 0.0316 ETH
    found = standing(funds_of(12 * ETH // 10), open_tickets)
    assert found.level is Level.CRITICAL
    assert found.face_value_max_wei == FINNEY < 12 * ETH // 10 // 50
    left = Fraction(12 * ETH // 10 - found.worst.needed_wei(3))
    assert 0 < found.remaining_ev_wei < left
    below = standing(funds_of(ETH), open_tickets)
    assert (below.level, below.remaining_ev_wei, below.face_value_max_wei) == (Level.CRITICAL, 0, None)


@given(
    st.lists(tickets_of(st.integers(10**12, ETH), st.integers(1, 10**6)), min_size=1, max_size=8),
    st.integers(10_000, 13_499),
    st.lists(st.integers(0, 10**18), min_size=1, max_size=5),
    st.data(),
)
def test_who_spends_all_of_every_share_of_a_critical_sender_leaves_the_floor_standing(
    book: list[OpenTickets], bps: int, open_ev_wei: list[int], data: st.DataObject
) -> None:
    deposit_wei = exposure(book).needed_wei(3) * bps // 10_000 + 1
    found = stands(Level.CRITICAL, funds_of(deposit_wei), exposure(book), divisor_count=50, thresholds=USUAL)
    assert found.level is Level.CRITICAL
    assume(found.remaining_ev_wei > 10**6)
    for share_wei in divided(found.remaining_ev_wei, dict(enumerate(open_ev_wei))).values():
        assert found.face_value_max_wei is not None
        face_value_wei = data.draw(st.integers(1, found.face_value_max_wei))
        num_tickets = data.draw(st.integers(max(1, -(-share_wei // face_value_wei)), 10**30))
        win_prob = min(share_wei * WIN_PROB_CERTAIN // (face_value_wei * num_tickets), WIN_PROB_CERTAIN)
        book = [*book, OpenTickets(face_value_wei, win_prob, num_tickets)]
    covered_bps = coverage_bps(deposit_wei, exposure(book))
    assert covered_bps is not None
    assert covered_bps >= USUAL.floor_bps


@given(
    st.lists(tickets_of(st.integers(10**12, ETH), st.integers(1, 10**6)), min_size=1, max_size=8),
    st.integers(10_000, 13_499),
    st.integers(1, 3_000),
    st.integers(1, 10**30),
)
def test_who_spends_all_that_remains_on_tickets_that_no_cap_bounds_leaves_the_floor_standing(
    book: list[OpenTickets], bps: int, part_bps: int, num_tickets: int
) -> None:
    deposit_wei = exposure(book).needed_wei(3) * bps // 10_000 + 1
    uncapped_face_value_wei = deposit_wei * part_bps // 10_000 + 1
    found = stands(
        Level.CRITICAL,
        funds_of(deposit_wei),
        exposure(book),
        divisor_count=50,
        thresholds=USUAL,
        uncapped_face_value_wei=uncapped_face_value_wei,
    )
    assume(found.remaining_ev_wei > 0)
    num_tickets = max(num_tickets, -(-found.remaining_ev_wei // uncapped_face_value_wei))
    win_prob = found.remaining_ev_wei * WIN_PROB_CERTAIN // (uncapped_face_value_wei * num_tickets)
    book = [*book, OpenTickets(uncapped_face_value_wei, win_prob, num_tickets)]
    covered_bps = coverage_bps(deposit_wei, exposure(book))
    assert covered_bps is not None
    assert covered_bps >= USUAL.floor_bps


# Tickets that nobody saw.


@given(st.lists(tickets_of(st.integers(1, 10**20), st.integers(1, 1000)), min_size=1, max_size=6), st.integers(0, ETH))
def test_unseen_tickets_are_taken_for_the_riskiest_that_are_worth_as_much(
    truly: list[OpenTickets], larger_wei: int
) -> None:
    sums = exposure(truly)
    face_value_wei = sums.face_value_max_wei + larger_wei
    taken_for = unseen(sums.ev_numerator, sums.num_tickets, face_value_wei=face_value_wei)
    book = exposure([taken_for])
    assert taken_for.num_tickets == sums.num_tickets
    assert 0 <= book.ev_numerator - sums.ev_numerator < face_value_wei * sums.num_tickets
    rounding = sums.num_tickets * face_value_wei**2 * WIN_PROB_CERTAIN  # of a win probability above one half
    assert book.variance_numerator + rounding >= sums.variance_numerator
    assert book.face_value_max_wei >= sums.face_value_max_wei


@given(st.integers(0, 10**30), st.integers(0, 10), st.integers(0, ETH))
def test_unseen_tickets_that_cannot_be_worth_so_much_are_taken_to_be_more(
    ev_wei: int, num_tickets: int, face_value_wei: int
) -> None:
    taken_for = unseen(ev_wei * WIN_PROB_CERTAIN, num_tickets, face_value_wei=face_value_wei)
    assert taken_for.win_prob <= WIN_PROB_CERTAIN
    assert taken_for.num_tickets >= num_tickets
    assert ev_wei <= exposure([taken_for]).expected_wei <= ev_wei + 1
    with pytest.raises(ValueError, match="out of range"):
        unseen(-1, num_tickets, face_value_wei=face_value_wei)


def test_coverage_is_known_and_an_outlook_read_without_numpy() -> None:
    code = "import chain.coverage, chain.outlook_document, sys; sys.exit('numpy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
