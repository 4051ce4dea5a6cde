"""A way to the database that can be cut: a Unix socket in between, as a network would be.

async with database_link(conninfo, folder) as link:
    ... service over link.conninfo ...
    link.cut()          # connections are reset, new ones refused: the server has died
    link.partition()    # connections stay open and silent for ever, as do new ones: the network has died
    await link.mend()   # new connections work again; silent ones stay silent
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from psycopg.conninfo import conninfo_to_dict, make_conninfo

from tests.parts.listening import Listener
from tests.parts.pipes import Pipes


class DatabaseLink:
    """Use `database_link`."""

    def __init__(self, conninfo: str, folder: Path) -> None:
        parameters = conninfo_to_dict(conninfo)
        socket_name = f".s.PGSQL.{parameters['port']}"
        self._target = Path(str(parameters["host"])) / socket_name
        self._path = folder / socket_name
        self.conninfo = make_conninfo(conninfo, host=str(folder))
        self._listener = Listener(self._connected)
        self._pipes = Pipes()
        self._is_silent = False

    async def mend(self) -> None:
        self._is_silent = False
        if not self._listener.is_listening:
            self._path.unlink(missing_ok=True)
            self._listener.start_unix(self._path)

    def cut(self) -> None:
        self._listener.refuse()
        self._path.unlink(missing_ok=True)
        self._pipes.cut()

    def partition(self) -> None:
        self._is_silent = True
        self._pipes.fall_silent()

    async def close(self) -> None:
        self.cut()
        await self._listener.stop()
        await self._pipes.close()

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._pipes.keep(writer)
        if not self._is_silent:
            self._pipes.join((reader, writer), await asyncio.open_unix_connection(self._target))


@asynccontextmanager
async def database_link(conninfo: str, folder: Path) -> AsyncIterator[DatabaseLink]:
    link = DatabaseLink(conninfo, folder)
    await link.mend()
    try:
        yield link
    finally:
        await link.close()
