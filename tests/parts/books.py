"""Puts usage into the books the way the service does: through `commit_issuances`, one payment at a time."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any
from uuid import UUID, uuid4

import psycopg
from psycopg.adapt import Dumper
from psycopg.pq import Format

from chain.rates import EthPrice
from chain.tickets import WIN_PROB_CERTAIN
from clearinghouse.commits import Issuance, parameters_of_next
from clearinghouse.database.arrays import array_parameter
from clearinghouse.ids import uuid7

Connection = psycopg.Connection[tuple[Any, ...]]

ETH_PRICE = Decimal(2000)
#: As declared, for what is charged by rate cards.
ETH = EthPrice("USD", ETH_PRICE, "declared", datetime(2026, 1, 1, tzinfo=UTC))


@dataclass(frozen=True)
class Usage:
    """One payment to record. By default a new session, one certain ticket per wei-thousandth of its worth."""

    gateway_id: UUID
    key_id: UUID
    charge: Decimal
    ev_wei: int
    price: Decimal = ETH_PRICE
    markup_bps: int = 0
    minimum_charge: Decimal = Decimal(0)
    ceilings_version: int = 0
    num_tickets: int = 1
    is_new: bool = True
    first_nonce: int = 1
    sequence: int = 0
    manifest_id: str | None = "stream-1"
    idempotency_key: str | None = None
    end_user: str = ""
    session_id: UUID = field(default_factory=uuid7)
    issuance_id: UUID = field(default_factory=uuid7)
    rand: bytes = field(default_factory=lambda: os.urandom(32))
    base_hash: bytes | None = None
    head_hash: bytes = field(default_factory=lambda: os.urandom(32))
    request_hash: bytes = field(default_factory=lambda: os.urandom(32))
    orchestrator: bytes = b"\x11" * 20
    recipient: bytes = b"\x22" * 20
    sender: bytes = b"\x33" * 20
    approved: bytes | None = None
    repeats_max_count: int | None = None
    rate_rule: int | None = None
    quantity: int | None = None
    #: Of each ticket; its face value follows.
    win_prob: int = WIN_PROB_CERTAIN

    def continued(self, *, num_tickets: int = 1) -> Usage:
        """The next payment of the session: same recipientRandHash, the nonces that follow."""
        ev_wei = self.ev_wei // self.num_tickets * num_tickets
        return replace(
            self,
            is_new=False, sequence=self.sequence + 1, first_nonce=self.first_nonce + self.num_tickets,
            num_tickets=num_tickets, ev_wei=ev_wei, charge=cost(ev_wei, self.markup_bps), issuance_id=uuid7(),
            base_hash=self.head_hash, head_hash=os.urandom(32), request_hash=os.urandom(32), idempotency_key=None,
        )  # fmt: skip


def usage(gateway_id: UUID, key_id: UUID, *, ev_wei: int = 10**15, markup_bps: int = 0, **further: Any) -> Usage:
    """A payment for tickets worth `ev_wei` together, charged at ETH_PRICE and the markup."""
    return Usage(gateway_id, key_id, cost(ev_wei, markup_bps), ev_wei, markup_bps=markup_bps, **further)


def usage_costing(gateway_id: UUID, key_id: UUID, charge: Decimal, **further: Any) -> Usage:
    """A payment that costs `charge`: a multiple of 2e-15, which one wei is worth at ETH_PRICE."""
    ev_wei = int(charge * 10**18 / ETH_PRICE)
    assert cost(ev_wei, 0) == charge
    return usage(gateway_id, key_id, ev_wei=ev_wei, **further)


def cost(ev_wei: int, markup_bps: int) -> Decimal:
    return Decimal(ev_wei * int(ETH_PRICE) * (10_000 + markup_bps)).scaleb(-22)


def new_gateway(connection: Connection, credit: int = 1000) -> tuple[UUID, UUID]:
    """(gateway, key), with so much credit."""
    gateway, key = uuid4(), uuid4()
    connection.execute("SELECT open_system_accounts('USD')")
    connection.execute("INSERT INTO gateway (id, name) VALUES (%s, %s)", [gateway, str(gateway)])
    connection.execute(
        "INSERT INTO api_key (id, gateway_id, public_id, secret_hmac) VALUES (%s, %s, %s, %s)",
        [key, gateway, str(key), os.urandom(32)],
    )
    connection.execute(
        "INSERT INTO account (id, gateway_id, name, currency) VALUES (%s, %s, %s, 'USD')",
        [gateway, gateway, str(gateway)],
    )
    if credit:
        grant = "SELECT grant_credit(%s, %s, %s, NULL, %s, 'a test', 'test')"
        connection.execute(grant, [uuid4(), gateway, credit, str(uuid4())])
    return gateway, key


TYPES = """
    uuid uuid bigint uuid boolean bytea bytea bigint bytea text bytea bigint integer numeric numeric bigint bytea bytea
    bytea numeric numeric numeric numeric text timestamptz integer numeric text text text text text text text uuid bytea
    bytea numeric integer bigint numeric
""".split()  # noqa: SIM905 - in the order of the parameters of commit_issuances


def commit(connection: Connection, call: Usage) -> tuple[str | None, Decimal]:
    """Record one payment. The refusal's code, or None; and the balance afterwards."""
    (outcome,) = commit_together(connection, [call])
    return outcome


def commit_together(
    connection: Connection, calls: Sequence[Usage], *, is_covered: bool = False
) -> list[tuple[str | None, Decimal]]:
    """Record a batch, as the service does with calls that come at once. The outcomes in the order of the calls."""
    columns = [list(column) for column in zip(*map(_values, calls), strict=True)]
    parameters = ", ".join(f"%s::{kind}[]" for kind in TYPES)
    query = f"SELECT o_code, o_balance FROM commit_issuances({parameters}, true, %s) ORDER BY o_ord"
    return [(code, balance) for code, balance in connection.execute(query.encode(), [*columns, is_covered])]


class Packed(bytes):
    """A parameter in PostgreSQL's binary format, of the type that the statement gives it."""


class _PackedDumper(Dumper):
    format = Format.BINARY

    def dump(self, obj: Packed) -> Packed:
        return obj


psycopg.adapters.register_dumper(Packed, _PackedDumper)


def as_a_batch_is_sent(calls: Sequence[Usage]) -> list[str | Packed | None]:
    """The parameters of commit_issuances, but for its flags: each a column, as the service sends several calls."""
    columns = map(array_parameter, TYPES, zip(*map(_values, calls), strict=True))
    return [Packed(column) if isinstance(column, bytes) else column for column in columns]


def as_one_is_sent(call: Usage) -> list[str | Packed | None]:
    """The parameters of commit_next, but for its last, as the service sends a call that comes alone."""
    values = parameters_of_next(as_issuance(call))
    return [Packed(value) if isinstance(value, bytes) else value for value in values]


def as_issuance(call: Usage) -> Issuance:
    """What the service gives to its group commit."""
    return Issuance(*_values(call))


def _values(call: Usage) -> list[Any]:
    """The parameters of commit_issuances, in order."""
    tickets: list[Any] = [None, None, None, call.sender, None]
    if call.approved is None:
        face_value_wei, rest = divmod(call.ev_wei * WIN_PROB_CERTAIN, call.num_tickets * call.win_prob)
        assert rest == 0, "every ticket of this part is worth a whole number of wei"
        tickets = [face_value_wei, call.win_prob, 3500, call.sender, call.recipient]
    return [
        call.gateway_id, call.key_id, call.ceilings_version, call.session_id, call.is_new, call.base_hash,
        call.head_hash, call.sequence, call.request_hash, call.idempotency_key, call.rand, call.first_nonce,
        call.num_tickets, *tickets, call.orchestrator, call.ev_wei, call.ev_wei, call.charge, call.price, "declared",
        datetime(2026, 4, 7, 20, tzinfo=UTC), call.markup_bps, call.minimum_charge, "lv2v", call.manifest_id,
        "app", "https://orchestrator.example:8935", "live-video-to-video", "streamdiffusion", call.end_user,
        call.issuance_id, b"the answer", call.approved,
        call.ev_wei * WIN_PROB_CERTAIN if call.approved is not None else None, call.repeats_max_count,
        call.rate_rule, call.quantity,
    ]  # fmt: skip
