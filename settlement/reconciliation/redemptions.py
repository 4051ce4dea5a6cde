"""Issuances ↔ redemptions on the chain: what the tickets of the period were expected to cost, and what they have cost.

Which tickets win is luck, and no difference. A ticket that was redeemed and not issued as it is, is one: somebody else
signs with the key. Redemptions are of the period in which they were read, since the chain's index keeps no other time.
"""

from __future__ import annotations

import math
from datetime import datetime
from decimal import Decimal
from typing import Any, Final, NamedTuple

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from chain.tickets import WIN_PROB_CERTAIN
from clearinghouse.ids import made_between, show
from settlement.reconciliation.chain_read import ChainRead, note_read
from settlement.reconciliation.report import Compared, Difference, Period, Section, wei

NAME: Final = "redemptions"
TITLE: Final = "Issuances ↔ redemptions on the chain"
_LINK: Final = "clearinghouse chain events --foreign"


class Luck(NamedTuple):
    """`redeemed_wei` is the face value of those tickets that were redeemed so far. `deviation_wei` is one standard
    deviation of it once all are over, of the tickets but for those `unseen_count` which nobody was shown."""

    tickets_count: int
    expected_wei: int
    redeemed_count: int
    redeemed_wei: int
    deviation_wei: int
    unseen_count: int

    @property
    def spread_wei(self) -> int:
        """Above 0 more was redeemed than is expected."""
        return self.redeemed_wei - self.expected_wei


async def compare(connection: AsyncConnection, period: Period, read: ChainRead | str, *, now: datetime) -> Section:
    """`connection` is in a snapshot. `read`: how far the chain was, or why it was not."""
    section = Section(NAME, TITLE)
    if note_read(section, read, min(period.ends_at, now)) is None:
        return section
    luck = await luck_of(connection, period)
    section.compared += [
        Compared("tickets of the period, with their expected value", luck.tickets_count, (wei(luck.expected_wei),)),
        Compared("of them redeemed so far, with their face value", luck.redeemed_count, (wei(luck.redeemed_wei),)),
        Compared("spread: redeemed above (below 0: below) expected", luck.redeemed_count, (wei(luck.spread_wei),)),
        Compared("one standard deviation of what is redeemed", luck.tickets_count - luck.unseen_count,
                 (wei(luck.deviation_wei),)),
        Compared("redemptions that were read in the period", *await _read(connection, period._asdict())),
    ]  # fmt: skip
    if luck.unseen_count:
        section.leave_out(f"the deviation of {luck.unseen_count} tickets that the webhook approved and was not shown")
    await _judge(connection, section, period._asdict())
    return section


async def luck_of(connection: AsyncConnection, period: Period) -> Luck:
    """Of the tickets that were issued in the period, by what the database has of the chain."""
    first_id, end_id = made_between(*period)
    values = {**period._asdict(), "first_id": first_id, "end_id": end_id}
    issued = (await connection.execute(text(_ISSUED), values)).one()
    redeemed = (await connection.execute(text(_REDEEMED), values)).one()
    return Luck(
        tickets_count=int(issued.tickets or 0),
        expected_wei=int(issued.ev_wei or 0),
        redeemed_count=redeemed.found_count,
        redeemed_wei=int(redeemed.face_value_wei or 0),
        deviation_wei=_deviation_wei(issued.variance),
        unseen_count=int(issued.unseen or 0),
    )


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

#: Tickets that are alike first: their variance is of numbers with 150 digits.
_ISSUED: Final = f"""
    SELECT sum(tickets) AS tickets, sum(ev_wei) AS ev_wei,
           sum(tickets * face_value_wei * face_value_wei * win_prob * ({WIN_PROB_CERTAIN} - win_prob)) AS variance,
           sum(tickets) FILTER (WHERE face_value_wei IS NULL) AS unseen
      FROM (SELECT face_value_wei::numeric AS face_value_wei, win_prob::numeric AS win_prob,
                   sum(num_tickets::numeric) AS tickets, sum(ev_wei::numeric) AS ev_wei
              FROM issuance WHERE created_at >= :begins_at AND created_at < :ends_at GROUP BY 1, 2) AS alike
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
