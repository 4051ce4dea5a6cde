"""Our senders' escrows and the protocol's clock, read from the chain: one block, one reading, agreed by the quorum.

`poll` asks the chain and is called every few seconds in the background. `read` answers from memory, for the signing
path; it fails closed where the newest reading is of a block that is too old, however that came about: endpoints that
hang, lie, disagree or stand still, or a clock of ours that is wrong.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType
from typing import Final

from chain import abi, chain_reading
from chain.chain_reading import ChainReading, SenderEscrow
from chain.contracts import Contracts, ContractsUnknown, resolve
from chain.escrow import EscrowReading, EscrowUnknown
from chain.functions import CLAIMED_RESERVE
from chain.networks import Network
from chain.quorum import Block, Call, NoDecision, Quorum, TooFewAnswers
from chain.rpc import Failure

logger = logging.getLogger(__name__)

#: Of one sender: what is asked about them still fits one request.
CLAIMANTS_MAX_COUNT: Final = 50
_ZERO_HASH: Final = bytes(32)


class EscrowReader:
    """An EscrowView of `sender` (20 bytes) on a network, which reads other senders' escrows in the same request.

    `stale_max_s`: how old the block of a reading may be, and how far ahead of our clock. Belongs to the quorum's event
    loop.
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
        self._quorum, self._network, self.sender = quorum, network, sender
        self._stale_max_s = stale_max_s
        self._unix_s = unix_s
        self._senders: tuple[bytes, ...] = (sender,)
        self._claims = _Claims(quorum)
        self._contracts: Contracts | None = None
        self._newest: ChainReading | None = None
        self._view: EscrowReading | None = None
        #: Asked about in the same request as everything else; a new round costs one request more.
        self._expected_round = 1

    def follow(self, senders: Iterable[bytes]) -> None:
        """Whose escrows are read besides `sender`'s, from the next poll on: these, and no others any more."""
        self._senders = tuple(dict.fromkeys((self.sender, *senders)))

    def want_claims(self, claimants: Mapping[bytes, Sequence[bytes]]) -> None:
        """Of which claimants (recipients of tickets, 20 bytes) it is read what they claimed of a sender's reserve.

        By sender, the most important first: of each sender the first CLAIMANTS_MAX_COUNT are asked about.
        """
        self._claims.wanted = {sender: tuple(some[:CLAIMANTS_MAX_COUNT]) for sender, some in claimants.items()}

    def subject(self) -> tuple[Contracts, tuple[bytes, ...]] | None:
        """The contracts and the senders that readings are of; None while the contracts are not known."""
        return (self._contracts, self._senders) if self._contracts is not None else None

    async def poll(self, *, of_now: bool = False) -> ChainReading:
        """Reads the chain and remembers it. Raises NoDecision, after which the reading before stays the newest.

        A steady poll reads the block that was the newest at the poll before; `of_now`, with a request more, the block
        that is the newest now. What was seen of a block stays true of it: where one endpoint alone calls an older block
        the newest, a reading that is fresh is not replaced by that older one.
        """
        senders = self._senders
        block_hash = await self._quorum.newest_block_hash(of_now=of_now)
        if self._contracts is None:
            self._contracts = await resolve(self._quorum, block_hash, self._network)
        try:
            reading = await self._claims.added_to(await self._read(block_hash, self._contracts, senders))
        except abi.AbiError:
            self._contracts = None  # perhaps they moved
            raise ContractsUnknown(f"a contract of {self._network.name} gives no answer of its kind") from None
        if self._newest is not None and await self._is_overtaken(reading.block, self._newest.block):
            return self._newest
        self._newest, self._view = reading, _view(reading, self.sender)
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

    async def _is_overtaken(self, block: Block, newest: Block) -> bool:
        """Whether the newest reading is later and stands: not too old, and of a block that the chain still has."""
        if block.number >= newest.number or abs(self._unix_s() - newest.time_unix_s) > self._stale_max_s:
            return False
        try:
            await self._quorum.read(newest.hash, [])
        except TooFewAnswers as reason:
            return Failure.UNKNOWN_BLOCK not in reason.failures
        except NoDecision:
            return True
        return True

    def newest(self) -> ChainReading:
        """All of the newest reading. Raises EscrowUnknown as `read` does."""
        self.read()
        assert self._newest is not None, "what was read has a view"
        return self._newest

    def age_s(self) -> int | None:
        """Of the newest reading's block, fresh or not; None before the first."""
        return self._unix_s() - self._newest.block.time_unix_s if self._newest is not None else None

    async def _read(self, block_hash: bytes, contracts: Contracts, senders: Sequence[bytes]) -> ChainReading:
        """Raises NoDecision, AbiError."""
        agreed = await self._quorum.read(block_hash, chain_reading.calls(contracts, senders, self._expected_round))
        last_round = chain_reading.last_initialized_round(agreed)
        if last_round != self._expected_round:
            agreed = await self._quorum.read(block_hash, chain_reading.calls(contracts, senders, last_round))
        reading = chain_reading.decode(agreed, contracts, senders)
        self._expected_round = last_round
        return reading


class _Claims:
    """Who has claimed how much of a sender's reserve in this round.

    Asked again only when it can be another answer: claims of a round only ever add up, so that where their sum is the
    same, so is each of them. Where nobody has claimed, as nearly always, nothing is asked.
    """

    def __init__(self, quorum: Quorum) -> None:
        self._quorum = quorum
        self.wanted: Mapping[bytes, tuple[bytes, ...]] = {}
        #: By sender: the round, the sum, and the claims that were read with them.
        self._known: dict[bytes, tuple[int, int, dict[bytes, int]]] = {}

    async def added_to(self, reading: ChainReading) -> ChainReading:
        """The same reading, with the claims as far as they can be had: without them all else is still true.

        Raises AbiError.
        """
        claims = {sender: self._remembered(reading, sender) for sender in reading.escrows}
        missing = [
            (sender, claimant)
            for sender, known in claims.items()
            for claimant in self.wanted.get(sender, ())
            if claimant not in known
        ]
        if missing:
            broker = reading.contracts.ticket_broker
            asked = [Call(broker, abi.calldata(CLAIMED_RESERVE, *pair)) for pair in missing]
            try:
                agreed = await self._quorum.read(reading.block.hash, asked)
            except NoDecision as reason:
                logger.warning("what was claimed of the reserve is not known: %s", reason)
                return reading
            for (sender, claimant), result in zip(missing, agreed.results, strict=True):
                claims[sender][claimant] = abi.uint(result)
        self._known = {
            sender: (reading.rounds.current, escrow.claimed_in_round_wei, claims[sender])
            for sender, escrow in reading.escrows.items()
        }
        return replace(reading, escrows=MappingProxyType(
            {sender: _with_claims(escrow, claims[sender]) for sender, escrow in reading.escrows.items()}
        ))  # fmt: skip

    def _remembered(self, reading: ChainReading, sender: bytes) -> dict[bytes, int]:
        """What is known already of this sender's claims."""
        claimed_wei = reading.escrows[sender].claimed_in_round_wei
        if claimed_wei == 0:
            return dict.fromkeys(self.wanted.get(sender, ()), 0)
        round_, then_wei, known = self._known.get(sender, (0, 0, {}))
        return dict(known) if (round_, then_wei) == (reading.rounds.current, claimed_wei) else {}


def _with_claims(escrow: SenderEscrow, claims: dict[bytes, int]) -> SenderEscrow:
    return replace(escrow, claimed_by_wei=MappingProxyType(claims)) if claims else escrow


def _view(reading: ChainReading, sender: bytes) -> EscrowReading:
    """What signing goes by."""
    rounds, escrow = reading.rounds, reading.escrows[sender]
    previous = rounds.last_initialized - 1
    is_redeemable = previous + rounds.validity_rounds > rounds.current
    has_previous = previous >= 0 and rounds.previous_hash != _ZERO_HASH and is_redeemable
    return EscrowReading(
        sender=sender,
        deposit_wei=escrow.deposit_wei,
        reserve_wei=escrow.reserve_wei,
        claimed_in_round_wei=escrow.claimed_in_round_wei,
        withdraw_round=escrow.withdraw_round,
        last_initialized_round=rounds.last_initialized,
        last_initialized_round_block_hash=rounds.last_hash,
        last_seen_l1_block=reading.block.l1_number,
        observed_at_unix_s=reading.block.time_unix_s,
        simulated=False,
        previous_initialized_round=previous if has_previous else None,
        previous_initialized_round_block_hash=rounds.previous_hash if has_previous else None,
    )
