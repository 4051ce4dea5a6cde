"""Usage that was added up equals the issuances, whatever happens: commits, kills, clocks that are set back."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from itertools import pairwise
from typing import Any
from uuid import UUID

import psycopg
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from psycopg.errors import DatetimeFieldOverflow, InvalidTransactionState
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncEngine

from clearinghouse.database.connect import SERVE_ROLE, async_engine, in_role
from clearinghouse.ledger.verify import verify
from clearinghouse.usage_query import BY, Question, Sums, day_edges, usage_of
from clearinghouse.usage_rollups import BEGINNING, differences, mend, rebuild, roll_up, rolled_up_until
from tests.parts.books import Connection, commit_together, new_gateway, usage
from tests.parts.used import Books, Kind, as_slowly, slowly

#: Clocks change around them, at midnight in Havana and Cairo, by half an hour on Lord Howe Island.
PLACES = {
    "UTC": datetime(2026, 3, 1, tzinfo=UTC),
    "Europe/Berlin": datetime(2026, 3, 29, tzinfo=UTC),
    "America/New_York": datetime(2026, 11, 1, 4, tzinfo=UTC),
    "America/Havana": datetime(2026, 11, 1, 4, tzinfo=UTC),
    "Africa/Cairo": datetime(2026, 4, 23, 22, tzinfo=UTC),
    "Australia/Lord_Howe": datetime(2026, 4, 4, 15, tzinfo=UTC),
    "Asia/Kathmandu": datetime(2026, 2, 28, 18, 15, tzinfo=UTC),
    "Pacific/Apia": datetime(2011, 12, 30, 10, tzinfo=UTC),
}
KINDS = (Kind(), Kind(app="other"), Kind(app="", pipeline="", model="", job_type="fixed"), Kind(model="it's \\ ß"))
AMOUNTS = (Decimal(0), Decimal("0.0000000000000000000000000000000001"), Decimal("12345678901234567890.5"), Decimal(3))
#: What happens, after so many seconds: usage, a roll-up, or the clock of the database is set back by those seconds.
STEPS = st.lists(
    st.tuples(st.sampled_from(("use", "use", "use", "roll_up", "back")),
              st.one_of(st.integers(0, 7200), st.sampled_from((900, 3600, 86_400))), st.integers(0, 2**32)),
    min_size=1, max_size=40,
)  # fmt: skip
ANY_MARK = "SELECT * FROM roll_up_usage(%s, '3', %s, 1000000, NULL)"
NEVER = datetime(2100, 1, 1, tzinfo=UTC)
SUMS = """
    SELECT gateway_id, span, begins_at, kind_id, issuances, tickets, ev_wei, fee_wei, charge FROM usage_bucket
     ORDER BY 1, 2, 3, 4
"""


@pytest.fixture
def books(owner: Connection) -> Books:
    return Books(owner)


@pytest.fixture
async def serve(database: str) -> AsyncIterator[AsyncEngine]:
    engine = async_engine(in_role(database, SERVE_ROLE))
    yield engine
    await engine.dispose()


def forget(owner: Connection) -> None:
    """An empty database, past all triggers."""
    owner.execute("SET session_replication_role = replica")
    owner.execute("TRUNCATE issuance, session, usage_bucket, account, gateway CASCADE")
    owner.execute("SET session_replication_role = origin")
    owner.execute("UPDATE usage_progress SET rolled_up_until = DEFAULT, mended_at = DEFAULT")


async def ask(engine: AsyncEngine, gateway: UUID, asked: Question) -> dict[tuple[Any, ...], Sums]:
    async with engine.connect() as connection:
        return as_slowly(await usage_of(connection, gateway, asked))


async def violations(admin: AsyncEngine) -> list[str]:
    """Of the claim about the sums: all others are broken by issuances out of nowhere."""
    return [finding.detail for finding in (await verify(admin)).findings if finding.claim == "usage_sums"]


class History:
    """Usage and roll-ups at the times of a clock that somebody sets back."""

    def __init__(self, owner: Connection, begin: datetime) -> None:
        self._owner, self._now = owner, begin
        self.books = Books(owner)
        self.gateways = [self.books.new_gateway() for _ in range(2)]

    def take(self, action: str, seconds: int, number: int) -> None:
        dice = random.Random(number)
        if action == "back":
            self._now -= timedelta(seconds=seconds)
            self._roll_up()  # before anything else is issued: else it would have times that were rolled up
            return
        self._now += timedelta(seconds=seconds)
        if action == "roll_up":
            self._roll_up()
        else:
            self.books.use(
                dice.choice(self.gateways), self._now, dice.choice(KINDS), charge=dice.choice(AMOUNTS),
                tickets=dice.randint(1, 600), ev_wei=dice.choice((1, 10**15, 10**40)),
            )  # fmt: skip

    def _roll_up(self) -> None:
        self._owner.execute(ANY_MARK, [self._now, NEVER])

    def questions(self, zone: str, dice: random.Random) -> list[Question]:
        """Of all days, and of some of them."""
        days = [used.at.date() for used in self.books.used] or [self._now.date()]
        first, last = min(days) - timedelta(days=2), max(days) + timedelta(days=2)
        some = sorted(first + timedelta(days=dice.randint(0, (last - first).days)) for _ in range(2))
        by = tuple(name for name in BY if dice.random() < 0.5) or ("job_type",)
        return [Question(first, last, zone, ("day", "app")), Question(some[0], some[1], zone, by)]


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=STEPS, zone=st.sampled_from(sorted(PLACES)), seed=st.integers(0, 2**32))
@example(
    steps=[("use", 0, 1), ("roll_up", 7200, 0), ("use", 0, 1), ("back", 3600, 0), ("use", 10, 1)], zone="UTC", seed=1
)
async def test_an_answer_equals_the_issuances_in_any_zone_while_clocks_change_and_are_set_back(
    owner: Connection,
    admin: AsyncEngine,
    serve: AsyncEngine,
    *,
    steps: list[tuple[str, int, int]],
    zone: str,
    seed: int,
) -> None:
    forget(owner)
    history = History(owner, PLACES[zone] - timedelta(hours=6))
    for step in steps:
        history.take(*step)
    for asked in history.questions(zone, random.Random(seed)):
        for gateway in history.gateways:
            assert await ask(serve, gateway, asked) == slowly(history.books.used, gateway, asked), asked
    assert await differences(admin.begin) == []
    assert await violations(admin) == []


async def test_answers_are_right_at_every_moment_while_payments_are_committed_and_rolled_up(
    owner: Connection, admin: AsyncEngine, serve: AsyncEngine, database: str
) -> None:
    """Three connections commit batches, of which one is slow to end; each answer is held against its own snapshot."""
    gateways = [new_gateway(owner, credit=10**6) for _ in range(3)]
    ends_at_s = time.monotonic() + 6

    def pay(slow: bool) -> None:
        with psycopg.connect(database) as connection:
            dice = random.Random(slow)
            while time.monotonic() < ends_at_s:
                calls = [usage(*dice.choice(gateways)) for _ in range(4)]
                assert {code for code, _ in commit_together(connection, calls)} == {None}
                time.sleep(dice.uniform(0.1, 0.4) if slow else 0)
                connection.commit()

    threads = [threading.Thread(target=pay, args=(slow,)) for slow in (False, False, True)]
    for thread in threads:
        thread.start()
    looks = rolled_up = 0
    try:
        while time.monotonic() < ends_at_s:
            rolled_up += (await roll_up(admin.begin, within_s=0.5, rows_max=50)).issuances
            for gateway, _ in gateways:
                looks += 1
                await require_this_moments(serve, gateway)
            assert await differences(admin.begin) == []
    finally:
        for thread in threads:
            thread.join()
    rolled_up += (await roll_up(admin.begin, within_s=None)).issuances
    row = owner.execute("SELECT count(*) FROM issuance").fetchone()
    assert row == (rolled_up,)
    assert looks > 3
    assert (await verify(admin)).findings == ()


async def require_this_moments(serve: AsyncEngine, gateway: UUID) -> None:
    async with serve.connect() as unprepared:
        connection = await unprepared.execution_options(isolation_level="REPEATABLE READ")
        today = datetime.now(UTC).date()
        answer = await usage_of(connection, gateway, Question(today - timedelta(1), today + timedelta(1), "UTC", BY))
        query = text("SELECT usage_total FROM account WHERE id = :id")
        charged = (await connection.execute(query, {"id": gateway})).scalar_one()
        assert sum((sums.charge for _, sums in answer.totals), Decimal(0)) == charged


async def test_a_payment_that_is_committed_late_is_waited_for(
    owner: Connection, admin: AsyncEngine, serve: AsyncEngine, database: str
) -> None:
    gateway, key = new_gateway(owner)
    with psycopg.connect(database) as slow:
        assert commit_together(slow, [usage(gateway, key)])[0][0] is None
        commit_together(owner, [usage(*new_gateway(owner))])
        waiting = await roll_up(admin.begin, within_s=None)
        assert (waiting.waits, waiting.until, waiting.issuances) == (True, BEGINNING, 0)
        slow.commit()
    done = await roll_up(admin.begin, within_s=None)
    assert (done.waits, done.issuances) == (False, 2)
    await require_this_moments(serve, gateway)


async def test_a_reader_that_lasts_for_hours_is_not_waited_for(
    owner: Connection, admin: AsyncEngine, database: str
) -> None:
    commit_together(owner, [usage(*new_gateway(owner))])
    with psycopg.connect(database) as reader:
        reader.execute("SELECT count(*) FROM issuance")
        assert not (await roll_up(admin.begin, within_s=None)).waits


def test_a_mark_is_refused_where_its_transaction_is_older(database: str, owner: Connection) -> None:
    with psycopg.connect(database) as connection:
        connection.execute("SELECT pg_current_xact_id()")
        with pytest.raises(InvalidTransactionState):
            connection.execute("SELECT usage_mark()")


ROLL_UP = """
import asyncio, sys
from clearinghouse.database.connect import async_engine
from clearinghouse.usage_rollups import rebuild, roll_up
async def main():
    engine = async_engine(sys.argv[1])
    print("begins", flush=True)
    await roll_up(engine.begin, within_s=None, rows_max=20)
    await rebuild(engine.begin, rows_max=20)
asyncio.run(main())
"""


async def test_whoever_is_killed_in_the_middle_leaves_sums_that_are_gone_on_with(
    owner: Connection, admin: AsyncEngine, database: str, books: Books
) -> None:
    gateway, begin = books.new_gateway(), datetime.now(UTC) - timedelta(days=2)
    for number in range(2000):
        books.use(gateway, begin + timedelta(minutes=number), KINDS[number % 4])
    dice, reached = random.Random(7), set()
    for _ in range(8):
        worker = subprocess.Popen([sys.executable, "-c", ROLL_UP, database], stdout=subprocess.PIPE)
        assert worker.stdout is not None
        worker.stdout.readline()
        await asyncio.sleep(dice.uniform(0.05, 1.0))
        os.kill(worker.pid, signal.SIGKILL)
        worker.communicate()
        reached.add(await rolled_up_until(admin.begin))
        assert await violations(admin) == []
        assert await differences(admin.begin) == []
    assert len(reached) > 2, "they were killed on the way"
    await roll_up(admin.begin, within_s=None)
    assert await rebuild_wrong(admin) == 0


async def rebuild_wrong(admin: AsyncEngine) -> int:
    return (await rebuild(admin.begin))[0]


async def test_rolling_up_and_rebuilding_again_change_nothing(
    owner: Connection, admin: AsyncEngine, books: Books
) -> None:
    gateway = books.new_gateway()
    for number in range(300):
        books.use(gateway, datetime.now(UTC) - timedelta(hours=number), KINDS[number % 4])
    first = await roll_up(admin.begin, within_s=None, rows_max=7)
    assert first.issuances == 300
    sums, rows = owner.execute(SUMS).fetchall(), owner.execute("SELECT ctid, xmin FROM usage_bucket").fetchall()
    again = await roll_up(admin.begin, within_s=None)
    assert (again.issuances, again.until > first.until) == (0, True)
    assert await rebuild_wrong(admin) == 0
    assert owner.execute(SUMS).fetchall() == sums
    assert owner.execute("SELECT ctid, xmin FROM usage_bucket").fetchall() == rows, "no row was even touched"


@pytest.mark.parametrize(
    "corruption",
    [
        "UPDATE usage_bucket SET charge = charge + 1 WHERE span = 'quarter'",
        "UPDATE usage_bucket SET tickets = tickets - 1 WHERE span = 'hour'",
        "DELETE FROM usage_bucket WHERE span = 'day'",
        "UPDATE usage_bucket SET ev_wei = 0 WHERE span = 'ever'",
        "TRUNCATE usage_bucket",
        "UPDATE usage_bucket SET begins_at = begins_at - interval '20 years' WHERE span = 'quarter'",
        "INSERT INTO usage_bucket SELECT gen_random_uuid(), span, begins_at, kind_id, currency, 1, 1, 1, 1, 1"
        "  FROM usage_bucket",
        "UPDATE usage_progress SET rolled_up_until = '2099-01-01 00:00Z'",
    ],
)
async def test_a_rebuild_makes_every_sum_right_again(
    owner: Connection, admin: AsyncEngine, books: Books, corruption: str
) -> None:
    gateway = books.new_gateway()
    for number in range(50):
        books.use(gateway, datetime.now(UTC) - timedelta(minutes=40 * number), KINDS[number % 4])
    await roll_up(admin.begin, within_s=None)
    right = owner.execute(SUMS).fetchall()
    owner.execute(corruption)
    assert "rolled_up_until" in corruption or await violations(admin) != []
    await rebuild(admin.begin, rows_max=10)
    assert owner.execute(SUMS).fetchall() == right
    assert await violations(admin) == []
    assert await differences(admin.begin) == []


@pytest.mark.parametrize("charge", [Decimal(2), Decimal(0)])
async def test_usage_that_came_with_a_time_that_was_rolled_up_is_noticed_and_mended(
    admin: AsyncEngine, books: Books, serve: AsyncEngine, charge: Decimal
) -> None:
    """The clock of the database was set back by less than passed between two roll-ups, which see nothing of it."""
    gateway, now = books.new_gateway(), datetime.now(UTC)
    books.use(gateway, now - timedelta(hours=30))
    await roll_up(admin.begin, within_s=None)
    books.use(gateway, now - timedelta(minutes=20), charge=charge)
    books.use(books.new_gateway(), datetime.now(UTC), charge=Decimal(2))
    await roll_up(admin.begin, within_s=None)
    (found,) = await differences(admin.begin)
    assert (found.gateway_id, found.charged - found.counted) == (gateway, charge)
    assert found.released_wei - found.counted_wei == 10**15
    assert await mend(admin.begin, back=timedelta(days=1)) == 3, "a quarter, its hour and its day"
    assert await differences(admin.begin) == []
    asked = Question(now.date() - timedelta(3), now.date() + timedelta(1), "UTC", ("day",))
    assert await ask(serve, gateway, asked) == slowly(books.used, gateway, asked)
    assert await violations(admin) == []


async def test_a_clock_that_is_days_behind_stops_the_roll_up_until_somebody_looks(
    owner: Connection, admin: AsyncEngine, books: Books
) -> None:
    books.use(books.new_gateway(), datetime.now(UTC))
    await roll_up(admin.begin, within_s=None)
    before = owner.execute(SUMS).fetchall()
    owner.execute("UPDATE usage_progress SET rolled_up_until = now() + interval '25 hours'")
    with pytest.raises(DBAPIError) as refused:
        await roll_up(admin.begin, within_s=None)
    assert isinstance(refused.value.orig, DatetimeFieldOverflow)
    assert "and the clock of the database says" in str(refused.value.orig)
    assert owner.execute(SUMS).fetchall() == before


async def test_a_burst_after_a_quiet_year_is_taken_in_small_parts(admin: AsyncEngine, books: Books) -> None:
    gateway, now = books.new_gateway(), datetime.now(UTC)
    books.use(gateway, now - timedelta(days=400))
    for number in range(1000):
        books.use(gateway, now - timedelta(milliseconds=5 * number + 1))
    reached: list[datetime] = []
    done = await roll_up(admin.begin, within_s=None, rows_max=100, progress=lambda at, _: reached.append(at))
    assert done.issuances == 1001
    burst = [at for at in reached if at > now - timedelta(seconds=6)]
    assert 5 <= len(burst) <= 40
    assert len(reached) - len(burst) <= 60, "the year in between is passed quickly"


async def test_only_so_long_at_once_and_the_rest_the_next_time(admin: AsyncEngine, books: Books) -> None:
    gateway, now = books.new_gateway(), datetime.now(UTC)
    for number in range(200):
        books.use(gateway, now - timedelta(minutes=number))
    turns = [await roll_up(admin.begin, within_s=0, rows_max=50)]
    while turns[-1].is_behind:
        turns.append(await roll_up(admin.begin, within_s=0, rows_max=50))
    assert len(turns) >= 4
    assert sum(turn.issuances for turn in turns) == 200
    assert max(turn.issuances for turn in turns) <= 50


def test_what_came_since_is_found_by_its_time(owner: Connection, books: Books) -> None:
    """Not by reading all issuances of the gateway, nor all there are."""
    gateway = books.new_gateway()
    books.use(gateway, datetime(2026, 1, 1, tzinfo=UTC))
    owner.execute(
        "INSERT INTO issuance SELECT (issuance).* FROM (SELECT jsonb_populate_record(issuance, jsonb_build_object("
        " 'id', gen_random_uuid(), 'created_at', created_at + n * interval '1 s')) AS issuance"
        "  FROM issuance CROSS JOIN generate_series(1, 20000) AS n) AS more"
    )
    owner.execute("VACUUM ANALYZE issuance")
    owner.execute("SET enable_seqscan = off")
    plan = owner.execute(
        "EXPLAIN (ANALYZE, FORMAT JSON) SELECT sum(charge) FROM issuance WHERE gateway_id = %s AND created_at >= %s",
        [gateway, datetime(2026, 1, 1, 5, 30, tzinfo=UTC)],
    ).fetchone()
    assert plan is not None
    shown = str(plan[0])
    assert "'Index Name': 'issuance_time'" in shown, shown


def test_nobody_but_the_worker_and_operators_adds_to_the_sums(database: str) -> None:
    with psycopg.connect(in_role(database, SERVE_ROLE), autocommit=True) as connection:
        for statement in (
            "SELECT usage_mark()",
            "SELECT correct_usage('2026-01-01', NULL)",
            "DELETE FROM usage_bucket",
        ):
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                connection.execute(statement)


def test_the_days_of_the_questions_are_where_clocks_change() -> None:
    """What PLACES says: else the property above would try less than it seems to."""
    lengths = {}
    for zone, begin in PLACES.items():
        edges = day_edges(Question(begin.date() - timedelta(2), begin.date() + timedelta(2), zone, ("day",)))
        lengths[zone] = {(end - start) / timedelta(hours=1) for start, end in pairwise(edges)}
    assert lengths["UTC"] == lengths["Asia/Kathmandu"] == {24}
    assert lengths["Europe/Berlin"] == {24, 23}
    assert lengths["America/Havana"] == lengths["America/New_York"] == {24, 25}
    assert lengths["Africa/Cairo"] == {24, 23}
    assert lengths["Australia/Lord_Howe"] == {24, 24.5}
    assert lengths["Pacific/Apia"] == {24, 0}
    assert date(2011, 12, 30) in {begin.date() for begin in PLACES.values()}
