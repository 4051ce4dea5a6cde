"""What a client cannot do to the HTTP port: hold it with half a head, or fill it with headers."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import time
from collections.abc import AsyncIterator

import pytest

from clearinghouse.asgi import Receive, Reply, Scope, Send
from clearinghouse.http_connection import HEAD_MAX_BYTES
from clearinghouse.listener import HttpListener

READ_TIMEOUT_S = 0.3
PATIENCE_S = 30


async def hello(scope: Scope, receive: Receive, send: Send) -> None:
    await Reply(200, b"hello").send(send)


@contextlib.asynccontextmanager
async def listening(
    *, read_timeout_s: float, idle_timeout_s: float = 600, host: str = "127.0.0.1"
) -> AsyncIterator[int]:
    listener = HttpListener(
        hello, host=host, port=0, read_timeout_s=read_timeout_s, idle_timeout_s=idle_timeout_s,
        shutdown_timeout_s=1,
    )  # fmt: skip
    yield await listener.start()
    await listener.stop()


@pytest.fixture
async def port() -> AsyncIterator[int]:
    """Where nothing but a head that does not end is cut off within anybody's patience."""
    async with listening(read_timeout_s=READ_TIMEOUT_S) as number:
        yield number


async def converse(port: int, *parts: bytes, pause_s: float = 0, host: str = "127.0.0.1") -> bytes:
    """Sends the parts, then reads until the server closes or says no more."""
    reader, writer = await asyncio.open_connection(host, port)
    try:
        for part in parts:
            writer.write(part)
            await writer.drain()
            await asyncio.sleep(pause_s)
        async with asyncio.timeout(PATIENCE_S):
            return await reader.read()
    finally:
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()


async def test_a_head_that_never_ends_is_cut_off_after_the_read_timeout(port: int) -> None:
    started = time.monotonic()
    assert await converse(port, b"GET / HTTP/1.1\r\nHost: x\r\nX-Slow: ") == b""
    assert time.monotonic() - started > READ_TIMEOUT_S * 0.9


async def test_a_second_request_on_a_connection_has_the_same_bound(port: int) -> None:
    answer = await converse(port, b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", b"GET / HT", pause_s=0.05)
    assert answer.count(b"HTTP/1.1 200") == 1


async def test_endless_headers_are_refused_with_431() -> None:
    lines = [b"X-%04d: %s\r\n" % (n, b"y" * 1000) for n in range(HEAD_MAX_BYTES // 1000)]
    async with listening(read_timeout_s=60) as port:
        answer = await converse(port, b"GET / HTTP/1.1\r\nHost: x\r\n", *lines, pause_s=0.001)
    assert answer.startswith(b"HTTP/1.1 431 ")


async def test_a_connection_without_a_request_is_closed_when_idle() -> None:
    async with listening(read_timeout_s=600, idle_timeout_s=1) as port:
        started = time.monotonic()
        assert await converse(port) == b""
        assert time.monotonic() - started > 0.9


@pytest.mark.skipif(not socket.has_dualstack_ipv6(), reason="NOT TESTED: this machine has no IPv6")
@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
async def test_two_colons_are_the_addresses_of_both_families(host: str) -> None:
    async with listening(read_timeout_s=PATIENCE_S, host="::") as port:
        answer = await converse(port, b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", host=host)
    assert answer.endswith(b"hello")
