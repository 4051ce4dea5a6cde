"""Servers of tests' own: a port, what to do with each connection, and an end after which nothing is left open.

async with listening(converse) as port: ...

An `asyncio.Server` that is closed forgets connections which it has just accepted: their sockets show as leaks in
whichever test the garbage collector runs next. So this one accepts for itself.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

Converse = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
_BACKLOG = 100


class Listener:
    """Starts, stops and starts again; belongs to one event loop. Without `tls` connections are plain."""

    def __init__(self, converse: Converse, *, tls: ssl.SSLContext | None = None) -> None:
        self._converse = converse
        self._tls = tls
        self._listening: socket.socket | None = None
        self._conversations: dict[asyncio.Task[None], socket.socket] = {}
        self._writers: set[asyncio.StreamWriter] = set()

    @property
    def is_listening(self) -> bool:
        return self._listening is not None

    @property
    def conversations(self) -> frozenset[asyncio.Task[None]]:
        """Those that go on."""
        return frozenset(self._conversations)

    def start(self, host: str = "127.0.0.1", port: int = 0) -> int:
        """The port."""
        listening = socket.create_server((host, port), backlog=_BACKLOG)
        self.start_with(listening)
        return int(listening.getsockname()[1])

    def start_unix(self, path: Path) -> None:
        listening = socket.socket(socket.AF_UNIX)
        listening.bind(str(path))
        listening.listen(_BACKLOG)
        self.start_with(listening)

    def start_with(self, listening: socket.socket) -> None:
        """`listening` belongs to the listener from now on."""
        assert self._listening is None, "listens already"
        listening.setblocking(False)
        self._listening = listening
        asyncio.get_running_loop().add_reader(listening, self._accept, listening)

    def refuse(self) -> None:
        """New connections are refused until it starts again; those that are open go on."""
        if self._listening is not None:
            asyncio.get_running_loop().remove_reader(self._listening)
            self._listening.close()
            self._listening = None

    async def stop(self) -> None:
        """Refuses new connections, cancels the conversations and resets what is open, as a killed process does."""
        self.refuse()
        going_on = dict(self._conversations)
        for conversation in going_on:
            conversation.cancel()
        await asyncio.gather(*going_on, return_exceptions=True)
        for writer in self._writers:
            writer.transport.abort()
        self._writers.clear()
        await asyncio.sleep(0)  # until they are closed
        for connection in going_on.values():
            connection.close()  # of a conversation that had not begun

    def _accept(self, listening: socket.socket) -> None:
        with contextlib.suppress(BlockingIOError, ConnectionAbortedError):  # the caller has gone again
            connection, _ = listening.accept()
            connection.setblocking(False)
            conversation = asyncio.create_task(self._serve(connection))
            self._conversations[conversation] = connection
            conversation.add_done_callback(self._conversations.pop)

    async def _serve(self, connection: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        reader = asyncio.StreamReader()
        try:
            transport, protocol = await loop.connect_accepted_socket(
                lambda: asyncio.StreamReaderProtocol(reader), connection, ssl=self._tls
            )
        except OSError:
            return  # the caller has gone, or does not speak TLS
        writer = asyncio.StreamWriter(transport, protocol, reader, loop)
        self._writers.add(writer)
        try:
            await self._converse(reader, writer)
        except Exception:
            writer.close()  # the caller shall not wait for what does not come
            raise


@asynccontextmanager
async def listening(
    converse: Converse, host: str = "127.0.0.1", *, tls: ssl.SSLContext | None = None
) -> AsyncIterator[int]:
    """The port, until the end."""
    listener = Listener(converse, tls=tls)
    try:
        yield listener.start(host)
    finally:
        await listener.stop()
