"""Listens for what happens to our escrows, and wakes those who read the chain. Where nobody is heard, they read on as
often as they do without.

One endpoint is listened to at a time. When it ends, or goes silent, the next in the list is; an endpoint that does not
stay is asked less and less often.
"""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Callable, Sequence
from typing import Final, Protocol

import structlog

from chain.contracts import Contracts
from chain.log_feed import FeedEnded, listen
from chain.log_reader import filters
from clearinghouse.background import end

log = structlog.get_logger(__name__)

_BACKOFF_FIRST_S: Final = 1
_BACKOFF_MAX_S: Final = 60
#: A connection that lasted so long was a good one.
_LASTED_S: Final = 60
_SUBJECT_EVERY_S: Final = 1

Subject = tuple[Contracts, tuple[bytes, ...]]


class FeedObserver(Protocol):
    """What metrics need to hear. Called from the event loop: it must not wait, and must not raise."""

    def feed_listens(self, *, listens: bool) -> None: ...

    def feed_ended(self, endpoint: str, reason: str) -> None:
        """`reason` is a chain.log_feed.Ending."""
        ...

    def feed_heard(self) -> None: ...


class ChainFeed:
    """`start` before use, `stop` after; both belong to one event loop.

    `subject` says what to listen for, None while that is not known; where it changes, what is listened for does too.
    `wake` is called with the number of a block.
    """

    def __init__(
        self,
        urls: Sequence[str],
        *,
        chain_id: int,
        subject: Callable[[], Subject | None],
        wake: Callable[[int], None],
        silent_max_s: float,
        observer: FeedObserver | None = None,
    ) -> None:
        self._endpoints = [(f"ws-{at}", url) for at, url in enumerate(urls, 1)]
        self._chain_id = chain_id
        self._subject, self._wake = subject, wake
        self._silent_max_s = silent_max_s
        self._observer = observer
        self._failures_in_a_row = 0
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        assert self._task is None, "starts once"
        self._task = asyncio.create_task(self._go_on(), name="chain-feed")

    async def stop(self) -> None:
        """May be called twice, and without a start."""
        if self._task is not None:
            await end(self._task)

    async def _go_on(self) -> None:
        for name, url in itertools.cycle(self._endpoints):
            try:
                while True:  # until it fails: a changed subject is listened for at the same endpoint
                    if (subject := self._subject()) is None:
                        await asyncio.sleep(_SUBJECT_EVERY_S)
                    else:
                        await self._listen(name, url, subject)
            except FeedEnded as ended:
                self._tell_ended(name, ended)
            except Exception:  # a bug, which must not end the feed
                log.exception("background_work_failed", work="chain-feed")
            backoff_s = min(_BACKOFF_MAX_S, _BACKOFF_FIRST_S * 2 ** min(self._failures_in_a_row, 10))
            self._failures_in_a_row += 1
            await asyncio.sleep(backoff_s)

    async def _listen(self, name: str, url: str, subject: Subject) -> None:
        """Until it ends, or something else is to be listened for. Raises FeedEnded."""
        contracts, senders = subject
        begun_s = time.monotonic()

        def subscribed() -> None:
            log.info("chain_feed_listens", endpoint=name, senders_count=len(senders))
            if self._observer is not None:
                self._observer.feed_listens(listens=True)

        try:
            await listen(
                url, filters(contracts, senders), chain_id=self._chain_id, silent_max_s=self._silent_max_s,
                subscribed=subscribed, heard=self._heard, is_wanted=lambda: self._subject() in {None, subject},
            )  # fmt: skip
        finally:
            if time.monotonic() - begun_s >= _LASTED_S:
                self._failures_in_a_row = 0
            if self._observer is not None:
                self._observer.feed_listens(listens=False)

    def _heard(self, block_number: int) -> None:
        if self._observer is not None:
            self._observer.feed_heard()
        self._wake(block_number)

    def _tell_ended(self, name: str, ended: FeedEnded) -> None:
        log.warning("chain_feed_ended", endpoint=name, reason=ended.ending.value)
        if self._observer is not None:
            self._observer.feed_ended(name, ended.ending.value)
