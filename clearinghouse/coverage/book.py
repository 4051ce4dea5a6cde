"""The book of open tickets as coverage needs it, summed up exactly where it lies.

Tickets by the hundred million are some ten thousand counters. What decides is their sums, which the database adds up as
exactly as we would and hands over as one row: the process that signs beside this hardly notices.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final, LiteralString, NamedTuple
from uuid import UUID

import psycopg

from chain.coverage import unseen
from chain.exposure import Exposure, exposure
from chain.tickets import WIN_PROB_CERTAIN
from clearinghouse.coverage.escrows import Escrow
from clearinghouse.coverage.open_tickets import (
    OPEN,
    STILL_VALID,
    UNSEEN_FACE_VALUE_MAX,
    UNSEEN_OPEN_HOURS,
    UNSEEN_TO_COME_MAX,
)

_SUMS: Final[LiteralString] = f"""
    SELECT coalesce(sum(n), 0)::text, coalesce(sum(ev), 0)::text,
           coalesce(sum(n * f * f * w * ({WIN_PROB_CERTAIN} - w)), 0)::text, coalesce(max(f), 0)::text,
           coalesce(sum(n * f), 0)::text
      FROM (SELECT face_value_wei AS f, win_prob AS w, sum(num_tickets) AS n, sum(ev_numerator) AS ev
              FROM exposure_entry WHERE face_value_wei IS NOT NULL AND {OPEN}
             GROUP BY face_value_wei, win_prob HAVING sum(num_tickets) > 0) AS alike
"""  # noqa: S608 - of texts of this file
# That they have no round either is said for the index: else every counter of the sender is looked at.
_UNSEEN: Final[LiteralString] = f"""
    SELECT greatest(coalesce(sum(num_tickets), 0), 0)::text, greatest(coalesce(sum(ev_numerator), 0), 0)::text
      FROM exposure_entry WHERE face_value_wei IS NULL AND creation_round IS NULL AND {OPEN}
"""  # noqa: S608
#: Every gateway. Sessions run over this sender where the gateway has something open there, or nothing over any other.
#: One that is suspended keeps its sessions, but spends nothing: it holds no part that the others could use.
_PAYERS: Final[LiteralString] = f"""
    SELECT account.id, account.ev_total_wei::text, coalesce(booked.ev, 0)::text,
           account.sessions_open > 0 AND gateway.status = 'active'
           AND (booked.ev > 0 OR elsewhere.gateway_id IS NULL)
      FROM account JOIN gateway ON gateway.id = account.gateway_id
      LEFT JOIN (SELECT gateway_id, greatest(sum(ev_numerator), 0) AS ev
                   FROM exposure_entry WHERE {OPEN} GROUP BY gateway_id) AS booked ON booked.gateway_id = account.id
      LEFT JOIN (SELECT DISTINCT entry.gateway_id
                   FROM coverage_gate AS other CROSS JOIN LATERAL (
                        SELECT gateway_id FROM exposure_entry WHERE sender = other.sender AND {STILL_VALID} OFFSET 0
                        ) AS entry
                  WHERE other.sender <> %(sender)s) AS elsewhere ON elsewhere.gateway_id = account.id
"""  # noqa: S608

Connection = psycopg.AsyncConnection[tuple[Any, ...]]


class Payer(NamedTuple):
    """A gateway: all that it was ever released, over any sender, and what it has open over one."""

    gateway_id: UUID
    ev_total_wei: int
    open_ev_wei: int
    #: Whether it has sessions that run and may spend, so that what remains is divided with it too.
    is_running: bool


@dataclass(frozen=True, slots=True)
class Book:
    """Of one sender. `payers` only where they were asked for."""

    worst: Exposure
    #: Of the tickets that a signer's webhook may still approve, which no gate's cap bounds; 0 where there is no such
    #: signer.
    unseen_to_come_max_wei: int
    payers: tuple[Payer, ...]


async def read_book(connection: Connection, escrow: Escrow, *, unseen_face_value_wei: int, with_payers: bool) -> Book:
    """All of it as of one moment, where the caller's transaction sees one snapshot.

    `unseen_face_value_wei`: the largest face value of tickets that only a signer's webhook showed, where the operator
    has not told it of the signer. Raises psycopg.OperationalError.
    """
    of = open_parameters(escrow)
    num, ev, variance, largest, worst_case = map(int, await _row(connection, _SUMS, of))
    unseen_num, unseen_ev = map(int, await _row(connection, _UNSEEN, of))
    worst = Exposure(num, ev, variance, largest, worst_case)
    if unseen_num or unseen_ev:
        worst = _added(worst, unseen_ev, unseen_num, await unseen_max_wei(connection, escrow) or unseen_face_value_wei)
    (to_come_max_wei,) = await _row(
        connection,
        UNSEEN_TO_COME_MAX,
        {"sender": escrow.sender, "unseen_face_value_wei": unseen_face_value_wei},
    )
    payers: tuple[Payer, ...] = ()
    if with_payers:
        rows = await (await connection.execute(_PAYERS, of)).fetchall()
        payers = tuple(
            Payer(id_, int(total), -(-int(ev) // WIN_PROB_CERTAIN), is_running) for id_, total, ev, is_running in rows
        )
    return Book(worst, int(to_come_max_wei), payers)


async def unseen_max_wei(connection: Connection, escrow: Escrow) -> int | None:
    """The largest face value of this sender's webhook signers as operators told it; None where they have not."""
    (largest,) = await _row(connection, UNSEEN_FACE_VALUE_MAX, {"sender": escrow.sender})
    return int(largest) if largest is not None else None


def open_parameters(escrow: Escrow) -> dict[str, Any]:
    """Of the condition OPEN."""
    return {
        "sender": escrow.sender, "round": escrow.round, "validity_rounds": escrow.validity_rounds,
        "unseen_open_hours": UNSEEN_OPEN_HOURS,
    }  # fmt: skip


def _added(worst: Exposure, ev_numerator: int, num_tickets: int, face_value_wei: int) -> Exposure:
    more = exposure([unseen(ev_numerator, num_tickets, face_value_wei=face_value_wei)])
    return Exposure(
        worst.num_tickets + more.num_tickets,
        worst.ev_numerator + ev_numerator,
        worst.variance_numerator + more.variance_numerator,
        max(worst.face_value_max_wei, more.face_value_max_wei),
        worst.worst_case_wei + more.worst_case_wei,
    )


async def _row(connection: Connection, query: LiteralString, parameters: dict[str, Any]) -> tuple[Any, ...]:
    row = await (await connection.execute(query, parameters)).fetchone()
    assert row is not None, "sums have one row"
    return row
