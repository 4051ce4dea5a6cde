"""What a function of the database does a bounded part of, done to its end: no transaction holds rows for long."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, LiteralString

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

#: Rows that a function of migrations/sql takes of a table at once, unless it is told how many.
ROWS_AT_ONCE_COUNT: Final = 10_000


async def to_its_end(
    engine: AsyncEngine,
    call: LiteralString,
    parameters: Mapping[str, Any],
    *,
    rows_at_once_count: int = ROWS_AT_ONCE_COUNT,
) -> int:
    """Makes the call, which returns how many rows it took, until it takes fewer than so many: then there are no more.

    Each time in a transaction of its own. Returns how many rows in all. Raises one of DATABASE_FAILED.
    """
    taken_count = 0
    while True:
        async with engine.begin() as connection:
            count: int = (await connection.execute(text(call), parameters)).scalar_one()
        taken_count += count
        if count < rows_at_once_count:
            return taken_count
