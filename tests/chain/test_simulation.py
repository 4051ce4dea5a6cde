"""The plays of the future, against closed forms and against a slow twin that plays every session and every ticket."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from math import ceil, exp, sqrt

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chain.payouts import Flow, Payouts
from chain.simulation import HORIZON_MAX_S, RUNS_MAX, Played, play, proportion, redeemed_share, waiting_s
from chain.tickets import WIN_PROB_CERTAIN
from chain.traffic import DAY_S, REDEEMED_AFTER_MIN_S, ROUND_S, PlannedFunds, Traffic

FINNEY = 10**15
PLAN = Traffic(
    gateways_count=10,
    sessions_count=1_000,
    session_s=1_800,
    job_type="lv2v",
    price_wei_per_unit=Fraction(100),
    units_per_s=Fraction(27_648_000),
    face_value_wei=12 * FINNEY,
    ticket_ev_wei=8 * 10**9,
    redemption_s=3_600,
    demand_variation=Fraction(1, 2),
)
#: Few sessions and likely winners, so that every ticket can be played.
SMALL = replace(
    PLAN, sessions_count=5, price_wei_per_unit=Fraction(1, 2), ticket_ev_wei=4 * 10**9, face_value_wei=10**11
)
DAY = {"horizon_s": DAY_S, "seed": 7}


def tickets_of_a_session(traffic: Traffic, lasts_s: float) -> int:
    """Sections 3.1 and 3.5 for payments so close together that the balance is always one ticket ahead of the fee."""
    ev = float(traffic.ticket_ev_wei)
    preload, interval = 60 * float(traffic.fee_wei_per_s) / ev, 10 * float(traffic.fee_wei_per_s) / ev
    return ceil(preload + float(traffic.fee_wei_per_s) / ev * lasts_s + max(0.0, 1 - interval))


def winners_of_one_future(traffic: Traffic, horizon_s: int, rng: np.random.Generator) -> int:
    """The slow twin: every session, its tickets one by one, a draw for each; steady since two days ago."""
    begun_s, redeemed = -2.0 * DAY_S, 0
    while (begun_s := begun_s + rng.exponential(traffic.session_s / traffic.sessions_count)) < horizon_s:
        lasts_s = rng.exponential(traffic.session_s)
        issued = np.arange(tickets_of_a_session(traffic, 0), tickets_of_a_session(traffic, lasts_s) + 1)
        first = tickets_of_a_session(traffic, 0)
        later_s = np.sort(rng.uniform(0, lasts_s, len(issued) - 1))
        times_s = begun_s + np.concatenate([np.zeros(first), later_s])
        won_s = times_s[rng.random(len(times_s)) < traffic.win_probability]
        delays_s = REDEEMED_AFTER_MIN_S + rng.exponential(traffic.redemption_s, len(won_s))
        in_time = delays_s < rng.uniform(ROUND_S, 2 * ROUND_S, len(won_s))
        paid_s = (won_s + delays_s)[in_time]
        redeemed += int(np.count_nonzero((paid_s > 0) & (paid_s <= horizon_s)))
    return redeemed


def test_the_plays_agree_with_a_twin_that_plays_every_session_and_every_ticket() -> None:
    rng, futures = np.random.default_rng(3), 150
    twin = np.array([winners_of_one_future(SMALL, DAY_S, rng) for _ in range(futures)])
    played = play(SMALL, runs_count=4_000, is_steady=True, **DAY).redeemed[:, -1]
    assert twin.mean() > 50
    assert abs(twin.mean() - played.mean()) < 4 * twin.std() / sqrt(futures)
    assert twin.std() == pytest.approx(played.std(), rel=4 / sqrt(2 * futures))


def test_a_session_issues_the_tickets_that_the_closed_formula_says() -> None:
    rng = np.random.default_rng(1)
    for price in (Fraction(1, 1000), Fraction(1, 7), Fraction(3), Fraction(100)):
        plan = replace(PLAN, price_wei_per_unit=price)
        drawn = [tickets_of_a_session(plan, lasts_s) for lasts_s in rng.exponential(plan.session_s, 40_000)]
        assert plan.pace().tickets_per_session == pytest.approx(np.mean(drawn), abs=5 * np.std(drawn) / 200 + 1e-9)


@pytest.mark.parametrize("sessions", [20, 1_000, 20_000])
def test_steady_plays_agree_with_the_closed_computation_within_their_error(sessions: int) -> None:
    plan = replace(PLAN, sessions_count=sessions)
    flow = Flow(plan.face_value_wei, plan.win_prob, round(plan.pace().tickets_per_day * redeemed_share(plan)))
    computed = Payouts([], [flow], horizon_max_s=3 * DAY_S)
    played = play(plan, horizon_s=3 * DAY_S, runs_count=6_000, seed=11, is_steady=True)
    for confidence in (0.1, 0.5, 0.9, 0.99):
        amount_wei = computed.quantile_wei(confidence, horizon_s=3 * DAY_S)
        estimate, exact = played.exceed(amount_wei), computed.exceed(amount_wei, horizon_s=3 * DAY_S)
        assert abs(estimate.value - exact) < 4.5 * sqrt(exact * (1 - exact) / 6_000)
    amounts = played.deposit_wei(0.05)
    exact_wei = computed.quantile_wei(0.95, horizon_s=3 * DAY_S)
    assert amounts.low_wei - plan.face_value_wei <= exact_wei <= amounts.high_wei + plan.face_value_wei


def test_what_waits_and_what_is_open_is_what_littles_law_says() -> None:
    played = play(PLAN, runs_count=4_000, **DAY)
    per_s = PLAN.pace().tickets_per_day / DAY_S
    waiting = per_s * PLAN.win_probability * waiting_s(PLAN)
    for step in (0, 40, -1):
        assert played.waiting[:, step].mean() == pytest.approx(waiting, abs=4.5 * sqrt(2 * waiting / 4_000))
    assert played.open_tickets.mean() == pytest.approx(per_s * 1.5 * ROUND_S, rel=0.02)


def test_winners_that_are_redeemed_too_late_expire_and_cost_nothing() -> None:
    slow = replace(PLAN, redemption_s=20 * ROUND_S)
    # ∫ of the density over the delays, weighed by what is left of two rounds: linear from one round on
    mean, start, end = 20 * ROUND_S, REDEEMED_AFTER_MIN_S, 2 * ROUND_S
    exact = 1 - mean / ROUND_S * (exp(-(ROUND_S - start) / mean) - exp(-(end - start) / mean))
    assert redeemed_share(slow) == pytest.approx(exact, rel=1e-3)
    winners = play(slow, runs_count=3_000, is_steady=True, **DAY).redeemed[:, -1].mean()
    expected = slow.pace().tickets_per_day * slow.win_probability * exact
    assert winners == pytest.approx(expected, abs=5 * sqrt(expected / 3_000))


def test_days_that_vary_make_the_tail_longer_and_few_gateways_more_so() -> None:
    large = replace(PLAN, sessions_count=20_000)
    steady = play(large, runs_count=2_000, is_steady=True, horizon_s=3 * DAY_S, seed=5).redeemed[:, -1]
    many = play(large, runs_count=2_000, horizon_s=3 * DAY_S, seed=5).redeemed[:, -1]
    one = play(replace(large, gateways_count=1), runs_count=2_000, horizon_s=3 * DAY_S, seed=5).redeemed[:, -1]
    assert 2 * steady.std() < many.std() < one.std() / 2
    # Each day's demand adds its variance: (mean of a day)² · variation² / gateways
    a_day = large.pace().tickets_per_day * large.win_probability
    assert one.std() == pytest.approx(sqrt(3) * a_day / 2, rel=0.1)
    assert one.mean() == pytest.approx(3 * a_day, rel=0.03)


def test_a_seed_plays_the_same_futures_and_another_plays_others() -> None:
    first, again = (play(PLAN, runs_count=1_500, **DAY) for _ in range(2))
    assert np.array_equal(first.redeemed, again.redeemed)
    assert np.array_equal(first.waiting, again.waiting)
    assert not np.array_equal(first.redeemed, play(PLAN, runs_count=1_500, horizon_s=DAY_S, seed=8).redeemed)


def test_progress_comes_in_steps_and_ends_with_all() -> None:
    seen: list[tuple[int, int]] = []
    play(PLAN, runs_count=2_500, progress=lambda done, in_all: seen.append((done, in_all)), **DAY)
    assert seen == [(1_000, 2_500), (2_000, 2_500), (2_500, 2_500)]


PLAYED = play(PLAN, runs_count=3_000, **DAY)


@given(st.integers(0, 10**18), st.integers(0, 10**18))
def test_more_deposit_is_never_more_ruin_nor_sooner(one_wei: int, other_wei: int) -> None:
    less_wei, more_wei = sorted((one_wei, other_wei))
    assert PLAYED.exceed(more_wei).value <= PLAYED.exceed(less_wei).value
    sooner, later = PLAYED.emptied_after_s(less_wei, 0.5), PLAYED.emptied_after_s(more_wei, 0.5)
    assert later is None or (sooner is not None and sooner <= later)


@given(st.floats(0.005, 0.99), st.floats(0.005, 0.99))
def test_a_smaller_ruin_never_takes_less_and_is_kept(one: float, other: float) -> None:
    rare, often = sorted((one, other))
    assert PLAYED.deposit_wei(rare).wei >= PLAYED.deposit_wei(often).wei
    amounts = PLAYED.deposit_wei(rare)
    assert PLAYED.exceed(amounts.wei).value <= rare
    assert amounts.low_wei <= amounts.wei <= amounts.high_wei


def hand_played(redeemed: list[list[int]], waiting: list[list[int]]) -> Played:
    return Played(FINNEY, 100, np.array(redeemed), np.array(waiting), np.zeros(len(redeemed)))


def test_what_an_emptied_deposit_owes_is_paid_by_the_share_of_one_orchestrator() -> None:
    played = hand_played([[0, 1, 3], [0, 1, 1]], [[5, 5, 4], [5, 5, 5]])
    # 2.5 winners fit; the first future has half a winner of the third and 4 waiting ones left, all of one orchestrator
    funds = PlannedFunds(5 * FINNEY // 2, 30 * FINNEY, 10, 50)
    after = played.after_ruin(funds, orchestrators_count=1, rng=np.random.default_rng(0))
    assert after == (1, 3 * FINNEY, 3 * FINNEY // 2, 1)
    wealthy = replace(funds, reserve_wei=45 * FINNEY)
    assert played.after_ruin(wealthy, orchestrators_count=1, rng=np.random.default_rng(0)) == (
        1, 9 * FINNEY // 2, 0, 0,
    )  # fmt: skip
    assert played.emptied_after_s(funds.deposit_wei, 0.5) == 200
    assert played.emptied_after_s(funds.deposit_wei, 0.51) is None
    untouched = replace(funds, deposit_wei=3 * FINNEY)
    assert played.after_ruin(untouched, orchestrators_count=1, rng=np.random.default_rng(0)) == (0, 0, 0, 0)


@given(st.integers(1, 40), st.integers(0, 12), st.integers(0, 10**17), st.integers(1, 20))
@settings(max_examples=50)
def test_after_ruin_every_winner_is_paid_or_counted_as_unpaid(
    winners: int, waiting: int, reserve_wei: int, orchestrators: int
) -> None:
    played = hand_played([[0, winners]], [[0, waiting]])
    deposit_wei = winners * FINNEY - 1
    after = played.after_ruin(
        PlannedFunds(deposit_wei, reserve_wei, 20, 50), orchestrators_count=orchestrators, rng=np.random.default_rng(0)
    )
    assert after.from_reserve_wei + after.unpaid_wei == (winners + waiting) * FINNEY - deposit_wei
    assert after.from_reserve_wei <= orchestrators * (reserve_wei // 20)


@given(st.integers(1, 10**6), st.data())
def test_an_interval_has_its_estimate_and_stays_a_probability(of: int, data: st.DataObject) -> None:
    estimate = proportion(data.draw(st.integers(0, of)), of)
    assert 0 <= estimate.low <= estimate.value + 1e-12
    assert estimate.value - 1e-12 <= estimate.high <= 1


def test_intervals_cover_what_they_estimate_as_often_as_they_say() -> None:
    rng = np.random.default_rng(2)
    for probability in (0.001, 0.05, 0.5):
        covered = [proportion(int(rng.binomial(20_000, probability)), 20_000).has(probability) for _ in range(2_000)]
        assert np.mean(covered) == pytest.approx(0.95, abs=0.02)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"sessions_count": 0}, "sessions_count must be above 0, got 0"),
        ({"price_wei_per_unit": Fraction(-1)}, "price_wei_per_unit must be above 0"),
        ({"demand_variation": Fraction(-1)}, "demand_variation must not be negative"),
        ({"job_type": ""}, "job_type must be live, lv2v or fixed"),
        ({"ticket_ev_wei": 13 * FINNEY}, "at most its face value"),
        ({"price_wei_per_unit": Fraction(1000)}, "208 tickets of 8000000000 wei .* at least 16640000000 wei"),
        ({"session_s": 1, "sessions_count": 10**12}, "tickets a day: plan for 1 to"),
    ],
)
def test_a_plan_that_cannot_be_says_what_is_wrong(changed: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        replace(PLAN, **changed)  # type: ignore[arg-type]


def test_plays_out_of_range_are_refused() -> None:
    for horizon_s in (0, HORIZON_MAX_S + 1):
        with pytest.raises(ValueError, match="a horizon must be within"):
            play(PLAN, horizon_s=horizon_s, runs_count=1, seed=0)
    for runs_count in (0, RUNS_MAX + 1):
        with pytest.raises(ValueError, match=f"1 to {RUNS_MAX} runs"):
            play(PLAN, horizon_s=DAY_S, runs_count=runs_count, seed=0)
    with pytest.raises(ValueError, match="a seed must not be negative"):
        play(PLAN, horizon_s=DAY_S, runs_count=1, seed=-1)
    with pytest.raises(ValueError, match="it takes 10000, of which 10 are ruined"):
        PLAYED.deposit_wei(0.001)


def test_win_probabilities_are_computed_as_orchestrators_do() -> None:
    assert replace(PLAN, ticket_ev_wei=PLAN.face_value_wei).win_prob == WIN_PROB_CERTAIN
    quotient = WIN_PROB_CERTAIN // PLAN.face_value_wei
    assert PLAN.win_prob == PLAN.ticket_ev_wei * (quotient + 1)
