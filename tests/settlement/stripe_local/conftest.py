"""A local Stripe for each test."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from tests.settlement.stripe_local.parts import Running, running


@pytest.fixture
async def local() -> AsyncIterator[Running]:
    async with running() as up:
        yield up
