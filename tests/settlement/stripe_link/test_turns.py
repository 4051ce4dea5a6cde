"""The rate at which Stripe is asked for changes, whatever this machine does meanwhile. The times are made up."""

from __future__ import annotations

import random

import pytest

from settlement.stripe_link.turns import gap_s, next_at_s


def taken(per_s: int, late_s: list[float]) -> list[float]:
    """When turns are taken that are each so late."""
    due, times = 0.0, list[float]()
    for late in late_s:
        times.append(due + late)
        due = next_at_s(due, times[-1], gap_s(per_s))
    return times


@pytest.mark.parametrize("per_s", [1, 25, 100])
@pytest.mark.parametrize("late_max_s", [0.0, 0.001, 0.02, 0.2, 3.0])
def test_no_second_has_more_turns_than_it_may_however_late_they_are_taken(per_s: int, late_max_s: float) -> None:
    chance = random.Random(1)
    times = taken(per_s, [chance.choice([0.0, chance.random()]) * late_max_s for _ in range(50 * per_s)])
    closest_s = min(later - earlier for earlier, later in zip(times, times[per_s:], strict=False))
    assert closest_s > 1.05


def test_a_machine_that_is_a_little_late_each_time_reaches_the_rate_all_the_same() -> None:
    chance = random.Random(2)
    times = taken(25, [chance.random() * 0.015 for _ in range(2501)])
    assert 2500 / (times[-1] - times[0]) > 0.99 / gap_s(25)


def test_what_nobody_wanted_is_not_saved_up() -> None:
    assert next_at_s(10.0, 500.0, 0.04) > 500.0
