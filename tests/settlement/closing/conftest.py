"""Books to close, and the worker's engine to close them with."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from settlement.runs import tick_engine
from tests.settlement.closing.books import Books
from tests.settlement.conftest import Owner


@pytest.fixture
def books(owner: Owner) -> Books:
    return Books(owner)


@pytest.fixture
async def worker(database: str) -> AsyncIterator[AsyncEngine]:
    """As turns have it: in role clearinghouse_work, read-only outside of Tick.transaction."""
    engine = tick_engine(database)
    yield engine
    await engine.dispose()
