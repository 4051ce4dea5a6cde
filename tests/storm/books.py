"""The books as they are at one instant, read past all of the service's code."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from typing import Any
from uuid import UUID

import psycopg
from psycopg import IsolationLevel

from clearinghouse.ids import show
from tests.storm.facts import Entry

_ENTRIES = """
    SELECT i.id, i.gateway_id, i.session_id, i.sequence, api_key.public_id, i.recipient_rand_hash, i.first_nonce,
           i.num_tickets, i.face_value_wei, i.win_prob, i.ev_wei, i.fee_wei, i.charge, i.currency, i.price,
           i.markup_bps, i.balance_after, i.created_at, coalesce(keyed_answer.key, '')
      FROM issuance AS i JOIN api_key ON api_key.id = i.key_id
      LEFT JOIN keyed_answer ON keyed_answer.gateway_id = i.gateway_id AND keyed_answer.issuance_id = i.id
     WHERE NOT (i.id = ANY (%s)) AND i.created_at > now() - interval '5 minutes'
       AND i.face_value_wei IS NOT NULL  -- what the webhook approved is not paid at a service
     ORDER BY i.created_at, i.gateway_id, i.balance_after DESC
"""
_ACCOUNTS = """
    SELECT id, balance, credit_limit, calls_day, spent_day, spent_month, ev_day0_wei + ev_day1_wei + ev_day2_wei,
           sessions_open
      FROM account WHERE gateway_id IS NOT NULL
"""


@dataclass(frozen=True)
class Account:
    """One gateway's account with its counters."""

    gateway: str
    balance: Fraction
    credit_limit: Fraction
    calls_day: int
    spent_day: Fraction
    spent_month: Fraction
    ev_open_wei: int
    sessions_open: int


@dataclass(frozen=True)
class Snapshot:
    """What is new in the books since the last one, in the order of the commits; and every account."""

    entries: tuple[Entry, ...]
    accounts: tuple[Account, ...]


class BookReader:
    """Use `book_reader`. Remembers what it has shown."""

    def __init__(self, connection: psycopg.Connection[tuple[Any, ...]]) -> None:
        self._connection = connection
        self._seen: list[UUID] = []

    def read(self) -> Snapshot:
        with self._connection.transaction():
            rows = self._connection.execute(_ENTRIES, [self._seen[-4000:]]).fetchall()
            accounts = self._connection.execute(_ACCOUNTS).fetchall()
        self._seen += [row[0] for row in rows]
        return Snapshot(tuple(map(_entry, rows)), tuple(map(_account, accounts)))

    def fetch(self, query: str, *parameters: Any) -> list[tuple[Any, ...]]:
        return self._connection.execute(query.encode(), parameters).fetchall()


@contextmanager
def book_reader(conninfo: str) -> Iterator[BookReader]:
    with psycopg.connect(conninfo, autocommit=True) as connection:
        connection.isolation_level = IsolationLevel.REPEATABLE_READ
        yield BookReader(connection)


def _entry(row: tuple[Any, ...]) -> Entry:
    (
        id_, gateway_id, session_id, sequence, key, rand, first_nonce, num_tickets, face_value_wei, win_prob, ev_wei,
        fee_wei, charge, currency, price, markup_bps, balance_after, at,
        idempotency_key,
    ) = row  # fmt: skip
    return Entry(
        receipt=show("iss", id_),
        gateway=show("gw", gateway_id),
        session=show("ses", session_id),
        sequence=sequence,
        key=key,
        rand=rand,
        first_nonce=first_nonce,
        num_tickets=num_tickets,
        face_value_wei=int(face_value_wei),
        win_prob=int(win_prob),
        ev_wei=int(ev_wei),
        fee_wei=int(fee_wei),
        charge=Fraction(charge),
        currency=currency,
        price=Fraction(price),
        markup_bps=markup_bps,
        balance_after=Fraction(balance_after),
        at=at,
        idempotency_key=idempotency_key,
    )


def _account(row: tuple[Any, ...]) -> Account:
    id_, balance, credit_limit, calls, spent_day, spent_month, ev_open, sessions = row
    return Account(
        show("gw", id_), Fraction(balance), Fraction(credit_limit), calls, Fraction(spent_day), Fraction(spent_month),
        int(ev_open), sessions,
    )  # fmt: skip
