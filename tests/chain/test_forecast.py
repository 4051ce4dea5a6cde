"""What is recommended keeps its word in other futures, and the two computations watch each other."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

import pytest

from chain.forecast import Forecast, Question, forecast
from chain.simulation import play
from chain.traffic import DAY_S
from tests.chain.test_simulation import FINNEY, PLAN

QUESTION = Question(
    traffic=PLAN,
    deposit_wei=None,
    reserve_wei=None,
    pool_size_count=100,
    divisor_count=50,
    orchestrators_count=20,
    horizon_s=2 * DAY_S,
    ruin_probability=0.01,
    runs_count=3_000,
    seed=1,
)


@pytest.fixture(scope="module")
def answer() -> Forecast:
    return forecast(QUESTION)


def test_the_recommended_deposit_keeps_ruin_below_the_bound_in_futures_it_was_not_made_from(answer: Forecast) -> None:
    others = play(PLAN, horizon_s=QUESTION.horizon_s, runs_count=5_000, seed=77)
    room_wei = QUESTION.divisor_count * PLAN.face_value_wei
    assert others.exceed(answer.recommended.deposit_wei - room_wei).low <= QUESTION.ruin_probability
    assert others.exceed(answer.recommended.deposit_wei).high < QUESTION.ruin_probability
    assert answer.refusing.played.value <= QUESTION.ruin_probability
    less_wei = answer.needed.played.low_wei - 3 * PLAN.face_value_wei
    assert others.exceed(less_wei).value > QUESTION.ruin_probability


def test_with_the_recommended_reserve_orchestrators_quote_the_planned_face_value(answer: Forecast) -> None:
    assert answer.funds == answer.recommended
    assert answer.quoted_face_value_max_wei == PLAN.face_value_wei
    assert answer.signed_face_value_max_wei >= PLAN.face_value_wei
    less = forecast(replace(QUESTION, reserve_wei=answer.recommended.reserve_wei - 100, horizon_s=DAY_S))
    assert less.quoted_face_value_max_wei == PLAN.face_value_wei - 1


def test_computed_and_played_agree(answer: Forecast) -> None:
    assert answer.do_agree
    assert answer.burn_per_day.low_wei <= answer.burn_per_day_wei * 101 // 100
    assert answer.burn_per_day.high_wei >= answer.burn_per_day_wei * 99 // 100
    assert answer.waiting.wei == pytest.approx(answer.waiting_wei, rel=0.1)
    assert answer.open_tickets_played_count == pytest.approx(answer.open_tickets_count, rel=0.02)
    assert answer.needed_by_book_wei > answer.needed.computed_wei
    assert answer.expected_liability_wei == pytest.approx(answer.open_tickets_count * PLAN.ticket_ev_wei, rel=1e-9)


def test_winners_that_come_in_clumps_are_seen_by_the_plays_alone() -> None:
    """Nearly every ticket wins: a session's are paid together, which a stream of single winners does not say."""
    clumped = replace(
        PLAN, sessions_count=20, ticket_ev_wei=8 * 10**9, face_value_wei=9 * 10**9, session_s=7_200,
        demand_variation=Fraction(0),
    )  # fmt: skip
    answer = forecast(replace(QUESTION, traffic=clumped))
    assert not answer.do_agree
    assert answer.needed.steady.low_wei > answer.needed.computed_wei


def test_a_deposit_of_nothing_is_gone_at_the_first_winner_and_one_of_years_lasts() -> None:
    none = forecast(replace(QUESTION, deposit_wei=0, horizon_s=DAY_S))
    assert (none.ruin.computed, none.ruin.played.value) == (pytest.approx(1), 1)
    assert none.refusing.played.value == 1
    assert none.signed_face_value_max_wei == 0
    assert none.empty_median.computed_s is not None
    assert none.empty_median.computed_s < 3 * 3_600
    ample = forecast(replace(QUESTION, deposit_wei=10**21, horizon_s=DAY_S))
    assert (ample.ruin.computed, ample.ruin.played.value) == (0, 0)
    assert ample.empty_median == (None, None)
    assert ample.after_ruin.runs_count == 0


def test_a_given_deposit_is_empty_when_the_burn_says() -> None:
    answer = forecast(replace(QUESTION, deposit_wei=2000 * FINNEY, horizon_s=DAY_S))
    expected_s = 2000 * FINNEY * DAY_S // answer.burn_per_day_wei
    for emptying in (answer.empty_median.computed_s, answer.empty_median.played_s):
        assert emptying == pytest.approx(expected_s, rel=0.03)
    assert answer.empty_pessimistic.played_s is not None
    assert answer.empty_median.played_s is not None
    assert answer.empty_pessimistic.played_s < answer.empty_median.played_s
    assert answer.drawn_wei[0][-1] < answer.drawn_wei[1][-1] < answer.drawn_wei[2][-1]


def test_progress_never_goes_back_and_ends_with_all() -> None:
    seen: list[tuple[int, int]] = []
    forecast(replace(QUESTION, runs_count=1_500, horizon_s=DAY_S), lambda *counts: seen.append(counts))
    assert seen == sorted(seen)
    assert seen[-1] == (4_500, 4_500)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"ruin_probability": 0.001}, "3000 runs do not show a probability of 0.001: it takes 10000"),
        ({"ruin_probability": 1.0}, "above 0 and below 1, got 1"),
        ({"deposit_wei": -1}, "deposit_wei must not be negative"),
        ({"divisor_count": 0}, "divisor_count must be above 0"),
        ({"orchestrators_count": 101}, "101 are more than the 100 of the pool"),
    ],
)
def test_what_cannot_be_asked_says_why(changed: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        replace(QUESTION, **changed)  # type: ignore[arg-type]
