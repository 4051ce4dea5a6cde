"""The twin of the webhook: what a payment through a signer that asks may come to (promise 4, docs/api.md).

Of type "fixed" only, at one price: then every head of a session has the same balance, and what a payment takes is known
before it is made. A stream's calls come one after the other; the streams of a gateway share its credit and its repeats.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime
from fractions import Fraction
from math import ceil

from tests.storm.facts import Call, State
from tests.storm.twin import due_counts

HEADS_MAX = 16
NO_CLOCK = (0, 0)


@dataclass(frozen=True)
class Expected:
    """An answer by the signer: its status, and the new tickets that are charged for."""

    status: int
    num_tickets: int = 0
    is_repeat: bool = False


@dataclass
class AskedGateway:
    """`repeats_max`: lost answers that it may have for nothing, in an hour."""

    credit: Fraction
    repeats_max: int
    spent: Fraction = Fraction(0)
    tickets: int = 0
    payments: int = 0
    repeats: dict[int, int] = field(default_factory=dict)

    def repeats_used(self) -> int:
        return self.repeats.get(_hour(), 0)


@dataclass
class AskedStream:
    """A session as both sides know it. `heads_count` counts the newest states that were approved, held or lost."""

    #: States held of the newest sequence number, and of the one before.
    heads: list[State] = field(default_factory=list)
    bases: list[State] = field(default_factory=list)
    sequence: int = -1
    heads_count: int = 0
    #: recipientRandHashes of the heads, and the last nonce of every one that was ever used.
    head_rands: set[bytes] = field(default_factory=set)
    last_nonces: dict[bytes, int] = field(default_factory=dict)

    def expected(self, call: Call, gateway: AskedGateway, *, price: Fraction) -> Expected:
        """What this call must be answered now."""
        (count,) = due_counts(call, NO_CLOCK)
        if count == 0:
            return Expected(482)
        sequence = call.state.sequence + 1 if call.state is not None else 0
        last_nonce = self.last_nonces.get(call.offer.rand, 0)
        if sequence < self.sequence:
            return Expected(409)
        if sequence == self.sequence:
            if self.heads_count >= HEADS_MAX:
                return Expected(409)
            if call.offer.rand in self.head_rands:
                is_left = gateway.repeats_used() < gateway.repeats_max
                return Expected(200, 0, is_repeat=True) if is_left else Expected(429)
        if call.first_nonce != last_nonce + 1:
            return Expected(409)
        charge = charge_of(call, count, price)
        return Expected(200, count) if charge <= gateway.credit - gateway.spent else Expected(402)

    def approved(self, call: Call, gateway: AskedGateway, expected: Expected, *, price: Fraction) -> None:
        """The expectation came true: whether or not its answer arrived."""
        sequence = call.state.sequence + 1 if call.state is not None else 0
        if expected.is_repeat:
            gateway.repeats[_hour()] = gateway.repeats_used() + 1
        else:
            gateway.spent += charge_of(call, expected.num_tickets, price)
            gateway.tickets += expected.num_tickets
            gateway.payments += 1
            self.last_nonces[call.offer.rand] = call.first_nonce + expected.num_tickets - 1
        if sequence > self.sequence:
            self.bases, self.heads, self.heads_count, self.head_rands = self.heads, [], 0, set()
            self.sequence = sequence
        self.heads_count += 1
        self.head_rands.add(call.offer.rand)

    def received(self, state: State) -> None:
        self.heads.append(state)


def charge_of(call: Call, count: int, price: Fraction) -> Fraction:
    return Fraction(ceil(count * call.offer.ev_wei) * price, 10**18)


def _hour() -> int:
    return int(datetime.now(UTC).timestamp()) // 3600
