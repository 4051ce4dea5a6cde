"""Acts upon Stripe's events, in every `clearinghouse work` at once: the database says whose turn an event is."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import Final

import structlog
from sqlalchemy.ext.asyncio import AsyncEngine

from clearinghouse.background import end
from clearinghouse.config_stripe import StripeSettings
from clearinghouse.database.connect import DATABASE_FAILED, WORK_ROLE, async_engine, database_now, in_role
from settlement.runs import words_of
from settlement.stripe_link import inbox
from settlement.stripe_link.client import StripeAway, StripeNotAllowed, stripe_link
from settlement.stripe_link.desk import Desk, Handler, Park
from settlement.stripe_link.inbox import Pace, Taken
from settlement.stripe_link.inbox_metrics import InboxMetrics
from settlement.wakes import wake_on

log = structlog.get_logger(__name__)

#: Objects asked for at the same time.
_AT_ONCE_COUNT: Final = 4
#: A handler may hold one connection while it opens another.
_POOL_SIZE: Final = 2 * _AT_ONCE_COUNT + 1
#: How often the inbox is looked at where nothing was heard of it.
_LOOK_EVERY_S: Final = 1
#: How often it is counted.
_WATCH_EVERY_S: Final = 10
#: While Stripe is away it is not asked about each event anew.
_AWAY_FOR_S: Final = 5
#: For putting back what was not finished.
_CUT_OFF_MAX_S: Final = 5
_NOTHING_TO_DO: Final = "nothing to do"


class Processor:
    """`run` until it is told to stop; once. `conninfo` needs the rights of clearinghouse_work, without a pooler."""

    def __init__(
        self,
        conninfo: str,
        settings: StripeSettings,
        handlers: Mapping[str, Handler],
        *,
        metrics: InboxMetrics,
        shutdown_timeout_s: float,
        pace: Pace | None = None,
    ) -> None:
        self._conninfo = conninfo
        self._settings = settings
        self._handlers = handlers
        self._metrics = metrics
        self._shutdown_timeout_s = shutdown_timeout_s
        self._pace = pace or Pace()
        self._news = asyncio.Event()
        self._under_way: set[asyncio.Task[None]] = set()
        self._not_before_s = 0.0
        self._watched_at_s = float("-inf")
        self._is_away = False

    async def run(self, stop: asyncio.Event) -> None:
        """What is under way then has `shutdown_timeout_s` to end; what has not ended is put back for others."""
        own = in_role(self._conninfo, WORK_ROLE, application_name="clearinghouse-stripe", statement_timeout="60s")
        engine = async_engine(own, pool_size=_POOL_SIZE)
        told = asyncio.create_task(_told(stop, self._news), name="stripe-events-stop")
        heard = asyncio.create_task(
            wake_on(self._conninfo, "stripe_event", "clearinghouse-stripe-wakes", self._news.set, _LOOK_EVERY_S),
            name="stripe-events-wakes",
        )
        try:
            async with stripe_link(self._settings) as link:
                desk = Desk(link, engine)
                try:
                    while not stop.is_set():
                        self._news.clear()
                        await self._looked(desk)
                        await self._pause()
                finally:
                    await self._end_all()
        finally:
            await end(told, heard)
            await engine.dispose()

    async def _looked(self, desk: Desk) -> None:
        """No failure ends it: the next look may go well."""
        try:
            await self._look(desk)
        except DATABASE_FAILED as error:
            self._say_away(error)
        except Exception:
            log.exception("stripe_events_not_looked_at")

    async def _look(self, desk: Desk) -> None:
        """Begins with whatever is due, as far as there are hands for it."""
        now_s = asyncio.get_running_loop().time()
        free = _AT_ONCE_COUNT - len(self._under_way)
        if now_s - self._watched_at_s >= _WATCH_EVERY_S:
            await self._watch(desk.engine)
            self._watched_at_s = now_s
        if free <= 0 or now_s < self._not_before_s:
            return
        async with desk.transaction() as connection:
            taken = await inbox.take(connection, count=free, pace=self._pace)
        self._is_away = False
        by_object = sorted(taken, key=_object_of)
        for _, events in groupby(by_object, key=_object_of):
            task = asyncio.create_task(self._act(desk, list(events)), name="stripe-event")
            self._under_way.add(task)
            task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._under_way.discard(task)
        self._news.set()
        if not task.cancelled() and (error := task.exception()) is not None:
            # Only the record of what was done can fail; the lease runs out, and the event is acted upon again.
            log.warning("stripe_event_not_recorded", reason=words_of(error))

    async def _act(self, desk: Desk, events: Sequence[Taken]) -> None:
        """One object, and all events about it that are due."""
        object_type, object_id = events[0].object_type, events[0].object_id
        handler = self._handlers.get(object_type)
        if handler is None or object_id is None:
            await self._record_done(desk, events, _NOTHING_TO_DO)
            return
        try:
            async with asyncio.timeout(self._pace.handler_timeout_s):
                said = await handler(desk, object_id)
        except asyncio.CancelledError:
            await self._record_put_back(desk, events)
            raise
        except Park as reason:
            await self._record_parked(desk, events, str(reason), failures=0)
        except StripeAway as reason:
            await self._record_away(desk, events, reason)
        except Exception as error:
            log.exception("stripe_event_failed", object=object_id, events=[each.id for each in events])
            await self._record_failed(desk, events, f"{type(error).__name__}: {words_of(error)}")
        else:
            await self._record_done(desk, events, said)

    async def _record_done(self, desk: Desk, events: Sequence[Taken], said: str) -> None:
        async with desk.transaction() as connection:
            count = await inbox.done(connection, events, said)
        self._metrics.ended("done", count)
        self._metrics.ended("overtaken", len(events) - count)
        log.debug("stripe_events_done", object=events[0].object_id, count=count, said=said)

    async def _record_parked(self, desk: Desk, events: Sequence[Taken], reason: str, *, failures: int) -> None:
        async with desk.transaction() as connection:
            count = await inbox.park(connection, events, reason, failures=failures)
        self._metrics.ended("parked", count)
        log.error("stripe_events_parked", object=events[0].object_id, events=[one.id for one in events], reason=reason)

    async def _record_away(self, desk: Desk, events: Sequence[Taken], reason: StripeAway) -> None:
        """Not the event's fault, however long it lasts. A key that may not do one thing may do others."""
        if not isinstance(reason, StripeNotAllowed):
            self._not_before_s = asyncio.get_running_loop().time() + _AWAY_FOR_S
        pause = min(self._pace.longest_away, self._pace.pause(max(each.attempt for each in events)))
        async with desk.transaction() as connection:
            await inbox.try_again(connection, events, str(reason), pause=pause, failures=0)
        self._metrics.ended("away", len(events))
        log.warning("stripe_event_waits", object=events[0].object_id, reason=str(reason), retry_in_s=pause.seconds)

    async def _record_failed(self, desk: Desk, events: Sequence[Taken], reason: str) -> None:
        failures = 1 + max(each.failures_count for each in events)
        if failures >= self._pace.failures_max:
            await self._record_parked(desk, events, f"failed {failures} times: {reason}", failures=1)
            return
        pause = self._pace.pause(failures)
        async with desk.transaction() as connection:
            await inbox.try_again(connection, events, reason, pause=pause, failures=1)
        self._metrics.ended("failed", len(events))

    async def _record_put_back(self, desk: Desk, events: Sequence[Taken]) -> None:
        """Told to stop: others need not wait for the lease to run out."""
        async with asyncio.timeout(_CUT_OFF_MAX_S), desk.transaction() as connection:
            await inbox.try_again(connection, events, None, pause=self._pace.first_pause * 0, failures=0)
        self._metrics.ended("given_back", len(events))

    async def _watch(self, engine: AsyncEngine) -> None:
        async with engine.connect() as connection:
            self._metrics.saw(await inbox.backlog(connection), await database_now(connection))

    async def _pause(self) -> None:
        """Until something was heard, or until it is time to look anyway."""
        try:
            async with asyncio.timeout(_LOOK_EVERY_S):
                await self._news.wait()
        except TimeoutError:
            return

    async def _end_all(self) -> None:
        if not self._under_way:
            return
        _, hanging = await asyncio.wait(self._under_way, timeout=self._shutdown_timeout_s)
        for task in hanging:
            task.cancel()
        if hanging:
            await asyncio.wait(hanging, timeout=_CUT_OFF_MAX_S + 1)
            log.warning("stripe_events_put_back", count=len(hanging))

    def _say_away(self, error: Exception) -> None:
        """Once: it is looked at every second."""
        if not self._is_away:
            log.warning("stripe_events_not_read", reason=words_of(error).partition("\n")[0], retry_in_s=_LOOK_EVERY_S)
        self._is_away = True


def _object_of(event: Taken) -> tuple[str, str]:
    return (event.object_type, event.object_id or "")


async def _told(stop: asyncio.Event, news: asyncio.Event) -> None:
    await stop.wait()
    news.set()
