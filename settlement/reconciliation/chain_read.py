"""How far the chain was read into the database: what lies beyond it can be compared with nothing."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Final, NamedTuple

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from settlement.reconciliation.report import Compared, Section

#: A reader that works is never further behind, however long it waits for endpoints to agree.
_BEHIND_MAX: Final = timedelta(minutes=10)


class ChainRead(NamedTuple):
    """All blocks from `begins_at_block` to `block_number`, the last of them at `read_at`."""

    chain_id: int
    begins_at_block: int
    block_number: int
    read_at: datetime

    @property
    def compared(self) -> Compared:
        what = f"blocks of chain {self.chain_id} that were read, {self.begins_at_block} to {self.block_number}"
        return Compared(what, self.block_number - self.begins_at_block + 1)

    def missing(self, ends_at: datetime) -> str | None:
        if ends_at - self.read_at <= _BEHIND_MAX:
            return None
        return (
            f"what happened on the chain after block {self.block_number}: nothing was read since "
            f"{self.read_at:%Y-%m-%d %H:%M} UTC"
        )


def note_read(section: Section, read: ChainRead | str, ends_at: datetime) -> ChainRead | None:
    """Has the section say how far the chain was read, and what of the time until `ends_at` is missing. None: nothing
    was read, and there is nothing to compare with.
    """
    if isinstance(read, str):
        section.leave_out(read)
        return None
    section.compared.append(read.compared)
    if (missing := read.missing(ends_at)) is not None:
        section.leave_out(missing)
    return read


async def chain_read(connection: AsyncConnection, *, is_configured: bool) -> ChainRead | str:
    """Or why nothing was read."""
    row = (await connection.execute(text(_READ))).one_or_none()
    if row is not None:
        return ChainRead(*row)
    if is_configured:
        return "nothing was read of the chain yet: `clearinghouse serve` does it, or `clearinghouse chain index`"
    return "no chain is configured (chain.rpc_urls), and none was ever read"


_READ: Final = """
    SELECT chain_id, begins_at_block, (SELECT max(number) FROM chain_block), read_at FROM chain_follower
"""
