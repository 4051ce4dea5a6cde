"""What was read of the chain, in the database: where the reader stands, and the events below it.

One connection does all of it and holds the lock of the one process that may read on. Where the connection ends, so does
the lock: whoever comes next goes on from what was recorded, and nothing can be recorded twice, because a range is only
recorded from where the reader stands.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from enum import StrEnum
from typing import Any, Final, LiteralString, NamedTuple

import psycopg

from chain.events import EscrowEvent, NewRound, Place, Redemption
from chain.log_reader import Point, Range
from clearinghouse.chain_senders import SENDERS
from clearinghouse.database.connect import in_role

#: Of a pg_advisory_lock: who holds it reads the chain.
LOCK: Final = int.from_bytes(b"chainidx")
#: Each looks through what its gateway was issued while one recipientRand lasted, which is for 600 tickets at most.
MATCHED_AT_ONCE_MAX: Final = 20
_STATEMENT_TIMEOUT: Final = "30s"


class Match(StrEnum):
    """What a redeemed ticket turned out to be: a metric's label."""

    MATCHED = "matched"
    #: We did not issue it.
    FOREIGN = "foreign"
    #: We issued another ticket with its recipientRand and nonce.
    ALTERED = "altered"


class Stand(NamedTuple):
    """Everything up to `at` was recorded. Up to `confirmed_number` it is not undone any more."""

    chain_id: int
    at: Point
    confirmed_number: int


class ChainStore:
    """`conninfo` needs the rights of `role`. Methods raise psycopg.OperationalError where the connection has ended."""

    def __init__(self, connection: psycopg.AsyncConnection[tuple[Any, ...]]) -> None:
        self._connection = connection

    @classmethod
    async def connected(cls, conninfo: str, *, role: str) -> ChainStore:
        chosen = in_role(conninfo, role, application_name="clearinghouse-indexer", statement_timeout=_STATEMENT_TIMEOUT)
        return cls(await psycopg.AsyncConnection.connect(chosen, autocommit=True))

    async def close(self) -> None:
        await self._connection.close()

    async def take_lead(self) -> bool:
        """Whether this is now the one process that reads. It is until the connection ends."""
        return bool(await self._value("SELECT pg_try_advisory_lock(%s)", LOCK))

    async def stand(self) -> Stand | None:
        """None where nothing was ever read."""
        known: LiteralString = "SELECT chain_id, number, hash, confirmed_block FROM chain_follower, chain_block"
        row = await (await self._connection.execute(known + " ORDER BY number DESC LIMIT 1")).fetchone()
        return Stand(row[0], Point(row[1], bytes(row[2])), row[3]) if row is not None else None

    async def points(self) -> list[Point]:
        """The blocks that are remembered, the newest first."""
        rows = await self._connection.execute("SELECT number, hash FROM chain_block ORDER BY number DESC")
        return [Point(number, bytes(hash_)) for number, hash_ in await rows.fetchall()]

    async def begin(self, chain_id: int, at: Point) -> None:
        """Anew above `at`."""
        await self._value("SELECT begin_chain(%s, %s, %s)", chain_id, at.number, at.hash)

    async def follow(self, senders: Iterable[bytes]) -> list[bytes]:
        """Returns those that are new: their events are read from here on, and not from before."""
        rows = await self._connection.execute("SELECT follow_chain_senders(%s::bytea[])", [list(senders)])
        return [bytes(sender) for (sender,) in await rows.fetchall()]

    async def senders(self) -> list[bytes]:
        """Whose events are wanted: who was followed, and the senders of the signers that ask at the webhook."""
        return [bytes(sender) for (sender,) in await (await self._connection.execute(SENDERS)).fetchall()]

    async def record(self, at: Point, said: Range, *, confirmed_number: int) -> bool:
        """False where somebody else has moved on from `at`: then nothing was recorded."""
        tickets, escrow, rounds = _rows(said)
        return bool(
            await self._value(
                "SELECT record_chain_range(%s, %s, %s, %s, %s, %s, %s::jsonb, %s::jsonb, %s::jsonb)",
                at.number, at.hash, said.end.number, said.end.hash, said.head_number, confirmed_number,
                json.dumps(tickets), json.dumps(escrow), json.dumps(rounds),
            )
        )  # fmt: skip

    async def undo(self, at: Point, to: Point) -> bool:
        """False where somebody else has moved on from `at`: then nothing was undone."""
        return bool(await self._value("SELECT undo_chain(%s, %s, %s)", at.number, at.hash, to.number))

    async def match(self) -> dict[Match, int]:
        """Compares redeemed tickets with the issuances, at most MATCHED_AT_ONCE_MAX. How many were what."""
        rows = await self._connection.execute("SELECT * FROM match_winning_tickets(%s)", [MATCHED_AT_ONCE_MAX])
        return {Match(status): count for status, count in await rows.fetchall()}

    async def foreign_count(self) -> int:
        """Redeemed tickets that were not issued as they are."""
        query: LiteralString = "SELECT count(*) FROM winning_ticket WHERE status IN ('foreign', 'altered')"
        return int(await self._value(query))

    async def _value(self, query: LiteralString, *parameters: Any) -> Any:
        row = await (await self._connection.execute(query, parameters)).fetchone()
        assert row is not None, "a function has a value"
        return row[0]


def _rows(said: Range) -> tuple[list[dict[str, Any]], ...]:
    """Tickets, escrow events and rounds, as the database reads them: numbers as text, bytes in hexadecimal."""
    by_kind: dict[type[Any], list[dict[str, Any]]] = {Redemption: [], EscrowEvent: [], NewRound: []}
    for event in said.events:
        by_kind[type(event)].append(_shown(_place(event.place) | _ROWS[type(event)](event)))
    return by_kind[Redemption], by_kind[EscrowEvent], by_kind[NewRound]


def _place(place: Place) -> dict[str, Any]:
    return {
        "block_number": place.block_number, "log_index": place.index, "block_hash": place.block_hash,
        "transaction_hash": place.transaction_hash,
    }  # fmt: skip


def _redemption(event: Redemption) -> dict[str, Any]:
    return {
        "sender": event.sender, "recipient": event.recipient, "face_value_wei": event.face_value_wei,
        "win_prob": event.win_prob, "sender_nonce": event.sender_nonce, "recipient_rand": event.recipient_rand,
        "recipient_rand_hash": event.recipient_rand_hash, "creation_round": event.creation_round,
        "creation_round_block_hash": event.creation_round_block_hash,
    }  # fmt: skip


def _escrow(event: EscrowEvent) -> dict[str, Any]:
    return {
        "kind": event.kind.value, "sender": event.sender, "party": event.party, "amount_wei": event.amount_wei,
        "reserve_wei": event.reserve_wei, "start_round": event.start_round, "end_round": event.end_round,
    }  # fmt: skip


def _round(event: NewRound) -> dict[str, Any]:
    return {"round": event.round, "round_block_hash": event.block_hash}


_ROWS: Final[Mapping[type[Any], Callable[[Any], dict[str, Any]]]] = {
    Redemption: _redemption,
    EscrowEvent: _escrow,
    NewRound: _round,
}


def _shown(row: dict[str, Any]) -> dict[str, Any]:
    return {name: f"\\x{value.hex()}" if isinstance(value, bytes) else value for name, value in row.items()}
