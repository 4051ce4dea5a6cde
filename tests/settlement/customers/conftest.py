"""A gateway, and the roles that customers are changed and told to Stripe in."""

from __future__ import annotations

from collections.abc import AsyncIterator
from uuid import UUID

import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from clearinghouse.database.connect import ADMIN_ROLE, WORK_ROLE, async_engine, in_role
from clearinghouse.identity import gateways


@pytest.fixture
async def admin(database: str) -> AsyncIterator[AsyncEngine]:
    engine = async_engine(in_role(database, ADMIN_ROLE), pool_size=8)
    yield engine
    await engine.dispose()


@pytest.fixture
async def worker(database: str) -> AsyncIterator[AsyncEngine]:
    engine = async_engine(in_role(database, WORK_ROLE), pool_size=8)
    yield engine
    await engine.dispose()


@pytest.fixture
async def gateway_id(admin: AsyncEngine) -> UUID:
    async with admin.begin() as connection:
        return (await gateways.create(connection, "acme", currency="EUR")).id
