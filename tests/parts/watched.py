"""What the worker's alerts see and say, over a real database: whoever leaves facts there does it as ever.

watched = Watched(database)
await watched.evaluated(after_s=0)
assert watched.firing() == {"deposit_low"}
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
from sqlalchemy.ext.asyncio import AsyncEngine

from chain.chain_reading import Lock
from chain.coverage import Level
from clearinghouse.config_alerts import AlertSettings
from clearinghouse.coverage import snapshots
from clearinghouse.coverage.snapshots import Snapshot
from clearinghouse.database.connect import SERVE_ROLE, WORK_ROLE, async_engine, in_role
from settlement.alerts.evaluate import Evaluation, evaluation_of
from settlement.alerts.observe import observe
from settlement.alerts.rules import RULES
from settlement.alerts.state import KEEP_S
from settlement.schedule import Tick

ETHER = 10**18
SENDER = b"\x51" * 20


@dataclass
class Watched:
    """`begun_at` is real: what the database stamps by itself is of about then. Every evaluation has a time of its own.

    The worker's own role evaluates; `owner` is past all rights.
    """

    conninfo: str
    engine: AsyncEngine
    evaluation: Evaluation
    owner: psycopg.Connection[tuple[Any, ...]]
    begun_at: datetime

    def at(self, seconds: float) -> datetime:
        return self.begun_at + timedelta(seconds=seconds)

    async def evaluated(self, *, after_s: float) -> None:
        await self.evaluation.tick(Tick(self.engine, self.at(after_s)))

    async def until_over(self, *, after_s: float) -> None:
        """Two evaluations, so far apart that what does not hold in either has ended."""
        await self.evaluated(after_s=after_s)
        await self.evaluated(after_s=after_s + KEEP_S)

    def firing(self) -> set[str]:
        return {rule for (rule,) in self.owner.execute("SELECT rule FROM alert WHERE state = 'firing'")}

    def told_rules(self) -> set[str]:
        query = "SELECT DISTINCT message->'document'->>'rule' FROM delivery"
        told = {rule for (rule,) in self.owner.execute(query)}
        assert told <= set(RULES), "every rule is named among all rules"
        return told

    def told(self, rule: str) -> list[str]:
        """What was put into the outbox of one rule, for the log, in order."""
        query = """SELECT message->'document'->>'said' FROM delivery
                    WHERE message->'document'->>'rule' = %s AND channel = 'log' ORDER BY position"""
        return [said for (said,) in self.owner.execute(query, [rule])]

    def facts(self, rule: str) -> dict[str, str]:
        """Those of the newest message."""
        query = """SELECT message->'document'->'facts' FROM delivery WHERE message->'document'->>'rule' = %s
                    ORDER BY position DESC LIMIT 1"""
        ((facts,),) = self.owner.execute(query, [rule])
        return dict(facts)

    async def escrow(self, *, after_s: float, **changes: Any) -> None:
        """A snapshot of it, as whoever evaluates coverage records it."""
        async with await psycopg.AsyncConnection.connect(
            in_role(self.conninfo, SERVE_ROLE), autocommit=True
        ) as connection:
            await snapshots.record(connection, snapshot_of(observed_at=self.at(after_s), **changes))


def snapshot_of(*, observed_at: datetime, **changes: Any) -> Snapshot:
    """Of an escrow that is well: 10 ETH, a reserve of 5, nothing that ends soon."""
    usual: dict[str, Any] = {
        "sender": SENDER, "observed_at": observed_at, "block_number": 100, "block_time": observed_at,
        "l1_block_number": 50, "round": 3500, "validity_rounds": 2, "simulated": False,
        "deposit_wei": 10 * ETHER, "reserve_wei": 5 * ETHER,
        "claimed_in_round_wei": 0, "pool_size": 100, "lock": Lock.LOCKED, "num_tickets": 5, "expected_wei": ETHER,
        "deviation_wei": ETHER // 10, "face_value_max_wei": ETHER // 100, "worst_case_wei": ETHER,
        "coverage_bps": 40_000, "level": Level.OK, "remaining_ev_wei": ETHER, "issuable_face_value_wei": ETHER,
        "reserve_share_wei": ETHER, "is_enforced": True, "posterior_expected_wei": ETHER, "posterior_deviation_wei": 0,
        "posterior_coverage_bps": 40_000, "delays_count": 0, "exhausted_probability": 0.0,
        "posterior_exhausted_probability": 0.0, "horizon_s": 86_400, "confidence_bps": 9900,
        "exhausted_in_horizon_probability": 0.0, "burn_wei_per_day": ETHER // 10, "empty_median_s": 86_400 * 90,
        "empty_pessimistic_s": 86_400 * 60, "windows": (), "top_up_reserve_wei": 0, "top_up_deposit_wei": 0,
    }  # fmt: skip
    return Snapshot(**usual | changes)


@asynccontextmanager
async def watched(conninfo: str, settings: AlertSettings | None = None) -> AsyncIterator[Watched]:
    engine = async_engine(in_role(conninfo, WORK_ROLE))
    evaluation = evaluation_of(settings or AlertSettings(), observe)
    try:
        with psycopg.connect(conninfo, autocommit=True) as owner:
            yield Watched(conninfo, engine, evaluation, owner, datetime.now(UTC))
    finally:
        await engine.dispose()
