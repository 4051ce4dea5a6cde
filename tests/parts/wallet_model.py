"""A chain small enough to be obvious: one wallet, a pool of transactions, blocks that may be taken back.

What it pays into the escrow is what really happened: the books must say the same.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, field

from chain.quorum import Block, TooFewAnswers
from chain.signatures import keccak
from chain.transactions import SignedTransaction, read_signed
from chain.wallet_chain import Fate, Followed, Mined, Sent, WalletReading
from tests.parts.devnet import DEV_CHAIN_ID

BROKER = b"\x0d" * 20
GAS = 100_000


@dataclass
class ModelChain:
    """Implements settlement.topups.flow.Chain. `is_away`: the endpoints decide nothing."""

    dice: random.Random
    base_fee_wei: int = 10**9
    is_away: bool = False
    #: By block: the transaction in it, or none.
    blocks: list[SignedTransaction | None] = field(default_factory=lambda: [None])
    pool: dict[int, SignedTransaction] = field(default_factory=dict)
    #: All bytes that ever came.
    seen: set[bytes] = field(default_factory=set)

    chain_id = DEV_CHAIN_ID

    # --- what happens ---

    def mine(self) -> None:
        """The next transaction of the wallet, where it pays enough."""
        found = self.pool.get(self._nonce())
        if found is not None and found.transaction.fees.max_per_gas_wei >= self.base_fee_wei:
            del self.pool[found.transaction.nonce]
            self.blocks.append(found)
        else:
            self.blocks.append(None)

    def reorganise(self, depth: int) -> None:
        """Takes blocks back, but for the first; their transactions are in the pool again, or lost."""
        for _ in range(min(depth, len(self.blocks) - 1)):
            lost = self.blocks.pop()
            if lost is not None and self.dice.random() < 0.5:
                self.pool.setdefault(lost.transaction.nonce, lost)

    def drop(self) -> None:
        self.pool.clear()

    def take(self, signed: SignedTransaction) -> bool:
        """Into the pool, as nodes do it: a replacement must offer a tenth more of both."""
        transaction = signed.transaction
        before = self.pool.get(transaction.nonce)
        if transaction.nonce < self._nonce() or before == signed:
            return False
        if before is not None and any(
            10 * new < 11 * old for new, old in zip(transaction.fees, before.transaction.fees, strict=True)
        ):
            return False
        self.pool[transaction.nonce] = signed
        return True

    def paid_wei(self) -> int:
        """Into the escrow."""
        return sum(each.transaction.value_wei for each in self.blocks if each and each.transaction.to == BROKER)

    def _nonce(self) -> int:
        return sum(each is not None for each in self.blocks)

    # --- what is asked ---

    async def standing(self, wallet: bytes, sender: bytes) -> WalletReading:
        self._require_here()
        number = len(self.blocks) - 1
        block = Block(keccak(b"%d" % number), number, number, 0)
        pending = max([nonce + 1 for nonce in self.pool], default=0)
        return WalletReading(
            block=block, ticket_broker=BROKER, base_fee_wei=self.base_fee_wei, balance_wei=10**24,
            nonce=self._nonce(), pending_nonce=max(self._nonce(), pending), deposit_wei=self.paid_wei(), reserve_wei=0,
            withdraw_round=0,
        )  # fmt: skip

    async def simulate(self, payer: bytes, to: bytes, value_wei: int, data: bytes, at: Block) -> int:
        self._require_here()
        return GAS

    async def follow(self, wallet: bytes, nonce: int, hashes: Sequence[bytes]) -> Followed:
        self._require_here()
        head = len(self.blocks) - 1
        for number, each in enumerate(self.blocks):
            if each is not None and each.hash in hashes:
                return Followed(Fate.MINED, head, Mined(each.hash, number, b"\1" * 32, has_succeeded=True, fee_wei=GAS))
        if self._nonce() > nonce:
            return Followed(Fate.OVERTAKEN, head)
        waiting = self.pool.get(nonce)
        return Followed(Fate.PENDING if waiting is not None and waiting.hash == hashes[-1] else Fate.UNKNOWN, head)

    async def send(self, raw: bytes) -> Sent:
        self.seen.add(raw)
        if self.is_away or self.dice.random() < 0.2:
            return Sent({"rpc-1": "timed_out"})
        return Sent({"rpc-1": "taken" if self.take(read_signed(raw)) else "refused"})

    def _require_here(self) -> None:
        if self.is_away:
            raise TooFewAnswers("fewer than 2 endpoints answer", [])
