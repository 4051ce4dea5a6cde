"""What alerts are observed over: a database and its time, and a signer that reports."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from tests.clearinghouse.signer_events.conftest import world
from tests.parts.watched import Watched, watched

__all__ = ["house", "world"]


@pytest.fixture
async def house(database: str) -> AsyncIterator[Watched]:
    async with watched(database) as made:
        yield made
