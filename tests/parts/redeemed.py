"""A chain for the books without a node: blocks, redemptions and reorganisations, as the indexer records them."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from hashlib import sha256
from itertools import count
from typing import Any

import psycopg

from chain.tickets import WIN_PROB_CERTAIN

CHAIN_ID = 412346
_hashes = count(1)


@dataclass
class Blocks:
    """Begins anew after block 0, and forgets whatever was read of a chain before."""

    connection: psycopg.Connection[tuple[Any, ...]]
    #: (number, hash), the newest last.
    known: list[tuple[int, bytes]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.begin(0)

    @property
    def number(self) -> int:
        return self.known[-1][0]

    def begin(self, number: int) -> None:
        self.known = [(number, _new_hash())]
        self.connection.execute("SELECT begin_chain(%s, %s, %s)", [CHAIN_ID, *self.known[0]])

    def add(self, *tickets: dict[str, Any]) -> None:
        """One more block, with these redemptions."""
        at, end = self.known[-1], (self.number + 1, _new_hash())
        rows = [ticket | {"block_number": end[0], "log_index": index} for index, ticket in enumerate(tickets)]
        query = "SELECT record_chain_range(%s, %s, %s, %s, %s, 0, %s::jsonb, '[]', '[]')"
        ((was_recorded,),) = self.connection.execute(query, [*at, *end, end[0], json.dumps(rows)])
        assert was_recorded
        self.known.append(end)

    def undo(self, to: int) -> None:
        """Everything above block `to` is replaced."""
        ((was_undone,),) = self.connection.execute("SELECT undo_chain(%s, %s, %s)", [*self.known[-1], to])
        assert was_undone
        self.known = [block for block in self.known if block[0] <= to]

    def match(self) -> dict[str, int]:
        return dict(self.connection.execute("SELECT * FROM match_winning_tickets(100)").fetchall())


def redemption(
    *, sender: bytes, recipient: bytes, rand: bytes, nonce: int, face_value_wei: int, win_prob: int = WIN_PROB_CERTAIN
) -> dict[str, Any]:
    """Of a ticket as tests.parts.books issues them, of round 3500."""
    some_hash = _shown(_new_hash())
    return {
        "block_hash": some_hash, "transaction_hash": some_hash,
        "sender": _shown(sender), "recipient": _shown(recipient),
        "face_value_wei": str(face_value_wei), "win_prob": str(win_prob), "sender_nonce": str(nonce),
        "recipient_rand": some_hash, "recipient_rand_hash": _shown(rand), "creation_round": "3500",
        "creation_round_block_hash": some_hash,
    }  # fmt: skip


def _shown(value: bytes) -> str:
    return f"\\x{value.hex()}"


def _new_hash() -> bytes:
    return sha256(str(next(_hashes)).encode()).digest()
