"""What no HTTP client would do, on the sockets of both ports: it ends in time, and a good call succeeds at once.

Nothing sent here has a key, except the good calls: whatever is recorded is theirs.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import re
import resource
import socket
import struct
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable

import grpc
import pytest

from clearinghouse.api.pb.clearinghouse_pb2_grpc import ClearinghouseStub
from tests.clearinghouse.api.grpc_parts import metadata, next_request
from tests.parts import client
from tests.parts.service import GO_LIVEPEER, OURS, Service, running
from tests.parts.stack import TestGateway
from tests.storm.mutate import storm_seconds, storm_seed, until_the_end

pytestmark = [pytest.mark.slow, pytest.mark.timeout(storm_seconds() * 2 + 120)]

READ_TIMEOUT_S, IDLE_TIMEOUT_S = 0.6, 1.2
#: From the last byte sent: an answer, its end, and a loop that has a hundred others to serve on a busy machine.
ENDS_WITHIN_S = READ_TIMEOUT_S + 2 * IDLE_TIMEOUT_S + 15
AT_ONCE = 40
IDLE_COUNT = 2000
PATHS = (GO_LIVEPEER, OURS, "/v1/balance", "/healthz", "/openapi.json", "/nowhere", GO_LIVEPEER + "?", "//", "*")
HTTP2 = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
CLIENT_HELLO = bytes.fromhex("16030100c8010000c40303") + bytes(64) + b"\x00\x08\x13\x02\x13\x03\x13\x01\x00\xff" * 8


@pytest.fixture
async def service(database: str) -> AsyncIterator[Service]:
    listen = {"read_timeout_s": READ_TIMEOUT_S, "idle_timeout_s": IDLE_TIMEOUT_S}
    async with running(database, listen=listen) as service:
        yield service
        await service.house.require_sound_books()


@pytest.fixture
async def gateway(service: Service) -> TestGateway:
    return await service.house.new_gateway(tickets=100_000)


class Wire:
    """One connection of an attacker."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, choice: random.Random) -> None:
        self.reader, self.writer, self.choice = reader, writer, choice

    async def send(self, data: bytes) -> None:
        self.writer.write(data)
        await asyncio.wait_for(self.writer.drain(), ENDS_WITHIN_S)

    async def trickle(self, data: bytes, *, piece_bytes: int, pause_s: float) -> None:
        for at in range(0, len(data), piece_bytes):
            await self.send(data[at : at + piece_bytes])
            await asyncio.sleep(pause_s)

    def half_close(self) -> None:
        self.writer.write_eof()

    def reset(self) -> None:
        """RST instead of FIN."""
        linger = struct.pack("ii", 1, 0)
        self.writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        self.writer.transport.abort()

    def head(self, *lines: str, method: str = "POST", path: str = "") -> bytes:
        path = path or self.choice.choice(PATHS)
        return "\r\n".join([f"{method} {path} HTTP/1.1", "Host: x", *lines, "", ""]).encode("latin-1")


Attack = Callable[[Wire], Awaitable[None]]


async def slow_head(wire: Wire) -> None:
    await wire.trickle(wire.head("X-Slow: " + "y" * 400), piece_bytes=wire.choice.randint(1, 9), pause_s=0.1)


async def slow_body(wire: Wire) -> None:
    await wire.send(wire.head("Content-Length: 1000"))
    await wire.trickle(b"{" + b" " * 998, piece_bytes=wire.choice.randint(1, 40), pause_s=0.1)


async def slow_chunks(wire: Wire) -> None:
    await wire.send(wire.head("Transfer-Encoding: chunked"))
    await wire.trickle(b"1\r\n \r\n" * 100, piece_bytes=6, pause_s=0.1)


async def half_closed_after_head(wire: Wire) -> None:
    await wire.send(wire.head("Content-Length: 100"))
    wire.half_close()


async def half_closed_after_body(wire: Wire) -> None:
    await wire.send(wire.head("Content-Length: 2") + b"{}")
    wire.half_close()
    assert b"HTTP/1.1 " in await wire.reader.read(9), "the question was whole: there is an answer"


async def reset_in_the_middle_of_the_answer(wire: Wire) -> None:
    await wire.send(wire.head(method="GET", path="/openapi.json") * 5)
    await wire.reader.read(10)
    wire.reset()


async def reset_in_the_middle_of_the_body(wire: Wire) -> None:
    await wire.send(wire.head("Content-Length: 1000") + b"{")
    await asyncio.sleep(wire.choice.random() / 10)
    wire.reset()


async def head_one_byte_too_long(wire: Wire) -> None:
    head = wire.head("X-Long: ")[:-4]
    await wire.send(head + b"y" * (64 * 1024 + 1 - len(head)))


async def ten_thousand_headers(wire: Wire) -> None:
    await wire.send(wire.head(*["X-Many: z"] * 10_000, "Content-Length: 2") + b"{}")


async def pipelined_garbage(wire: Wire) -> None:
    good = wire.head(method="GET", path="/healthz")
    await wire.send(good * wire.choice.randint(1, 50) + wire.choice.randbytes(wire.choice.randint(1, 2000)) + good)


async def chunked_lies(wire: Wire) -> None:
    lie = wire.choice.choice(
        [b"FFFFFFFFFFFFFFFFF\r\n{}", b"-1\r\n{}\r\n", b"5\r\n{}\r\n0\r\n\r\n", b"2\r\n{}{}{}\r\n0\r\n\r\n", b"2\n{}\n",
         b"0x2\r\n{}\r\n0\r\n\r\n", b"2;" + b"e" * 70_000, b"0\r\n" + b"T: t\r\n" * 20_000,
         b"1\r\n \r\n" * 40_000, b" 2\r\n{}\r\n"]
    )  # fmt: skip
    await wire.send(wire.head("Transfer-Encoding: chunked") + lie)


async def two_lengths(wire: Wire) -> None:
    lines = wire.choice.choice(
        [("Content-Length: 2", "Content-Length: 3"), ("Content-Length: 2", "Transfer-Encoding: chunked"),
         ("Content-Length: -2",), ("Content-Length: 99999999999999999999",), ("Content-Length: 2, 2",),
         ("Transfer-Encoding: gzip, chunked",), ("Transfer-Encoding: xchunked",), ("Content-Length : 2",)]
    )  # fmt: skip
    await wire.send(wire.head(*lines) + b"{}\r\n0\r\n\r\n")


async def another_protocol(wire: Wire) -> None:
    await wire.send(
        wire.choice.choice(
            [HTTP2, CLIENT_HELLO, b"\x00" * 100, b"SSH-2.0-OpenSSH_9.7\r\n", b"GET /\r\n", b"\r\n" * 40_000,
             wire.head("Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c", "HTTP2-Settings: AAMAAABk") + HTTP2,
             b"GET / HTTP/9.9\r\n\r\n", b"CONNECT x:443 HTTP/1.1\r\n\r\n", b"GET http://[ HTTP/1.1\r\n\r\n",
             b"GET /\x00 HTTP/1.1\r\n\r\n", b"PROXY TCP4 1.2.3.4 5.6.7.8 1 2\r\n" + wire.head()]
        )
    )  # fmt: skip


async def expecting_to_be_asked(wire: Wire) -> None:
    await wire.send(wire.head("Content-Length: 10", "Expect: 100-continue"))


async def nothing_at_all(wire: Wire) -> None:
    await asyncio.sleep(0)


ATTACKS: tuple[Attack, ...] = (
    slow_head,
    slow_body,
    slow_chunks,
    half_closed_after_head,
    half_closed_after_body,
    reset_in_the_middle_of_the_answer,
    reset_in_the_middle_of_the_body,
    head_one_byte_too_long,
    ten_thousand_headers,
    pipelined_garbage,
    chunked_lies,
    two_lengths,
    another_protocol,
    expecting_to_be_asked,
    nothing_at_all,
)


async def attack_with(port: int, attack: Attack, choice: random.Random) -> Counter[int]:
    """One connection's whole life. Returns the statuses it was answered with."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    answer = b""
    try:
        with contextlib.suppress(ConnectionError):  # cut off, while we were at it
            await attack(Wire(reader, writer, choice))
            async with asyncio.timeout(ENDS_WITHIN_S):
                answer = await reader.read()
    finally:
        writer.transport.abort()
    return Counter(map(int, re.findall(rb"HTTP/1\.1 (\d{3})", answer)))


async def require_good_call(service: Service, gateway: TestGateway) -> None:
    began_s = time.monotonic()
    await service.pay(gateway, service.new_stream())
    assert time.monotonic() - began_s < client.CLIENT_TIMEOUT_S - 1


async def test_whatever_a_socket_does_it_ends_in_time_and_harms_nobody(service: Service, gateway: TestGateway) -> None:
    seed = storm_seed()
    print(f"STORM_SEED={seed}")
    choice, good_count, seen = random.Random(seed), 0, Counter[int]()
    for _ in until_the_end():
        attacks = [*ATTACKS, *choice.choices(ATTACKS, k=AT_ONCE - len(ATTACKS))]
        under_way = [
            asyncio.create_task(attack_with(service.port, attack, choice), name=attack.__name__) for attack in attacks
        ]
        await asyncio.sleep(0.05)
        await require_good_call(service, gateway)
        good_count += 1
        for task in under_way:
            try:
                seen += await task
            except Exception as error:
                raise AssertionError(f"{task.get_name()}: {error!r}") from error
    assert not [status for status in seen if status >= 500], seen
    assert {200, 400, 431} <= set(seen), seen
    assert service.house.sums(gateway).issuances == good_count
    print(f"answers by status: {dict(seen)}")


async def test_thousands_of_idle_connections_hold_nobody_up_and_are_closed(
    service: Service, gateway: TestGateway
) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    count = min(IDLE_COUNT, (hard - 1000) // 2)  # both ends are in this process
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, 2 * count + 1000), hard))
    idle = [await asyncio.open_connection("127.0.0.1", service.port) for _ in range(count)]
    await require_good_call(service, gateway)
    async with asyncio.timeout(ENDS_WITHIN_S * 3):
        assert set(await asyncio.gather(*(reader.read() for reader, _ in idle))) == {b""}
    for _, writer in idle:
        writer.transport.abort()
    await require_good_call(service, gateway)


async def test_clients_that_never_read_are_cut(service: Service, gateway: TestGateway) -> None:
    asked = b"GET /openapi.json HTTP/1.1\r\nHost: x\r\n\r\n" * 200
    sockets = []
    for _ in range(AT_ONCE):
        stuck = socket.socket()
        stuck.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        stuck.setblocking(False)
        await asyncio.get_running_loop().sock_connect(stuck, ("127.0.0.1", service.port))
        with contextlib.suppress(BlockingIOError):
            stuck.send(asked)
        sockets.append(stuck)
    await require_good_call(service, gateway)
    async with asyncio.timeout(ENDS_WITHIN_S * 2):
        while await open_count(service):
            await asyncio.sleep(0.05)
    for stuck in sockets:
        stuck.close()
    await require_good_call(service, gateway)


async def open_count(service: Service) -> int:
    """Connections that the service holds, apart from the one that asks. What its kernel keeps for them is another."""
    page = (await client.call(service.port, "GET", "/metrics")).body
    found = re.search(rb"^clearinghouse_connections_open (\d+)", page, re.MULTILINE)
    assert found is not None
    return int(found[1]) - 1


# --- the gRPC port ----------------------------------------------------------------------------------------------------


def frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    return len(payload).to_bytes(3, "big") + bytes([kind, flags]) + stream.to_bytes(4, "big") + payload


DATA, HEADERS, PRIORITY, RST, SETTINGS, PUSH, PING, GOAWAY, WINDOW, CONTINUATION = range(10)
LITERAL = b"\x00\x04name\x7f\x80\x10" + b"v" * 2175  # a header of 2175 bytes, not remembered
#: What follows the preface and empty settings.
ON_HTTP2 = {
    "pings without end": frame(PING, 0, 0, bytes(8)) * 2000,
    "settings without end": frame(SETTINGS, 0, 0, struct.pack(">HL", 4, 65535)) * 2000,
    "headers that go on and on": frame(HEADERS, 0, 1, LITERAL) + frame(CONTINUATION, 0, 1, LITERAL) * 500,
    "streams opened and reset": b"".join(
        frame(HEADERS, 4, stream, b"\x83\x86") + frame(RST, 0, stream, bytes(4)) for stream in range(1, 4001, 2)
    ),
    "a frame larger than any may be": frame(DATA, 0, 1, bytes(2**24 - 1))[: 1 << 20],
    "a stream of the server's": frame(HEADERS, 4, 2, b"\x83\x86"),
    "data before headers": frame(DATA, 0, 1, b"x" * 100),
    "a push": frame(PUSH, 4, 1, b"\x00\x00\x00\x02\x83"),
    "an index outside the table": frame(HEADERS, 5, 1, b"\xff\xff\xff\xff\x0f"),
    "a window that overflows": frame(WINDOW, 0, 0, struct.pack(">L", 2**31 - 1)) * 2,
    "zero windows": frame(SETTINGS, 0, 0, struct.pack(">HL", 4, 0)),
}


@pytest.mark.parametrize("name", ON_HTTP2)
async def test_abuse_of_http2_harms_nobody_else(service: Service, gateway: TestGateway, name: str) -> None:
    async with attacking_grpc(service, HTTP2 + frame(SETTINGS, 0, 0, b"") + ON_HTTP2[name]):
        for _ in range(3):
            await require_good_grpc_call(service, gateway)


@pytest.mark.parametrize("sent", [b"", b"PRI", b"GET / HTTP/1.1\r\n\r\n", CLIENT_HELLO, b"\x00" * 5000], ids=repr)
async def test_what_is_not_http2_ends_in_time(service: Service, gateway: TestGateway, sent: bytes) -> None:
    async with attacking_grpc(service, sent) as readers:
        await require_good_grpc_call(service, gateway)
        async with asyncio.timeout(ENDS_WITHIN_S):
            for reader in readers:
                with contextlib.suppress(ConnectionError):
                    await reader.read()


@contextlib.asynccontextmanager
async def attacking_grpc(service: Service, sent: bytes) -> AsyncIterator[list[asyncio.StreamReader]]:
    """From ten connections at once."""
    connections = [await asyncio.open_connection("127.0.0.1", service.running.grpc_port) for _ in range(10)]
    try:
        for _, writer in connections:
            writer.write(sent)
        yield [reader for reader, _ in connections]
    finally:
        for _, writer in connections:
            writer.transport.abort()


async def require_good_grpc_call(service: Service, gateway: TestGateway) -> None:
    async with grpc.aio.insecure_channel(f"127.0.0.1:{service.running.grpc_port}") as channel:
        request = next_request(service.new_stream())
        began_s = time.monotonic()
        assert await ClearinghouseStub(channel).SignTicket(
            request, metadata=metadata(gateway), timeout=client.CLIENT_TIMEOUT_S
        )
        assert time.monotonic() - began_s < client.CLIENT_TIMEOUT_S - 1
