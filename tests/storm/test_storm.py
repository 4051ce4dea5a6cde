"""Promises 1 to 9, under everything at once.

STORM_SEED, STORM_STEPS and STORM_PROFILE replay one; STORM_SECONDS makes each of these tests longer.
"""

from __future__ import annotations

import pytest

from tests.storm import schedule
from tests.storm.campaign import Database, storms, summary, wanted
from tests.storm.schedule import Profile

ASKED = wanted(seconds=15)


@pytest.mark.slow
@pytest.mark.timeout(300 + 4 * ASKED.seconds)
@pytest.mark.parametrize("profile", ASKED.profiles)
async def test_whatever_happens_every_answer_is_one_that_the_promises_allow_and_all_books_agree(
    databases: Database, profile: Profile
) -> None:
    stories = [story async for story in storms(databases, profile, ASKED)]
    print(summary(stories))
    assert sum(story.outcomes["paid"] for story in stories) > 10, (
        "a storm in which hardly anything was paid shows little"
    )
    if profile is Profile.COVERED:
        refused = {what for story in stories for what in story.outcomes}
        assert {"coverage_unknown", "coverage_low", "coverage_critical", "ticket_not_allowed"} <= refused
    if profile is Profile.KILLED:
        assert all(sum(story.outcomes[what] for story in stories) for what in ("killed", "paid at the signer"))


@pytest.mark.parametrize("profile", Profile)
def test_a_schedule_comes_from_its_seed_alone(profile: Profile) -> None:
    assert list(schedule.events(7, 60, profile)) == list(schedule.events(7, 300, profile))[:60]
    assert list(schedule.events(7, 60, profile)) != list(schedule.events(8, 60, profile))


def test_every_kind_of_event_happens() -> None:
    kinds = {type(event) for profile in Profile for event in schedule.events(1, 2000, profile)}
    assert {kind.__name__ for kind in kinds} == {kind.__name__ for kind in schedule.Event.__args__}
