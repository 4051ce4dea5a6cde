"""The chain, watched in the background: every few seconds the escrow and the round, every round the orchestrators.

What signing depends on is answered from memory (`escrow`, `recipients`), and each answer has an age: where the chain
was not read for `chain.stale_max_s`, whatever the reason, tickets that depend on it are refused; nothing is guessed.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from enum import StrEnum
from functools import partial
from typing import TYPE_CHECKING, Final, Protocol

import structlog

from chain.chain_reading import ChainReading, Lock
from chain.escrow import EscrowUnknown, EscrowView
from chain.escrow_reader import EscrowReader
from chain.networks import NETWORKS
from chain.orchestrators import OrchestratorReader
from chain.quorum import Disagreement, NoDecision, Quorum, QuorumObserver
from chain.rpc import RpcEndpoint
from chain.rpc_budget import RequestBudget
from chain.signatures import checksum_address
from clearinghouse.background import Repeated
from clearinghouse.config_chain import ChainSettings
from clearinghouse.hint import Hint
from clearinghouse.readiness import NotReady
from clearinghouse.registry import ActiveOrchestrators

if TYPE_CHECKING:
    from clearinghouse.chain_feed import FeedObserver, Subject

log = structlog.get_logger(__name__)

#: How long a start waits for the first reading. Without one the service starts all the same, and refuses.
FIRST_READING_TIMEOUT_S: Final = 8
#: Endpoints that agree about one block and not about the next are still in disagreement.
DISAGREED_S: Final = 20


#: Of requests, by an endpoint's name.
Budgets = Mapping[str, RequestBudget]


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
        #: What was last disagreed about, and when, in monotonic seconds.
        self._disagreed: tuple[str, float] | None = None
        self._locks: dict[bytes, Lock] = {}
        self._hint = Hint()
        self._told: list[Callable[[int], None]] = []
        self._polling = Repeated("watch-chain", self._poll, every_s=poll_s)

    @property
    def escrow(self) -> EscrowView:
        return self._reader

    def newest(self) -> ChainReading:
        """Everything of the newest reading, the escrows of all senders among it. From memory.

        Raises EscrowUnknown where there is none that is fresh.
        """
        return self._reader.newest()

    def follow(self, senders: Iterable[bytes]) -> None:
        """Whose escrows (addresses of 20 bytes) are read beside the signers' own, from the next poll on."""
        self._reader.follow(senders)

    def want_claims(self, claimants: Mapping[bytes, Sequence[bytes]]) -> None:
        """By sender, recipients of whom it matters what they claimed of its reserve: see EscrowReader.want_claims."""
        self._reader.want_claims(claimants)

    def subject(self) -> Subject | None:
        """What is read, for whoever listens for changes of it; None while that is not known."""
        return self._reader.subject()

    def wake(self, block_number: int) -> None:
        """Somebody says that this block has something for us: it is read now, and so do those that `also_wake` named.

        The word is not believed: it costs two requests to each endpoint, a few times at most.
        """
        self._hint.heard(block_number)
        self._polling.wake()
        for tell in self._told:
            tell(block_number)

    def also_wake(self, tell: Callable[[int], None]) -> None:
        """`tell` is called with the blocks that `wake` is called with."""
        self._told.append(tell)

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
            f"{self.recipients.listed.active_count()} active orchestrators, escrow "
            f"{reading.escrows[self._reader.sender].lock.value}"
        )

    async def agreement_probe(self) -> str:
        """Raises NotReady where endpoints said different things about a block a moment ago, whoever was right."""
        if self._disagreed is not None and time.monotonic() - self._disagreed[1] < DISAGREED_S:
            raise NotReady(self._disagreed[0])
        return "the endpoints agree"

    async def _poll(self) -> None:
        try:
            reading = await self._reader.poll(of_now=self._hint.is_open)
            self._look_again(reading.block.number)
            await self._refresh(reading)
        except NoDecision as reason:
            outcome = Poll.NO_DECISION
            if isinstance(reason, Disagreement):
                outcome, self._disagreed = Poll.DISAGREEMENT, (str(reason), time.monotonic())
            self._be_in_trouble(str(reason))
        else:
            outcome = Poll.READ
            self._be_well(reading)
        if self._observer is not None:
            self._observer.chain_polled(outcome)

    def _look_again(self, at_number: int) -> None:
        """Soon, where the block that was spoken of is not read yet."""
        self._hint.looked(at_number)
        if self._hint.is_open:
            self._polling.wake()

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
        for sender, escrow in reading.escrows.items():
            if escrow.lock is not self._locks.get(sender, Lock.LOCKED):
                log.warning(
                    "escrow_lock_changed",
                    sender=checksum_address(sender),
                    state=escrow.lock.value,
                    withdraw_round=escrow.withdraw_round,
                )
            self._locks[sender] = escrow.lock


@asynccontextmanager
async def chain_watched(
    settings: ChainSettings,
    sender: bytes,
    *,
    observer: ChainObserver | None = None,
    feed_observer: FeedObserver | None = None,
    budgets: Budgets | None = None,
) -> AsyncIterator[ChainWatch]:
    """The watch over `sender`'s escrow, while the block lasts. `settings` name endpoints."""
    quorum = quorum_of(settings, observer=observer, budgets=budgets)
    try:
        network, stale_max_s = NETWORKS[settings.network], settings.stale_max_s
        reader = EscrowReader(quorum, network, sender, stale_max_s=stale_max_s)
        watch = ChainWatch(
            reader, OrchestratorReader(quorum), poll_s=settings.poll_s, stale_max_s=stale_max_s, observer=observer
        )
        await watch.start()
        try:
            async with _listening(settings, watch, feed_observer):
                yield watch
        finally:
            await watch.stop()
    finally:
        await quorum.close()


@asynccontextmanager
async def _listening(settings: ChainSettings, watch: ChainWatch, observer: FeedObserver | None) -> AsyncIterator[None]:
    """Beside the polls, where there are endpoints to listen to."""
    if settings.ws_urls is None:
        yield
        return
    from clearinghouse.chain_feed import ChainFeed  # noqa: PLC0415 - a tenth of a second that few need

    feed = ChainFeed(
        [url.get_secret_value() for url in settings.ws_urls],
        chain_id=NETWORKS[settings.network].chain_id,
        subject=watch.subject,
        wake=watch.wake,
        silent_max_s=settings.ws_silent_max_s,
        observer=observer,
    )
    feed.start()
    try:
        yield
    finally:
        await feed.stop()


def budgets_of(settings: ChainSettings, *, waited: Callable[[str, float], None] | None = None) -> Budgets:
    """What each endpoint may be sent, by its name: one for all in this process that ask it."""

    def budget(name: str) -> RequestBudget:
        if waited is None:
            return RequestBudget(settings.rpc_requests_per_s)
        return RequestBudget(settings.rpc_requests_per_s, waited_s=partial(waited, name))

    return {name: budget(name) for name, _ in _named_urls(settings)}


def endpoints_of(settings: ChainSettings, budgets: Budgets | None = None) -> list[RpcEndpoint]:
    """The configured endpoints. Without `budgets` they get some of their own."""
    budgets = budgets_of(settings) if budgets is None else budgets
    return [RpcEndpoint(url, name=name, budget=budgets[name]) for name, url in _named_urls(settings)]


def _named_urls(settings: ChainSettings) -> list[tuple[str, str]]:
    """Named by their place in the list: a URL holds a key and is shown to nobody."""
    return [(f"rpc-{at}", url.get_secret_value()) for at, url in enumerate(settings.rpc_urls or (), 1)]


def quorum_of(
    settings: ChainSettings, *, observer: QuorumObserver | None = None, budgets: Budgets | None = None
) -> Quorum:
    """All of them together."""
    return Quorum(
        endpoints_of(settings, budgets),
        chain_id=NETWORKS[settings.network].chain_id,
        count=settings.quorum_count,
        timeout_s=settings.timeout_s,
        head_age_max_s=settings.stale_max_s,
        observer=observer,
    )
