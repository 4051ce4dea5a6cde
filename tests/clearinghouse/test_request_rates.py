"""Request rates: a bucket is a pure function of what was taken and of time."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clearinghouse.errors import LimitReached
from clearinghouse.request_rates import KEY_REQUESTS, REMEMBERED_MAX_COUNT, REQUESTS, Rate, RequestRates, rate_of


class Clock:
    def __init__(self) -> None:
        self.now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s


def taken(rates: RequestRates, rate: Rate, whose: object = "gateway") -> bool:
    try:
        rates.require(REQUESTS, whose, rate)
    except LimitReached:
        return False
    rates.take(REQUESTS, whose, rate)
    return True


def test_a_burst_is_let_through_and_then_the_average() -> None:
    clock = Clock()
    rates, rate = RequestRates(now_s=clock), Rate(per_s=10, burst_count=5)
    assert [taken(rates, rate) for _ in range(7)] == [True] * 5 + [False] * 2
    clock.now_s += 0.1
    assert [taken(rates, rate) for _ in range(2)] == [True, False]
    clock.now_s += 3600
    assert [taken(rates, rate) for _ in range(6)] == [True] * 5 + [False]


@given(st.lists(st.floats(min_value=0, max_value=2), max_size=200), st.integers(1, 50), st.integers(1, 50))
def test_no_pattern_of_arrivals_gets_more_than_burst_and_average(
    pauses_s: list[float], per_s: int, burst_count: int
) -> None:
    clock = Clock()
    rates, rate, passed = RequestRates(now_s=clock), Rate(per_s, burst_count), 0
    for pause_s in pauses_s:
        clock.now_s += pause_s
        passed += taken(rates, rate)
    assert passed <= burst_count + per_s * sum(pauses_s) + 1e-6


def test_a_process_lets_its_share_through_and_of_a_burst_one_at_least() -> None:
    clock = Clock()
    rates, rate = RequestRates(processes_count=4, now_s=clock), Rate(per_s=2, burst_count=12)
    assert [taken(rates, rate) for _ in range(4)] == [True] * 3 + [False]
    with pytest.raises(LimitReached) as refusal:
        rates.require(REQUESTS, "gateway", rate)
    assert refusal.value.retry_after_s == 2
    clock.now_s += 2
    assert [taken(rates, rate) for _ in range(2)] == [True, False]
    assert taken(rates, Rate(per_s=2, burst_count=1), "another")


def test_the_refusal_says_which_limit_and_when_to_come_again() -> None:
    rates, rate = RequestRates(now_s=Clock()), Rate(per_s=3, burst_count=1)
    rates.take(KEY_REQUESTS, 1, rate)
    with pytest.raises(LimitReached, match="key_requests_per_s is reached: at most 3 requests per second") as refusal:
        rates.require(KEY_REQUESTS, 1, rate)
    assert refusal.value.facts["rule"] == KEY_REQUESTS
    assert refusal.value.retry_after_s == 1


def test_others_and_other_limits_are_counted_apart() -> None:
    rates, rate = RequestRates(now_s=Clock()), Rate(per_s=1, burst_count=1)
    assert taken(rates, rate, "one")
    assert not taken(rates, rate, "one")
    assert taken(rates, rate, "another")
    rates.require(KEY_REQUESTS, "one", rate)


def test_what_is_remembered_is_bounded() -> None:
    rates, rate = RequestRates(now_s=Clock()), Rate(per_s=1, burst_count=1)
    for number in range(REMEMBERED_MAX_COUNT + 10):
        rates.take(REQUESTS, number, rate)
    assert taken(rates, rate, 0), "forgotten, and so full again"
    assert not taken(rates, rate, REMEMBERED_MAX_COUNT + 9)


def test_a_rate_without_a_burst_allows_two_seconds_worth_and_a_burst_alone_limits_nothing() -> None:
    assert rate_of(5, None) == Rate(5, 10)
    assert rate_of(5, 7) == Rate(5, 7)
    assert rate_of(None, 7) is None
