"""An RpcPort with a few methods, and clients that write their own frames."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import grpc

from clearinghouse.connections import Connections
from clearinghouse.errors import Refusal
from clearinghouse.rpc.call import Call
from clearinghouse.rpc.frames import (
    END_HEADERS,
    END_STREAM,
    HEAD_BYTES,
    PREFACE,
    Kind,
    Setting,
    frame,
    header_block,
    read_head,
    settings,
)
from clearinghouse.rpc.limits import RpcLimits
from clearinghouse.rpc.port import Method, RpcPort
from clearinghouse.rpc.status import Status
from clearinghouse.shares import Shares


def message(content: bytes) -> bytes:
    return b"\0" + len(content).to_bytes(4) + content


def begun(stream_id: int, path: bytes) -> bytes:
    """The head of a call."""
    headers = [(b":method", b"POST"), (b":scheme", b"http"), (b":path", path), (b"content-type", b"application/grpc")]
    return frame(Kind.HEADERS, END_HEADERS, stream_id, header_block(headers))


def asked(stream_id: int, path: bytes, content: bytes = b"") -> bytes:
    """A whole unary call."""
    return begun(stream_id, path) + frame(Kind.DATA, END_STREAM, stream_id, message(content))


@dataclass
class Got:
    """One frame of the server's."""

    kind: int
    flags: int
    stream_id: int
    payload: bytes


@dataclass
class RawClient:
    """Reads frames in the background of nothing: `until` reads as far as it has to."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    frames: list[Got] = field(default_factory=list)

    async def until(self, is_it: Callable[[Got], bool]) -> Got:
        """Raises IncompleteReadError when the server closes before."""
        async with asyncio.timeout(60):
            while True:
                length, kind, flags, stream_id = read_head(await self.reader.readexactly(HEAD_BYTES), 0)
                got = Got(kind, flags, stream_id, await self.reader.readexactly(length))
                self.frames.append(got)
                if is_it(got):
                    return got

    async def end_of(self, stream_id: int) -> bytes:
        """The trailers of a call."""
        ended = await self.until(
            lambda got: got.stream_id == stream_id and got.kind == Kind.HEADERS and bool(got.flags & END_STREAM)
        )
        return ended.payload


@dataclass
class Served:
    port: RpcPort
    number: int
    calls: Shares
    connections: Connections
    go: asyncio.Event

    @asynccontextmanager
    async def client(self, values: dict[Setting, int] | None = None) -> AsyncIterator[RawClient]:
        reader, writer = await asyncio.open_connection("127.0.0.1", self.number)
        writer.write(PREFACE + settings(values or {}))
        try:
            yield RawClient(reader, writer)
        finally:
            writer.transport.abort()


async def _echo(call: Call) -> None:
    call.answer(call.take())


async def _forsaken(call: Call) -> None:
    """What it waits for was cancelled by somebody else."""
    waited_for = asyncio.get_running_loop().create_future()
    waited_for.cancel()
    await waited_for


def _refused(refusal: Refusal) -> Status:
    return Status(grpc.StatusCode.INVALID_ARGUMENT, refusal.message)


@asynccontextmanager
async def serving(further: Mapping[bytes, Method] | None = None) -> AsyncIterator[Served]:
    """`/t/Echo` answers at once, `/t/Deaf` reads nothing until `go`, `/t/Forsaken` never ends its call."""
    go = asyncio.Event()

    async def deaf(call: Call) -> None:
        await go.wait()
        while (content := await call.read()) is not None:
            await call.write(content)
        call.succeed()

    methods = {
        b"/t/Echo": Method(_echo, _refused),
        b"/t/Deaf": Method(deaf, _refused, begins_at_once=True),
        b"/t/Forsaken": Method(_forsaken, _refused),
        **(further or {}),
    }
    calls, connections = Shares(4096), Connections(64)
    port = RpcPort(methods, calls=calls, connections=connections, limits=RpcLimits(), tls=None)
    number = port.listen("127.0.0.1", 0)
    try:
        yield Served(port, number, calls, connections, go)
    finally:
        await port.close(5)
        assert (calls.taken_count, connections.open_count) == (0, 0), "every place is given back"
        assert connections.large_bodies_bytes == 0
