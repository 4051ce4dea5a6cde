"""Books with random entries, made as the service makes them, and the balance after each by the account itself."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

import psycopg
from hypothesis import strategies as st

from clearinghouse.ids import uuid7
from tests.parts.books import Usage, commit, usage

Owner = psycopg.Connection[tuple[Any, ...]]
#: Which of them leave the account.
ENTRIES = {
    "payment": 1, "refund": -1, "dispute": -1, "dispute_won": 1, "write_off": 1, "rounding": -1, "adjustment": -1,
    "fee": -1, "included": 1,
}  # fmt: skip

moves = st.lists(
    st.tuples(
        st.sampled_from([*ENTRIES, "grant", "withdrawal", *["usage"] * 8]),
        st.decimals("0.000001", "40", places=6),
        st.integers(0, 2),
    ),
    min_size=1,
    max_size=14,
)


@dataclass(frozen=True)
class Mark:
    """Between two entries."""

    at: datetime
    balance: Decimal


class Books:
    """One gateway that may owe anything, with a key."""

    def __init__(self, owner: Owner, name: str, currency: str = "USD") -> None:
        self.owner = owner
        self.gateway_id, self.key_id = uuid7(), uuid7()
        owner.execute("SELECT open_system_accounts(%s)", [currency])
        owner.execute("INSERT INTO gateway (id, name) VALUES (%s, %s)", [self.gateway_id, name])
        owner.execute(
            "INSERT INTO account (id, gateway_id, name, currency, credit_limit) VALUES (%s, %s, %s, %s, 1000000)",
            [self.gateway_id, self.gateway_id, str(self.gateway_id), currency],
        )
        owner.execute(
            "INSERT INTO api_key (id, gateway_id, public_id, secret_hmac) VALUES (%s, %s, %s, %s)",
            [self.key_id, self.gateway_id, self.key_id.hex, b"\0" * 32],
        )
        self._sessions: dict[int, Usage] = {}

    def enter(self, kind: str, amount: Decimal, which: int = 0) -> None:
        """One entry. `which` is the session of usage."""
        if kind == "usage":
            self.use(which)
        elif kind == "grant":
            self._call("grant_credit(%s, %s, %s, NULL, NULL, 'a test', 'test')", uuid7(), self.gateway_id, amount)
        elif kind == "withdrawal":
            self._call("withdraw_credit(%s, %s, %s, NULL, 'a test', 'test')", uuid7(), self.gateway_id, amount)
        else:
            signed = amount * ENTRIES[kind]
            key = f"{kind}:{uuid7()}"
            call = "book_entry(%s, %s, %s, %s, NULL, %s, 'a test', 'test')"
            self._call(call, uuid7(), kind, self.gateway_id, signed, key)

    def use(self, which: int = 0) -> Usage:
        before = self._sessions.get(which)
        call = usage(self.gateway_id, self.key_id) if before is None else before.continued(num_tickets=which + 1)
        refusal, _ = commit(self.owner, call)
        assert refusal is None
        self._sessions[which] = call
        if before is None:
            named = [f"pipeline-{which % 2}", f"model-{which}", call.session_id]
            self.owner.execute("UPDATE session SET pipeline = %s, model = %s WHERE id = %s", named)
        return call

    def mark(self) -> Mark:
        row = self.owner.execute("SELECT clock_timestamp(), balance FROM account WHERE id = %s", [self.gateway_id])
        return Mark(*row.fetchone() or ())

    def _call(self, function: str, *arguments: UUID | str | Decimal) -> None:
        self.owner.execute(f"SELECT {function}".encode(), list(arguments))


def close(owner: Owner, books: Books, name: str, end: datetime, *, next_day: str = "2026-11-01") -> str:
    """As the worker closes periods: everything until `end` is the period of that name."""
    (begin,) = owner.execute("SELECT created_at FROM gateway WHERE id = %s", [books.gateway_id]).fetchone() or ()
    owner.execute("SELECT seal_books(ARRAY[%s], ARRAY[%s], true)", [books.gateway_id, end])
    (outcome,) = (
        owner.execute(
            "SELECT o_outcome FROM close_periods(ARRAY[%s], ARRAY[%s], ARRAY[%s], ARRAY[%s::date], ARRAY[%s::date], "
            "ARRAY['prepaid'], ARRAY['Europe/Berlin'])",
            [books.gateway_id, begin, end, name, next_day],
        ).fetchone()
        or ()
    )
    return str(outcome)
