"""Connections that are passed on to somewhere else, and can be cut or fall silent, as networks do."""

from __future__ import annotations

import asyncio
import contextlib

_CHUNK_BYTES = 64 * 1024
End = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class Pipes:
    """Belongs to one event loop. `close` at the end."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[None]] = set()
        self._writers: set[asyncio.StreamWriter] = set()

    def keep(self, writer: asyncio.StreamWriter) -> None:
        """Open until it is cut, whether or not it is joined to anything."""
        self._writers.add(writer)

    def join(self, here: End, there: End) -> None:
        """What comes from one goes to the other."""
        for source, sink in ((here[0], there[1]), (there[0], here[1])):
            self.keep(sink)
            task = asyncio.create_task(_copy(source, sink))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    def fall_silent(self) -> None:
        """They stay open, and nothing passes any more."""
        for task in list(self._tasks):
            task.cancel()

    def cut(self) -> None:
        for writer in list(self._writers):
            writer.transport.abort()

    async def close(self) -> None:
        self.fall_silent()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self.cut()
        await asyncio.sleep(0)


async def _copy(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
    with contextlib.suppress(ConnectionError):
        while chunk := await source.read(_CHUNK_BYTES):
            sink.write(chunk)
            await sink.drain()
    sink.close()  # not reached when cancelled: then the other side hears nothing at all
