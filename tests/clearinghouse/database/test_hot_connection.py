"""The way to the database and back, over a real one that answers late, in pieces, with errors, or no more."""

from __future__ import annotations

import asyncio
import errno
import os
import ssl
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, LiteralString

import psycopg
import pytest
import uvloop
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from clearinghouse.database import statements
from clearinghouse.database.connect import hot_conninfo
from clearinghouse.database.hot_connection import HotConnection
from clearinghouse.errors import DatabaseUnavailable
from tests.parts.books import Connection
from tests.parts.certificates import Authority
from tests.parts.database_link import database_link
from tests.parts.listening import listening
from tests.parts.pipes import Pipes

PID: LiteralString = "SELECT pg_backend_pid()"
#: More than any socket takes at once.
LARGE_BYTES = 20_000_000
#: What look-ups and commits answer with, of every type, and none of each.
EVERYTHING: LiteralString = """
    SELECT ord::bigint, ord::integer, -ord::smallint, ord * 0.000001::numeric, (10::numeric ^ 77)::numeric(78,0),
           ord = 1, 'é' || ord, 'a'::varchar(3), sha256(ord::text::bytea), md5(ord::text)::uuid,
           '2026-04-07 20:00:00.000005+02'::timestamptz + ord * '1 s'::interval, '2026-04-07'::date,
           ARRAY['a', NULL, 'é'], '{}'::text[], NULL::bigint, NULL::numeric, NULL::uuid, NULL::bytea, NULL::text[]
      FROM unnest($1::integer[]) AS given (ord)
"""


@asynccontextmanager
async def connected(conninfo: str) -> AsyncIterator[HotConnection]:
    connection = HotConnection(conninfo)
    try:
        yield connection
    finally:
        await connection.close()


async def pid_of(connection: HotConnection) -> int:
    ((pid,),) = await connection.fetch(PID, [])
    assert isinstance(pid, int)
    return pid


async def until(is_so: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not is_so():
            await asyncio.sleep(0.01)


async def until_asleep(owner: Connection, pid: int) -> None:
    query = "SELECT wait_event = 'PgSleep' FROM pg_stat_activity WHERE pid = %s"
    await until(lambda: owner.execute(query, [pid]).fetchone() == (True,))


async def test_rows_are_what_a_cursor_gives(database: str) -> None:
    numbers = "{1,2,3,20000}"
    async with await psycopg.AsyncConnection.connect(hot_conninfo(database)) as plain:
        cursor = psycopg.AsyncRawCursor(plain)
        await cursor.execute(EVERYTHING, [numbers], binary=True)
        expected = await cursor.fetchall()
    async with connected(database) as connection:
        rows = await connection.fetch(EVERYTHING, [numbers])
        assert await connection.fetch(EVERYTHING, [None]) == []
    assert rows == expected
    assert [[type(value) for value in row] for row in rows] == [[type(value) for value in row] for row in expected]


@pytest.mark.parametrize("run", [asyncio.run, uvloop.run])
def test_a_statement_larger_than_the_sockets_goes_in_pieces_and_its_answer_comes_in_pieces(
    database: str, run: Callable[[Coroutine[Any, Any, None]], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    pieces: list[None] = []
    write = statements.Statements._writable
    monkeypatch.setattr(statements.Statements, "_writable", lambda self: (pieces.append(None), write(self)))

    async def main() -> None:
        async with connected(database) as connection:
            large = "x" * LARGE_BYTES
            assert await connection.fetch("SELECT $1::text", [large]) == [(large,)]
            assert len(pieces) > 1
            pid, before = await pid_of(connection), len(pieces)
            assert await asyncio.gather(*[pid_of(connection) for _ in range(20)]) == [pid] * 20
            assert len(pieces) == before  # nobody asks whether a socket that has everything takes more

    run(main())


async def test_over_tls_too_it_goes_and_comes_in_pieces(database: str, tmp_path: Path) -> None:
    (tmp_path / "both.pem").write_bytes((issued := Authority().issue()).key_pem + issued.cert_pem)
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(tmp_path / "both.pem")
    tls.set_alpn_protocols(["postgresql"])
    server, pipes = conninfo_to_dict(database), Pipes()

    async def converse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        pipes.join((reader, writer), await asyncio.open_unix_connection(f"{server['host']}/.s.PGSQL.{server['port']}"))

    async with listening(converse, tls=tls) as port:
        tls_only = make_conninfo(database, host="127.0.0.1", port=port, sslmode="require", sslnegotiation="direct")
        async with connected(tls_only) as connection:
            for size_bytes in (1, 8192, 16384, 40_000, LARGE_BYTES):
                text = "x" * size_bytes
                assert await connection.fetch("SELECT $1::text", [text]) == [(text,)]
        await pipes.close()


async def test_what_is_asked_at_once_is_answered_one_after_the_other_and_an_error_is_its_own_statements(
    database: str,
) -> None:
    """With each parameter in its place, and each kind of error with what the server says about it."""
    query: LiteralString = (
        "SELECT pg_backend_pid(), $1::integer, 1 / $2::integer, clock_timestamp(), pg_sleep(0.05)::text"
    )
    async with connected(database) as connection:
        answers = await asyncio.gather(
            *[connection.fetch(query, [str(number), str(number % 3)]) for number in range(7)],
            connection.fetch("SELECT $1::text", ["\0"]),
            connection.fetch("SELECT $1::text", ["\ud800"]),
            connection.fetch("SELECT no_such_column, $1::text", [""]),
            connection.fetch("SELECT o_code FROM commit_issuances($1)", [""]),
            connection.fetch("SELECT $1::uuid", ["no"]),
            return_exceptions=True,
        )
        rows = [answer[0] for answer in answers if isinstance(answer, list)]
        assert [row[1] for row in rows] == [1, 2, 4, 5]
        assert len({row[0] for row in rows} | {await pid_of(connection)}) == 1
        assert sorted(row[3] for row in rows) == [row[3] for row in rows]
    failed = [answer for answer in answers if isinstance(answer, BaseException)]
    assert list(map(type, failed)) == [
        *[psycopg.errors.DivisionByZero] * 3,
        psycopg.DataError,
        UnicodeEncodeError,
        psycopg.errors.UndefinedColumn,
        psycopg.errors.UndefinedFunction,
        psycopg.errors.InvalidTextRepresentation,
    ]
    last = failed[-1]
    assert isinstance(last, psycopg.Error)
    assert (last.sqlstate, last.diag.message_primary) == ("22P02", 'invalid input syntax for type uuid: "no"')
    assert str(last).startswith('invalid input syntax for type uuid: "no"\nCONTEXT:  unnamed portal parameter $1')


async def test_a_statement_that_the_server_gives_up_leaves_the_connection_as_it_was(
    database: str, owner: Connection
) -> None:
    """Rolled back as a whole: the caller may try again."""
    async with connected(database) as connection:
        pid = await pid_of(connection)
        sleeping = asyncio.create_task(connection.fetch("SELECT pg_sleep(60)::text", []))
        await until_asleep(owner, pid)
        owner.execute("SELECT pg_cancel_backend(%s)", [pid])
        with pytest.raises(psycopg.errors.QueryCanceled):
            await sleeping
        assert await pid_of(connection) == pid


async def test_a_server_that_ends_the_connection_under_a_statement_leaves_its_outcome_unknown_and_is_asked_anew(
    database: str, owner: Connection
) -> None:
    async with connected(database) as connection:
        pid = await pid_of(connection)
        sleeping = asyncio.create_task(connection.fetch("SELECT pg_sleep(60)::text", []))
        behind = asyncio.create_task(connection.fetch(PID, []))
        await until_asleep(owner, pid)
        owner.execute("SELECT pg_terminate_backend(%s)", [pid])
        with pytest.raises(DatabaseUnavailable) as lost:
            await sleeping
        assert isinstance(lost.value.__cause__, psycopg.errors.AdminShutdown)
        with pytest.raises(DatabaseUnavailable):
            await behind
        assert await pid_of(connection) != pid


async def test_whatever_a_server_says_when_it_ends_the_connection_the_outcome_is_unknown(database: str) -> None:
    """To psycopg this is an internal error, as one of a statement alone would be."""
    async with connected(make_conninfo(database, options="-c transaction_timeout=300ms")) as connection:
        before = await pid_of(connection)
        with pytest.raises(DatabaseUnavailable) as unknown:
            await connection.fetch("SELECT 1 FROM pg_sleep(5)", [])
        assert isinstance(unknown.value.__cause__, psycopg.InternalError)
        assert await pid_of(connection) != before


async def test_a_statement_that_was_prepared_and_then_cancelled_can_be_prepared_again(
    database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A cancellation that comes between the two cannot be timed."""
    answered = statements.Statements._answered

    async def cancelled(self: statements.Statements) -> Any:
        await answered(self)
        raise psycopg.errors.QueryCanceled("canceling statement due to user request")

    async with connected(database) as connection:
        before = await pid_of(connection)
        with monkeypatch.context() as once:
            once.setattr(statements.Statements, "_answered", cancelled)
            with pytest.raises(psycopg.errors.QueryCanceled):
                await connection.fetch("SELECT 2", [])
        assert await connection.fetch("SELECT 2", []) == [(2,)]
        assert await pid_of(connection) == before


async def test_a_server_that_ends_the_connection_between_statements_troubles_nobody(
    database: str, owner: Connection
) -> None:
    async with connected(database) as connection:
        pid = await pid_of(connection)
        owner.execute("SELECT pg_terminate_backend(%s, 5000)", [pid])
        await asyncio.sleep(0.05)
        assert await pid_of(connection) != pid


async def test_a_connection_that_is_cut_or_silent_or_only_reads_is_left_for_a_new_one(
    database: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(statements, "SILENCE_MAX_S", 0.3)
    large = ["x" * LARGE_BYTES]  # what it is cut off from is half written
    async with database_link(database, tmp_path) as link, connected(link.conninfo) as connection:
        for leave in (link.partition, link.cut):
            pid = await pid_of(connection)
            for query, parameters in (("SELECT pg_sleep(60)::text", list[str]()), ("SELECT $1::text", large)):
                waiting = asyncio.create_task(connection.fetch(query, parameters))
                await asyncio.sleep(0.02)
                leave()
                with pytest.raises(DatabaseUnavailable):
                    await waiting
                await link.mend()
            assert await pid_of(connection) != pid
    async with connected(make_conninfo(database, options="-c default_transaction_read_only=on")) as connection:
        connection._conninfo = make_conninfo(connection._conninfo, target_session_attrs="any")
        pid = await pid_of(connection)
        with pytest.raises(DatabaseUnavailable) as refused:
            await connection.fetch("DELETE FROM session RETURNING id", [])
        assert isinstance(refused.value.__cause__, psycopg.errors.ReadOnlySqlTransaction)
        assert await pid_of(connection) != pid


async def test_whoever_gives_up_a_statement_under_way_gives_up_its_connection_and_one_that_waits_only_its_turn(
    database: str, owner: Connection
) -> None:
    async with connected(database) as connection:
        pid = await pid_of(connection)
        sleeping = asyncio.create_task(connection.fetch("SELECT pg_sleep(0.2)::text", []))
        await until_asleep(owner, pid)
        waiting = asyncio.create_task(connection.fetch(PID, []))
        await asyncio.sleep(0)
        waiting.cancel()
        assert await sleeping == [("",)]
        assert await pid_of(connection) == pid

        sleeping = asyncio.create_task(connection.fetch("SELECT pg_sleep(60)::text", []))
        await until_asleep(owner, pid)
        sleeping.cancel()
        await asyncio.wait([sleeping])
        another = await pid_of(connection)
        assert another != pid
        sleeping = asyncio.create_task(connection.fetch("SELECT pg_sleep(60)::text", []))
        await until_asleep(owner, another)
        await connection.close()
        with pytest.raises(DatabaseUnavailable):
            await sleeping


async def test_a_process_that_may_open_no_more_files_has_no_database_for_as_long(
    database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_: int) -> int:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    async with connected(database) as connection:
        with monkeypatch.context() as full:
            full.setattr(os, "dup", refuse)
            with pytest.raises(DatabaseUnavailable):
                await pid_of(connection)
        assert await pid_of(connection)
