"""Who takes part in an end-to-end test: an orchestrator, and the service that signs, with a gateway that has credit."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from decimal import Decimal

import pytest

from tests.parts.orchestrator import Orchestrator, running_orchestrator
from tests.parts.service import House, running
from tests.parts.stack import TestGateway


@dataclass(frozen=True, slots=True)
class Service:
    """Where a client gets its tickets, and the books behind it."""

    http_url: str
    api_key: str = field(repr=False)
    house: House
    gateway: TestGateway


@pytest.fixture
def orchestrator() -> Iterator[Orchestrator]:
    with running_orchestrator() as running:
        yield running


@pytest.fixture
async def service(database: str) -> AsyncIterator[Service]:
    """The escrow it declares has the round and the block that the orchestrator sees."""
    async with running(database) as service:
        gateway = await service.house.new_gateway(credit=Decimal(10_000))
        yield Service(f"http://127.0.0.1:{service.port}", gateway.api_key, service.house, gateway)
        await service.house.require_sound_books()
