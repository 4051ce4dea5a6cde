"""The HTTP client: what is a complete answer, and which connections are used again. On real sockets."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest

from chain.http_client import (
    HEAD_MAX_BYTES,
    ClosedError,
    ConnectError,
    ExchangeError,
    HttpClient,
    NotHttpError,
    TimeIsUpError,
    TooLargeError,
    TruncatedError,
)
from tests.parts.listening import listening

REQUEST = b"GET / HTTP/1.1\r\nHost: signer\r\n\r\n"
ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


class Server:
    """Answers each request with the next of `answers`, the last one for ever; None hangs up instead."""

    def __init__(self, *answers: bytes | None, hangs_up: bool = False) -> None:
        self.answers = list(answers)
        self.hangs_up = hangs_up
        self.connections = 0
        self.writers: list[asyncio.StreamWriter] = []

    async def converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self.writers.append(writer)
        try:
            while await reader.readuntil(b"\r\n\r\n"):
                answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
                writer.write(answer or b"")
                if answer is None or self.hangs_up:
                    break
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()


@asynccontextmanager
async def client_of(server: Server, *, idle_timeout_s: float = 60) -> AsyncIterator[HttpClient]:
    async with listening(server.converse) as port:
        client = HttpClient(
            "127.0.0.1", port, tls=None, connect_timeout_s=1, idle_timeout_s=idle_timeout_s, body_max_bytes=1000
        )
        try:
            yield client
        finally:
            await client.close()


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(5):
        while not condition():
            await asyncio.sleep(0.01)


@pytest.mark.parametrize(
    "raw",
    [
        ANSWER,
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\no\r\n1\r\nk\r\n0\r\n\r\n",
        b"HTTP/1.1 103 Early Hints\r\nContent-Length: 900\r\nLink: x\r\n\r\n" + ANSWER,
        b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\n\r\n" + ANSWER,
    ],
    ids=["length", "chunks", "hints", "continue"],
)
async def test_an_answer_is_complete_however_its_length_is_told(raw: bytes) -> None:
    server = Server(raw)
    async with client_of(server) as client:
        for _ in range(3):
            answer = await client.exchange(REQUEST, timeout_s=2)
            assert (answer.status, answer.body) == (200, b"ok")
            assert b"link" not in answer.headers
        assert server.connections == 1


async def test_bytes_that_come_piece_by_piece_are_one_answer() -> None:
    server = Server(b"")
    async with client_of(server) as client:
        call = asyncio.create_task(client.exchange(REQUEST, timeout_s=5))
        await until(lambda: bool(server.writers))
        for index in range(len(ANSWER)):
            server.writers[0].write(ANSWER[index : index + 1])
            await asyncio.sleep(0.001)
        assert (await call).body == b"ok"


async def test_what_looks_like_an_answer_is_none_where_a_head_has_begun_before_it() -> None:
    """It comes in one piece, as whole answers do, but behind a name that waits for its value."""
    server = Server(b"")
    async with client_of(server) as client:
        call = asyncio.create_task(client.exchange(REQUEST, timeout_s=5))
        await until(lambda: bool(server.writers))
        server.writers[0].write(b"HTTP/1.1 103 Early Hints\r\n\r\nHTTP/1.1 404 Not Found\r\nX: ")
        await asyncio.sleep(0.05)
        server.writers[0].write(ANSWER)
        answer = await call
    assert (answer.status, answer.headers[b"x"], answer.body) == (404, b"HTTP/1.1 200 OK", b"ok")


@pytest.mark.parametrize(
    ("raw", "error"),
    [
        (b"", ConnectError),
        (b"HTTP/1.1 200 OK\r\nContent-Le", TruncatedError),
        (b"HTTP/1.1 200 OK\r\n\r\n{}", TruncatedError),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nok", TruncatedError),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nok!", NotHttpError),
        (b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\n", NotHttpError),
        (b"SSH-2.0-OpenSSH\r\n", NotHttpError),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 1001\r\n\r\n", TooLargeError),
        (b"HTTP/1.1 200 OK\r\nX: " + b"x" * HEAD_MAX_BYTES, TooLargeError),
    ],
)
async def test_whatever_is_no_complete_answer_is_named(raw: bytes, error: type[ExchangeError]) -> None:
    async with client_of(Server(raw, hangs_up=True)) as client:
        with pytest.raises(ExchangeError) as refused:
            await client.exchange(REQUEST, timeout_s=2)
    assert type(refused.value) is error


async def test_a_second_answer_to_one_request_is_nobody_s() -> None:
    """It could be taken for the answer to the next request, of another tenant."""
    server = Server(ANSWER + b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil", ANSWER)
    async with client_of(server) as client:
        for _ in range(3):
            assert (await client.exchange(REQUEST, timeout_s=2)).body == b"ok"
    assert server.connections == 2


async def test_bytes_that_nobody_asked_for_end_an_idle_connection() -> None:
    server = Server(ANSWER)
    async with client_of(server) as client:
        await client.exchange(REQUEST, timeout_s=2)
        server.writers[0].write(b"HTTP/1.1 408 Request Timeout\r\nContent-Length: 0\r\n\r\n")
        await asyncio.sleep(0.05)
        assert (await client.exchange(REQUEST, timeout_s=2)).status == 200
    assert server.connections == 2


async def test_a_connection_the_server_closed_while_idle_is_not_used_again() -> None:
    server = Server(ANSWER)
    async with client_of(server) as client:
        await client.exchange(REQUEST, timeout_s=2)
        server.writers[0].close()
        await asyncio.sleep(0.05)
        assert (await client.exchange(REQUEST, timeout_s=2)).body == b"ok"
    assert server.connections == 2


async def test_a_connection_that_the_server_will_close_is_not_used_again() -> None:
    server = Server(ANSWER.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n"))
    async with client_of(server) as client:
        for _ in range(2):
            assert (await client.exchange(REQUEST, timeout_s=2)).body == b"ok"
    assert server.connections == 2


async def test_a_connection_that_was_idle_for_too_long_is_not_used_again() -> None:
    server = Server(ANSWER)
    async with client_of(server, idle_timeout_s=0.05) as client:
        await client.exchange(REQUEST, timeout_s=2)
        await asyncio.sleep(0.1)
        await client.exchange(REQUEST, timeout_s=2)
    assert server.connections == 2


async def test_calls_at_once_have_a_connection_each_and_later_calls_share_them() -> None:
    server = Server(ANSWER)
    async with client_of(server) as client:
        for _ in range(3):
            await asyncio.gather(*(client.exchange(REQUEST, timeout_s=2) for _ in range(8)))
        assert server.connections <= 8


async def test_a_silent_server_is_waited_for_as_long_as_each_call_says() -> None:
    """Also where one that may wait longer began before."""
    async with client_of(Server(b"")) as client:

        async def waited_s(timeout_s: float) -> float:
            begun_s = asyncio.get_running_loop().time()
            with pytest.raises(TimeIsUpError):
                await client.exchange(REQUEST, timeout_s=timeout_s)
            return asyncio.get_running_loop().time() - begun_s

        patient = asyncio.create_task(waited_s(60))
        timeouts_s = (0.2, 0.1, 0.15, 0.1)
        for timeout_s, waited in zip(timeouts_s, await asyncio.gather(*map(waited_s, timeouts_s)), strict=True):
            assert timeout_s <= waited < 10
        assert 0.1 <= await waited_s(0.1) < 10
        assert not patient.done()
        patient.cancel()


async def test_a_call_that_was_answered_in_time_leaves_its_connection_alone_when_its_time_is_up() -> None:
    server = Server(ANSWER)
    async with client_of(server) as client:
        await client.exchange(REQUEST, timeout_s=0.1)
        await asyncio.sleep(0.15)
        assert (await client.exchange(REQUEST, timeout_s=10)).body == b"ok"
    assert server.connections == 1


async def test_a_closed_client_refuses_and_may_be_closed_again() -> None:
    async with client_of(Server(ANSWER)) as client:
        await client.exchange(REQUEST, timeout_s=2)
        await client.close()
        with pytest.raises(ClosedError):
            await client.exchange(REQUEST, timeout_s=2)
