"""A long history is read in a bounded time."""

from __future__ import annotations

import pytest

from tests.bench.history import BLOCKS, EVERY, TIME_MAX_S, read_history


@pytest.mark.slow
async def test_a_hundred_thousand_blocks_of_history_are_read_within_a_minute(database: str) -> None:
    history = await read_history(database)
    assert history.redemptions == BLOCKS // EVERY
    assert history.elapsed_s < TIME_MAX_S
