"""What is read of the chain at one block: the protocol's clock, and the escrow of every sender. Pure values.

One batch has it all: `calls` says what to ask, `decode` makes a reading of the answers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from types import MappingProxyType

from chain import abi
from chain.contracts import Contracts
from chain.functions import (
    BLOCK_HASH_FOR_ROUND,
    CURRENT_ROUND,
    GET_SENDER_INFO,
    GET_TRANSCODER_POOL_SIZE,
    LAST_INITIALIZED_ROUND,
    TICKET_VALIDITY_PERIOD,
    UNLOCK_PERIOD,
)
from chain.quorum import Agreed, Block, Call


class Lock(StrEnum):
    """Whether the funds stay where they are."""

    LOCKED = "locked"
    #: The sender has begun to unlock: what is there is as good as gone.
    UNLOCKING = "unlocking"
    #: The sender may withdraw, and has perhaps: the contract keeps the round after a withdrawal.
    UNLOCKED = "unlocked"


@dataclass(frozen=True, slots=True)
class Rounds:
    """The protocol's clock. The hashes are those of the last initialised round and of the one before it; they are zero
    for a round that was never initialised, and for some others on L2."""

    current: int
    last_initialized: int
    last_hash: bytes
    previous_hash: bytes
    validity_rounds: int
    unlock_period_rounds: int


@dataclass(frozen=True, slots=True)
class SenderEscrow:
    """What one sender has in the TicketBroker. `claimed_by_wei`: in this round, by claimant, as far as it was asked."""

    deposit_wei: int
    reserve_wei: int
    claimed_in_round_wei: int
    #: Round from which the sender may withdraw; 0 while the escrow is locked.
    withdraw_round: int
    lock: Lock
    claimed_by_wei: Mapping[bytes, int] = field(default_factory=lambda: MappingProxyType({}))


@dataclass(frozen=True, slots=True)
class ChainReading:
    """Everything that was read at one block. `escrows` by sender (20 bytes)."""

    block: Block
    contracts: Contracts
    rounds: Rounds
    pool_size: int
    escrows: Mapping[bytes, SenderEscrow]


def claimed_at_most_wei(claimant: bytes, claimed_by_wei: Mapping[bytes, int], claimed_in_round_wei: int) -> int:
    """What it has claimed of a reserve in this round: exactly where it was asked about, or nobody has claimed.

    Otherwise everything that was claimed: too much is the direction that overstates no orchestrator's share.
    """
    return claimed_by_wei.get(claimant, claimed_in_round_wei)


def calls(contracts: Contracts, senders: Sequence[bytes], round_: int) -> list[Call]:
    """For a reading. `round_` is the one that is taken to be the last initialised: its hash is asked for."""
    broker, rounds, bonding = contracts.ticket_broker, contracts.rounds_manager, contracts.bonding_manager
    return [
        Call(broker, TICKET_VALIDITY_PERIOD),
        Call(broker, UNLOCK_PERIOD),
        Call(rounds, CURRENT_ROUND),
        Call(rounds, LAST_INITIALIZED_ROUND),
        Call(rounds, abi.calldata(BLOCK_HASH_FOR_ROUND, round_)),
        Call(rounds, abi.calldata(BLOCK_HASH_FOR_ROUND, max(round_ - 1, 0))),
        Call(bonding, GET_TRANSCODER_POOL_SIZE),
        *(Call(broker, abi.calldata(GET_SENDER_INFO, sender)) for sender in senders),
    ]


def last_initialized_round(agreed: Agreed) -> int:
    """Of the answers to `calls`. Raises AbiError."""
    return abi.uint(agreed.results[3])


def decode(agreed: Agreed, contracts: Contracts, senders: Sequence[bytes]) -> ChainReading:
    """Of the answers to `calls` for these senders and the round that is the last initialised one. Raises AbiError."""
    validity, unlock_period, current, last, last_hash, previous_hash, pool_size, *infos = agreed.results
    rounds = Rounds(
        current=abi.uint(current),
        last_initialized=abi.uint(last),
        last_hash=_word(last_hash),
        previous_hash=_word(previous_hash),
        validity_rounds=abi.uint(validity),
        unlock_period_rounds=abi.uint(unlock_period),
    )
    escrows = {sender: _escrow(info, rounds.current) for sender, info in zip(senders, infos, strict=True)}
    return ChainReading(agreed.block, contracts, rounds, abi.uint(pool_size), MappingProxyType(escrows))


def _escrow(sender_info: bytes, current_round: int) -> SenderEscrow:
    deposit_wei, withdraw_round, reserve_wei, claimed_wei = abi.uints(sender_info, 4)
    return SenderEscrow(deposit_wei, reserve_wei, claimed_wei, withdraw_round, _lock(withdraw_round, current_round))


def _lock(withdraw_round: int, current_round: int) -> Lock:
    if withdraw_round == 0:
        return Lock.LOCKED
    return Lock.UNLOCKED if withdraw_round <= current_round else Lock.UNLOCKING


def _word(data: bytes) -> bytes:
    abi.uint(data)
    return data
