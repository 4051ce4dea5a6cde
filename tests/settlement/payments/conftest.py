from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from tests.parts.paying import Till, paying


@pytest.fixture
async def till(database: str) -> AsyncIterator[Till]:
    async with paying(database) as found:
        yield found
