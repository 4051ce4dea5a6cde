"""The door of a port, over real sockets: who gets in, who is sent away, and that every place is free again."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import gc
import socket
import ssl
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from clearinghouse.asgi import Application, ClientGone, Receive, Reply, Scope, Send, read_body
from clearinghouse.connections import Connections, Cut
from clearinghouse.door import NO_FILES_PAUSE_S
from clearinghouse.errors import Refusal
from clearinghouse.hot_routes import HotRequest, HotRoutes
from clearinghouse.listener import HttpListener
from tests.parts.certificates import Authority

READ_TIMEOUT_S, IDLE_TIMEOUT_S = 0.3, 1.0
#: Where a client's time is not what a test is about.
PATIENT = {"read_timeout_s": 60.0, "idle_timeout_s": 60.0}
GET = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"
LARGE = b"x" * (1 << 20)


def hello(read_timeout_s: float) -> Application:
    async def say(scope: Scope, receive: Receive, send: Send) -> None:
        with contextlib.suppress(Refusal, ClientGone):
            await read_body(receive, bytes_max=1 << 20, timeout_s=read_timeout_s)
        await Reply(200, LARGE if scope["path"] == "/large" else b"hello").send(send)

    return say


async def large(_: HotRequest) -> Reply:
    return Reply(200, LARGE)


async def echo(request: HotRequest) -> Reply:
    try:
        return Reply(200, b"%d" % len(request.read()))
    except Refusal as refusal:
        return Reply(refusal.http_status, b"")


@asynccontextmanager
async def listening(
    connections: Connections,
    *,
    read_timeout_s: float = READ_TIMEOUT_S,
    idle_timeout_s: float = IDLE_TIMEOUT_S,
    **more: Any,
) -> AsyncIterator[int]:
    listener = HttpListener(
        hello(read_timeout_s),
        host="127.0.0.1",
        port=0,
        read_timeout_s=read_timeout_s,
        idle_timeout_s=idle_timeout_s,
        shutdown_timeout_s=1,
        hot=HotRoutes(
            {(b"GET", b"/hot"): large, (b"POST", b"/hot"): echo}, body_max_bytes=1 << 20, body_timeout_s=read_timeout_s
        ),
        connections=connections,
        **more,
    )
    port = await listener.start()
    try:
        yield port
    finally:
        await listener.stop()
    assert connections.open_count == 0, "every place is given back"
    assert connections.large_bodies_bytes == 0


class Visitors:
    """Connections of a test, each from an address of its choice; closed at the end."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._writers: list[asyncio.StreamWriter] = []

    async def come(self, address: str = "127.0.0.1") -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        reader, writer = await asyncio.open_connection("127.0.0.1", self._port, local_addr=(address, 0))
        self._writers.append(writer)
        return reader, writer

    def leave(self) -> None:
        for writer in self._writers:
            writer.transport.abort()


@asynccontextmanager
async def visiting(port: int) -> AsyncIterator[Visitors]:
    visitors = Visitors(port)
    try:
        yield visitors
    finally:
        visitors.leave()


async def until(is_true: Callable[[], object]) -> None:
    async with asyncio.timeout(30):
        while not is_true():
            await asyncio.sleep(0.01)


async def said(reader: asyncio.StreamReader) -> bytes:
    async with asyncio.timeout(30):
        return await reader.read()


async def test_one_address_gets_half_is_then_told_503_and_others_get_in() -> None:
    connections = Connections(8)
    async with listening(connections, **PATIENT) as port, visiting(port) as visitors:
        for _ in range(4):
            await visitors.come("127.0.0.2")
        await until(lambda: connections.open_count == 4)
        reader, writer = await visitors.come("127.0.0.2")
        writer.write(GET)
        answer = await said(reader)
        assert answer.startswith(b"HTTP/1.1 503 Service Unavailable\r\n")
        assert b"connection: close" in answer
        assert connections.cut_counts[Cut.ADDRESS_SHARE] == 1

        reader, writer = await visitors.come("127.0.0.3")
        writer.write(GET)
        assert (await reader.readline()).startswith(b"HTTP/1.1 200 ")
        visitors.leave()
        await until(lambda: connections.open_count == 0)
        reader, writer = await visitors.come("127.0.0.2")
        writer.write(GET)
        assert (await reader.readline()).startswith(b"HTTP/1.1 200 ")
    assert sum(connections.cut_counts.values()) == 1


async def test_when_every_place_is_taken_everybody_is_told_503() -> None:
    connections = Connections(4)
    async with listening(connections, **PATIENT) as port, visiting(port) as visitors:
        for number in range(4):
            await visitors.come(f"127.0.0.{number + 2}")
        await until(lambda: connections.open_count == 4)
        reader, _ = await visitors.come("127.0.0.9")  # and without having asked anything
        assert (await said(reader)).startswith(b"HTTP/1.1 503 ")
        assert connections.cut_counts[Cut.ALL_TAKEN] == 1
        assert connections.open_count == 4


@pytest.fixture
def tls_files(tmp_path: Path) -> dict[str, Path]:
    certified = Authority().issue()
    files = {"tls_cert_file": tmp_path / "cert.pem", "tls_key_file": tmp_path / "key.pem"}
    files["tls_cert_file"].write_bytes(certified.cert_pem)
    files["tls_key_file"].write_bytes(certified.key_pem)
    return files


async def test_a_tls_handshake_has_a_place_and_a_time_limit(tls_files: dict[str, Path]) -> None:
    connections = Connections(8)
    async with listening(connections, **tls_files) as port, visiting(port) as visitors:
        started = time.monotonic()
        silent, _ = await visitors.come()
        confused, writer = await visitors.come()
        await until(lambda: connections.open_count == 2)
        writer.write(GET)  # in cleartext
        assert b"200" not in await said(confused)
        assert await said(silent) == b""
        assert time.monotonic() - started > READ_TIMEOUT_S * 0.9
        await until(lambda: connections.open_count == 0)
        assert connections.cut_counts[Cut.HANDSHAKE] == 2


async def test_without_a_place_no_tls_handshake_is_begun(tls_files: dict[str, Path]) -> None:
    connections = Connections(2)
    async with listening(connections, **PATIENT, **tls_files) as port, visiting(port) as visitors:
        await visitors.come()
        await until(lambda: connections.open_count == 1)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        with pytest.raises((ssl.SSLError, ConnectionError)):
            await asyncio.open_connection("127.0.0.1", port, ssl=context)
        assert connections.cut_counts[Cut.ADDRESS_SHARE] == 1


async def test_a_tls_connection_gives_its_place_back(tls_files: dict[str, Path]) -> None:
    connections = Connections(2)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    async with listening(connections, **PATIENT, **tls_files) as port:
        for _ in range(3):
            reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context)
            writer.write(GET)
            assert (await reader.readline()).startswith(b"HTTP/1.1 200 ")
            writer.close()
            with contextlib.suppress(ssl.SSLError, ConnectionError):
                await writer.wait_closed()
            await until(lambda: connections.open_count == 0)


@pytest.mark.parametrize("turns", range(6))
async def test_a_port_that_closes_forgets_no_connection_that_it_has_just_accepted(turns: int) -> None:
    """However far it has come by then: after some of these turns of the event loop it is accepted and not begun."""
    connections = Connections(8)
    with socket.socket() as visitor:
        async with listening(connections, **PATIENT) as port:
            visitor.connect(("127.0.0.1", port))
            for _ in range(turns):
                await asyncio.sleep(0)
        visitor.settimeout(30)
        with contextlib.suppress(ConnectionResetError):
            assert visitor.recv(1) == b""
    gc.collect()  # a socket that nobody has closed fails the run here


class _NoFiles(socket.socket):
    """A listening socket of a process that has no files left, for a while."""

    failures = 0

    def accept(self) -> Any:
        if self.failures:
            self.failures -= 1
            raise OSError(errno.EMFILE, "Too many open files")
        return super().accept()


async def test_a_process_without_files_waits_and_accepts_again(monkeypatch: pytest.MonkeyPatch) -> None:
    def create_server(address: tuple[str, int], **_: object) -> socket.socket:
        listener = _NoFiles(socket.AF_INET, socket.SOCK_STREAM)
        listener.bind(address)
        listener.listen()
        listener.failures = 2
        return listener

    monkeypatch.setattr(socket, "create_server", create_server)
    connections = Connections(8)
    async with listening(connections, **PATIENT) as port, visiting(port) as visitors:
        started = time.monotonic()
        reader, writer = await visitors.come()
        writer.write(GET)
        assert (await reader.readline()).startswith(b"HTTP/1.1 200 ")
        assert time.monotonic() - started >= 2 * NO_FILES_PAUSE_S * 0.9
        assert connections.cut_counts[Cut.NO_FILES] == 2


@pytest.mark.parametrize(
    ("sent", "reason"),
    [
        (b"", Cut.IDLE),
        (b"GET / HTTP/1.1\r\nX-Slow: ", Cut.HEAD_TOO_SLOW),
        (b"GET / HTTP/1.1\r\nX-Long: " + b"y" * 70_000, Cut.HEAD_TOO_LARGE),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", Cut.NOT_HTTP),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", Cut.NOT_HTTP),
        (b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n" + b"1\r\nx\r\n" * 20_000, Cut.FRAMES_TOO_LARGE),
    ],
)
async def test_a_connection_that_is_cut_is_counted_once_by_its_reason(sent: bytes, reason: Cut) -> None:
    connections = Connections(8)
    async with listening(connections) as port, visiting(port) as visitors:
        reader, writer = await visitors.come()
        writer.write(sent)
        with contextlib.suppress(ConnectionError):  # cut while more was under way
            await said(reader)
        await until(lambda: connections.open_count == 0)
        await asyncio.sleep(READ_TIMEOUT_S * 1.5)  # the next look at the deadline
        assert {reason_: count for reason_, count in connections.cut_counts.items() if count} == {reason: 1}


@pytest.mark.parametrize("close", [False, True])
@pytest.mark.parametrize("path", [b"/hot", b"/large"])
async def test_a_client_that_takes_no_answer_is_cut(path: bytes, close: bool) -> None:
    """Also one whose connection is closing already, which waits until everything is sent."""
    connections = Connections(8)
    asked = GET.replace(b"/ ", path + b" ")
    last = asked.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n") if close else asked
    async with listening(connections) as port:
        with socket.socket() as stuck:
            stuck.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            stuck.connect(("127.0.0.1", port))
            stuck.sendall(asked * 20 + last)
            await until(lambda: connections.open_count == 1)
            started = time.monotonic()
            await until(lambda: connections.open_count == 0)
            assert time.monotonic() - started > IDLE_TIMEOUT_S * 0.9
    assert connections.cut_counts[Cut.ANSWER_NOT_TAKEN] == 1


@pytest.mark.parametrize("path", [b"/hot", b"/plain"])
async def test_large_bodies_share_a_bounded_part_of_the_memory_and_small_ones_need_none_of_it(path: bytes) -> None:
    """Else thousands of bodies that stop before their end would take gigabytes, without a key."""
    connections = Connections(100, large_bodies_max_bytes=200_000)
    begun = b"POST %s HTTP/1.1\r\nContent-Length: 100000\r\n\r\n" % path
    async with listening(connections, read_timeout_s=1.2, idle_timeout_s=1.5) as port, visiting(port) as visitors:
        for size in [90_000, 90_000]:
            _, writer = await visitors.come()
            writer.write(begun + b"x" * size)
        await until(lambda: connections.large_bodies_bytes == 180_000)
        reader, writer = await visitors.come()
        writer.write(begun + b"x" * 90_000)
        if path == b"/hot":
            assert (await reader.readline()).startswith(b"HTTP/1.1 503 ")
        else:
            with contextlib.suppress(ConnectionError):
                assert await said(reader) == b""
            assert connections.cut_counts[Cut.BODIES_TOO_LARGE] == 1
        assert connections.large_bodies_bytes == 180_000

        reader, writer = await visitors.come()
        writer.write(begun.replace(b"100000", b"10000") + b"x" * 10_000)
        assert (await reader.readline()).startswith(b"HTTP/1.1 200 ")
        await until(lambda: connections.large_bodies_bytes == 0)
