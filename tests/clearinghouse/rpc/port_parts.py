"""A gRPC port with a few methods, over real sockets, and clients that speak HTTP/2 by hand."""

from __future__ import annotations

import asyncio
import ssl
from collections import Counter
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any, Final

import grpc
from hpack import Decoder

from clearinghouse.connections import Connections
from clearinghouse.errors import Overloaded, Refusal
from clearinghouse.rpc.call import Call
from clearinghouse.rpc.frames import (
    ACK,
    END_HEADERS,
    END_STREAM,
    HEAD_BYTES,
    PAYLOAD_MAX_BYTES,
    WINDOW_BYTES,
    Code,
    Header,
    Kind,
    Setting,
    frame,
    header_block,
    read_head,
    settings,
    window_update,
)
from clearinghouse.rpc.limits import RpcLimits
from clearinghouse.rpc.port import Method, RpcPort
from clearinghouse.rpc.status import Status
from clearinghouse.shares import Shares
from tests.clearinghouse.rpc.http2_parts import HELLO

#: Where a client's time is not what a test is about.
PATIENT: Final = RpcLimits(read_timeout_s=60, idle_timeout_s=60)
#: Larger than any window, and than what a socket takes at once.
LARGE_BYTES: Final = 5 << 20
PIECE: Final = bytes(range(256)) * 256
PIECES_COUNT: Final = LARGE_BYTES // len(PIECE)

ECHO, STREAM, LATE_STREAM, LARGE, PIECES, NEVER, DEAF, STUBBORN, FORSAKEN = (
    f"/test.Echo/{name}"
    for name in ("Echo", "Stream", "LateStream", "Large", "Pieces", "Never", "Deaf", "Stubborn", "Forsaken")
)
#: They begin without a message.
AT_ONCE: Final = {STREAM, LATE_STREAM, DEAF}


@dataclass
class Work:
    """What the methods have done."""

    begun: list[str] = field(default_factory=list)
    cancelled: list[str] = field(default_factory=list)
    refusals: list[Refusal] = field(default_factory=list)
    let_go: asyncio.Event = field(default_factory=asyncio.Event)

    async def echo(self, call: Call) -> None:
        call.answer(call.take())

    async def stream(self, call: Call) -> None:
        while (message := await call.read()) is not None:
            await call.write(message)
        call.succeed()

    async def late_stream(self, call: Call) -> None:
        """Reads nothing until it is let go."""
        await self.let_go.wait()
        await self.stream(call)

    async def large(self, call: Call) -> None:
        call.answer(bytes(LARGE_BYTES))

    async def pieces(self, call: Call) -> None:
        for _ in range(PIECES_COUNT):
            await call.write(PIECE)
        call.succeed()

    async def never(self, call: Call) -> None:
        """Until it is let go."""
        await self.let_go.wait()
        call.answer(call.take())

    async def deaf(self, call: Call) -> None:
        await self.let_go.wait()
        call.succeed()

    async def stubborn(self, call: Call) -> None:
        """Has something to bring to an end when it is cancelled."""
        try:
            await asyncio.Event().wait()
        finally:
            await self.let_go.wait()

    async def forsaken(self, call: Call) -> None:
        """What it waits for was cancelled by somebody else: it never ends its call."""
        waited_for = asyncio.get_running_loop().create_future()
        waited_for.cancel()
        await waited_for

    def methods(self) -> Mapping[bytes, Method]:
        works = {
            ECHO: self.echo,
            STREAM: self.stream,
            LATE_STREAM: self.late_stream,
            LARGE: self.large,
            PIECES: self.pieces,
            NEVER: self.never,
            DEAF: self.deaf,
            STUBBORN: self.stubborn,
            FORSAKEN: self.forsaken,
        }
        return {
            path.encode(): Method(self._noted(path, work), self.refuse, begins_at_once=path in AT_ONCE)
            for path, work in works.items()
        }

    def refuse(self, refusal: Refusal) -> Status:
        self.refusals.append(refusal)
        code = grpc.StatusCode.UNAVAILABLE if isinstance(refusal, Overloaded) else grpc.StatusCode.INVALID_ARGUMENT
        return Status(code, refusal.message)

    def _noted(self, path: str, work: Callable[[Call], Any]) -> Callable[[Call], Any]:
        async def run(call: Call) -> None:
            self.begun.append(path)
            try:
                await work(call)
            except asyncio.CancelledError:
                self.cancelled.append(path)
                raise

        return run


@dataclass
class Port:
    """A port that runs."""

    rpc: RpcPort
    number: int
    work: Work
    connections: Connections
    calls: Shares

    @property
    def target(self) -> str:
        return f"127.0.0.1:{self.number}"

    def cuts(self) -> dict[str, int]:
        """What connections were cut for."""
        return {reason.value: count for reason, count in self.connections.cut_counts.items() if count}

    def is_empty(self) -> bool:
        """Nobody holds anything of it."""
        return not (self.calls.taken_count or self.connections.open_count or self.connections.large_bodies_bytes)


@asynccontextmanager
async def running(
    limits: RpcLimits = PATIENT,
    *,
    calls_max_count: int = 1024,
    connections_max_count: int = 64,
    large_bodies_max_bytes: int = 64 << 20,
    tls: ssl.SSLContext | None = None,
    further: Mapping[bytes, Method] | None = None,
) -> AsyncIterator[Port]:
    """At its end all places are free, all memory is given back, no task is left, and nothing failed unseen."""
    tasks_before = asyncio.all_tasks()
    failures: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: failures.append(context))
    connections = Connections(connections_max_count, large_bodies_max_bytes=large_bodies_max_bytes)
    calls, work = Shares(calls_max_count), Work()
    methods = {**work.methods(), **(further or {})}
    rpc = RpcPort(methods, calls=calls, connections=connections, limits=limits, tls=tls)
    port = Port(rpc, rpc.listen("127.0.0.1", 0), work, connections, calls)
    try:
        yield port
    finally:
        async with asyncio.timeout(30):
            await rpc.close(0)
    assert port.is_empty(), port
    await until(lambda: asyncio.all_tasks() <= tasks_before)
    assert failures == []


async def until(is_true: Callable[[], object]) -> None:
    async with asyncio.timeout(30):
        while not is_true():
            await asyncio.sleep(0.005)


@dataclass
class Answer:
    """What a call was answered: the fields before its messages and after them, and how it ended."""

    data: bytes = b""
    headers: list[Header] = field(default_factory=list)
    has_ended: bool = False
    reset: Code | None = None

    @property
    def status(self) -> grpc.StatusCode:
        number = int(dict(self.headers)[b"grpc-status"])
        return next(code for code in grpc.StatusCode if code.value[0] == number)

    @property
    def messages(self) -> list[bytes]:
        found, data = [], self.data
        while data:
            length = int.from_bytes(data[1:5])
            found.append(data[5 : 5 + length])
            data = data[5 + length :]
        return found


class Visitor:
    """A client by hand: it says what it is told to, and no more. It reads when it is asked for something."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer
        self._last_stream_id = -1
        self._sent_bytes: Counter[int] = Counter()
        self._let_in_bytes: Counter[int] = Counter()
        self._answers: dict[int, Answer] = {}
        self.goodbyes: list[Code] = []
        self.last_stream_ids: list[int] = []  # of the goodbyes
        self.pinged = b""
        self.pings_count = self.pongs_count = 0

    def say(self, *frames: bytes) -> None:
        self._writer.write(b"".join(frames))

    def ask(
        self,
        path: str,
        *messages: bytes,
        more: tuple[Header, ...] = (),
        is_end: bool = True,
        prefix: bool = True,
        method: bytes = b"POST",
    ) -> int:
        """Begins a call. Messages are sent whole, whatever the windows are; `prefix` puts their length before them."""
        self._last_stream_id += 2
        self.say(asked(self._last_stream_id, path, more=more, method=method))
        self.go_on(self._last_stream_id, *messages, is_end=is_end, prefix=prefix)
        return self._last_stream_id

    def go_on(self, stream_id: int, *messages: bytes, is_end: bool = True, prefix: bool = True) -> None:
        data = b"".join(b"\0" + len(each).to_bytes(4) + each if prefix else each for each in messages)
        for start in range(0, len(data), PAYLOAD_MAX_BYTES):
            self.say(frame(Kind.DATA, 0, stream_id, data[start : start + PAYLOAD_MAX_BYTES]))
        if is_end:
            self.say(frame(Kind.DATA, END_STREAM, stream_id))

    async def send_data(self, stream_id: int, payload: bytes, flags: int) -> None:
        """When the windows let it through."""
        self._sent_bytes[stream_id] += len(payload)
        while self._sent_bytes[stream_id] > WINDOW_BYTES + self.let_in_bytes(stream_id):
            assert await self.hears(), "the connection has ended"
        self.say(frame(Kind.DATA, flags, stream_id, payload))

    def let_in_bytes(self, stream_id: int) -> int:
        """Beyond the window that each stream begins with."""
        return self._let_in_bytes[stream_id]

    def say_no_more(self) -> None:
        self._writer.write_eof()

    def answer_so_far(self, stream_id: int) -> Answer:
        return self._answers.setdefault(stream_id, Answer())

    async def answer(self, stream_id: int) -> Answer:
        """When it is over."""
        while not (answer := self.answer_so_far(stream_id)).has_ended:
            assert await self.hears(), f"the connection has ended before its call {stream_id}"
        return answer

    async def hears(self) -> bool:
        """One frame more; False when there are no more."""
        try:
            async with asyncio.timeout(30):
                length, kind, flags, stream_id = read_head(await self._reader.readexactly(HEAD_BYTES), 0)
                payload = await self._reader.readexactly(length)
        except (asyncio.IncompleteReadError, ConnectionError):
            self.leave()
            return False
        answer = self.answer_so_far(stream_id)
        if kind == Kind.GOAWAY:
            self.last_stream_ids.append(int.from_bytes(payload[:4]))
            self.goodbyes.append(Code(int.from_bytes(payload[4:8])))
        elif kind == Kind.PING:
            self.pinged = b"" if flags & ACK else payload
            self.pings_count += not flags & ACK
            self.pongs_count += flags & ACK
        elif kind == Kind.WINDOW_UPDATE:
            self._let_in_bytes[stream_id] += int.from_bytes(payload)
        elif kind == Kind.RST_STREAM and not answer.has_ended:
            answer.has_ended, answer.reset = True, Code(int.from_bytes(payload))
        elif kind == Kind.DATA:
            answer.data += payload
        elif kind == Kind.HEADERS:
            answer.headers += plain_fields(payload)
            answer.has_ended = bool(flags & END_STREAM)
        return True

    async def is_heard(self) -> None:
        """All that it has said until now has been worked on, and it has heard what was said until then."""
        before_count = self.pongs_count
        self.say(frame(Kind.PING, 0, 0, bytes(8)))
        while self.pongs_count == before_count:
            assert await self.hears(), "the connection has ended"

    async def hears_all(self) -> None:
        """Until the connection is over."""
        while await self.hears():
            pass

    def leave(self) -> None:
        self._writer.transport.abort()


def asked(
    stream_id: int, path: str, data: bytes | None = None, *, more: tuple[Header, ...] = (), method: bytes = b"POST"
) -> bytes:
    """The frames of a call; without data it goes on."""
    said = [(b":method", method), (b":scheme", b"http"), (b":path", path.encode())]
    if all(name != b"content-type" for name, _ in more):
        said.append((b"content-type", b"application/grpc"))
    begun = frame(Kind.HEADERS, END_HEADERS, stream_id, header_block([*said, (b"te", b"trailers"), *more]))
    return begun if data is None else begun + frame(Kind.DATA, END_STREAM, stream_id, data)


def plain_fields(block: bytes) -> list[Header]:
    """Header fields that are neither compressed nor indexed."""
    return [(bytes(name), bytes(value)) for name, value in Decoder().decode(block, raw=True)]


@asynccontextmanager
async def visiting(port: Port, address: str = "127.0.0.1", *, hello: bytes = HELLO) -> AsyncIterator[Visitor]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port.number, local_addr=(address, 0))
    visitor = Visitor(reader, writer)
    visitor.say(hello)
    try:
        yield visitor
    finally:
        visitor.leave()
        with suppress(ConnectionError):
            await writer.wait_closed()


#: Of a client that lets everything through at once.
WIDE_OPEN: Final = HELLO + settings({Setting.INITIAL_WINDOW_SIZE: (1 << 31) - 1}) + window_update(0, 1 << 30)
