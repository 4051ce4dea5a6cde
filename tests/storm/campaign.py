"""Many storms, one after the other, each over an empty database; and what to do with one that fails.

A failing schedule is made short: first it must fail again, then ever smaller parts of it are left out as long as it
still fails. Not every failure comes again (the races are real), and then that is said.
"""

from __future__ import annotations

import itertools
import os
import secrets
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

from tests.storm import schedule
from tests.storm.schedule import Profile
from tests.storm.storm import StormFailed, Story, storm

SEEDS = Path(__file__).with_name("seeds.txt")
#: Steps of one storm, at most: then the books are young enough to be read after every step.
STEPS_MAX = 1500
STORM_S_MAX = 40.0
TRIALS = 3

Database = Callable[[], AbstractContextManager[str]]


@dataclass(frozen=True)
class Wanted:
    """What the environment asks for: STORM_SECONDS, STORM_SEED (a number or "fresh"), STORM_STEPS, STORM_PROFILE."""

    seconds: float
    seed: int | None
    steps: int
    profiles: tuple[Profile, ...]
    #: Whether other seeds come up each time: a long storm is to find something, a test to say the same twice.
    is_fresh: bool = False


def wanted(*, seconds: float, is_fresh: bool = False) -> Wanted:
    """`seconds` unless told otherwise. ValueError for a profile that does not exist."""
    seed, profile = os.environ.get("STORM_SEED"), os.environ.get("STORM_PROFILE")
    return Wanted(
        is_fresh=is_fresh or seed == "fresh",
        seconds=float(os.environ.get("STORM_SECONDS", seconds)),
        seed=int(seed) if seed and seed != "fresh" else None,
        steps=int(os.environ.get("STORM_STEPS", STEPS_MAX)),
        profiles=(Profile(profile),) if profile else tuple(Profile),
    )


def failed_before(profile: Profile) -> list[tuple[int, int]]:
    """Seeds that once failed in this profile, with their steps: they run first."""
    lines = [line.split("#")[0].split() for line in SEEDS.read_text(encoding="utf-8").splitlines()]
    return [(int(line[1]), int(line[2])) for line in lines if line and line[0] == profile]


def seeds(profile: Profile, asked: Wanted) -> Iterator[tuple[int, int]]:
    """(seed, steps): the one that is asked for, or those that once failed and then others for ever."""
    if asked.seed is not None:
        yield asked.seed, asked.steps
        return
    yield from failed_before(profile)
    for number in itertools.count(1):
        yield secrets.randbits(32) if asked.is_fresh else number, asked.steps


async def storms(
    database: Database, profile: Profile, asked: Wanted, *, ends_in_time: bool = False
) -> AsyncIterator[Story]:
    """Until the time is up, but at least one. Raises StormFailed, with the shortest schedule that fails.

    A seed that was asked for runs to its last step, unless `ends_in_time`.
    """
    until_s = time.monotonic() + asked.seconds
    for number, (seed, steps) in enumerate(seeds(profile, asked)):
        left_s = until_s - time.monotonic()
        if number and left_s < 1:
            return
        seconds = min(left_s, STORM_S_MAX) if asked.seed is None or ends_in_time else None
        try:
            yield await one_storm(database, seed, profile, steps, seconds=seconds)
        except StormFailed as failure:
            failure.add_note(await shortest(database, failure))
            raise


async def one_storm(
    database: Database,
    seed: int,
    profile: Profile,
    steps: int,
    *,
    seconds: float | None = None,
    skipped: frozenset[int] = frozenset(),
) -> Story:
    with tempfile.TemporaryDirectory(prefix="storm-") as folder, database() as conninfo:
        return await storm(
            conninfo, Path(folder), seed=seed, profile=profile, steps=steps, seconds=seconds, skipped=skipped
        )


async def shortest(database: Database, failure: StormFailed, *, seconds: float = 120.0) -> str:
    """The shortest schedule found within the time that still fails, event by event."""
    story, until_s = failure.story, time.monotonic() + seconds

    async def fails(skipped: frozenset[int], trials: int) -> StormFailed | None:
        for _ in range(trials):
            try:
                await one_storm(database, story.seed, story.profile, story.steps, skipped=skipped)
            except StormFailed as again:
                return again
        return None

    last = await fails(frozenset(), TRIALS)
    if last is None:
        return f"It did not fail again in {TRIALS} runs of the same schedule: a race."
    skipped = frozenset[int]()
    for part in _parts(range(schedule.SLOTS, story.steps - 1)):
        if time.monotonic() > until_s:
            break
        if not part - skipped:
            continue
        if (again := await fails(skipped | part, 1)) is not None:
            skipped, last = skipped | part, again
    left = [number for number in range(last.story.steps) if number not in skipped]
    events = "\n".join(f"    {n}: {schedule.event(story.seed, n, story.profile)}" for n in left)
    return f"The shortest that still fails, with {last.why}\n{events}"


def _parts(numbers: Sequence[int]) -> Iterator[frozenset[int]]:
    """Halves, quarters and so on, down to single events; later events first."""
    size = len(numbers)
    while size > 1:
        size = -(-size // 2)
        starts = range(0, len(numbers), size)
        yield from (frozenset(numbers[start : start + size]) for start in reversed(starts))


def summary(stories: Sequence[Story]) -> str:
    """Seeds, steps, calls and outcomes, by profile."""
    lines = []
    for profile, group in itertools.groupby(sorted(stories, key=lambda s: s.profile), key=lambda s: s.profile):
        told = list(group)
        calls, elapsed_s = sum(s.calls for s in told), sum(s.elapsed_s for s in told)
        outcomes: dict[str, int] = {}
        for story in told:
            for outcome, count in story.outcomes.items():
                outcomes[outcome] = outcomes.get(outcome, 0) + count
        shown = ", ".join(f"{n} {what}" for what, n in sorted(outcomes.items(), key=lambda item: -item[1]))
        lines.append(
            f"{profile}: {len(told)} seeds, {sum(s.steps for s in told)} steps, {calls} calls in {elapsed_s:.0f} s "
            f"({calls / max(elapsed_s, 1e-9):.0f}/s)\n    {shown}\n    seeds {' '.join(str(s.seed) for s in told)}"
        )
    return "\n".join(lines)
