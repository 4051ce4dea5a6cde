"""A service that is attacked, a gateway of the attacker's, and a signer that counts who got through to it."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from tests.parts.lying_signer import LyingSigner, lying_signer
from tests.parts.service import Service, running
from tests.parts.stack import TestGateway


@pytest.fixture
async def service(database: str) -> AsyncIterator[Service]:
    """With the policy that a service has by default, and the native signer."""
    async with running(database) as service:
        yield service
        await service.house.require_sound_books()


@pytest.fixture
async def gateway(service: Service) -> TestGateway:
    return await service.house.new_gateway(tickets=10_000)


@pytest.fixture
async def signer() -> AsyncIterator[LyingSigner]:
    """A signer of a pool. It is honest, unless a test makes it lie."""
    async with lying_signer() as signer:
        yield signer
