"""A house whose gateways are charged by rate cards."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Final

import pytest

from tests.parts.invoiced import invoiced
from tests.settlement.rerating.sold import Sold

#: Longer than a test takes.
_BEFORE_A_MONTH_ENDS: Final = timedelta(minutes=2)


async def _a_month_is_not_about_to_end() -> None:
    """What a call is charged depends on those before it in the month (UTC) by the database's clock."""
    month = datetime.now(UTC).month
    while (datetime.now(UTC) + _BEFORE_A_MONTH_ENDS).month != month == datetime.now(UTC).month:
        await asyncio.sleep(0.5)


@pytest.fixture
async def sold(database: str) -> AsyncIterator[Sold]:
    await _a_month_is_not_about_to_end()
    async with invoiced(database) as house:
        yield Sold(house)
