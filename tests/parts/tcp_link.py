"""A TCP way to a server that can be cut, or go silent, as a network would.

async with tcp_link("127.0.0.1", port) as link:
    ... client to link.port ...
    link.silence()      # connections stay open and nothing passes any more; new ones are the same
    link.mend()         # new connections work again; silent ones stay silent
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from tests.parts.listening import Listener
from tests.parts.pipes import Pipes


class TcpLink:
    """Use `tcp_link`."""

    def __init__(self, host: str, port: int) -> None:
        self._host, self._port = host, port
        self._is_silent = False
        self._pipes = Pipes()
        self._listener = Listener(self._accept)
        self.port = 0
        self.connections_count = 0

    def silence(self) -> None:
        self._is_silent = True
        self._pipes.fall_silent()

    def mend(self) -> None:
        self._is_silent = False

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections_count += 1
        self._pipes.keep(writer)
        if not self._is_silent:
            self._pipes.join((reader, writer), await asyncio.open_connection(self._host, self._port))

    def open(self) -> None:
        self.port = self._listener.start()

    async def close(self) -> None:
        await self._listener.stop()
        await self._pipes.close()


@asynccontextmanager
async def tcp_link(host: str, port: int) -> AsyncIterator[TcpLink]:
    link = TcpLink(host, port)
    link.open()
    try:
        yield link
    finally:
        await link.close()
