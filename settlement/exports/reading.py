"""An export from the books: every issuance of a span of time, in one snapshot, piece by piece."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from clearinghouse.database.connect import snapshot
from clearinghouse.issuances import count_issuances, stream_issuances
from settlement.exports.usage import open_writer
from settlement.rounding import DoesNotAddUp
from settlement.statements.books import settled

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime
    from typing import BinaryIO
    from uuid import UUID

    from sqlalchemy.ext.asyncio import AsyncEngine

    from settlement.exports.forms import Form
    from settlement.periods import Timeline
    from settlement.statements.choice import Chosen


class Exported(NamedTuple):
    """`is_final`: nothing can be added to it any more."""

    rows: int
    is_final: bool


async def export_usage(
    engine: AsyncEngine,
    gateway_id: UUID,
    choose: Callable[[Timeline, datetime], Chosen],
    form: Form,
    file: BinaryIO,
    *,
    progress: Callable[[int, int], None],
) -> Exported:
    """Writes to `file`. `progress` is told how many rows of how many are written.

    NotFound without the gateway, NoArrow without what Parquet needs, DoesNotAddUp rather than leave one out, and what
    `choose` raises.
    """
    chosen, settled_until = await settled(engine, gateway_id, choose)
    span = chosen.span
    async with snapshot(engine) as connection:
        rows_count = await count_issuances(connection, gateway_id, span.begin, span.end)
        progress(0, rows_count)
        with open_writer(form, file) as writer:
            async for issuances in stream_issuances(connection, gateway_id, span.begin, span.end):
                writer.write(issuances)
                progress(writer.rows, rows_count)
            if writer.rows != rows_count:
                raise DoesNotAddUp(f"{rows_count} issuances are in the books, {writer.rows} of them have their session")
    return Exported(rows_count, span.end <= settled_until)
