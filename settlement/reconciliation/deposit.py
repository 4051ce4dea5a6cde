"""Deposit movements ↔ records of treasury: what was paid into an escrow or taken out of it, and our own top-ups.

The two are brought together by the hash of the transaction, whenever either of them was. What has no counterpart is of
the period in which it was read from the chain, or in which our record ended. Withdrawals have no record here: whoever
took a deposit out has it in books of another kind.
"""

from __future__ import annotations

from datetime import datetime
from decimal import Decimal
from typing import Any, Final

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from settlement.reconciliation.chain_read import ChainRead
from settlement.reconciliation.report import Compared, Difference, Period, Section, wei

NAME: Final = "deposit"
TITLE: Final = "Deposit movements ↔ records of treasury"


async def compare(connection: AsyncConnection, period: Period, read: ChainRead | str, *, now: datetime) -> Section:
    """`connection` is in a snapshot. `read`: how far the chain was, or why it was not."""
    section = Section(NAME, TITLE)
    if isinstance(read, str):
        return section.leave_out(read)
    section.compared.append(read.compared)
    if (missing := read.missing(min(period.ends_at, now))) is not None:
        section.leave_out(missing)
    values = {**period._asdict(), "chain_id": read.chain_id, "block_number": read.block_number}
    for kind in _WORDS:
        row = (await connection.execute(text(_MOVED), {**values, "kind": kind})).one()
        section.compared.append(Compared(_WORDS[kind], row.found_count, (wei(row.amount_wei or Decimal(0)),)))
    row = (await connection.execute(text(_RECORDED), values)).one()
    recorded = Compared("top-ups of ours, confirmed", row.found_count, (wei(row.amount_wei or Decimal(0)),))
    section.compared.append(recorded)
    if row.unread:
        section.leave_out(f"{row.unread} confirmed top-ups of other chains, senders or blocks than were read")
    await _movements(connection, section, values)
    await _records(connection, section, values)
    return section


async def _movements(connection: AsyncConnection, section: Section, values: dict[str, Any]) -> None:
    async for row in await connection.stream(text(_WITHOUT_RECORD), values):
        known = f"; {_top_up(row.topup_id)} has it, and is {row.state}" if row.topup_id is not None else ""
        sign = -1 if row.kind == "withdrawal" else 1
        section.differs(
            Difference(
                "movement_without_record", f"0x{row.transaction_hash.hex()}", wei(sign * row.amount_wei),
                f"{_WORDS[row.kind]} of 0x{row.sender.hex()} in block {row.block_number}, log {row.log_index}{known}",
                f"clearinghouse chain events --kind {row.kind}",
            )
        )  # fmt: skip


async def _records(connection: AsyncConnection, section: Section, values: dict[str, Any]) -> None:
    async for row in await connection.stream(text(_WITHOUT_MOVEMENT), values):
        name = "record_without_movement" if row.moved_wei is None else "movement_amount_differs"
        moved = "nothing moved" if row.moved_wei is None else f"{row.moved_wei} wei moved"
        section.differs(
            Difference(
                name, _top_up(row.id), wei((row.moved_wei or 0) - row.recorded_wei),
                f"{_WORDS[row.kind]} of {row.recorded_wei} wei in transaction 0x{row.mined_hash.hex()}, block "
                f"{row.mined_block}, as our record says; {moved}",
                f"clearinghouse topup show {row.id}",
            )
        )  # fmt: skip


def _top_up(id_: Any) -> str:
    return f"top-up {id_}"


_WORDS: Final = {
    "deposit_funded": "payments into a deposit", "reserve_funded": "payments into a reserve",
    "withdrawal": "withdrawals",
}  # fmt: skip
_MOVED: Final = """
    SELECT count(*) AS found_count,
           sum(coalesce(amount_wei::numeric, 0) + coalesce(reserve_wei::numeric, 0)) AS amount_wei
      FROM escrow_event WHERE kind = :kind AND recorded_at >= :begins_at AND recorded_at < :ends_at
"""
#: Of a top-up that is confirmed: whether the chain was read where it is.
_IS_READ: Final = """
    topup.chain_id = :chain_id AND topup.mined_block <= :block_number
    AND EXISTS (SELECT FROM chain_sender AS followed
                 WHERE followed.sender = topup.sender AND followed.begins_at_block <= topup.mined_block)
"""
_RECORDED: Final = f"""
    SELECT count(*) AS found_count, sum(deposit_wei::numeric + reserve_wei::numeric) AS amount_wei,
           count(*) FILTER (WHERE NOT ({_IS_READ})) AS unread
      FROM topup WHERE state = 'confirmed' AND ended_at >= :begins_at AND ended_at < :ends_at
"""  # noqa: S608
#: What is on its way and was mined already waits for its confirmations.
_WITHOUT_RECORD: Final = """
    SELECT moved.kind, moved.block_number, moved.log_index, moved.transaction_hash::bytea AS transaction_hash,
           moved.sender::bytea AS sender,
           coalesce(moved.amount_wei::numeric, 0) + coalesce(moved.reserve_wei::numeric, 0) AS amount_wei,
           topup.id AS topup_id, topup.state
      FROM escrow_event AS moved
      LEFT JOIN topup_transaction AS sent ON sent.hash = moved.transaction_hash
      LEFT JOIN topup ON topup.id = sent.topup_id
     WHERE moved.kind IN ('deposit_funded', 'reserve_funded', 'withdrawal')
       AND moved.recorded_at >= :begins_at AND moved.recorded_at < :ends_at
       AND (topup.id IS NULL OR topup.state IN ('failed', 'cancelled', 'displaced', 'abandoned'))
     ORDER BY moved.block_number, moved.log_index
"""
_WITHOUT_MOVEMENT: Final = f"""
    SELECT topup.id, part.kind, part.recorded_wei, moved.amount_wei AS moved_wei, topup.mined_hash::bytea AS mined_hash,
           topup.mined_block
      FROM topup
     CROSS JOIN LATERAL (VALUES ('deposit_funded', topup.deposit_wei::numeric),
                                ('reserve_funded', topup.reserve_wei::numeric)) AS part (kind, recorded_wei)
      LEFT JOIN LATERAL (SELECT sum(amount_wei::numeric) AS amount_wei FROM escrow_event
                          WHERE transaction_hash = topup.mined_hash AND kind = part.kind
                            AND sender = topup.sender) AS moved ON true
     WHERE topup.state = 'confirmed' AND topup.ended_at >= :begins_at AND topup.ended_at < :ends_at AND {_IS_READ}
       AND part.recorded_wei <> coalesce(moved.amount_wei, 0)
     ORDER BY topup.ended_at, topup.id, part.kind
"""  # noqa: S608
