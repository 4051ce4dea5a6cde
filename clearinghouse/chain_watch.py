"""The chain, watched in the background: every few seconds the escrow and the round, every round the orchestrators.

What signing depends on is answered from memory (`escrow`, `recipients`), and each answer has an age: where the chain
was not read for `chain.stale_max_s`, whatever the reason, tickets that depend on it are refused; nothing is guessed.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from enum import StrEnum
from typing import Final, Protocol

import structlog

from chain.escrow import EscrowUnknown, EscrowView
from chain.escrow_reader import ChainReading, EscrowReader, Lock
from chain.networks import NETWORKS
from chain.orchestrators import OrchestratorReader
from chain.quorum import Disagreement, NoDecision, Quorum, QuorumObserver
from chain.rpc import RpcEndpoint
from clearinghouse.background import Repeated
from clearinghouse.config import ChainSettings
from clearinghouse.readiness import NotReady
from clearinghouse.registry import ActiveOrchestrators

log = structlog.get_logger(__name__)

#: How long a start waits for the first reading. Without one the service starts all the same, and refuses.
FIRST_READING_TIMEOUT_S: Final = 8


class Poll(StrEnum):
    """How a poll ended: a metric's label."""

    READ = "read"
    NO_DECISION = "no_decision"
    DISAGREEMENT = "disagreement"


class ChainObserver(QuorumObserver, Protocol):
    """What metrics need to hear. Called from the event loop: it must not wait, and must not raise."""

    def chain_polled(self, outcome: Poll) -> None: ...

    def chain_read(self, *, round_: int, active_count: int) -> None: ...


class ChainWatch:
    """`start` before use, `stop` after; both belong to one event loop."""

    def __init__(
        self,
        reader: EscrowReader,
        orchestrators: OrchestratorReader,
        *,
        poll_s: float,
        stale_max_s: int,
        observer: ChainObserver | None,
    ) -> None:
        self._reader = reader
        self._orchestrators = orchestrators
        self._observer = observer
        self.recipients = ActiveOrchestrators(reader, stale_max_s=stale_max_s)
        #: Why there is nothing new, for whoever asks; None while all is well.
        self._trouble: str | None = None
        self._lock = Lock.LOCKED
        self._polling = Repeated("watch-chain", self._poll, every_s=poll_s)

    @property
    def escrow(self) -> EscrowView:
        return self._reader

    def age_s(self) -> int | None:
        """Of the newest reading, fresh or not; None before the first."""
        return self._reader.age_s()

    async def start(self) -> None:
        """Waits for the first reading, but not for long: an endpoint that is away must not keep a service away."""
        try:
            async with asyncio.timeout(FIRST_READING_TIMEOUT_S):
                await self._poll()
        except TimeoutError:
            self._be_in_trouble(f"no reading within {FIRST_READING_TIMEOUT_S} s")
        self._polling.start(at_once=False)

    async def stop(self) -> None:
        await self._polling.stop()

    async def probe(self) -> str:
        """For readiness. Raises NotReady where tickets are refused for want of a reading."""
        try:
            reading = self._reader.newest()
        except EscrowUnknown as unknown:
            raise NotReady(f"{unknown}{f': {self._trouble}' if self._trouble else ''}") from None
        if self.recipients.listed is None:
            raise NotReady(f"the orchestrators were not read yet{f': {self._trouble}' if self._trouble else ''}")
        return (
            f"block {reading.block.number}, {self._reader.age_s()} s old, round {reading.rounds.current}, "
            f"{self.recipients.listed.active_count()} active orchestrators, escrow {reading.lock.value}"
        )

    async def _poll(self) -> None:
        try:
            reading = await self._reader.poll()
            await self._refresh(reading)
        except NoDecision as reason:
            outcome = Poll.DISAGREEMENT if isinstance(reason, Disagreement) else Poll.NO_DECISION
            self._be_in_trouble(str(reason))
        else:
            outcome = Poll.READ
            self._be_well(reading)
        if self._observer is not None:
            self._observer.chain_polled(outcome)

    async def _refresh(self, reading: ChainReading) -> None:
        """The list of orchestrators, where it is not of this reading's round."""
        listed = self.recipients.listed
        if listed is None or listed.round != reading.rounds.current:
            listed = await self._orchestrators.read(reading.contracts, reading.block.hash)
            self.recipients.learn(listed)
        self.recipients.confirm(reading)
        if self._observer is not None:
            self._observer.chain_read(round_=reading.rounds.current, active_count=listed.active_count())

    def _be_in_trouble(self, reason: str) -> None:
        if reason != self._trouble:
            log.warning("chain_not_read", reason=reason)
        self._trouble = reason

    def _be_well(self, reading: ChainReading) -> None:
        if self._trouble is not None:
            log.info("chain_read_again", block_number=reading.block.number)
        self._trouble = None
        if reading.lock is not self._lock:
            log.warning("escrow_lock_changed", state=reading.lock.value, withdraw_round=reading.withdraw_round)
        self._lock = reading.lock


@asynccontextmanager
async def chain_watched(
    settings: ChainSettings, sender: bytes, *, observer: ChainObserver | None = None
) -> AsyncIterator[ChainWatch]:
    """The watch over `sender`'s escrow, while the block lasts. `settings` name endpoints."""
    quorum = quorum_of(settings, observer=observer)
    try:
        network, stale_max_s = NETWORKS[settings.network], settings.stale_max_s
        reader = EscrowReader(quorum, network, sender, stale_max_s=stale_max_s)
        watch = ChainWatch(
            reader, OrchestratorReader(quorum), poll_s=settings.poll_s, stale_max_s=stale_max_s, observer=observer
        )
        await watch.start()
        try:
            yield watch
        finally:
            await watch.stop()
    finally:
        await quorum.close()


def endpoints_of(settings: ChainSettings) -> list[RpcEndpoint]:
    """The configured endpoints, named by their place in the list: a URL holds a key and is shown to nobody."""
    return [RpcEndpoint(url.get_secret_value(), name=f"rpc-{at}") for at, url in enumerate(settings.rpc_urls or (), 1)]


def quorum_of(settings: ChainSettings, *, observer: QuorumObserver | None = None) -> Quorum:
    """All of them together."""
    return Quorum(
        endpoints_of(settings),
        chain_id=NETWORKS[settings.network].chain_id,
        count=settings.quorum_count,
        timeout_s=settings.timeout_s,
        head_age_max_s=settings.stale_max_s,
        observer=observer,
    )
