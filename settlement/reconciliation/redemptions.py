"""Issuances ↔ redemptions on the chain: what the tickets of the period were expected to cost, and what they have cost.

Which tickets win is luck, and no difference. A ticket that was redeemed and not issued as it is, is one: somebody else
signs with the key. Redemptions are of the period in which they were read, since the chain's index keeps no other time.
"""

from __future__ import annotations

import math
from datetime import datetime
from decimal import Decimal
from typing import Any, Final

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from chain.tickets import WIN_PROB_CERTAIN
from clearinghouse.ids import made_between, show
from settlement.reconciliation.chain_read import ChainRead, note_read
from settlement.reconciliation.report import Compared, Difference, Period, Section, wei

NAME: Final = "redemptions"
TITLE: Final = "Issuances ↔ redemptions on the chain"
_LINK: Final = "clearinghouse chain events --foreign"


async def compare(connection: AsyncConnection, period: Period, read: ChainRead | str, *, now: datetime) -> Section:
    """`connection` is in a snapshot. `read`: how far the chain was, or why it was not."""
    section = Section(NAME, TITLE)
    if note_read(section, read, min(period.ends_at, now)) is None:
        return section
    first_id, end_id = made_between(*period)
    values = {**period._asdict(), "first_id": first_id, "end_id": end_id}
    issued = (await connection.execute(text(_ISSUED), values)).one()
    redeemed = (await connection.execute(text(_REDEEMED), values)).one()
    expected_wei, realised_wei = issued.ev_wei or Decimal(0), redeemed.face_value_wei or Decimal(0)
    count, unseen_count = int(issued.tickets or 0), int(issued.unseen or 0)
    section.compared += [
        Compared("tickets of the period, with their expected value", count, (wei(expected_wei),)),
        Compared("of them redeemed so far, with their face value", redeemed.found_count, (wei(realised_wei),)),
        Compared("spread: redeemed above (below 0: below) expected", redeemed.found_count,
                 (wei(realised_wei - expected_wei),)),
        Compared("one standard deviation of what is redeemed", count - unseen_count,
                 (wei(_deviation_wei(issued.variance)),)),
        Compared("redemptions that were read in the period", *await _read(connection, values)),
    ]  # fmt: skip
    if unseen_count:
        section.leave_out(f"the deviation of {unseen_count} tickets that the webhook approved and was not shown")
    await _judge(connection, section, values)
    return section


async def _read(connection: AsyncConnection, values: dict[str, Any]) -> tuple[int, Any]:
    row = (await connection.execute(text(_ALL_READ), values)).one()
    return row.found_count, (wei(row.face_value_wei or Decimal(0)),)


async def _judge(connection: AsyncConnection, section: Section, values: dict[str, Any]) -> None:
    async for row in await connection.stream(text(_WRONG), values):
        place = f"block {row.block_number}, log {row.log_index}"
        issuance = f", compared with {show('iss', row.issuance_id)}" if row.issuance_id is not None else ""
        detail = f"{_WORDS[row.name]}: transaction 0x{row.transaction_hash.hex()}, to 0x{row.recipient.hex()}{issuance}"
        section.differs(Difference(row.name, place, wei(row.face_value_wei), detail, _LINK))


def _deviation_wei(variance: Decimal | None) -> int:
    """Rounded down. The sum is of n · face² · p · (1 - p) with p as the chain has it, over its denominator."""
    return math.isqrt(int(variance or 0)) // WIN_PROB_CERTAIN


_WORDS: Final = {
    "redemption_foreign": "no ticket of ours has its recipientRand and nonce",
    "redemption_altered": "a ticket of ours has its recipientRand and nonce, and was another one or redeemed before",
    "redemption_not_compared": "it was read, and not compared with the issuances yet",
    "redemption_without_issuance": "its issuance is not there any more",
}

_ISSUED: Final = f"""
    SELECT sum(num_tickets) AS tickets, sum(ev_wei) AS ev_wei,
           sum(num_tickets * face_value_wei * face_value_wei * win_prob * ({WIN_PROB_CERTAIN} - win_prob)) AS variance,
           sum(num_tickets) FILTER (WHERE face_value_wei IS NULL) AS unseen
      FROM gateway
      JOIN LATERAL (SELECT num_tickets::numeric AS num_tickets, ev_wei::numeric AS ev_wei,
                           face_value_wei::numeric AS face_value_wei, win_prob::numeric AS win_prob
                      FROM issuance
                     WHERE gateway_id = gateway.id AND id >= :first_id AND id < :end_id
                       AND created_at >= :begins_at AND created_at < :ends_at OFFSET 0) AS issued ON true
"""  # noqa: S608
_REDEEMED: Final = """
    SELECT count(*) AS found_count, sum(ticket.face_value_wei::numeric) AS face_value_wei
      FROM winning_ticket AS ticket
      JOIN issuance ON issuance.gateway_id = ticket.gateway_id AND issuance.id = ticket.issuance_id
     WHERE ticket.status = 'matched' AND ticket.issuance_id >= :first_id AND ticket.issuance_id < :end_id
       AND issuance.created_at >= :begins_at AND issuance.created_at < :ends_at
"""
_ALL_READ: Final = """
    SELECT count(*) AS found_count, sum(face_value_wei::numeric) AS face_value_wei FROM winning_ticket
     WHERE recorded_at >= :begins_at AND recorded_at < :ends_at
"""
_WRONG: Final = """
    SELECT CASE ticket.status WHEN 'foreign' THEN 'redemption_foreign'
                              WHEN 'altered' THEN 'redemption_altered'
                              WHEN 'unmatched' THEN 'redemption_not_compared'
                              ELSE 'redemption_without_issuance' END AS name,
           ticket.block_number, ticket.log_index, ticket.transaction_hash::bytea AS transaction_hash,
           ticket.recipient::bytea AS recipient, ticket.face_value_wei::numeric AS face_value_wei, ticket.issuance_id
      FROM winning_ticket AS ticket
      LEFT JOIN issuance ON issuance.gateway_id = ticket.gateway_id AND issuance.id = ticket.issuance_id
     WHERE ticket.recorded_at >= :begins_at AND ticket.recorded_at < :ends_at
       AND (ticket.status <> 'matched' OR issuance.id IS NULL)
     ORDER BY ticket.block_number, ticket.log_index
"""
