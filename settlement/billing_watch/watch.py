"""Reads the figures every half minute, in every `clearinghouse work`, whether it leads or not."""

from __future__ import annotations

import asyncio
from typing import Final

import structlog
from psycopg.errors import QueryCanceled
from sqlalchemy.exc import OperationalError
from sqlalchemy.ext.asyncio import AsyncEngine

from clearinghouse.background import Repeated
from clearinghouse.config_dunning import DunningSettings
from clearinghouse.database.connect import DATABASE_FAILED, WORK_ROLE, async_engine, in_role
from clearinghouse.dunning_steps import Policy, policy_of
from settlement.billing_watch.figures import FIGURES, Figure, Rows, read
from settlement.billing_watch.metrics import BillingMetrics

log = structlog.get_logger(__name__)

EVERY_S: Final = 30
#: Of one figure. What takes longer is left out: it must not cost the database more than it is worth.
QUERY_TIMEOUT: Final = "2s"


def watch_engine(conninfo: str, *, query_timeout: str = QUERY_TIMEOUT) -> AsyncEngine:
    """One connection, each query for itself and for a short time."""
    own = in_role(
        conninfo, WORK_ROLE, application_name="clearinghouse-billing-watch", statement_timeout=query_timeout
    )  # fmt: skip
    return async_engine(own, pool_size=1, autocommit=True)


class BillingWatch:
    """`run` until it is told to stop. `conninfo` needs the rights of clearinghouse_work."""

    def __init__(
        self,
        conninfo: str,
        dunning: DunningSettings,
        metrics: BillingMetrics,
        *,
        figures: tuple[Figure, ...] = FIGURES,
        every_s: float = EVERY_S,
    ) -> None:
        self._conninfo = conninfo
        self._policy: Policy = policy_of(dunning)
        self._metrics = metrics
        self._figures = figures
        self._every_s = every_s

    async def run(self, stop: asyncio.Event) -> None:
        engine = watch_engine(self._conninfo)
        repeated = Repeated("billing-watch", lambda: self.look(engine), every_s=self._every_s)
        repeated.start()
        try:
            await stop.wait()
        finally:
            await repeated.stop()
            await engine.dispose()

    async def look(self, engine: AsyncEngine) -> None:
        """Once. A figure that takes too long leaves the others as they are."""
        found: dict[Figure, Rows] = {}
        try:
            async with asyncio.timeout(self._every_s), engine.connect() as connection:
                for figure in self._figures:
                    try:
                        found[figure] = await read(connection, figure, self._policy)
                    except OperationalError as error:
                        if not isinstance(error.orig, QueryCanceled):
                            raise
                        log.warning("billing_not_counted", figure=figure.names[0][0], reason="it took too long")
        except (*DATABASE_FAILED, TimeoutError) as error:
            log.warning("billing_not_counted", reason=type(error).__name__, retry_in_s=self._every_s)
        self._metrics.saw(found)
