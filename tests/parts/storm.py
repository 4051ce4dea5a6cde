"""After a storm, ask the books, not the responses: what gateways hold in their hands against what was recorded."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from math import ceil
from typing import Any, Protocol

import psycopg

from clearinghouse.ids import parse, show
from tests.parts.payer import Counts, Received

USD_PER_ETH = 3000  # what `clearinghouse dev` declares


class Hands(Protocol):
    """What a gateway holds: the payments it received, by receipt, and how many requests it gave up. A Payer is one."""

    @property
    def received(self) -> Mapping[str, Received]: ...

    @property
    def counts(self) -> Counts: ...


@dataclass(frozen=True)
class _Issuance:
    receipt: str
    rand_hash: bytes
    first_nonce: int
    num_tickets: int
    ev_wei: int
    charge: Fraction
    debit: Fraction | None

    @property
    def nonces(self) -> tuple[int, ...]:
        return tuple(range(self.first_nonce, self.first_nonce + self.num_tickets))


def require_books_to_agree(
    conninfo: str, gateway_id: str, payers: Sequence[Hands], *, usd_per_eth: int | None = USD_PER_ETH
) -> int:
    """All payers of one gateway, idle, against its books. Returns how many payments are on record.

    Nothing may be in flight but requests that were given up. `usd_per_eth` is None where prices and markups change:
    then a charge is only compared with what its payer was told.
    """
    with psycopg.connect(conninfo) as connection:
        issuances = _issuances(connection, gateway_id)
        credit, balance, credit_limit = _account(connection, gateway_id)
    received = [received for payer in payers for received in payer.received.values()]
    _require_every_payment_on_record(issuances, received, usd_per_eth=usd_per_eth)
    _require_nonces_once(issuances.values())
    charges = sum((issuance.charge for issuance in issuances.values()), Fraction(0))
    assert all(issuance.debit == issuance.charge for issuance in issuances.values()), "a charge without its debit"
    assert balance == credit - charges, f"balance {balance}, credit {credit}, charges {charges}"
    assert balance >= -credit_limit, "overspent"
    unheard = set(issuances) - {receipt for payer in payers for receipt in payer.received}
    given_up = sum(payer.counts.given_up for payer in payers)
    assert len(unheard) <= given_up, f"{len(unheard)} payments were charged and not delivered, {given_up} were given up"
    return len(issuances)


def _require_every_payment_on_record(
    issuances: dict[str, _Issuance], payments: Collection[Received], *, usd_per_eth: int | None
) -> None:
    signatures: dict[tuple[bytes, int], bytes] = {}
    for received in payments:
        recorded = issuances.get(received.receipt)
        assert recorded is not None, f"{received.receipt} was released and is not on record"
        assert (recorded.rand_hash, recorded.nonces) == (received.rand_hash, received.nonces), received.receipt
        assert recorded.ev_wei == ceil(received.ev_wei), received.receipt
        assert recorded.charge == received.charge, received.receipt
        if usd_per_eth is not None:
            assert recorded.charge == Fraction(recorded.ev_wei * usd_per_eth, 10**18), received.receipt
        for nonce, signature in zip(received.nonces, received.signatures, strict=True):
            assert signatures.setdefault((received.rand_hash, nonce), signature) == signature, "two tickets, one nonce"


def _require_nonces_once(issuances: Collection[_Issuance]) -> None:
    """Per commitment 1, 2, 3…: none charged twice, none left out."""
    used: dict[bytes, list[int]] = {}
    for issuance in issuances:
        used.setdefault(issuance.rand_hash, []).extend(issuance.nonces)
    for rand_hash, nonces in used.items():
        assert sorted(nonces) == list(range(1, len(nonces) + 1)), (rand_hash.hex(), sorted(nonces))


def _issuances(connection: psycopg.Connection[tuple[Any, ...]], gateway_id: str) -> dict[str, _Issuance]:
    rows = connection.execute(
        """SELECT i.id, i.recipient_rand_hash, i.first_nonce, i.num_tickets, i.ev_wei, i.charge, -p.amount
             FROM issuance i LEFT JOIN posting p ON p.entry_id = i.id AND p.account_id = i.gateway_id
            WHERE i.gateway_id = %s""",
        [parse("gw", gateway_id)],
    )
    return {
        show("iss", id_): _Issuance(
            show("iss", id_), rand, first, count, int(ev), Fraction(charge), None if debit is None else Fraction(debit)
        )
        for id_, rand, first, count, ev, charge, debit in rows
    }


def _account(connection: psycopg.Connection[tuple[Any, ...]], gateway_id: str) -> tuple[Fraction, Fraction, Fraction]:
    row = connection.execute(
        """SELECT (SELECT coalesce(sum(amount), 0) FROM transfer WHERE destination = a.id AND kind = 'grant'),
                  (SELECT coalesce(sum(amount), 0) FROM transfer WHERE source = a.id), a.balance,
                  a.credit_limit
             FROM account a WHERE a.id = %s""",
        [parse("gw", gateway_id)],
    ).fetchone()
    assert row is not None
    granted, withdrawn, balance, credit_limit = (Fraction(amount) for amount in row)
    return granted - withdrawn, balance, credit_limit
