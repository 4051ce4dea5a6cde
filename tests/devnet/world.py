"""The devnet outside of the clearinghouse: the chain, the sender's funds on it, and the orchestrator with its winners.

Everything that may happen to them is a method; `control` lets other processes call those that are COMMANDS.
"""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from eth_abi.abi import decode

from tests.devnet.terms import NEARLY_ALWAYS, ONE_IN_TEN
from tests.parts.devnet import Devnet, round_hash
from tests.parts.devnet.network import ChainRefused
from tests.parts.orchestrator import Orchestrator, Ticket
from tests.parts.winners import redeemable

#: The service reads a new round within a poll; orchestrators, like those in the field, are not the first to know.
ROUND_SETTLES_S: Final = 2.5
#: Reasons after which a winner will never be paid.
_LOST: Final = re.compile(r"ticket is expired|ticket is used|sender is unlocked")


@dataclass
class World:
    """`sender` is whose tickets are signed, 20 bytes. Methods may be called from any thread: one works at a time."""

    devnet: Devnet
    orchestrator: Orchestrator
    sender: bytes
    _done: set[tuple[bytes, int]] = field(default_factory=set)
    _redeemed: int = 0
    _lost: int = 0
    _working: threading.RLock = field(default_factory=threading.RLock)

    # --- what is ---

    def status(self) -> dict[str, Any]:
        """Amounts are decimal strings of wei."""
        with self._working:
            deposit, withdraw_round, reserve, claimed = self._sender_info()
            books = self.orchestrator.books
            return {
                "block": int(self.devnet.rpc("eth_blockNumber"), 16),
                "round": self.devnet.round,
                "deposit_wei": str(deposit),
                "reserve_wei": str(reserve),
                "claimed_in_round_wei": str(claimed),
                "lock": "locked" if not withdraw_round else f"unlocking, open from round {withdraw_round}",
                "tickets": len(books.tickets),
                "winners_waiting": len(self._waiting()),
                "winners_redeemed": self._redeemed,
                "winners_lost": self._lost,
                "fees_wei": str(self._fees()),
            }

    # --- what may happen ---

    def redeem(self, count_max: int | None = None) -> dict[str, Any]:
        """Winners to the contract, the oldest first. What is refused for good is lost; the rest waits on."""
        with self._working:
            fees, redeemed, refused = self._fees(), 0, dict[str, int]()
            for winner in self._waiting()[:count_max]:
                try:
                    self.devnet.redeem(*redeemable(winner))
                except ChainRefused as no:
                    reason = str(no).rpartition(": ")[2]
                    refused[reason] = refused.get(reason, 0) + 1
                    if _LOST.search(reason) is None:
                        continue
                    self._lost += 1
                else:
                    redeemed += 1
                self._done.add(_key(winner))
            self._redeemed += redeemed
            return {"redeemed": redeemed, "paid_wei": str(self._fees() - fees), "refused": refused, **self.status()}

    def fund(self, deposit_wei: str = "0", reserve_wei: str = "0") -> dict[str, Any]:
        """By somebody who means well: it does not cancel an unlock."""
        with self._working:
            self.devnet.fund(self.sender, deposit_wei=int(deposit_wei), reserve_wei=int(reserve_wei))
            return self.status()

    def unlock(self) -> dict[str, Any]:
        """The sender begins to take its funds out."""
        return self._as_sender("unlock()")

    def lock(self) -> dict[str, Any]:
        """… and thinks better of it."""
        return self._as_sender("cancelUnlock()")

    def next_round(self) -> dict[str, Any]:
        """Tickets of the round before the last expire with it. The orchestrator quotes it a moment later."""
        with self._working:
            self.devnet.next_round()
            time.sleep(ROUND_SETTLES_S)
            self.tick()
            return self.status()

    def set_odds(self, nearly_always: bool) -> dict[str, Any]:
        """How tickets of the next quotes win."""
        with self._working:
            (NEARLY_ALWAYS if nearly_always else ONE_IN_TEN).apply(self.orchestrator.settings)
            return self.status()

    def tick(self) -> None:
        """The orchestrator looks at the chain."""
        with self._working:
            settings = self.orchestrator.settings
            settings.last_seen_l1_block = int(self.devnet.rpc("eth_blockNumber"), 16)
            settings.last_initialized_round = self.devnet.round
            settings.last_initialized_round_block_hash = round_hash(self.devnet.round)
            _, withdraw_round, reserve, claimed = self._sender_info()
            settings.max_float_wei = reserve + claimed  # it is the only one in the pool
            settings.unlocking_senders = {self.sender} if withdraw_round else set()

    # --- how ---

    def _as_sender(self, call: str) -> dict[str, Any]:
        with self._working:
            with self.devnet.acting_as(self.sender):
                self.devnet.send("TicketBroker", call, sender=self.sender)
            self.tick()
            return self.status()

    def _sender_info(self) -> tuple[int, ...]:
        """Deposit, withdraw round, reserve, claimed in this round."""
        return decode(["uint256"] * 4, self.devnet.call("TicketBroker", "getSenderInfo(address)", self.sender))

    def _fees(self) -> int:
        return int.from_bytes(self.devnet.call("BondingManager", "fees(address)", self.orchestrator.address), "big")

    def _waiting(self) -> list[Ticket]:
        return [winner for winner in list(self.orchestrator.books.winners) if _key(winner) not in self._done]


def _key(ticket: Ticket) -> tuple[bytes, int]:
    return ticket.recipient_rand_hash, ticket.nonce


#: What other processes may ask for, by name.
COMMANDS: Final[Mapping[str, Callable[..., dict[str, Any]]]] = {
    "status": World.status,
    "redeem": World.redeem,
    "fund": World.fund,
    "unlock": World.unlock,
    "lock": World.lock,
    "round": World.next_round,
    "odds": World.set_odds,
}
