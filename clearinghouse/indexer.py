"""Reads on along the chain: events of our senders' escrows and new rounds, range by range, into the database.

A turn reads from where the last one ended. The block that it stands on is asked for again with every range: where it is
another one, the chain was reorganised, everything down to a block that is still the same is undone, and read again.
Of several processes one reads; the others stand by. Nothing of this is on the way of a payment.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from enum import StrEnum
from typing import Protocol

import psycopg
import structlog

from chain.log_reader import LogReader, Point
from chain.networks import NETWORKS
from chain.quorum import NoDecision, QuorumObserver
from chain.signatures import checksum_address
from clearinghouse.background import Repeated
from clearinghouse.chain_store import MATCHED_AT_ONCE_MAX, ChainStore, Match, Stand
from clearinghouse.chain_watch import Budgets, quorum_of
from clearinghouse.config_chain import ChainSettings
from clearinghouse.database.connect import SERVE_ROLE
from clearinghouse.hint import Hint

log = structlog.get_logger(__name__)


class ChainReplaced(NoDecision):
    """The chain is another one below what was taken for settled, or it is not the chain whose events are recorded."""


class Turn(StrEnum):
    """How a turn ended."""

    #: There is more to read at once.
    BEHIND = "behind"
    #: What is left, less than what settles a block, is the next poll's.
    CAUGHT_UP = "caught_up"
    #: Another process reads.
    STANDING_BY = "standing_by"


class IndexObserver(QuorumObserver, Protocol):
    """What metrics need to hear. Called from the event loop: it must not wait, and must not raise."""

    def index_read(self, *, behind_count: int) -> None: ...

    def index_reorganised(self) -> None: ...

    def index_leads(self, *, leads: bool) -> None: ...

    def redemptions_matched(self, status: str, count: int) -> None: ...

    def foreign_redemptions(self, count: int) -> None: ...


class SilentIndexObserver:
    """Hears nothing."""

    def rpc_ended(self, endpoint: str, outcome: str, elapsed_s: float) -> None: ...

    def rpc_disagreed(self) -> None: ...

    def index_read(self, *, behind_count: int) -> None: ...

    def index_reorganised(self) -> None: ...

    def index_leads(self, *, leads: bool) -> None: ...

    def redemptions_matched(self, status: str, count: int) -> None: ...

    def foreign_redemptions(self, count: int) -> None: ...


class Indexer:
    """`turn` again and again, by one task; `close` afterwards.

    `senders` are addresses of 20 bytes, besides those that the database knows. `from_block` is the first block to read
    where nothing was ever read; None begins at the newest that is confirmed.
    """

    def __init__(
        self,
        conninfo: str,
        reader: LogReader,
        *,
        chain_id: int,
        senders: Sequence[bytes],
        confirmations_count: int,
        from_block: int | None = None,
        role: str = SERVE_ROLE,
        observer: IndexObserver | None = None,
    ) -> None:
        self._conninfo, self._role = conninfo, role
        self._reader = reader
        self._chain_id = chain_id
        self._senders = frozenset(senders)
        self._confirmations_count = confirmations_count
        self._from_block = from_block
        self._observer = observer or SilentIndexObserver()
        self._store: ChainStore | None = None
        self._leads = False
        self._followed: frozenset[bytes] = frozenset()
        self._head_number = -1
        #: Blocks whose events are still to be read, as far as is known.
        self.behind_count = 0
        #: Everything up to this block was read, by this process or another; -1 before the first turn.
        self.at_number = -1

    async def turn(self) -> Turn:
        """One range at most. Raises NoDecision, or psycopg.OperationalError; after either it may be called again."""
        try:
            return await self._turn()
        except psycopg.OperationalError:
            await self.close()
            raise

    async def begin_at(self, from_block: int) -> None:
        """Forgets what was read of this block and of later ones. A process that reads goes on from here.

        Raises NoDecision, psycopg.OperationalError, or ValueError for a block that has none below it.
        """
        if from_block < 1:
            raise ValueError("the first block to read must have one below it")
        store = await self._connected()
        (at,) = await self._reader.points([from_block - 1])
        await store.begin(self._chain_id, at)
        self._followed = frozenset()

    async def close(self) -> None:
        """May be called twice. Whoever stands by may lead from here on."""
        store, self._store, self._leads = self._store, None, False
        self._observer.index_leads(leads=False)
        if store is not None:
            with contextlib.suppress(psycopg.OperationalError):  # it has ended already
                await store.close()

    async def _turn(self) -> Turn:
        store = await self._connected()
        if not self._leads:
            self._leads = await store.take_lead()
            self._observer.index_leads(leads=self._leads)
        self._observer.foreign_redemptions(await store.foreign_count())
        if not self._leads:
            return Turn.STANDING_BY
        stand = await store.stand() or await self._begin(store)
        if stand.chain_id != self._chain_id:
            raise ChainReplaced(f"the database has the events of chain {stand.chain_id}, this is {self._chain_id}")
        senders = await self._wanted(store)
        if self._head_number > stand.at.number and senders:
            return await self._read_on(store, stand, senders)
        # Only asked for here: otherwise every range brings the newest block of the next one, so that where blocks come
        # faster than polls a poll is one request. An endpoint that is behind makes the reader wait, and never go back.
        self._head_number = (await self._reader.head()).number
        return self._stands_at(stand.at.number)

    async def _read_on(self, store: ChainStore, stand: Stand, senders: Sequence[bytes]) -> Turn:
        said = await self._reader.read(stand.at.number, self._head_number, senders)
        self._head_number = said.head_number
        if said.at_hash != stand.at.hash:
            await self._undo(store, stand)
            return Turn.BEHIND
        if not await store.record(stand.at, said, confirmed_number=said.head_number - self._confirmations_count):
            return Turn.BEHIND  # moved by begin_at
        await self._match(store)
        return self._stands_at(said.end.number)

    def _stands_at(self, number: int) -> Turn:
        self.behind_count, self.at_number = max(self._head_number - number, 0), number
        self._observer.index_read(behind_count=self.behind_count)
        return Turn.BEHIND if self.behind_count > self._confirmations_count else Turn.CAUGHT_UP

    async def _connected(self) -> ChainStore:
        if self._store is None:
            self._store = await ChainStore.connected(self._conninfo, role=self._role)
        return self._store

    async def _begin(self, store: ChainStore) -> Stand:
        """For the first time."""
        if self._from_block is None:
            # Not the newest itself, which may be replaced before anything else is remembered.
            number = max((await self._reader.head()).number - self._confirmations_count, 0)
        else:
            number = self._from_block - 1
        (at,) = await self._reader.points([number])
        await store.begin(self._chain_id, at)
        log.info("chain_index_begins", block_number=number + 1)
        return Stand(self._chain_id, at, number)

    async def _wanted(self, store: ChainStore) -> list[bytes]:
        senders = [*dict.fromkeys([*sorted(self._senders), *await store.senders()])]
        if unknown := frozenset(senders) - self._followed:
            for sender in await store.follow(unknown):
                log.info("chain_sender_followed", sender=checksum_address(sender))
            self._followed = frozenset(senders)
        return senders

    async def _undo(self, store: ChainStore, stand: Stand) -> None:
        """Back to the newest block that is still what it was. Raises ChainReplaced where none is."""
        remembered = await store.points()
        now = dict(zip(remembered, await self._reader.points([point.number for point in remembered]), strict=True))
        still: Point | None = next((known for known, found in now.items() if known == found), None)
        if still is None:
            raise ChainReplaced(
                f"the chain is another one below block {remembered[-1].number}, which was confirmed: nothing is "
                "undone. If that is the truth: `clearinghouse chain index --from-block …`"
            )
        if await store.undo(stand.at, still):
            self._observer.index_reorganised()
            log.warning("chain_reorganised", at_block=stand.at.number, undone_count=stand.at.number - still.number)

    async def _match(self, store: ChainStore) -> None:
        while counts := await store.match():
            for status, count in counts.items():
                self._observer.redemptions_matched(status, count)
            if foreign := {str(s): count for s, count in counts.items() if s is not Match.MATCHED}:
                log.critical("foreign_redemptions", **foreign)
                self._observer.foreign_redemptions(await store.foreign_count())
            if sum(counts.values()) < MATCHED_AT_ONCE_MAX:
                return


class IndexWatch:
    """An indexer at work in the background: catches up, then looks for new blocks every `poll_s`."""

    def __init__(self, indexer: Indexer, *, poll_s: float) -> None:
        self._indexer = indexer
        self._trouble: str | None = None
        self._hint = Hint()
        self._repeated = Repeated("index-chain", self._catch_up, every_s=poll_s)

    def start(self) -> None:
        self._repeated.start()

    async def stop(self) -> None:
        await self._repeated.stop()
        await self._indexer.close()

    def wake(self, block_number: int) -> None:
        """Somebody says that this block has something for us: it is read now. The word is not believed."""
        self._hint.heard(block_number)
        self._repeated.wake()

    async def _catch_up(self) -> None:
        try:
            await self._read_on()
            if self._hint.is_open:
                await self._look_at_hint()
        except (NoDecision, psycopg.OperationalError) as error:
            trouble = str(error) if isinstance(error, NoDecision) else "the database does not answer"
            if trouble != self._trouble:
                level = log.critical if isinstance(error, ChainReplaced) else log.warning
                level("chain_not_indexed", reason=trouble)
            self._trouble = trouble
        else:
            self._trouble = None

    async def _read_on(self) -> None:
        while await self._indexer.turn() is Turn.BEHIND:
            pass

    async def _look_at_hint(self) -> None:
        """The range that was just read ends at a block that was the newest before it; what came with it is newer."""
        await self._read_on()
        self._hint.looked(self._indexer.at_number)
        if self._hint.is_open:
            self._repeated.wake()


@asynccontextmanager
async def indexer_of(
    settings: ChainSettings,
    conninfo: str,
    senders: Sequence[bytes],
    *,
    role: str = SERVE_ROLE,
    observer: IndexObserver | None = None,
    budgets: Budgets | None = None,
) -> AsyncIterator[Indexer]:
    """An indexer over connections of its own, while the block lasts. `settings` name endpoints."""
    network = NETWORKS[settings.network]
    quorum = quorum_of(settings, observer=observer, budgets=budgets)
    try:
        indexer = Indexer(
            conninfo,
            LogReader(quorum, network, width_max_count=settings.index_range_max_count),
            chain_id=network.chain_id,
            senders=senders,
            confirmations_count=settings.confirmations_count,
            from_block=settings.index_from_block,
            role=role,
            observer=observer,
        )
        try:
            yield indexer
        finally:
            await indexer.close()
    finally:
        await quorum.close()
