"""`make storm`: storms of every profile with fresh seeds for half an hour, over a server of their own.

python -m tests.storm        STORM_SECONDS=1800 unless told otherwise; STORM_SEED, STORM_STEPS, STORM_PROFILE replay one
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from pathlib import Path

import structlog

from clearinghouse.database.embedded import EmbeddedPostgres
from tests.conftest import fresh_database, prepared_template
from tests.storm.campaign import STORM_S_MAX, Database, Wanted, seeds, storms, summary, wanted
from tests.storm.storm import StormFailed, Story


@contextmanager
def databases() -> Iterator[Database]:
    numbers = itertools.count(1)
    with tempfile.TemporaryDirectory(prefix="storms-") as folder, EmbeddedPostgres(Path(folder) / "data") as server:
        template = prepared_template(server)

        def database() -> AbstractContextManager[str]:
            return fresh_database(server, template, f"storm_{next(numbers)}")

        yield database


async def campaign(asked: Wanted) -> list[Story]:
    """One storm of each profile after the other until the time is up, those that once failed first."""
    stories: list[Story] = []
    until_s = time.monotonic() + asked.seconds
    upcoming = {profile: seeds(profile, asked) for profile in asked.profiles}
    with databases() as database:
        for profile in itertools.cycle(asked.profiles):
            seed, steps = next(upcoming[profile], (None, 0))
            left_s = until_s - time.monotonic()
            if seed is None or (stories and left_s < 1):
                return stories
            this_one = replace(asked, seed=seed, steps=steps, seconds=min(left_s, STORM_S_MAX))
            async for story in storms(database, profile, this_one, ends_in_time=asked.seed is None):
                stories.append(story)
                calls = sum(one.calls for one in stories)
                print(f"{left_s:6.0f} s left, {len(stories)} storms, {calls} calls; {story}", flush=True)
    return stories


def main() -> int:
    """0 when nothing was found."""
    logging.disable()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    try:
        stories = asyncio.run(campaign(wanted(seconds=1800, is_fresh=True)))
    except StormFailed as failure:
        print("\n".join([str(failure), *failure.__notes__]), file=sys.stderr)
        return 1
    print(summary(stories))
    return 0


if __name__ == "__main__":
    sys.exit(main())
