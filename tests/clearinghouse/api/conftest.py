"""A clearinghouse behind its HTTP port, for whoever wants no other."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from tests.clearinghouse.api.http_port import HttpPort, running_port
from tests.parts.stack import Stack, running_stack


@pytest.fixture
async def stack(database: str) -> AsyncIterator[Stack]:
    async with running_stack(database, remember_s=0) as running:
        yield running


@pytest.fixture
async def port(stack: Stack) -> AsyncIterator[HttpPort]:
    async with running_port(stack) as running:
        yield running
