"""Closing by hand, and finding out what it would come to."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

from sqlalchemy import text

from clearinghouse import ids
from clearinghouse.database.connect import ADMIN_ROLE, async_engine, in_role
from settlement.closing.books import PeriodBooks, closed_here
from settlement.closing.close import Outcome, close, described
from settlement.closing.due import cohorts, due_periods
from settlement.closing.sealing import seal

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncEngine

    from settlement.closing.due import Due

_POOL_SIZE: Final = 2


@dataclass(frozen=True, slots=True)
class Done:
    """Periods that were closed, or would be; and what is wrong with the others, a line each."""

    closed: list[PeriodBooks] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)


async def close_now(conninfo: str, *, is_dry_run: bool) -> Done:
    """Everything that is over. A dry run does it all but for the end of the transaction. Seals stay; they say no more
    than that time has passed."""
    engine = async_engine(in_role(conninfo, ADMIN_ROLE, application_name="clearinghouse-cli"), pool_size=_POOL_SIZE)
    try:
        return await _close_now(engine, is_dry_run=is_dry_run)
    finally:
        await engine.dispose()


async def _close_now(engine: AsyncEngine, *, is_dry_run: bool) -> Done:
    done = Done()
    due, unreadable = await due_periods(engine, datetime.max.replace(tzinfo=UTC))
    done.problems.extend(f"{ids.show('gw', each.gateway_id)}: {each.reason}" for each in unreadable)
    sealed = await seal(engine, due)
    ready = {each.gateway_id for each in sealed}
    done.problems.extend(
        f"{ids.show('gw', each.gateway_id)} is busy: try again" for each in due if each.gateway_id not in ready
    )
    for cohort in cohorts(sealed):
        await _close_cohort(engine, cohort, done, is_dry_run=is_dry_run)
    return done


async def _close_cohort(engine: AsyncEngine, cohort: list[Due], done: Done, *, is_dry_run: bool) -> None:
    async with engine.connect() as connection, connection.begin() as transaction:
        await connection.execute(text("SET LOCAL lock_timeout = '10s'"))  # the worker may be at it
        closed = await close(connection, cohort)
        done.problems.extend(described(each) for each in closed if each.outcome is Outcome.DIFFERS)
        gateways = [each.due.gateway_id for each in closed if each.outcome is Outcome.CLOSED]
        done.closed.extend(await closed_here(connection, gateways))
        if is_dry_run:
            await transaction.rollback()
