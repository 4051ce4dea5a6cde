"""A service of its own for every test: one process, or two over one database."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from tests.parts.service import Service, running


@pytest.fixture
async def service(database: str) -> AsyncIterator[Service]:
    async with running(database) as service:
        yield service
        await service.house.require_sound_books()


@pytest.fixture
async def twins(database: str) -> AsyncIterator[tuple[Service, Service]]:
    """Two processes of one deployment: nothing in memory is shared."""
    async with running(database) as first, running(database) as second:
        yield first, second
        await first.house.require_sound_books()
