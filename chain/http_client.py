"""A small HTTP/1.1 client of one origin: bytes up, a complete answer down, connections kept between calls.

It runs on the event loop, so that a call costs no thread and a cancelled one is gone at once. It never asks twice,
follows nothing and decodes nothing: what it gives is one complete answer, or an `ExchangeError` that says why not.

    connection     idle ──ask──▶ waiting ──complete, may be kept──▶ idle
                    │               │ time is up, cancelled, too large, not HTTP, closed
                    └───────────────┴─▶ gone: a connection that failed once is never used again
"""

from __future__ import annotations

import asyncio
import ssl
from collections import deque
from collections.abc import Mapping
from typing import Final, NamedTuple

from httptools import HttpParserError, HttpParserUpgrade, HttpResponseParser

from chain.alarm import Alarm
from chain.http_heads import split_answer

HEAD_MAX_BYTES: Final = 64 * 1024


class ExchangeError(Exception):
    """There is no complete answer. Names no address and quotes nothing."""


class ConnectError(ExchangeError):
    """Refused, unreachable, unknown host, TLS not agreed, or closed before an answer began."""


class TimeIsUpError(ExchangeError):
    """It took too long, to connect or to answer."""


class TruncatedError(ExchangeError):
    """The connection ended within the answer. An answer that only this would end is never known to be whole.

    `status` is that answer's, for whom its body does not matter; None where the head says how long the body is, or has
    not come.
    """

    def __init__(self, status: int | None = None) -> None:
        super().__init__()
        self.status = status


class NotHttpError(ExchangeError):
    """What came is not an HTTP/1 answer."""


class TooLargeError(ExchangeError):
    """Head or body of the answer are larger than allowed."""


class ClosedError(ExchangeError):
    """The client was closed meanwhile."""


class HttpAnswer(NamedTuple):
    """A complete answer. Header names are lower case; of a repeated header the first value is kept."""

    status: int
    headers: Mapping[bytes, bytes]
    body: bytes


class HttpClient:
    """Keep-alive connections to one origin, each with one call at a time. Belongs to one event loop.

    `server_hostname` is whose certificate is wanted where `host` is an address that was looked up for it.
    """

    def __init__(
        self,
        host: str,
        port: int,
        *,
        tls: ssl.SSLContext | None,
        connect_timeout_s: float,
        idle_timeout_s: float,
        body_max_bytes: int,
        server_hostname: str | None = None,
    ) -> None:
        self._host, self._port, self._tls = host, port, tls
        self._server_hostname = server_hostname or host
        self._connect_timeout_s = connect_timeout_s
        self._idle_timeout_s = idle_timeout_s
        self._body_max_bytes = body_max_bytes
        #: The one used last is at the right and is used next, so that surplus ones grow old at the left.
        self._idle: deque[_Connection] = deque()
        self._connections: set[_Connection] = set()
        self._alarm = Alarm()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._is_closed = False

    async def exchange(self, request: bytes, *, timeout_s: float) -> HttpAnswer:
        """Sends the bytes of one request and returns its answer. `timeout_s` covers connecting too.

        Raises ExchangeError. Cancelling drops the connection, and with it the work of a server that notices.
        """
        loop = self._loop = self._loop or asyncio.get_running_loop()  # get_running_loop calls getpid
        now_s = loop.time()
        connection = self._kept(now_s) or await self._connected(min(timeout_s, self._connect_timeout_s))
        late = connection.is_late
        self._alarm.set(now_s + timeout_s, late)
        try:
            answer = await connection.ask(request, loop.create_future())
        except BaseException:
            connection.abort()
            raise
        finally:
            self._alarm.unset(late)
            connection.waiting = None
        self._keep(connection, loop.time())
        return answer

    async def close(self) -> None:
        """Calls in flight end with ClosedError. May be called twice."""
        self._is_closed = True
        self._idle.clear()
        for connection in list(self._connections):
            connection.fail(ClosedError())
        self._alarm.close()
        await asyncio.sleep(0)  # transports close in the loop's next turn

    def _kept(self, now_s: float) -> _Connection | None:
        if self._is_closed:
            raise ClosedError
        oldest_s = now_s - self._idle_timeout_s
        while self._idle:
            connection = self._idle.pop()
            if connection.is_usable and connection.idle_since_s >= oldest_s:
                return connection
            connection.abort()
        return None

    def _keep(self, connection: _Connection, now_s: float) -> None:
        if not connection.is_usable:
            connection.abort()
            return
        connection.idle_since_s = now_s
        self._idle.append(connection)
        oldest_s = now_s - self._idle_timeout_s
        while self._idle[0].idle_since_s < oldest_s:
            self._idle.popleft().abort()

    async def _connected(self, timeout_s: float) -> _Connection:
        try:
            async with asyncio.timeout(timeout_s):
                _, connection = await asyncio.get_running_loop().create_connection(
                    lambda: _Connection(self._connections, self._body_max_bytes),
                    self._host,
                    self._port,
                    ssl=self._tls,
                    server_hostname=self._server_hostname if self._tls is not None else None,
                )
        except TimeoutError as error:
            raise TimeIsUpError from error
        except (OSError, UnicodeError) as error:  # an ssl.SSLError and a failed look-up are OSErrors
            raise ConnectError from error
        if self._is_closed:
            connection.abort()
            raise ClosedError
        return connection


class _Connection(asyncio.Protocol):
    """One connection. httptools calls the `on_` methods while it is fed."""

    def __init__(self, connections: set[_Connection], body_max_bytes: int) -> None:
        self.idle_since_s: float = 0
        self.is_usable = True
        #: Set while a call waits for its answer.
        self.waiting: asyncio.Future[HttpAnswer] | None = None
        self._connections = connections
        self._body_max_bytes = body_max_bytes
        self._parser = HttpResponseParser(self)
        self._transport: asyncio.Transport | None = None
        self._forget()

    def _forget(self) -> None:
        self._headers: dict[bytes, bytes] = {}
        self._body: list[bytes] = []
        self._head_bytes = self._body_bytes = 0
        self._has_begun = self._has_head = False

    # --- what the client does ---

    def ask(self, request: bytes, waiting: asyncio.Future[HttpAnswer]) -> asyncio.Future[HttpAnswer]:
        assert self._transport is not None, "connected"
        self.waiting = waiting
        self._transport.write(request)
        return waiting

    def is_late(self) -> None:
        self.fail(TimeIsUpError())

    def fail(self, error: ExchangeError) -> None:
        """Whoever waits gets the error, and the connection is gone."""
        self.abort()
        if self.waiting is not None and not self.waiting.done():
            self.waiting.set_exception(error)

    def abort(self) -> None:
        self.is_usable = False
        if self._transport is not None:
            self._transport.abort()

    # --- what the event loop does ---

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport  # type: ignore[assignment] # of TCP or TLS: one that reads and writes
        self._connections.add(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self._connections.discard(self)
        self.fail(TruncatedError(self._status_of_endless()) if self._has_begun else ConnectError())

    def data_received(self, data: bytes) -> None:
        if self.waiting is None or self.waiting.done():
            self.abort()  # nobody has asked: what would come next could be taken for somebody else's answer
            return
        whole = split_answer(data) if not self._has_begun else None
        if whole is not None and whole[0].body_bytes <= self._body_max_bytes:
            head, body = whole
            self._answered(HttpAnswer(head.status, head.headers, body), should_keep_alive=head.should_keep_alive)
            return
        self._has_begun = True
        if not self._has_head:
            self._head_bytes += len(data)
        try:
            self._parser.feed_data(data)
        except (HttpParserError, HttpParserUpgrade):
            self.fail(NotHttpError())
            return
        if not self._has_head and self._head_bytes > HEAD_MAX_BYTES:
            self.fail(TooLargeError())

    def _status_of_endless(self) -> int | None:
        """Of an answer with a head that does not say where its body ends, as of servers that speak HTTP/1.0."""
        is_endless = self._has_head and not self._headers.keys() & {b"content-length", b"transfer-encoding"}
        return self._parser.get_status_code() if is_endless else None

    # --- what the parser does ---

    def on_message_begin(self) -> None:
        self._has_begun = True
        if self.waiting is None or self.waiting.done():
            self.abort()  # a second answer to one request

    def on_header(self, name: bytes, value: bytes) -> None:
        self._headers.setdefault(name.lower(), value)

    def on_headers_complete(self) -> None:
        self._has_head = True
        if int(self._headers.get(b"content-length", b"0")) > self._body_max_bytes:
            self.fail(TooLargeError())

    def on_body(self, body: bytes) -> None:
        self._body_bytes += len(body)
        if self._body_bytes > self._body_max_bytes:
            self.fail(TooLargeError())
        elif self.is_usable:
            self._body.append(body)

    def on_message_complete(self) -> None:
        answer = HttpAnswer(self._parser.get_status_code(), self._headers, b"".join(self._body))
        self._forget()
        if answer.status >= 200:  # else it is informational: the answer follows
            self._answered(answer, should_keep_alive=self._parser.should_keep_alive())

    def _answered(self, answer: HttpAnswer, *, should_keep_alive: bool) -> None:
        if not should_keep_alive:
            self.is_usable = False
        if self.waiting is not None and not self.waiting.done():
            self.waiting.set_result(answer)
