"""A world of its own for every test."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.clearinghouse.signer_events.parts import World
from tests.parts.event_signer import reporting_signer
from tests.parts.service import running


@pytest.fixture
async def world(database: str, tmp_path: Path) -> AsyncIterator[World]:
    async with reporting_signer() as signer, running(database, signer_urls=[signer.url]) as service:
        yield World(service, signer, await service.house.new_gateway(tickets=10_000), tmp_path)
