"""Small work beside the calls: credit that expires, billing terms that begin, answers and prices that are forgotten,
sessions that end, the book of open tickets that stays small, fees that stand out, changes to plans that were cut off,
an embedded database that died."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import LiteralString

import structlog
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from clearinghouse import exposure_book, price_store
from clearinghouse.background import Repeated
from clearinghouse.coverage import snapshots
from clearinghouse.database.batches import to_its_end
from clearinghouse.database.connect import DATABASE_FAILED
from clearinghouse.database.embedded import EmbeddedPostgres
from clearinghouse.errors import AccountBusy
from clearinghouse.fee_watch import FeeWatch, note_low_fees
from clearinghouse.identity import plans
from clearinghouse.ids import show
from clearinghouse.metrics import Metrics
from clearinghouse.usage import SESSION_IDLE_S

log = structlog.get_logger(__name__)

TIDY_INTERVAL_S = 30
CLOSE_SESSIONS_INTERVAL_S = 10
#: What is not rolled up yet is read through whenever the book is looked at.
ROLL_UP_INTERVAL_S = 1
FEE_WATCH_INTERVAL_S = 60
#: Commits apply terms that begin by themselves; this is for who would be refused before a commit.
TERMS_INTERVAL_S = 1
#: Of one transaction: what signs for these gateways waits for it, and months begin, or credit ends, for all at once.
ACCOUNTS_AT_ONCE_COUNT = 50
SUPERVISE_INTERVAL_S = 0.5


class Housekeeping:
    """Background tasks that every serving process may run at the same time as any other."""

    def __init__(
        self,
        engine: AsyncEngine,
        *,
        keyed_answers_kept: timedelta,
        price_observations_kept: timedelta,
        coverage_snapshots_kept: timedelta,
        fee_watch: FeeWatch,
        embedded: EmbeddedPostgres | None,
        metrics: Metrics,
    ) -> None:
        self._engine = engine
        self._keyed_answers_kept = keyed_answers_kept
        self._price_observations_kept = price_observations_kept
        self._coverage_snapshots_kept = coverage_snapshots_kept
        self._fee_watch = fee_watch
        self._embedded = embedded
        self._metrics = metrics
        self._works = [
            Repeated("tidy", self._tidy, every_s=TIDY_INTERVAL_S),
            Repeated("close-idle-sessions", self._close_idle_sessions, every_s=CLOSE_SESSIONS_INTERVAL_S),
            Repeated("roll-up-exposure", self._roll_up_exposure, every_s=ROLL_UP_INTERVAL_S),
            Repeated("watch-fees", self._watch_fees, every_s=FEE_WATCH_INTERVAL_S),
            Repeated("apply-terms", self._apply_terms, every_s=TERMS_INTERVAL_S),
        ]
        if embedded is not None:
            self._works.append(Repeated("supervise-database", self._supervise, every_s=SUPERVISE_INTERVAL_S))

    async def start(self) -> None:
        for work in self._works:
            work.start()

    async def stop(self) -> None:
        await asyncio.gather(*(work.stop() for work in self._works))

    async def _tidy(self) -> None:
        try:
            await in_turn(self._engine, "SELECT settle_due_lots(:at_most)")
            await forget_keyed_answers(self._engine, older_than=self._keyed_answers_kept)
            await price_store.forget_observations(self._engine, older_than=self._price_observations_kept)
            await snapshots.forget(self._engine, older_than=self._coverage_snapshots_kept)
            await exposure_book.forget(self._engine)
            await plans.apply_left_over(self._engine)
        except (*DATABASE_FAILED, AccountBusy) as error:
            log.warning("tidy_postponed", reason=type(error).__name__, retry_in_s=TIDY_INTERVAL_S)

    async def _close_idle_sessions(self) -> None:
        try:
            await close_idle_sessions(self._engine, idle=timedelta(seconds=SESSION_IDLE_S))
        except DATABASE_FAILED as error:
            log.warning("sessions_not_closed", reason=type(error).__name__, retry_in_s=CLOSE_SESSIONS_INTERVAL_S)

    async def _roll_up_exposure(self) -> None:
        try:
            await exposure_book.roll_up(self._engine)
        except DATABASE_FAILED as error:
            log.warning("exposure_not_rolled_up", reason=type(error).__name__, retry_in_s=ROLL_UP_INTERVAL_S)

    async def _apply_terms(self) -> None:
        try:
            await in_turn(self._engine, "SELECT apply_all_due_terms(:at_most)")
        except DATABASE_FAILED as error:
            log.warning("terms_not_applied", reason=type(error).__name__, retry_in_s=TERMS_INTERVAL_S)

    async def _watch_fees(self) -> None:
        try:
            noted = await note_low_fees(self._engine, self._fee_watch)
        except DATABASE_FAILED as error:
            log.warning("fees_not_watched", reason=type(error).__name__, retry_in_s=FEE_WATCH_INTERVAL_S)
            return
        for low in noted:
            self._metrics.low_fees_noted()
            amounts = {"fee_day_wei": str(low.fee_wei), "ev_day_wei": str(low.ev_wei)}
            log.warning("fees_below_ev", gateway_id=show("gw", low.gateway_id), **amounts)

    async def _supervise(self) -> None:
        assert self._embedded is not None, "only an embedded database is supervised"
        if await asyncio.to_thread(self._embedded.ensure_running):
            self._metrics.embedded_database_restarted()
            log.error("embedded_database_restarted")


async def in_turn(engine: AsyncEngine, call: LiteralString) -> int:
    """What is due of accounts, a few of them at a time. Returns of how many it was done."""
    parameters = {"at_most": ACCOUNTS_AT_ONCE_COUNT}
    return await to_its_end(engine, call, parameters, rows_at_once_count=ACCOUNTS_AT_ONCE_COUNT)


async def forget_keyed_answers(engine: AsyncEngine, *, older_than: timedelta) -> int:
    """Forgets what was kept for idempotency keys for so long, in transactions of a bounded size. Returns how many."""
    return await to_its_end(engine, "SELECT forget_keyed_answers(:older_than)", {"older_than": older_than})


async def close_idle_sessions(engine: AsyncEngine, *, idle: timedelta) -> int:
    """Closes the sessions in which nothing was paid for so long, gateway by gateway: no account is held for the others.

    Returns how many.
    """
    async with engine.connect() as connection:
        query = "SELECT DISTINCT gateway_id FROM session WHERE NOT closed AND updated_at < now() - :idle ORDER BY 1"
        gateways = (await connection.execute(text(query), {"idle": idle})).scalars().all()
    closed_count = 0
    for gateway_id in gateways:
        async with engine.begin() as connection:
            close = text("SELECT close_idle_sessions(:gateway_id, :idle)")
            closed_count += (await connection.execute(close, {"gateway_id": gateway_id, "idle": idle})).scalar_one()
    return closed_count
