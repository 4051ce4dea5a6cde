"""Desks of jobs: what a turn does with Stripe is written, though the engine that it is given reads."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest
from sqlalchemy import text
from sqlalchemy.exc import InternalError

from settlement.runs import tick_engine
from settlement.schedule import Tick
from settlement.stripe_link.desk import desk_of
from tests.parts.stripe import stripe_settings
from tests.settlement.conftest import Owner

ROOT = Path(__file__).parents[3]
WRITE = text("INSERT INTO stripe_sweep VALUES ('invoice', 'in_1', now())")


async def test_a_desk_of_a_turn_writes_in_the_role_of_the_worker(database: str, owner: Owner) -> None:
    engine = tick_engine(database)
    try:
        async with desk_of(stripe_settings("http://127.0.0.1:1"), Tick(engine, datetime.now(UTC))) as desk:
            async with desk.transaction() as connection:
                await connection.execute(WRITE)
            async with desk.engine.begin() as connection:
                assert (await connection.execute(text("SELECT current_user"))).scalar_one() == "clearinghouse_work"
        with pytest.raises(InternalError, match="read-only"):
            async with engine.begin() as connection:
                await connection.execute(WRITE)
    finally:
        await engine.dispose()
    assert owner.execute("SELECT count(*) FROM stripe_sweep").fetchone() == (1,)


async def test_an_engine_that_reads_goes_on_reading_whatever_option_it_is_given(database: str) -> None:
    """Why there is `desk_of`: the option of a connection holds, that of an engine made from a reading one does not."""
    engine = tick_engine(database)
    try:
        with pytest.raises(InternalError, match="read-only"):
            async with engine.execution_options(postgresql_readonly=False).begin() as connection:
                await connection.execute(WRITE)
    finally:
        await engine.dispose()


def test_no_job_takes_one_for_the_other() -> None:
    wrong = [
        path.relative_to(ROOT).as_posix()
        for path in (ROOT / "settlement").rglob("*.py")
        if "engine.execution_options(postgresql_readonly=False)" in path.read_text(encoding="utf-8")
    ]
    assert not wrong, "use settlement.stripe_link.desk.desk_of"
