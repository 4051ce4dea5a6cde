"""HTTP/1.1 over real sockets, the short way and uvicorn's: `/hot` and `/plain` do the same and are answered alike."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from clearinghouse.asgi import ClientGone, Receive, Reply, Scope, Send, read_body
from clearinghouse.errors import Refusal
from clearinghouse.hot_routes import HotRequest, HotRoutes
from clearinghouse.http_connection import HEAD_MAX_BYTES
from clearinghouse.listener import HttpListener
from tests.parts.certificates import Authority

READ_TIMEOUT_S = 0.3
#: Of a port whose clients are not what a test is about: nobody is cut off because the machine stood still.
PATIENT = {"read_timeout_s": 60, "idle_timeout_s": 60}
PATIENCE_S = 30
BODY_MAX_BYTES = 100_000
WAITS = b"Expect: 100-continue"
WAYS = pytest.mark.parametrize("path", ["/hot", "/plain"])
MEBIBYTE = 1 << 20


class Service:
    """What both ways lead to. The body says what to do, and everything that is called is written down."""

    def __init__(self) -> None:
        self.read_timeout_s: float = READ_TIMEOUT_S
        self.began: list[bytes] = []
        self.finished: list[bytes] = []
        self.waited_s: list[float] = []
        self.may_go_on = asyncio.Event()

    async def hot(self, request: HotRequest) -> Reply:
        self.waited_s.append(request.waited_s)
        try:
            return await self.answer(request.read(), request.headers)
        except Refusal as refusal:
            return Reply(refusal.http_status, refusal.message.encode())

    async def plain(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["method"] != "POST" or scope["raw_path"] != b"/plain" or scope["query_string"]:
            await Reply(404, f"{scope['method']} {scope['path']}".encode()).send(send)
            return
        try:
            body = await read_body(receive, bytes_max=BODY_MAX_BYTES, timeout_s=self.read_timeout_s)
            reply = await self.answer(body, scope["headers"])
        except ClientGone:
            return
        except Refusal as refusal:
            reply = Reply(refusal.http_status, refusal.message.encode())
        await reply.send(send)

    async def answer(self, body: bytes, headers: list[tuple[bytes, bytes]]) -> Reply:
        self.began.append(body)
        if body.startswith(b"slow"):
            await asyncio.sleep(0.1)
        elif body.startswith(b"held"):
            await self.may_go_on.wait()
        elif body == b"bug":
            raise RuntimeError("a bug")
        elif body == b"split":
            return Reply(200, b"", [(b"x-name", b"a\r\nset-cookie: b")])
        elif body.startswith(b"large"):
            body = b"x" * MEBIBYTE
        elif body == b"names":
            body = b",".join(name for name, _ in headers)
        self.finished.append(body)
        return Reply(200, b"<" + body + b">", [(b"x-own", b"yes")])


@asynccontextmanager
async def listening(service: Service, **changed: Any) -> AsyncIterator[int]:
    times = {"read_timeout_s": READ_TIMEOUT_S, "idle_timeout_s": 1, "shutdown_timeout_s": 1, **changed}
    service.read_timeout_s = body_timeout_s = times["read_timeout_s"]
    hot = HotRoutes({(b"POST", b"/hot"): service.hot}, body_max_bytes=BODY_MAX_BYTES, body_timeout_s=body_timeout_s)
    listener = HttpListener(service.plain, host="127.0.0.1", port=0, hot=hot, **times)
    port = await listener.start()
    try:
        yield port
    finally:
        service.may_go_on.set()
        await listener.stop()


@pytest.fixture
def service() -> Service:
    return Service()


@pytest.fixture
async def port(service: Service) -> AsyncIterator[int]:
    async with listening(service, **PATIENT) as number:
        yield number


@pytest.fixture
async def hasty_port(service: Service) -> AsyncIterator[int]:
    async with listening(service) as number:
        yield number


class Client:
    """One connection, and an HTTP reader too simple to be wrong."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    async def send(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()

    async def answer(self) -> tuple[int, dict[bytes, bytes], bytes]:
        async with asyncio.timeout(PATIENCE_S):
            lines = (await self.reader.readuntil(b"\r\n\r\n"))[:-4].split(b"\r\n")
            headers = dict(line.lower().split(b": ", 1) for line in lines[1:])
            body = await self.reader.readexactly(int(headers.get(b"content-length", b"0")))
        return int(lines[0].split(b" ")[1]), headers, body

    async def told_to_continue(self) -> None:
        """Of one that sent `Expect: 100-continue`: the server reads the body."""
        async with asyncio.timeout(PATIENCE_S):
            assert await self.reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"

    async def rest(self) -> bytes:
        """Whatever comes until the server closes."""
        async with asyncio.timeout(PATIENCE_S):
            return await self.reader.read()


@asynccontextmanager
async def connected(port: int, tls: ssl.SSLContext | None = None) -> AsyncIterator[Client]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=tls)
    try:
        yield Client(reader, writer)
    finally:
        writer.close()
        with contextlib.suppress(ConnectionError, ssl.SSLError):
            await writer.wait_closed()


def post(path: str, body: bytes, *headers: bytes, version: bytes = b"1.1") -> bytes:
    lines = [b"POST %s HTTP/%s" % (path.encode(), version), b"Host: x", b"Content-Length: %d" % len(body), *headers]
    return b"\r\n".join([*lines, b"", body])


def chunked(path: str, *pieces: bytes, trailer: bytes = b"") -> bytes:
    head = b"POST %s HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n" % path.encode()
    return head + b"".join(b"%x\r\n%s\r\n" % (len(piece), piece) for piece in (*pieces, b""))[:-2] + trailer + b"\r\n"


async def until(is_true: Callable[[], object]) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while not is_true():
            await asyncio.sleep(0.01)


# --- the life of a connection -----------------------------------------------------------------------------------------


@WAYS
async def test_a_connection_is_kept_for_the_next_request(port: int, path: str) -> None:
    async with connected(port) as client:
        for body in (b"one", b"", b"three"):
            await client.send(post(path, body))
            status, headers, answer = await client.answer()
            assert (status, answer, headers[b"x-own"]) == (200, b"<" + body + b">", b"yes")
            assert list(headers) == [b"date", b"x-own", b"content-length"]


@WAYS
@pytest.mark.parametrize(
    "request_of",
    [
        lambda path: post(path, b"last", b"Connection: close"),
        lambda path: post(path, b"last", version=b"1.0"),
        lambda path: post(path, b"last", b"Connection: keep-alive", version=b"1.0"),
    ],
)
async def test_a_connection_that_is_not_to_be_kept_is_closed_after_the_answer(
    port: int, path: str, request_of: Any
) -> None:
    async with connected(port) as client:
        await client.send(request_of(path))
        status, headers, answer = await client.answer()
        assert (status, answer, headers[b"connection"]) == (200, b"<last>", b"close")
        assert await client.rest() == b""


async def test_pipelined_requests_of_both_kinds_are_answered_one_by_one_in_their_order(
    service: Service, port: int
) -> None:
    paths = ["/hot", "/plain", "/hot", "/hot", "/plain", "/plain", "/hot"]
    async with connected(port) as client:
        await client.send(b"".join(post(path, b"slow %d" % n) for n, path in enumerate(paths)))
        for number in range(len(paths)):
            assert (await client.answer())[2] == b"<slow %d>" % number
            assert len(service.began) <= number + 2
        await client.send(post("/hot", b"then"))
        assert (await client.answer())[2] == b"<then>"


@WAYS
@pytest.mark.parametrize("more", [(), (b"Expect: 100-continue",)])
async def test_a_body_of_which_nothing_comes_is_not_waited_for(
    hasty_port: int, path: str, more: tuple[bytes, ...]
) -> None:
    async with connected(hasty_port) as client:
        await client.send(post(path, b"0123456789", *more)[:-10])
        answers = await client.rest()
        assert b" 400 Bad Request\r\n" in answers
        assert answers.endswith(b"did not arrive within 0.3 s")


async def test_empty_lines_before_the_first_request_are_no_request(service: Service, port: int) -> None:
    """Each piece on its own: what belongs to no request is neither head nor body."""
    async with connected(port) as client:
        for _ in range(3):
            await client.send(b"\r\n")
            await asyncio.sleep(0.01)
        await client.send(post("/hot", b"then"))
        assert (await client.answer())[2] == b"<then>"


async def test_a_client_that_only_sends_is_not_read_for_ever(service: Service, port: int) -> None:
    flood = post("/hot", b"held") * 1000
    async with connected(port) as client:

        async def send_until_stuck() -> None:
            while True:
                await client.send(flood)

        with pytest.raises(TimeoutError):
            await asyncio.wait_for(send_until_stuck(), 0.5)
        assert service.began == [b"held"]
        client.writer.transport.abort()


@WAYS
async def test_after_an_answer_the_idle_time_runs_anew(service: Service, path: str) -> None:
    async with listening(service, idle_timeout_s=2) as port, connected(port) as client:
        for _ in range(3):
            await asyncio.sleep(0.8)
            await client.send(post(path, b"still here"))
            assert (await client.answer())[0] == 200
        started = time.monotonic()
        assert await client.rest() == b""
        assert time.monotonic() - started > 1.8


@WAYS
async def test_a_call_may_take_longer_than_any_time_a_client_has(service: Service, hasty_port: int, path: str) -> None:
    async with connected(hasty_port) as client:
        await client.send(post(path, b"held"))
        await asyncio.sleep(1.3)
        service.may_go_on.set()
        assert (await client.answer())[2] == b"<held>"


@WAYS
async def test_half_a_head_after_an_answer_does_not_hold_the_connection(service: Service, path: str) -> None:
    async with listening(service, idle_timeout_s=600) as port, connected(port) as client:
        await client.send(post(path, b"one") + b"POST /hot HT")
        assert (await client.answer())[2] == b"<one>"
        assert await client.rest() == b""


@WAYS
async def test_endless_headers_are_refused_on_a_kept_connection_too(port: int, path: str) -> None:
    async with connected(port) as client:
        await client.send(post(path, b"one"))
        await client.answer()
        await client.send(b"POST %s HTTP/1.1\r\nX: " % path.encode() + b"y" * (HEAD_MAX_BYTES + 1))
        assert (await client.answer())[0] == 431


# --- which way --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "line", ["GET /hot", "PUT /hot", "HEAD /hot", "POST /hot?a=b", "POST /hot/", "POST //hot", "POST /%68ot"]
)
async def test_whatever_is_not_exactly_a_hot_route_is_the_applications(service: Service, port: int, line: str) -> None:
    async with connected(port) as client:
        await client.send(f"{line} HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\nConnection: close\r\n\r\n".encode())
        assert (await client.rest()).startswith(b"HTTP/1.1 404 Not Found\r\n")
    assert service.began == []


# --- bodies -----------------------------------------------------------------------------------------------------------


@WAYS
async def test_a_chunked_body_is_put_together(port: int, path: str) -> None:
    pieces = [b"%d," % n for n in range(1000)]
    async with connected(port) as client:
        request = chunked(path, *pieces)
        for start in range(0, len(request), 777):
            await client.send(request[start : start + 777])
            await asyncio.sleep(0)
        assert (await client.answer())[2] == b"<" + b"".join(pieces) + b">"


async def test_a_trailer_is_not_a_header(port: int) -> None:
    async with connected(port) as client:
        for path in ("/hot", "/plain"):
            await client.send(chunked(path, b"names", trailer=b"Authorization: Bearer x\r\n"))
            assert (await client.answer())[2] == b"<host,transfer-encoding>"


@WAYS
@pytest.mark.parametrize("trailer", [b"x: y\r\n", b"x"], ids=["many", "one without end"])
async def test_trailers_do_not_fill_the_memory(port: int, path: str, trailer: bytes) -> None:
    endless = b"x: " if trailer == b"x" else b""
    async with connected(port) as client:
        with contextlib.suppress(ConnectionError):
            await client.send(chunked(path, b"body")[:-2] + endless)
            for _ in range(200):
                await client.send(trailer * (HEAD_MAX_BYTES // 10 // len(trailer)))
        with contextlib.suppress(ConnectionError):
            assert await client.rest() == b"", "the connection was closed without an answer"


@WAYS
@pytest.mark.parametrize("protocol", [b"h2c", b"websocket", b"anything"])
async def test_an_offer_of_another_protocol_cannot_smuggle_a_request(
    service: Service, port: int, path: str, protocol: bytes
) -> None:
    """To the parser such a request has no body, so that its body would be taken for the next request."""
    smuggled = post(path, b"smuggled")
    outer = post(path, smuggled, b"Connection: Upgrade, HTTP2-Settings", b"Upgrade: " + protocol)
    for in_two_segments in (False, True):
        async with connected(port) as client:
            await client.send(outer[: -len(smuggled)] if in_two_segments else outer)
            if in_two_segments:
                await asyncio.sleep(0.05)
                with contextlib.suppress(ConnectionError):
                    await client.send(smuggled)
            status, headers, body = await client.answer()
            assert (status, headers[b"connection"]) == (400, b"close")
            assert b"Upgrade" in body
            with contextlib.suppress(ConnectionError):
                assert await client.rest() == b""
    assert service.began == []


@WAYS
async def test_a_client_that_waits_for_100_continue_is_told_when_its_turn_has_come(port: int, path: str) -> None:
    async with connected(port) as client:
        await client.send(post(path, b"slow") + post(path, b"12345", b"Expect: 100-Continue")[:-5])
        assert (await client.answer())[2] == b"<slow>"
        assert (await client.answer())[0] == 100
        await client.send(b"12345")
        assert (await client.answer())[2] == b"<12345>"


@WAYS
async def test_a_body_that_comes_too_slowly_is_refused_and_the_connection_goes_on(service: Service, path: str) -> None:
    async with listening(service, idle_timeout_s=60) as port, connected(port) as client:
        started = time.monotonic()
        await client.send(post(path, b"0123456789")[:-5])
        status, _, body = await client.answer()
        assert (status, body) == (400, b"request body did not arrive within 0.3 s")
        assert time.monotonic() - started > READ_TIMEOUT_S * 0.9
        await client.send(b"56789" + post(path, b"next"))
        assert (await client.answer())[2] == b"<next>"


async def test_the_time_for_a_body_does_not_begin_anew_with_every_byte(hasty_port: int) -> None:
    async with connected(hasty_port) as client:
        await client.send(post("/hot", b"y" * 100)[:-100])
        started = time.monotonic()
        answer = asyncio.create_task(client.answer())
        while not answer.done():
            await client.send(b"y")
            await asyncio.sleep(0.05)
        assert (await answer)[0] == 400
        assert time.monotonic() - started < 4, "a hundred bytes take five seconds"


@WAYS
@pytest.mark.parametrize("is_chunked", [False, True])
async def test_a_body_too_large_is_refused_at_once_and_the_rest_read_past(
    port: int, path: str, is_chunked: bool
) -> None:
    body = b"y" * (3 * BODY_MAX_BYTES)
    request = chunked(path, body[: len(body) // 2], body[len(body) // 2 :]) if is_chunked else post(path, body)
    async with connected(port) as client:
        await client.send(request[: BODY_MAX_BYTES + 1000])
        status, _, answer = await client.answer()
        assert (status, answer) == (413, b"request body is larger than 100000 bytes")
        await client.send(request[BODY_MAX_BYTES + 1000 :] + post(path, b"next"))
        assert (await client.answer())[2] == b"<next>"


@WAYS
async def test_a_body_of_the_largest_size_is_taken(port: int, path: str) -> None:
    async with connected(port) as client:
        await client.send(post(path, b"y" * BODY_MAX_BYTES))
        assert len((await client.answer())[2]) == BODY_MAX_BYTES + 2


async def test_the_time_a_body_was_waited_for_is_told(service: Service, port: int) -> None:
    clock = asyncio.get_running_loop()  # the service's own: a finer one may be some milliseconds ahead of it
    async with connected(port) as client:
        began_s = clock.time()
        await client.send(post("/hot", b"12345", WAITS)[:-1])
        await client.told_to_continue()
        waiting_s = clock.time()
        await asyncio.sleep(0.5)
        sent_s = clock.time()
        await client.send(b"5" + post("/hot", b"slow") + post("/hot", b"queued"))
        for _ in range(3):
            assert (await client.answer())[0] == 200
        ended_s = clock.time()
    late, prompt, queued = service.waited_s
    assert 0.4 < sent_s - waiting_s <= late <= ended_s - began_s
    assert prompt <= ended_s - sent_s
    assert queued == 0


# --- what goes wrong --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("garbage", [b"\x16\x03\x01\x02\x00", b"POST /hot HTTP/1.1\r\nContent-Length: x\r\n\r\n"])
async def test_what_is_not_http_is_told_so(service: Service, port: int, garbage: bytes) -> None:
    async with connected(port) as client:
        await client.send(garbage + b"\r\n\r\n")
        assert (await client.rest()).startswith(b"HTTP/1.1 400 Bad Request\r\n")
    assert service.began == []


@WAYS
async def test_a_body_that_breaks_off_in_nonsense_calls_nobody(service: Service, port: int, path: str) -> None:
    async with connected(port) as client:
        await client.send(chunked(path, b"12345")[:-5] + b"nonsense\r\n")
        assert (await client.rest()).startswith(b"HTTP/1.1 400 Bad Request\r\n")
    assert service.began == []


@WAYS
@pytest.mark.parametrize("body", [b"bug", b"split"])
async def test_a_bug_never_leaves_half_an_answer(port: int, path: str, body: bytes) -> None:
    async with connected(port) as client:
        await client.send(post(path, body) + post(path, b"behind it"))
        answer = await client.rest()
        assert b"set-cookie" not in answer
        assert b"behind it" not in answer
        if body == b"bug" or path == "/hot":
            assert answer.startswith(b"HTTP/1.1 500 Internal Server Error\r\n")
            assert answer.endswith(b"connection: close\r\n\r\nInternal Server Error")


@WAYS
async def test_a_client_that_hangs_up_before_its_body_is_whole_has_asked_nothing(
    service: Service, hasty_port: int, path: str
) -> None:
    async with connected(hasty_port) as client:
        await client.send(post(path, b"12345")[:-1])
        await asyncio.sleep(0.05)
    await asyncio.sleep(READ_TIMEOUT_S + 0.1)
    assert service.began == []


@WAYS
async def test_a_call_goes_on_when_its_client_hangs_up(service: Service, port: int, path: str) -> None:
    async with connected(port) as client:
        await client.send(post(path, b"held"))
        await until(lambda: service.began)
    await asyncio.sleep(0.05)
    service.may_go_on.set()
    await until(lambda: service.finished)


@WAYS
async def test_a_client_that_closes_its_half_has_hung_up(service: Service, port: int, path: str) -> None:
    async with connected(port) as client:
        await client.send(post(path, b"slow"))
        await until(lambda: service.began)
        client.writer.write_eof()
        assert await client.rest() == b""
        await until(lambda: service.finished)


async def test_answers_that_nobody_takes_stop_the_calls(service: Service, port: int) -> None:
    async with connected(port) as client:
        await client.send(b"".join(post("/hot", b"large %d" % n) for n in range(30)))
        await asyncio.sleep(0.5)
        begun = len(service.began)
        assert begun < 20  # what fits into the buffers of two sockets, and one answer more
        for _ in range(30):
            assert len((await client.answer())[2]) == MEBIBYTE + 2
    assert len(service.began) == 30


async def test_who_never_takes_its_answers_is_disconnected(service: Service) -> None:
    async with listening(service) as port, connected(port) as client:
        await client.send(b"".join(post("/hot", b"large %d" % n) for n in range(30)))
        await asyncio.sleep(3)  # longer than the idle time-out, twice
        begun = len(service.began)
        with contextlib.suppress(ConnectionError):
            while await asyncio.wait_for(client.reader.read(MEBIBYTE), PATIENCE_S):
                pass
        assert len(service.began) == begun < 20


# --- the end of the server --------------------------------------------------------------------------------------------


@WAYS
async def test_a_call_that_was_accepted_is_answered_before_the_end(service: Service, path: str) -> None:
    async with listening(service, **PATIENT, shutdown_timeout_s=60) as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        client = Client(reader, writer)
        await client.send(post(path, b"slow"))
        await until(lambda: service.began)
    status, headers, body = await client.answer()
    assert (status, body, headers[b"connection"]) == (200, b"<slow>", b"close")
    assert await client.rest() == b""
    writer.close()


@WAYS
async def test_a_body_may_still_arrive_while_the_server_ends(service: Service, path: str) -> None:
    async with listening(service, **PATIENT, shutdown_timeout_s=60) as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        client = Client(reader, writer)
        await client.send(post(path, b"12345", WAITS)[:-1])
        await client.told_to_continue()
        asyncio.get_running_loop().call_later(0.15, writer.write, b"5")
    assert (await client.answer())[2] == b"<12345>"
    writer.close()


@WAYS
async def test_the_end_does_not_wait_for_ever_for_a_call(path: str) -> None:
    service = Service()
    started = time.monotonic()
    async with listening(service) as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        await Client(reader, writer).send(post(path, b"held"))
        await until(lambda: service.began)
        service.may_go_on = asyncio.Event()  # which nobody sets
    assert time.monotonic() - started < PATIENCE_S
    assert (await Client(reader, writer).answer())[0] == 500
    writer.close()


@WAYS
async def test_the_end_does_not_wait_for_ever_for_a_body(service: Service, path: str) -> None:
    hot = HotRoutes({(b"POST", b"/hot"): service.hot}, body_max_bytes=BODY_MAX_BYTES, body_timeout_s=10)

    async def plain(scope: Scope, receive: Receive, send: Send) -> None:
        await read_body(receive, bytes_max=BODY_MAX_BYTES, timeout_s=10)

    listener = HttpListener(
        plain, host="127.0.0.1", port=0, read_timeout_s=10, idle_timeout_s=10, shutdown_timeout_s=1, hot=hot
    )
    async with connected(await listener.start()) as client:
        await client.send(post(path, b"12345", WAITS)[:-1])
        await client.told_to_continue()
        await listener.stop()
        assert (await client.rest()).startswith(b"HTTP/1.1 500 Internal Server Error\r\n")


# --- TLS --------------------------------------------------------------------------------------------------------------


async def test_over_tls_it_is_the_same(service: Service, tmp_path: Path) -> None:
    authority = Authority()
    certified = authority.issue()
    files = {"server.pem": certified.cert_pem, "server.key": certified.key_pem, "ca.pem": authority.cert_pem}
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
    tls = ssl.create_default_context(cafile=str(tmp_path / "ca.pem"))
    served = {"tls_cert_file": tmp_path / "server.pem", "tls_key_file": tmp_path / "server.key"}
    async with listening(service, **PATIENT, **served) as port:
        async with connected(port, tls) as client:
            await client.send(post("/hot", b"slow") + post("/plain", b"two") + chunked("/hot", b"th", b"ree"))
            assert [(await client.answer())[2] for _ in range(3)] == [b"<slow>", b"<two>", b"<three>"]
            await client.send(post("/hot", b"held"))
            await until(lambda: b"held" in service.began)
        await asyncio.sleep(0.05)
        service.may_go_on.set()
        await until(lambda: b"held" in service.finished)
