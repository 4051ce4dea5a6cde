"""What senders have, as the chain says or as it was declared: one reading, with everything coverage needs of it."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from types import MappingProxyType
from typing import Final, NamedTuple, Protocol

from chain.chain_reading import Lock
from chain.escrow import EscrowUnknown, EscrowView
from clearinghouse.chain_watch import ChainWatch

#: Of a declared escrow: about as many orchestrators as Arbitrum One has share its reserve.
DECLARED_POOL_SIZE: Final = 100
DECLARED_VALIDITY_ROUNDS: Final = 2


class EscrowState(NamedTuple):
    """What changes with every redemption from, claim on, funding of, unlock of and withdrawal from an escrow."""

    deposit_wei: int
    reserve_wei: int
    claimed_in_round_wei: int
    lock: Lock


@dataclass(frozen=True, slots=True)
class Escrow:
    """Of one sender, at one block."""

    sender: bytes
    #: None where it is declared.
    block_number: int | None
    block_time: datetime
    l1_block_number: int
    round: int
    #: How many rounds a ticket can be redeemed, the one it was created in included.
    validity_rounds: int
    pool_size: int
    deposit_wei: int
    reserve_wei: int
    claimed_in_round_wei: int
    lock: Lock
    simulated: bool
    #: Of the reserve in this round, by claimant, as far as it was asked.
    claimed_by_wei: Mapping[bytes, int] = field(default_factory=lambda: MappingProxyType({}))

    @property
    def state(self) -> EscrowState:
        return EscrowState(self.deposit_wei, self.reserve_wei, self.claimed_in_round_wei, self.lock)


class Escrows(Protocol):
    """Of several senders. Nothing waits."""

    def senders(self) -> list[bytes]:
        """Whose escrows are read here."""
        ...

    def read(self, sender: bytes) -> Escrow:
        """Raises EscrowUnknown where there is no fresh reading."""
        ...

    def want_claims(self, sender: bytes, claimants: Sequence[bytes]) -> None:
        """Of whom it is read, from now on, what they claimed of the sender's reserve: the most important first."""
        ...


class ChainEscrows:
    """From what the watch over the chain reads anyway: nothing is asked for here."""

    def __init__(self, watch: ChainWatch, sender: bytes) -> None:
        self._watch, self._senders = watch, [sender]
        self._claimants: dict[bytes, Sequence[bytes]] = {}

    def senders(self) -> list[bytes]:
        """Those of the newest fresh reading, or of the last one that was."""
        with contextlib.suppress(EscrowUnknown):  # each of them is unknown now
            self._senders = list(self._watch.newest().escrows)
        return self._senders

    def read(self, sender: bytes) -> Escrow:
        reading = self._watch.newest()
        escrow = reading.escrows.get(sender)
        if escrow is None:
            raise EscrowUnknown("it is read from the next poll on")
        return Escrow(
            sender=sender,
            block_number=reading.block.number,
            block_time=datetime.fromtimestamp(reading.block.time_unix_s, UTC),
            l1_block_number=reading.block.l1_number,
            round=reading.rounds.current,
            validity_rounds=reading.rounds.validity_rounds,
            pool_size=reading.pool_size,
            deposit_wei=escrow.deposit_wei,
            reserve_wei=escrow.reserve_wei,
            claimed_in_round_wei=escrow.claimed_in_round_wei,
            lock=escrow.lock,
            simulated=False,
            claimed_by_wei=escrow.claimed_by_wei,
        )

    def want_claims(self, sender: bytes, claimants: Sequence[bytes]) -> None:
        self._claimants[sender] = claimants
        self._watch.want_claims(self._claimants)


class DeclaredEscrows:
    """Of the one sender whose escrow is declared."""

    def __init__(self, sender: bytes, declared: EscrowView) -> None:
        self._sender, self._declared = sender, declared

    def senders(self) -> list[bytes]:
        return [self._sender]

    def read(self, sender: bytes) -> Escrow:
        reading = self._declared.read()
        if sender != reading.sender:
            raise EscrowUnknown("only one escrow is declared")
        round_ = reading.last_initialized_round
        lock = Lock.LOCKED
        if reading.withdraw_round:
            lock = Lock.UNLOCKED if reading.withdraw_round <= round_ else Lock.UNLOCKING
        return Escrow(
            sender=sender,
            block_number=None,
            block_time=datetime.fromtimestamp(reading.observed_at_unix_s, UTC),
            l1_block_number=reading.last_seen_l1_block,
            round=round_,
            validity_rounds=DECLARED_VALIDITY_ROUNDS,
            pool_size=DECLARED_POOL_SIZE,
            deposit_wei=reading.deposit_wei,
            reserve_wei=reading.reserve_wei,
            claimed_in_round_wei=reading.claimed_in_round_wei,
            lock=lock,
            simulated=reading.simulated,
        )

    def want_claims(self, sender: bytes, claimants: Sequence[bytes]) -> None:
        """Nobody claims of what is declared."""
