"""The sender's escrow and the protocol's clock, read from the chain: one block, one reading, agreed by the quorum.

`poll` asks the chain and is called every few seconds in the background. `read` answers from memory, for the signing
path; it fails closed where the newest reading is of a block that is too old, however that came about: endpoints that
hang, lie, disagree or stand still, or a clock of ours that is wrong.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from chain import abi
from chain.contracts import Contracts, ContractsUnknown, resolve
from chain.escrow import EscrowReading, EscrowUnknown
from chain.networks import Network
from chain.quorum import Agreed, Block, Call, Quorum

GET_SENDER_INFO: Final = abi.selector("getSenderInfo(address)")
TICKET_VALIDITY_PERIOD: Final = abi.selector("ticketValidityPeriod()")
UNLOCK_PERIOD: Final = abi.selector("unlockPeriod()")
CURRENT_ROUND: Final = abi.selector("currentRound()")
LAST_INITIALIZED_ROUND: Final = abi.selector("lastInitializedRound()")
BLOCK_HASH_FOR_ROUND: Final = abi.selector("blockHashForRound(uint256)")
GET_TRANSCODER_POOL_SIZE: Final = abi.selector("getTranscoderPoolSize()")
_ZERO_HASH: Final = bytes(32)


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
class ChainReading:
    """Everything that was read at one block."""

    block: Block
    contracts: Contracts
    rounds: Rounds
    pool_size: int
    deposit_wei: int
    reserve_wei: int
    claimed_in_round_wei: int
    withdraw_round: int

    @property
    def lock(self) -> Lock:
        if self.withdraw_round == 0:
            return Lock.LOCKED
        return Lock.UNLOCKED if self.withdraw_round <= self.rounds.current else Lock.UNLOCKING


class EscrowReader:
    """An EscrowView of `sender` (20 bytes) on a network. Belongs to the quorum's event loop.

    `stale_max_s`: how old the block of a reading may be, and how far ahead of our clock.
    """

    def __init__(
        self,
        quorum: Quorum,
        network: Network,
        sender: bytes,
        *,
        stale_max_s: int,
        unix_s: Callable[[], int] = lambda: int(time.time()),
    ) -> None:
        self._quorum, self._network, self._sender = quorum, network, sender
        self._stale_max_s = stale_max_s
        self._unix_s = unix_s
        self._contracts: Contracts | None = None
        self._newest: ChainReading | None = None
        self._view: EscrowReading | None = None
        #: Asked about in the same request as everything else; a new round costs one request more.
        self._expected_round = 1

    async def poll(self) -> ChainReading:
        """Reads the chain and remembers it. Raises NoDecision, after which the reading before stays the newest."""
        block_hash = await self._quorum.newest_block_hash()
        if self._contracts is None:
            self._contracts = await resolve(self._quorum, block_hash, self._network)
        contracts = self._contracts
        agreed = await self._quorum.read(block_hash, _calls(contracts, self._sender, self._expected_round))
        try:
            last_initialized = abi.uint(agreed.results[4])
            if last_initialized != self._expected_round:
                agreed = await self._quorum.read(block_hash, _calls(contracts, self._sender, last_initialized))
            reading = _reading(agreed, contracts)
        except abi.AbiError:
            self._contracts = None  # perhaps they moved
            raise ContractsUnknown(f"a contract of {self._network.name} gives no answer of its kind") from None
        self._expected_round = last_initialized
        self._newest, self._view = reading, _view(reading, self._sender)
        return reading

    def read(self) -> EscrowReading:
        """From memory. Raises EscrowUnknown without a reading, or with one that is too old."""
        view = self._view
        if view is None:
            raise EscrowUnknown("the chain was not read yet")
        age_s = self._unix_s() - view.observed_at_unix_s
        if not -self._stale_max_s <= age_s <= self._stale_max_s:
            raise EscrowUnknown(f"the newest reading is {age_s} s old, and at most {self._stale_max_s} s are allowed")
        return view

    def newest(self) -> ChainReading:
        """All of the newest reading. Raises EscrowUnknown as `read` does."""
        self.read()
        assert self._newest is not None, "what was read has a view"
        return self._newest

    def age_s(self) -> int | None:
        """Of the newest reading's block, fresh or not; None before the first."""
        return self._unix_s() - self._newest.block.time_unix_s if self._newest is not None else None


def _calls(contracts: Contracts, sender: bytes, round_: int) -> list[Call]:
    broker, rounds, bonding = contracts.ticket_broker, contracts.rounds_manager, contracts.bonding_manager
    return [
        Call(broker, abi.calldata(GET_SENDER_INFO, sender)),
        Call(broker, TICKET_VALIDITY_PERIOD),
        Call(broker, UNLOCK_PERIOD),
        Call(rounds, CURRENT_ROUND),
        Call(rounds, LAST_INITIALIZED_ROUND),
        Call(rounds, abi.calldata(BLOCK_HASH_FOR_ROUND, round_)),
        Call(rounds, abi.calldata(BLOCK_HASH_FOR_ROUND, max(round_ - 1, 0))),
        Call(bonding, GET_TRANSCODER_POOL_SIZE),
    ]


def _reading(agreed: Agreed, contracts: Contracts) -> ChainReading:
    """Of the answers to `_calls` for the round that is the last initialised one. Raises AbiError."""
    sender_info, validity, unlock_period, current, last, last_hash, previous_hash, pool_size = agreed.results
    deposit_wei, withdraw_round, reserve_wei, claimed_wei = abi.uints(sender_info, 4)
    rounds = Rounds(
        current=abi.uint(current),
        last_initialized=abi.uint(last),
        last_hash=_word(last_hash),
        previous_hash=_word(previous_hash),
        validity_rounds=abi.uint(validity),
        unlock_period_rounds=abi.uint(unlock_period),
    )
    return ChainReading(
        block=agreed.block,
        contracts=contracts,
        rounds=rounds,
        pool_size=abi.uint(pool_size),
        deposit_wei=deposit_wei,
        reserve_wei=reserve_wei,
        claimed_in_round_wei=claimed_wei,
        withdraw_round=withdraw_round,
    )


def _word(data: bytes) -> bytes:
    abi.uint(data)
    return data


def _view(reading: ChainReading, sender: bytes) -> EscrowReading:
    """What signing goes by."""
    rounds = reading.rounds
    previous = rounds.last_initialized - 1
    is_redeemable = previous + rounds.validity_rounds > rounds.current
    has_previous = previous >= 0 and rounds.previous_hash != _ZERO_HASH and is_redeemable
    return EscrowReading(
        sender=sender,
        deposit_wei=reading.deposit_wei,
        reserve_wei=reading.reserve_wei,
        claimed_in_round_wei=reading.claimed_in_round_wei,
        withdraw_round=reading.withdraw_round,
        last_initialized_round=rounds.last_initialized,
        last_initialized_round_block_hash=rounds.last_hash,
        last_seen_l1_block=reading.block.l1_number,
        observed_at_unix_s=reading.block.time_unix_s,
        simulated=False,
        previous_initialized_round=previous if has_previous else None,
        previous_initialized_round_block_hash=rounds.previous_hash if has_previous else None,
    )
