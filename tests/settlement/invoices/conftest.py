"""A house with debtors."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from tests.parts.invoiced import Invoiced, invoiced


@pytest.fixture
async def house(database: str) -> AsyncIterator[Invoiced]:
    async with invoiced(database) as made:
        yield made
