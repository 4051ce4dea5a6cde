"""A service that is attacked, a gateway of the attacker's, and a signer that counts who got through to it."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from tests.parts.chained import AnyRound
from tests.parts.devnet import Devnet
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


@pytest.fixture
async def signer_of_chain(devnet: Devnet) -> AsyncIterator[LyingSigner]:
    """The same beside a chain. It looks at no limits of its own: what is refused there was refused in front of it."""
    async with lying_signer(AnyRound(devnet)) as signer:
        yield signer
