"""Exports from real books: every issuance of the time, none of another, in one snapshot and little memory."""

from __future__ import annotations

import csv
import io
import json
import time
import tracemalloc
from collections.abc import AsyncIterator, Callable
from datetime import datetime, timedelta
from fractions import Fraction

import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from clearinghouse.database.connect import ADMIN_ROLE, async_engine, in_role
from clearinghouse.ids import CLOCKS_DIFFER_MAX, made_between, uuid7_from
from clearinghouse.issuances import STREAM_BATCH_ROWS, issuance_json, list_issuances
from settlement.exports.forms import Form
from settlement.exports.reading import Exported, export_usage
from settlement.periods import Timeline
from settlement.statements.books import statement_of
from settlement.statements.choice import Chosen
from settlement.statements.statement import Party, Span
from tests.settlement.conftest import Owner
from tests.settlement.statements.booked import Books, Mark

#: A gateway with so many issuances, a millisecond apart, made of one that was booked.
MANY = """
    INSERT INTO issuance SELECT (issuance).* FROM (
        SELECT jsonb_populate_record(issuance, jsonb_build_object(
            'id', overlay(uuid7_from(created_at + number * interval '1 ms')::text
                          placing lpad(to_hex(number), 12, '0') from 25),
            'created_at', created_at + number * interval '1 ms', 'end_user', 'user-' || number)) AS issuance
          FROM issuance CROSS JOIN generate_series(1, %s) AS number WHERE gateway_id = %s) AS made
"""


@pytest.fixture
async def admin(database: str) -> AsyncIterator[AsyncEngine]:
    engine = async_engine(in_role(database, ADMIN_ROLE), pool_size=4)
    yield engine
    await engine.dispose()


@pytest.fixture
def books(owner: Owner) -> Books:
    return Books(owner, "acme")


def over(begin: datetime, end: datetime) -> Callable[[Timeline, datetime], Chosen]:
    return lambda _timeline, _now: Chosen("span", Span(begin, end, "UTC"))


async def exported(
    engine: AsyncEngine, books: Books, begin: datetime, end: datetime, form: Form = Form.JSON_LINES
) -> bytes:
    file = io.BytesIO()
    await export_usage(engine, books.gateway_id, over(begin, end), form, file, progress=lambda _done, _total: None)
    return file.getvalue()


async def test_every_issuance_of_the_time_is_in_it_as_the_api_shows_it_and_no_other(
    admin: AsyncEngine, books: Books, owner: Owner
) -> None:
    marks: list[Mark] = []
    for _ in range(3):
        marks.append(books.mark())
        for which in (0, 1, 0, 2):
            books.use(which)
        Books(owner, f"other-{len(marks)}").use()
    marks.append(books.mark())
    rows = [json.loads(line) for line in (await exported(admin, books, marks[1].at, marks[2].at)).splitlines()]
    async with admin.connect() as connection:
        page = await list_issuances(connection, books.gateway_id)
    assert rows == [issuance_json(item) for item in page.items[::-1][4:8]]
    made = await statement_of(admin, books.gateway_id, over(marks[1].at, marks[2].at), issuer=Party("x"))
    assert sum(Fraction(row["charge"]) for row in rows) == Fraction(made.statement.usage)


async def test_an_issuance_at_the_begin_is_in_and_one_at_the_end_is_not(
    admin: AsyncEngine, books: Books, owner: Owner
) -> None:
    books.use()
    books.use()
    times = [at for (at,) in owner.execute("SELECT created_at FROM issuance ORDER BY created_at")]
    assert len((await exported(admin, books, times[0], times[1])).splitlines()) == 1
    assert len((await exported(admin, books, times[0], times[1] + timedelta(microseconds=1))).splitlines()) == 2
    assert (await exported(admin, books, times[0] + timedelta(microseconds=1), times[1])) == b""


@pytest.mark.parametrize("form", Form)
async def test_the_same_time_gives_the_same_bytes_and_what_is_issued_meanwhile_is_not_in_it(
    admin: AsyncEngine, books: Books, owner: Owner, form: Form
) -> None:
    begin = books.mark().at
    books.use()
    owner.execute(MANY.encode(), [2 * STREAM_BATCH_ROWS, books.gateway_id])
    end = begin + timedelta(hours=1)
    told: list[tuple[int, int]] = []
    late_id = uuid7_from(begin + timedelta(minutes=1))

    def progress(done: int, total: int) -> None:
        told.append((done, total))
        if len(told) == 1:
            owner.execute(
                b"INSERT INTO issuance SELECT (jsonb_populate_record(issuance, jsonb_build_object('id', %s::text))).* "
                b"FROM issuance LIMIT 1",
                [str(late_id)],
            )

    file = io.BytesIO()
    done = await export_usage(admin, books.gateway_id, over(begin, end), form, file, progress=progress)
    assert done == Exported(2001, is_final=False)
    assert told == [(0, 2001), (1000, 2001), (2000, 2001), (2001, 2001)]
    owner.execute("ALTER TABLE issuance DISABLE TRIGGER append_only")
    owner.execute("DELETE FROM issuance WHERE id = %s", [late_id])
    assert await exported(admin, books, begin, end, form) == file.getvalue()


async def test_it_takes_little_memory_however_much_there_is(admin: AsyncEngine, books: Books, owner: Owner) -> None:
    begin = books.mark().at
    books.use()
    owner.execute(MANY.encode(), [12 * STREAM_BATCH_ROWS, books.gateway_id])

    class Counted(io.RawIOBase):
        written = 0

        def write(self, data: object) -> int:
            assert isinstance(data, bytes)
            self.written += len(data)
            return len(data)

    running: set[str] = set()

    def progress(_done: int, _total: int) -> None:
        running.update(
            query for (query,) in owner.execute("SELECT query FROM pg_stat_activity WHERE state LIKE 'idle in%'")
        )

    async def peak_bytes(end: datetime) -> tuple[int, int]:
        file = Counted()
        tracemalloc.start()
        try:
            await export_usage(admin, books.gateway_id, over(begin, end), Form.CSV, file, progress=progress)  # type: ignore[arg-type]
            return tracemalloc.get_traced_memory()[1], file.written
        finally:
            tracemalloc.stop()

    few_bytes, few_written = await peak_bytes(begin + timedelta(seconds=2))
    many_bytes, many_written = await peak_bytes(begin + timedelta(hours=1))
    assert many_written > 5 * few_written
    assert any(query.startswith(f"FETCH FORWARD {STREAM_BATCH_ROWS}") for query in running), "the server keeps the rest"
    assert many_bytes < 1.5 * few_bytes, "what was read is not kept"


async def test_a_slow_disk_does_not_end_it(database: str, books: Books) -> None:
    """Elsewhere a transaction that idles is ended, as it could hold an account."""
    begin = books.mark().at
    books.use()
    hasty = in_role(database, ADMIN_ROLE, idle_in_transaction_session_timeout="3s")
    engine = async_engine(hasty, pool_size=1)
    file = io.BytesIO()
    try:
        done = await export_usage(
            engine, books.gateway_id, over(begin, begin + timedelta(hours=1)), Form.CSV, file,
            progress=lambda done, _total: time.sleep(0 if done else 4),
        )  # fmt: skip
    finally:
        await engine.dispose()
    assert done.rows == 1


async def test_ids_say_where_to_look_as_the_database_makes_them(owner: Owner) -> None:
    at = datetime.fromisoformat("2026-10-31T23:59:59.999999+00:00")
    (first,) = owner.execute("SELECT uuid7_from(%s)", [at - timedelta(microseconds=999)]).fetchone() or ()
    assert uuid7_from(at) == first
    assert made_between(at, at) == (uuid7_from(at - CLOCKS_DIFFER_MAX), uuid7_from(at + CLOCKS_DIFFER_MAX))


async def test_csv_begins_with_its_columns_even_where_nothing_was_used(admin: AsyncEngine, books: Books) -> None:
    begin = books.mark().at
    made = await exported(admin, books, begin, begin + timedelta(seconds=1), Form.CSV)
    assert list(csv.DictReader(io.StringIO(made.decode()))) == []
    assert made.startswith(b"id,session_id,")
