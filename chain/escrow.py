"""What the sender has in the TicketBroker, and which round it is, as last read.

The hot path never waits for the chain: it takes the newest reading, or fails closed where there is no fresh one.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True)
class EscrowReading:
    """One consistent reading of the sender's escrow and the protocol's clock (remote-signer protocol, 3.6 and 8)."""

    sender: bytes
    deposit_wei: int
    reserve_wei: int
    claimed_in_round_wei: int
    #: Round from which the sender may withdraw; 0 while the escrow is locked.
    withdraw_round: int
    last_initialized_round: int
    last_initialized_round_block_hash: bytes
    last_seen_l1_block: int
    observed_at_unix_s: int
    #: True for declared values: no chain was asked, and no ticket covered by it can ever be redeemed.
    simulated: bool
    #: The round initialised before the last one, where it is known: orchestrators still quote it for a while.
    previous_initialized_round: int | None = None
    previous_initialized_round_block_hash: bytes | None = None


class EscrowUnknown(RuntimeError):
    """There is no reading, or none fresh enough to sign by."""


class EscrowView(Protocol):
    """The newest reading of one sender's escrow."""

    def read(self) -> EscrowReading:
        """Never waits. Raises EscrowUnknown where there is no fresh reading."""
        ...


def _unix_s() -> int:
    return time.time_ns() // 1_000_000_000


class DeclaredEscrow:
    """An escrow that exists by declaration only: for trying things out. Always fresh, always marked simulated."""

    def __init__(
        self,
        *,
        sender: bytes,
        deposit_wei: int,
        reserve_wei: int,
        last_initialized_round: int,
        last_initialized_round_block_hash: bytes,
        last_seen_l1_block: int,
        claimed_in_round_wei: int = 0,
        withdraw_round: int = 0,
        previous_initialized_round: int | None = None,
        previous_initialized_round_block_hash: bytes | None = None,
        now_unix_s: Callable[[], int] = _unix_s,
    ) -> None:
        """Raises ValueError for a number out of range or a wrong length: a declaration comes from configuration."""
        numbers = {
            "deposit_wei": deposit_wei,
            "reserve_wei": reserve_wei,
            "claimed_in_round_wei": claimed_in_round_wei,
            "withdraw_round": withdraw_round,
            "last_initialized_round": last_initialized_round,
            "last_seen_l1_block": last_seen_l1_block,
            "previous_initialized_round": previous_initialized_round or 0,
        }
        for name, value in numbers.items():
            if not 0 <= value < 2**256:
                raise ValueError(f"declared escrow: {name} must be in [0, 2**256), got {value}")
        if len(sender) != 20:
            raise ValueError(f"declared escrow: sender must have 20 bytes, got {len(sender)}")
        hashes = {
            "last_initialized_round_block_hash": last_initialized_round_block_hash,
            "previous_initialized_round_block_hash": previous_initialized_round_block_hash,
        }
        for name, block_hash in hashes.items():
            if block_hash is not None and len(block_hash) != 32:
                raise ValueError(f"declared escrow: {name} must have 32 bytes, got {len(block_hash)}")
        if (previous_initialized_round is None) != (previous_initialized_round_block_hash is None):
            raise ValueError("declared escrow: a previous initialized round needs its block hash, and the reverse")
        self._sender = sender
        self._deposit_wei = deposit_wei
        self._reserve_wei = reserve_wei
        self._claimed_in_round_wei = claimed_in_round_wei
        self._withdraw_round = withdraw_round
        self._round = last_initialized_round
        self._round_block_hash = last_initialized_round_block_hash
        self._l1_block = last_seen_l1_block
        self._previous_round = previous_initialized_round
        self._previous_round_block_hash = previous_initialized_round_block_hash
        self._now_unix_s = now_unix_s
        self._reading: EscrowReading | None = None

    def read(self) -> EscrowReading:
        """The declared values, observed now; one reading a second, because every payment asks."""
        unix_s = self._now_unix_s()
        reading = self._reading
        if reading is None or reading.observed_at_unix_s != unix_s:
            reading = self._reading = self._observed(unix_s)
        return reading

    def _observed(self, unix_s: int) -> EscrowReading:
        return EscrowReading(
            sender=self._sender,
            deposit_wei=self._deposit_wei,
            reserve_wei=self._reserve_wei,
            claimed_in_round_wei=self._claimed_in_round_wei,
            withdraw_round=self._withdraw_round,
            last_initialized_round=self._round,
            last_initialized_round_block_hash=self._round_block_hash,
            last_seen_l1_block=self._l1_block,
            observed_at_unix_s=unix_s,
            simulated=True,
            previous_initialized_round=self._previous_round,
            previous_initialized_round_block_hash=self._previous_round_block_hash,
        )
