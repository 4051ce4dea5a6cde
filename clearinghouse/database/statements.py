"""Prepared statements over one connection of psycopg's, sent and read by libpq's own calls.

A statement that takes the server a tenth of a millisecond costs this process less than half of what a cursor does:
there are no generators, the socket's reader stays where it is, and nobody looks for how a parameter is to be sent.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Sequence
from itertools import count
from typing import Any, Final, LiteralString

import psycopg
from psycopg.adapt import Transformer
from psycopg.pq import ExecStatus, Format
from psycopg.pq.abc import PGresult

#: Longer than the server's own statement_timeout (connect.hot_conninfo): a server that still answers has said so.
SILENCE_MAX_S: Final = 4
#: As PostgreSQL writes values of the parameter's type: as a text, or in its binary format.
Parameter = str | bytes | None


class Statements:
    """A connection that carries out one statement after the other, each in its own transaction. `close` at the end.

    One that is lost is closed, whether or not a statement is under way.
    """

    @classmethod
    async def connected(cls, conninfo: str) -> Statements:
        """Raises psycopg.OperationalError, and OSError where this process may not open more files."""
        connection = await psycopg.AsyncConnection.connect(conninfo, autocommit=True)
        try:
            return cls(connection)
        except OSError:
            await connection.close()
            raise

    def __init__(self, connection: psycopg.AsyncConnection[Any]) -> None:
        """`connection`, which has autocommit, is nobody else's from now on."""
        self._pgconn = connection.pgconn
        self._pgconn.nonblocking = 1
        encoding = connection.info.encoding
        self._encoding = "utf-8" if encoding == "ascii" else encoding  # a server of SQL_ASCII takes what it is given
        self._loop = asyncio.get_running_loop()
        self._turn = asyncio.Lock()
        self._loader = Transformer(connection)
        self._names: dict[str, bytes] = {}
        self._numbers = count()
        #: What whoever's turn it is waits for; and what the server has said so far, before it is ready for the next.
        self._answer: asyncio.Future[PGresult] | None = None
        self._result: PGresult | None = None
        #: Of our own: libpq closes its one when the connection is lost, while the event loop still watches it.
        self._socket = os.dup(self._pgconn.socket)
        try:
            self._loop.add_reader(self._socket, self._readable)
        except OSError:
            os.close(self._socket)
            raise
        self.is_closed = False

    async def run(self, query: LiteralString, parameters: Sequence[Parameter]) -> list[tuple[Any, ...]]:
        """The rows of `query`, whose parameters are $1, $2, … Raises psycopg's errors.

        Cancelled while it is under way, it closes the connection: the statement may still be running.
        """
        if "\0" in "".join([each for each in parameters if isinstance(each, str)]):  # to libpq it would be the end
            raise psycopg.DataError("PostgreSQL text fields cannot contain NUL (0x00) bytes")
        values = [each.encode(self._encoding) if isinstance(each, str) else each for each in parameters]
        formats = [isinstance(each, bytes) for each in parameters]
        async with self._turn:
            name = self._names.get(query) or await self._prepare(query)
            self._pgconn.send_query_prepared(name, values, formats, Format.BINARY)
            result = await self._answered()
            self._loader.set_pgresult(result)
            return self._loader.load_rows(0, result.ntuples, tuple)

    def close(self, why: str = "the connection is closed") -> None:
        if not self.is_closed:
            self.is_closed = True
            self._loop.remove_reader(self._socket)
            self._loop.remove_writer(self._socket)
            os.close(self._socket)
            self._pgconn.finish()
            if self._answer is not None and not self._answer.done():
                self._answer.set_exception(psycopg.OperationalError(why))

    async def _prepare(self, query: str) -> bytes:
        name = f"hot_{next(self._numbers)}".encode()  # never again: one that failed may be there all the same
        self._pgconn.send_prepare(name, query.encode(self._encoding))
        await self._answered()
        self._names[query] = name
        return name

    async def _answered(self) -> PGresult:
        """What the server says to what was just handed to libpq, once it is ready for the next statement."""
        # A server that went silent would be waited for for ever: keepalives do not act while data is unacknowledged.
        silence = self._loop.call_later(SILENCE_MAX_S, self.close, "the server fell silent")
        try:
            if self._pgconn.flush():
                self._loop.add_writer(self._socket, self._writable)
            self._answer = self._loop.create_future()
            result = await self._answer
        except BaseException:
            self.close()
            raise
        finally:
            silence.cancel()
            self._answer = None
        if result.status == ExecStatus.FATAL_ERROR:
            raise psycopg.errors.error_from_result(result, self._encoding)
        return result

    def _writable(self) -> None:
        try:
            if not self._pgconn.flush():
                self._loop.remove_writer(self._socket)
        except psycopg.OperationalError as error:
            self.close(str(error))

    def _readable(self) -> None:
        """Also called between statements: when the server has something to tell, or has ended the connection."""
        try:
            self._pgconn.consume_input()
            while not self._pgconn.is_busy():
                result = self._pgconn.get_result()
                if result is None:
                    self._ready()
                    return
                self._result = result
        except psycopg.OperationalError as error:
            if self._result is not None and self._result.status == ExecStatus.FATAL_ERROR:
                self._ready()  # this is what it ended the connection for
            self.close(str(error))

    def _ready(self) -> None:
        result, self._result = self._result, None
        if self._answer is not None and not self._answer.done() and result is not None:
            self._answer.set_result(result)
