"""How long the deposit lasts: against fractions where they can be written down, and against dice where they cannot."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from fractions import Fraction
from itertools import product
from math import sqrt
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chain.coverage import AgedTickets, Funds, Level, Thresholds, stands
from chain.exposure import Delays, OpenTickets, exposure
from chain.outlook import outlook
from chain.outlook_document import (
    HORIZON_MAX_S,
    Issued,
    Outlook,
    Question,
    asked,
    outlook_json,
    read_outlook,
)
from chain.tickets import WIN_PROB_CERTAIN

ETH = 10**18
FINNEY = 10**15
HOUR_S = 3600
DAY_S = 86_400
FUNDS = Funds(deposit_wei=2 * ETH, reserve_wei=ETH, claimed_in_round_wei=0, pool_size_count=100, is_leaving=False)
USUAL = Thresholds()


def alike(face_value_wei: int, probability: Fraction, count: int) -> OpenTickets:
    return OpenTickets(face_value_wei, int(probability * WIN_PROB_CERTAIN), count)


def a_question(worst: Sequence[OpenTickets] = (), windows: Sequence[Issued] = (), **but: Any) -> Question:
    usual: dict[str, Any] = {
        "funds": FUNDS,
        "divisor_count": 50,
        "face_value_wei": 0,
        "deposit_min_wei": 0,
        "horizon_s": 7 * DAY_S,
        "confidence": 0.999,
        "posterior": worst,
    }
    return Question(worst=worst, windows=windows, **(usual | but))


def a_day(*tickets: OpenTickets, window_s: int = DAY_S) -> Issued:
    return Issued(window_s, DAY_S, tickets)


def test_a_few_tickets_exhaust_the_deposit_as_often_as_all_their_outcomes_together_say() -> None:
    tickets = [
        alike(FINNEY, Fraction(1, 3), 3), alike(5 * FINNEY, Fraction(1, 7), 2), alike(2 * FINNEY, Fraction(1, 2000), 1)
    ]  # fmt: skip
    one_by_one = [each for each in tickets for _ in range(each.num_tickets)]
    for deposit_wei in (1, FINNEY, 4 * FINNEY, 10 * FINNEY, 14 * FINNEY):
        exact = Fraction(0)
        for outcome in product((False, True), repeat=len(one_by_one)):
            if sum(each.face_value_wei for each, won in zip(one_by_one, outcome, strict=True) if won) > deposit_wei:
                chance = Fraction(1)
                for each, won in zip(one_by_one, outcome, strict=True):
                    p = Fraction(each.win_prob, WIN_PROB_CERTAIN)
                    chance *= p if won else 1 - p
                exact += chance
        found = outlook(a_question(tickets, funds=FUNDS._replace(deposit_wei=deposit_wei)))
        assert found.exhausted_probability == pytest.approx(float(exact), abs=1e-12)


def beyond_chance(share: float, expected: float, draws: int) -> bool:
    """Five deviations of a count of `draws`: by chance once in two million times."""
    return abs(share - expected) > 5 * sqrt(max(expected * (1 - expected), 1 / draws) / draws)


@pytest.mark.parametrize("seed", range(3))
def test_in_both_views_the_open_tickets_exhaust_the_deposit_as_often_as_dice_do(seed: int) -> None:
    """Every ticket is drawn: whether it won, and of the winners how long they take. The posterior is checked among
    the futures in which nothing was redeemed so far, which is what it is conditional on."""
    rng = np.random.default_rng(seed)
    delays_s = np.sort(rng.exponential(3 * HOUR_S, 4000).astype(int))
    delays = Delays([int(each) for each in delays_s], delay_max_s=10 * DAY_S)
    kinds = [
        (int(rng.integers(1, 9)) * FINNEY, float(rng.uniform(0.001, 0.2)), int(rng.integers(1, 15)), age_s)
        for age_s in (600, HOUR_S, 6 * HOUR_S)
    ]
    tickets = [
        AgedTickets(OpenTickets(face_wei, int(Fraction(p) * WIN_PROB_CERTAIN), count), age_s)
        for face_wei, p, count, age_s in kinds
    ]
    draws = 100_000
    drawn, late = np.zeros(draws), np.zeros(draws)
    silent_p = []
    for face_wei, p, count, age_s in kinds:
        drawn += rng.binomial(count, p, draws) * face_wei
        numerator, denominator = delays.outstanding(age_s)
        share = numerator / denominator
        # Winners that are not redeemed by then, of tickets that were not redeemed by then.
        won_late = rng.random((draws, count)) < p * share / (p * share + 1 - p)
        late += won_late.sum(axis=1) * face_wei
        # And that this is what conditioning comes to: thrown again, and only the silent ones kept.
        won = rng.random(draws) < p
        waits_s = np.where(rng.random(draws) < 1 / denominator, 10 * DAY_S - 1, rng.choice(delays_s, draws))
        silent = ~won | (waits_s > age_s)
        silent_p.append((won[silent].mean(), p * share / (p * share + 1 - p), int(silent.sum())))
    assert not any(beyond_chance(*each) for each in silent_p)
    for deposit_wei in (FINNEY - 1, 4 * FINNEY, 9 * FINNEY, 15 * FINNEY):
        question = asked(
            FUNDS._replace(deposit_wei=deposit_wei), tickets, delays, [],
            divisor_count=50, thresholds=USUAL, horizon_s=DAY_S, confidence=0.99,
        )  # fmt: skip
        found = outlook(question)
        assert not beyond_chance(float((drawn > deposit_wei).mean()), found.exhausted_probability, draws)
        assert not beyond_chance(float((late > deposit_wei).mean()), found.posterior_exhausted_probability, draws)
        assert found.posterior_exhausted_probability <= found.exhausted_probability


@pytest.mark.parametrize("seed", range(3))
def test_mean_and_deviation_of_a_book_are_those_of_dice(seed: int) -> None:
    rng = np.random.default_rng([seed, 5])
    draws, drawn, book = 200_000, np.zeros(200_000), []
    for _ in range(30):
        face_wei, p, count = int(rng.integers(1, 10**18)), float(rng.uniform(0, 0.3)), int(rng.integers(1, 500))
        book.append(OpenTickets(face_wei, int(Fraction(p) * WIN_PROB_CERTAIN), count))
        drawn += rng.binomial(count, p, draws) * float(face_wei)
    sums = exposure(book)
    assert abs(drawn.mean() - sums.expected_wei) < 5 * sums.deviation_wei / sqrt(draws)
    assert drawn.std() == pytest.approx(sums.deviation_wei, rel=5 / sqrt(2 * draws))


def emptied_after_s(question: Question, rng: np.random.Generator, runs: int) -> np.ndarray[Any, Any]:
    """When each of the futures has drawn more than the deposit: winners of the open tickets at once, others in time."""
    deposit_wei, (issued,) = question.funds.deposit_wei, question.windows
    emptied = np.full(runs, np.inf)
    rates = np.array([each.num_tickets / issued.period_s * each.win_prob / WIN_PROB_CERTAIN for each in issued.tickets])
    faces = np.array([float(each.face_value_wei) for each in issued.tickets])
    for run in range(runs):
        drawn = sum(
            rng.binomial(each.num_tickets, each.win_prob / WIN_PROB_CERTAIN) * each.face_value_wei
            for each in question.posterior
        )
        now_s = 0.0
        while drawn <= deposit_wei:
            now_s += rng.exponential(1 / rates.sum())
            drawn += int(faces[rng.choice(len(faces), p=rates / rates.sum())])
        emptied[run] = now_s
    return emptied


@pytest.mark.parametrize("seed", range(2))
def test_the_deposit_is_empty_when_dice_empty_it(seed: int) -> None:
    rng = np.random.default_rng([seed, 7])
    issued = a_day(
        alike(10 * FINNEY, Fraction(1, 1000), 20_000), alike(70 * FINNEY, Fraction(1, 5000), 5_000)
    )  # 20 and 1 winners a day
    question = a_question([alike(30 * FINNEY, Fraction(1, 10), 12)], [issued], horizon_s=7 * DAY_S)
    runs = 1_500
    emptied_s = emptied_after_s(question, rng, runs)
    (found,) = outlook(question).windows
    assert found.burn_wei_per_day == pytest.approx(270 * FINNEY)
    assert found.empty_median_s is not None
    assert found.empty_pessimistic_s is not None
    assert not beyond_chance(float((emptied_s <= found.empty_median_s).mean()), 0.5, runs)
    assert not beyond_chance(float((emptied_s <= found.empty_pessimistic_s).mean()), 0.05, runs)
    assert not beyond_chance(float((emptied_s <= 7 * DAY_S).mean()), found.exhausted_probability, runs)
    assert 0.01 < found.exhausted_probability < 0.99
    assert found.reserve_exhausted_probability < found.exhausted_probability


def test_the_burn_of_a_window_is_that_of_the_time_its_tickets_are_of() -> None:
    tickets = (alike(FINNEY, Fraction(1), 6),)
    found = outlook(a_question(windows=[Issued(HOUR_S, HOUR_S, tickets), Issued(DAY_S, DAY_S + HOUR_S, tickets)]))
    assert [each.burn_wei_per_day for each in found.windows] == [144 * FINNEY, 6 * FINNEY * 24 // 25]


def test_the_present_is_the_busiest_window_but_not_a_single_hour() -> None:
    def windows(*evs: tuple[int, int]) -> list[Issued]:
        return [Issued(hours * HOUR_S, hours * HOUR_S, [alike(FINNEY, Fraction(1, 10), n)]) for hours, n in evs]

    def present(*evs: tuple[int, int]) -> int | None:
        found = outlook(a_question(windows=windows(*evs))).present
        return found.window_s // HOUR_S if found else None

    assert present((1, 100), (6, 120), (24, 240), (168, 700)) == 6
    assert present((1, 100), (6, 60), (24, 960), (168, 700)) == 24
    assert present((1, 100), (6, 6), (24, 24), (168, 700)) == 168
    assert present((1, 100)) == 1
    assert present() is None


def test_nothing_issued_and_nothing_open_never_empties_the_deposit() -> None:
    found = outlook(a_question(windows=[a_day()]))
    assert found.windows[0] == (DAY_S, 0, 0.0, 0.0, None, None)
    assert (found.exhausted_probability, found.posterior_exhausted_probability) == (0.0, 0.0)
    assert found.top_up == (0, 0)


def test_a_stream_too_thin_to_empty_it_within_a_year_has_no_time() -> None:
    (found,) = outlook(a_question(windows=[a_day(alike(FINNEY, Fraction(1, 1000), 10))])).windows
    assert (found.empty_median_s, found.empty_pessimistic_s) == (None, None)
    assert found.exhausted_probability == 0


@pytest.mark.parametrize("nothing", [{"is_leaving": True}, {"deposit_wei": 0}])
def test_a_deposit_that_is_empty_or_leaves_is_exhausted_now(nothing: dict[str, int]) -> None:
    found = outlook(a_question(windows=[a_day()], funds=FUNDS._replace(**nothing)))
    assert (found.exhausted_probability, found.posterior_exhausted_probability) == (1.0, 1.0)
    (window,) = found.windows
    assert (window.exhausted_probability, window.empty_median_s, window.empty_pessimistic_s) == (1.0, 0, 0)
    assert window.reserve_exhausted_probability == (1.0 if FUNDS._replace(**nothing).is_leaving else 0.0)


def test_a_top_up_that_is_sent_is_enough_and_ends_every_level() -> None:
    """The reserve first: what orchestrators quote, for each of the pool."""
    tickets = [AgedTickets(alike(20 * FINNEY, Fraction(1, 10_000), 400_000), 0)]
    issued = a_day(alike(20 * FINNEY, Fraction(1, 10_000), 250_000))
    funds, delays = FUNDS._replace(deposit_wei=ETH // 2), Delays([], delay_max_s=2 * DAY_S)

    def ask(funds: Funds) -> Outlook:
        return outlook(
            asked(
                funds, tickets, delays, [issued],
                divisor_count=50, thresholds=USUAL, horizon_s=7 * DAY_S, confidence=0.999, face_value_wei=25 * FINNEY,
            )
        )  # fmt: skip

    before = ask(funds)
    assert before.top_up.reserve_wei == 100 * 25 * FINNEY - ETH
    assert before.windows[0].exhausted_probability > 0.999
    book = exposure(each.tickets for each in tickets)
    assert stands(None, funds, book, divisor_count=50, thresholds=USUAL).level is Level.CRITICAL
    sent = funds._replace(
        deposit_wei=funds.deposit_wei + before.top_up.deposit_wei,
        reserve_wei=funds.reserve_wei + before.top_up.reserve_wei,
    )
    after = ask(sent)
    assert after.top_up == (0, 0)
    assert after.windows[0].exhausted_probability <= 0.001
    standing = stands(Level.CRITICAL, sent, book, divisor_count=50, thresholds=USUAL)
    assert standing.level is Level.OK
    assert standing.issuable_face_value_wei >= 25 * FINNEY


def test_what_was_claimed_is_put_back_since_the_next_round_divides_what_is_left() -> None:
    funds = FUNDS._replace(reserve_wei=ETH * 7 // 10, claimed_in_round_wei=ETH * 3 // 10)
    assert funds.quoted().max_float_wei == ETH // 100, "in this round it is enough"
    found = outlook(a_question(funds=funds, face_value_wei=ETH // 100))
    assert found.top_up.reserve_wei == ETH * 3 // 10


def test_a_top_up_leaves_the_least_deposit_that_was_asked_for() -> None:
    found = outlook(a_question(deposit_min_wei=9 * ETH))
    assert found.top_up == (0, 7 * ETH)


# Any question, and the document.

TICKETS = st.lists(
    st.builds(OpenTickets, st.integers(1, 10**24), st.integers(0, WIN_PROB_CERTAIN), st.integers(0, 10**9)), max_size=3
)
QUESTIONS = st.builds(
    Question,
    funds=st.builds(
        Funds, st.integers(0, 2**255), st.integers(0, 2**255), st.integers(0, 2**255), st.integers(0, 100),
        st.booleans(),
    ),
    divisor_count=st.integers(1, 1000),
    face_value_wei=st.integers(0, 10**24),
    deposit_min_wei=st.integers(0, 10**24),
    horizon_s=st.integers(1, HORIZON_MAX_S),
    confidence=st.floats(0.001, 0.999),
    worst=TICKETS,
    posterior=TICKETS,
    windows=st.lists(st.builds(Issued, st.integers(1, 10), st.integers(10, 20), TICKETS), max_size=3),
)  # fmt: skip


@settings(max_examples=20)
@given(QUESTIONS)
def test_any_question_has_an_answer_that_is_read_as_it_was_written(question: Question) -> None:
    answer = outlook(question)
    assert read_outlook(outlook_json(answer)) == answer


def test_an_answer_of_another_shape_is_refused() -> None:
    answer = json.loads(outlook_json(outlook(a_question(windows=[a_day()]))))
    assert read_outlook(json.dumps(answer).encode()).windows[0].window_s == DAY_S
    window = answer["windows"][0]
    for wrong in (
        answer | {"horizon_s": "7"},
        answer | {"exhausted_probability": 1.5},
        answer | {"top_up": {"reserve_wei": "1"}},
        answer | {"horizon_s": True},
        answer | {"exhausted_probability": float("nan")},
        answer | {"exhausted_probability": True},
        answer | {"windows": {}},
        answer | {"windows": [window | {"empty_median_s": -1}]},
        answer | {"windows": [window | {"burn_wei_per_day": 5}]},
        answer | {"windows": [window | {"burn_wei_per_day": "-5"}]},
        answer | {"windows": [window | {"burn_wei_per_day": "٥"}]},
        answer | {"windows": [window | {"burn_wei_per_day": "9" * 101}]},
        answer | {"more": None},
        [answer],
    ):
        with pytest.raises(ValueError, match=r"expected|missing|unknown|no number"):
            read_outlook(json.dumps(wrong).encode())


def test_a_question_that_cannot_be_asked_is_not_made() -> None:
    question = a_question()
    for wrong in (
        {"horizon_s": 0},
        {"horizon_s": HORIZON_MAX_S + 1},
        {"confidence": 0.0},
        {"confidence": 1.0},
        {"confidence": float("nan")},
        {"divisor_count": 0},
        {"windows": [Issued(9, 3, [])]},
    ):
        with pytest.raises(ValueError, match=r"must be|at most|do not tell"):
            replace(question, **wrong)  # type: ignore[arg-type]


def test_an_outlook_on_a_hundred_million_open_tickets_takes_less_than_200_mib() -> None:
    """The time is measured, not asserted."""
    done = subprocess.run([sys.executable, "-m", "tests.bench.coverage"], capture_output=True, text=True, check=True)
    assert "100,000,000 open tickets in 10,000 counters" in done.stdout
    used_mib = re.search(r"^in all .* s and (\d+) MiB$", done.stdout, re.MULTILINE)
    assert used_mib is not None, done.stdout
    assert 20 < int(used_mib[1]) < 200
