"""A way to the database that can be cut: a Unix socket in between, as a network would be.

async with database_link(conninfo, folder) as link:
    ... service over link.conninfo ...
    link.cut()          # connections are reset, new ones refused: the server has died
    link.partition()    # connections stay open and silent for ever, as do new ones: the network has died
    await link.mend()   # new connections work again; silent ones stay silent
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from psycopg.conninfo import conninfo_to_dict, make_conninfo

CHUNK_BYTES = 64 * 1024


class DatabaseLink:
    """Use `database_link`."""

    def __init__(self, conninfo: str, folder: Path) -> None:
        parameters = conninfo_to_dict(conninfo)
        socket_name = f".s.PGSQL.{parameters['port']}"
        self._target = Path(str(parameters["host"])) / socket_name
        self._path = folder / socket_name
        self.conninfo = make_conninfo(conninfo, host=str(folder))
        self._server: asyncio.Server | None = None
        self._writers: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._is_silent = False

    async def mend(self) -> None:
        self._is_silent = False
        if self._server is None:
            self._path.unlink(missing_ok=True)
            self._server = await asyncio.start_unix_server(self._connected, self._path)

    def cut(self) -> None:
        if self._server is not None:
            self._server.close()
            self._server = None
        self._path.unlink(missing_ok=True)
        for writer in list(self._writers):
            writer.transport.abort()

    def partition(self) -> None:
        self._is_silent = True
        for task in list(self._tasks):
            task.cancel()

    async def close(self) -> None:
        self.cut()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.add(writer)
        if self._is_silent:
            return
        server_reader, server_writer = await asyncio.open_unix_connection(self._target)
        self._writers.add(server_writer)
        for source, sink in ((reader, server_writer), (server_reader, writer)):
            task = asyncio.create_task(_copy(source, sink))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)


async def _copy(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
    with contextlib.suppress(ConnectionError):
        while chunk := await source.read(CHUNK_BYTES):
            sink.write(chunk)
            await sink.drain()
    sink.close()  # not reached when cancelled: then the other side hears nothing at all


@asynccontextmanager
async def database_link(conninfo: str, folder: Path) -> AsyncIterator[DatabaseLink]:
    link = DatabaseLink(conninfo, folder)
    await link.mend()
    try:
        yield link
    finally:
        await link.close()
