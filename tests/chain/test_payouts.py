"""The distribution of payouts, against closed forms where there are any and against dice where there are none."""

from __future__ import annotations

from fractions import Fraction
from math import comb

import numpy as np
import pytest

from chain.exposure import OpenTickets, exposure
from chain.payouts import CELLS, Flow, Payouts
from chain.tickets import WIN_PROB_CERTAIN

FINNEY = 10**15
ETH = 10**18


def win_prob(probability: Fraction) -> int:
    return int(probability * WIN_PROB_CERTAIN)


def binomial_tail(count: int, p: Fraction, winners: int) -> float:
    """P(more than `winners` of `count` win), exactly."""
    return float(1 - sum(comb(count, k) * p**k * (1 - p) ** (count - k) for k in range(winners + 1)))


@pytest.mark.parametrize("p", [Fraction(1, 2), Fraction(1, 50), Fraction(1, 2000)])
def test_tickets_that_are_alike_are_a_binomial(p: Fraction) -> None:
    payouts = Payouts([OpenTickets(FINNEY, win_prob(p), 300)])
    for winners in (0, 1, 2, 5, 9, 140, 150, 170, 299):
        assert payouts.exceed(winners * FINNEY) == pytest.approx(binomial_tail(300, p, winners), abs=1e-11)
        assert payouts.exceed(winners * FINNEY + FINNEY - 1) == payouts.exceed(winners * FINNEY)
    assert payouts.exceed(300 * FINNEY) == pytest.approx(0, abs=1e-12)


def test_two_kinds_of_tickets_are_both_binomials_added_up() -> None:
    p, q = Fraction(1, 3), Fraction(1, 1500)
    payouts = Payouts([OpenTickets(2 * FINNEY, win_prob(p), 3), OpenTickets(5 * FINNEY, win_prob(q), 40)])
    for amount in range(30):
        exact = sum(
            comb(3, i) * p**i * (1 - p) ** (3 - i) * comb(40, j) * q**j * (1 - q) ** (40 - j)
            for i in range(4)
            for j in range(41)
            if 2 * i + 5 * j > amount
        )
        assert payouts.exceed(amount * FINNEY) == pytest.approx(float(exact), abs=1e-11), amount


def dice(
    tickets: list[OpenTickets], rng: np.random.Generator, draws: int
) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    counts = np.array([each.num_tickets for each in tickets])
    p = np.array([each.win_prob / WIN_PROB_CERTAIN for each in tickets])
    faces = np.array([float(each.face_value_wei) for each in tickets])
    return np.array([rng.binomial(counts, p) @ faces for _ in range(draws)])


@pytest.mark.parametrize("seed", range(4))
def test_books_of_many_face_values_agree_with_dice(seed: int) -> None:
    rng = np.random.default_rng(seed)
    kinds, draws = 200, 20_000
    tickets = [
        OpenTickets(int(face), win_prob(Fraction(float(p))), int(count))
        for face, p, count in zip(
            rng.uniform(1e13, 3e17, kinds), 10 ** rng.uniform(-6, -2, kinds), rng.integers(0, 3000, kinds), strict=True
        )
    ]
    payouts, drawn = Payouts(tickets), dice(tickets, rng, draws)
    for share in (0.1, 0.5, 0.9, 0.99, 0.999):
        amount_wei = int(np.quantile(drawn, share))
        deviation = (share * (1 - share) / draws) ** 0.5
        assert payouts.exceed(amount_wei) == pytest.approx(1 - share, abs=5 * deviation + 1e-3)


def test_a_quantile_covers_what_it_says_and_no_step_less_does() -> None:
    tickets = [
        OpenTickets(7 * FINNEY, win_prob(Fraction(1, 900)), 5000),
        OpenTickets(ETH, win_prob(Fraction(1, 10**5)), 99),
    ]
    payouts = Payouts(tickets)
    for confidence in (0.5, 0.99, 0.999_999):
        amount_wei = payouts.quantile_wei(confidence)
        assert payouts.exceed(amount_wei) <= 1 - confidence < payouts.exceed(amount_wei - 1)
    assert payouts.quantile_wei(0.5) < exposure(tickets).worst_case_wei


def test_the_normal_formula_is_too_small_for_a_few_large_tickets() -> None:
    """Why there is a distribution: three deviations of one rare large winner cover far less than 99.9 %."""
    tickets = [OpenTickets(ETH, win_prob(Fraction(1, 100)), 10), OpenTickets(FINNEY, win_prob(Fraction(1, 100)), 1000)]
    book = exposure(tickets)
    assert Payouts(tickets).quantile_wei(0.9999) > book.expected_wei + 3 * book.deviation_wei


def test_tickets_to_come_are_a_poisson_stream_and_say_when_the_deposit_is_gone() -> None:
    day_s = 86_400
    flow = [Flow(FINNEY, win_prob(Fraction(1, 1000)), 1_000_000)]  # 1000 winners a day: 1 ETH
    payouts = Payouts([], flow, horizon_max_s=10 * day_s)
    median_s = payouts.exceeded_after_s(3 * ETH, 0.5)
    early_s = payouts.exceeded_after_s(3 * ETH, 0.05)
    assert median_s == pytest.approx(3 * day_s, rel=0.01)
    assert early_s == pytest.approx(3 * day_s - 1.645 * (3000**0.5 / 1000) * day_s, rel=0.01)
    assert payouts.exceeded_after_s(20 * ETH, 0.05) is None
    assert payouts.exceed(3 * ETH, horizon_s=median_s or 0) >= 0.5


def test_what_is_open_may_be_more_than_the_deposit_from_the_first_moment_on() -> None:
    payouts = Payouts([OpenTickets(ETH, WIN_PROB_CERTAIN, 3)], horizon_max_s=100)
    assert payouts.exceeded_after_s(2 * ETH, 0.99) == 0
    assert payouts.exceed(3 * ETH) == pytest.approx(0, abs=1e-12)


def test_a_book_without_tickets_pays_nothing() -> None:
    payouts = Payouts([])
    assert payouts.exceed(0) == pytest.approx(0, abs=1e-12)
    assert payouts.quantile_wei(0.999) == 0


def test_what_was_not_prepared_cannot_be_asked() -> None:
    payouts = Payouts([OpenTickets(ETH, 1, 1)], horizon_max_s=60)
    with pytest.raises(ValueError, match="within 0 and 60 s"):
        payouts.exceed(0, horizon_s=61)
    for confidence in (0.0, 1.0, 1 - 1e-13):
        with pytest.raises(ValueError, match="a confidence"):
            payouts.quantile_wei(confidence)


def test_a_hundred_million_tickets_in_ten_thousand_counters_cost_no_more_than_a_vector() -> None:
    tickets = [
        OpenTickets(FINNEY + 1009 * kind * 10**9, win_prob(Fraction(1, 10**6 + kind)), 10_000) for kind in range(10_000)
    ]
    payouts = Payouts(tickets)
    book = exposure(tickets)
    assert book.num_tickets == 10**8
    assert abs(payouts.quantile_wei(0.5) - book.expected_wei) < 2 * book.deviation_wei
    assert CELLS * 16 * 4 < 2**23  # bytes that it holds, whatever the number of counters


def test_a_stream_that_always_wins_has_no_worst_case() -> None:
    """A thousand winners a day are more than a thousand on every other day. What never wins makes the lattice fine."""
    flow = [Flow(ETH, WIN_PROB_CERTAIN, 1000), Flow(1, 0, 1)]
    payouts = Payouts([], flow, horizon_max_s=86_400)
    poisson = [float(each) for each in np.cumsum(_poisson(1000, 1200))]
    for winners in (900, 1000, 1050, 1100):
        exceeded = payouts.exceed(winners * ETH + ETH // 2, horizon_s=86_400)
        assert exceeded == pytest.approx(1 - poisson[winners], abs=1e-3)


def _poisson(mean: float, up_to: int) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    counts = np.arange(up_to + 1)
    logs = counts * np.log(mean) - mean - np.concatenate([[0.0], np.cumsum(np.log(counts[1:]))])
    return np.exp(logs)


def test_many_kinds_that_win_often_are_answered_more_carefully_and_still_at_once() -> None:
    """All but the riskiest are taken for streams: the mean stays, and the tail is no smaller."""
    tickets = [OpenTickets(FINNEY * (1 + kind % 3), win_prob(Fraction(1, 4)) + kind, 2) for kind in range(300)]
    alike = [OpenTickets(FINNEY * (1 + rest), win_prob(Fraction(1, 4)), 200) for rest in range(3)]
    careful, exact = Payouts(tickets), Payouts(alike)
    for confidence in (0.9, 0.99, 0.9999):
        least_wei = exact.quantile_wei(confidence)
        assert least_wei <= careful.quantile_wei(confidence) < 1.15 * least_wei
    assert careful.quantile_wei(0.5) == pytest.approx(exact.quantile_wei(0.5), rel=0.01)


@pytest.mark.parametrize("probability", [0.01, 0.05, 0.5, 0.99])
def test_the_time_that_is_found_is_the_first_second(probability: float) -> None:
    payouts = Payouts(
        [OpenTickets(3 * FINNEY, win_prob(Fraction(1, 10)), 20)],
        [Flow(FINNEY, win_prob(Fraction(1, 1000)), 50_000), Flow(7 * FINNEY, win_prob(Fraction(1, 5000)), 9, 3600)],
        horizon_max_s=3 * 86_400,
    )
    found_s = payouts.exceeded_after_s(90 * FINNEY, probability)
    assert found_s is not None
    assert found_s > 0
    before, then = (payouts.exceed(90 * FINNEY, horizon_s=each_s) for each_s in (found_s - 1, found_s))
    assert before < probability <= then + 1e-12


def test_tickets_out_of_range_have_no_payouts() -> None:
    for wrong in (OpenTickets(-1, 1, 1), OpenTickets(1, 1, -1), OpenTickets(1, 2 * WIN_PROB_CERTAIN, 1)):
        with pytest.raises(ValueError, match="out of range"):
            Payouts([wrong])
