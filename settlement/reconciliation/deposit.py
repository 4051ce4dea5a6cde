"""Deposit movements ↔ records of treasury: what was paid into an escrow or taken out of it, and what we know of it.

Records are our own top-ups that are confirmed, and what operators accepted (settlement/treasury). Both sides are summed
up by transaction, kind and escrow, and brought together by that, whenever either of them was. What has no counterpart
is of the period in which it was read from the chain, or in which our record ended or was written down.
"""

from __future__ import annotations

from datetime import datetime
from decimal import Decimal
from typing import Any, Final

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from clearinghouse.ids import show
from settlement.reconciliation.chain_read import ChainRead, note_read
from settlement.reconciliation.report import Compared, Difference, Period, Section, wei

NAME: Final = "deposit"
TITLE: Final = "Deposit movements ↔ records of treasury"


async def compare(connection: AsyncConnection, period: Period, read: ChainRead | str, *, now: datetime) -> Section:
    """`connection` is in a snapshot. `read`: how far the chain was, or why it was not."""
    section = Section(NAME, TITLE)
    if (known := note_read(section, read, min(period.ends_at, now))) is None:
        return section
    values = {**period._asdict(), "chain_id": known.chain_id, "block_number": known.block_number}
    for kind in _WORDS:
        row = (await connection.execute(text(_MOVED), {**values, "kind": kind})).one()
        section.compared.append(Compared(_WORDS[kind], row.found_count, (wei(row.amount_wei or Decimal(0)),)))
    for row in (await connection.execute(text(_RECORDED), values)).all():
        words, unread_words = _OF_RECORDS[row.source]
        section.compared.append(Compared(words, row.found_count, (wei(row.amount_wei or Decimal(0)),)))
        if row.unread:
            section.leave_out(f"{row.unread} {unread_words} of other chains, senders or blocks than were read")
    async for row in await connection.stream(text(_DIFFERING), values):
        section.differs(_difference(row))
    return section


def _difference(row: Any) -> Difference:
    sign = -1 if row.kind == "withdrawal" else 1
    amount = wei(sign * ((row.moved_wei or 0) - (row.recorded_wei or 0)))
    transaction = f"0x{row.transaction_hash.hex()}"
    if row.recorded_wei is None:
        known = f"; top-up {row.lost_id} has it, and is {row.lost_state}" if row.lost_id is not None else ""
        return Difference(
            "movement_without_record", transaction, amount,
            f"{_WORDS[row.kind]} of 0x{row.sender.hex()} in block {row.block_number}, log {row.log_index}{known}",
            f"clearinghouse chain events --kind {row.kind}",
        )  # fmt: skip
    name = "record_without_movement" if row.moved_wei is None else "movement_amount_differs"
    moved = "nothing moved" if row.moved_wei is None else f"{row.moved_wei} wei moved"
    is_topup = row.source == "topup"
    return Difference(
        name, f"top-up {row.record_id}" if is_topup else show("mov", row.record_id), amount,
        f"{_WORDS[row.kind]} of {row.recorded_wei} wei in transaction {transaction}, block "
        f"{row.recorded_block}, as our record says; {moved}",
        f"clearinghouse topup show {row.record_id}" if is_topup else "clearinghouse treasury list",
    )  # fmt: skip


_WORDS: Final = {
    "deposit_funded": "payments into a deposit", "reserve_funded": "payments into a reserve",
    "withdrawal": "withdrawals",
}  # fmt: skip
#: By source: as what they are compared, and what is said of those that cannot be.
_OF_RECORDS: Final = {
    "topup": ("top-ups of ours, confirmed", "confirmed top-ups"),
    "paid_in": ("payments that were accepted by hand", "payments that were accepted by hand"),
    "withdrawn": ("withdrawals that were accepted by hand", "withdrawals that were accepted by hand"),
}
_MOVED: Final = """
    SELECT count(*) AS found_count,
           sum(coalesce(amount_wei::numeric, 0) + coalesce(reserve_wei::numeric, 0)) AS amount_wei
      FROM escrow_event WHERE kind = :kind AND recorded_at >= :begins_at AND recorded_at < :ends_at
"""
#: Every record by kind, and whether the chain was read where it is.
_RECORDS: Final = """
    record AS (
        SELECT known.*, known.chain_id = :chain_id AND known.block_number <= :block_number
                        AND EXISTS (SELECT FROM chain_sender AS followed
                                     WHERE followed.sender = known.sender
                                       AND followed.begins_at_block <= known.block_number) AS is_read
          FROM (SELECT 'topup' AS source, topup.id, part.kind, topup.chain_id, topup.sender::bytea AS sender,
                       topup.mined_hash::bytea AS transaction_hash, topup.mined_block AS block_number, part.amount_wei,
                       topup.ended_at AS known_at
                  FROM topup
                 CROSS JOIN LATERAL (VALUES ('deposit_funded', topup.deposit_wei::numeric),
                                            ('reserve_funded', topup.reserve_wei::numeric)) AS part (kind, amount_wei)
                 WHERE topup.state = 'confirmed'
                UNION ALL
                SELECT CASE kind WHEN 'withdrawal' THEN 'withdrawn' ELSE 'paid_in' END, id, kind, chain_id,
                       sender::bytea, transaction_hash::bytea, block_number, amount_wei::numeric, recorded_at
                  FROM treasury_movement_in_force) AS known)
"""
_RECORDED: Final = f"""
    WITH {_RECORDS}
    SELECT every.source, count(DISTINCT record.id) AS found_count, sum(record.amount_wei) AS amount_wei,
           count(DISTINCT record.id) FILTER (WHERE NOT is_read) AS unread
      FROM unnest(ARRAY['topup', 'paid_in', 'withdrawn']) WITH ORDINALITY AS every (source, number)
      LEFT JOIN record ON record.source = every.source AND known_at >= :begins_at AND known_at < :ends_at
     GROUP BY every.source, number ORDER BY number
"""  # noqa: S608 - of our own texts
#: What is on its way and was mined already waits for its confirmations. What moves nothing is no movement.
_DIFFERING: Final = f"""
    WITH {_RECORDS},
    moved AS (
        SELECT transaction_hash::bytea AS transaction_hash, kind, sender::bytea AS sender,
               sum(coalesce(amount_wei::numeric, 0) + coalesce(reserve_wei::numeric, 0)) AS moved_wei,
               min(block_number) AS block_number, min(log_index) AS log_index, min(recorded_at) AS read_at
          FROM escrow_event WHERE kind IN ('deposit_funded', 'reserve_funded', 'withdrawal') GROUP BY 1, 2, 3),
    recorded AS (
        SELECT transaction_hash, kind, sender, sum(amount_wei) AS recorded_wei, max(known_at) AS known_at,
               min(block_number) AS recorded_block, bool_and(is_read) AS is_read,
               (array_agg(source ORDER BY known_at, id))[1] AS source,
               (array_agg(id ORDER BY known_at, id))[1] AS record_id
          FROM record WHERE chain_id = :chain_id GROUP BY 1, 2, 3)
    SELECT transaction_hash, kind, sender, moved_wei, block_number, log_index, recorded_wei, recorded_block, source,
           record_id, sent.id AS lost_id, sent.state AS lost_state
      FROM moved FULL JOIN recorded USING (transaction_hash, kind, sender)
      LEFT JOIN LATERAL (SELECT topup.id, topup.state FROM topup_transaction AS signed
                           JOIN topup ON topup.id = signed.topup_id
                          WHERE signed.hash = transaction_hash) AS sent ON recorded_wei IS NULL
     WHERE coalesce(moved_wei, 0) <> coalesce(recorded_wei, 0)
       AND (moved_wei IS NOT NULL OR is_read)
       AND CASE WHEN recorded_wei IS NULL
                THEN read_at >= :begins_at AND read_at < :ends_at
                     AND (sent.id IS NULL OR sent.state NOT IN ('planned', 'signed', 'sent'))
                ELSE known_at >= :begins_at AND known_at < :ends_at END
     ORDER BY recorded_wei IS NOT NULL, coalesce(block_number, recorded_block), log_index, kind, transaction_hash
"""  # noqa: S608
