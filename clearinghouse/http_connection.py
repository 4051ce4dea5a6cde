"""One HTTP/1.1 connection: uvicorn's protocol with limits of time and size, and a short way for the hot routes.

    head ──▶ hot route? ──no──▶ uvicorn's request cycle, ASGI
                 │yes
                 ▼
             its turn ──▶ body whole, too large or too slow ──▶ task: handler ──▶ one write ──▶ the next one's turn

Hot requests stand in uvicorn's place for "the current cycle" and in its pipeline, so that order, keep-alive and the
end of the server are decided in one way for both kinds.
"""

from __future__ import annotations

import asyncio
import math
from typing import Final, cast

from uvicorn._types import ASGI3Application
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol, RequestResponseCycle

from clearinghouse.asgi import Reply
from clearinghouse.connections import SMALL_BODY_BYTES, Connections, Cut
from clearinghouse.errors import InvalidRequest, Overloaded, Refusal, RequestTooLarge
from clearinghouse.hot_routes import HotHandler, HotRequest, HotRoutes
from clearinghouse.shares import Place

#: Room for any sensible set of headers; go-livepeer's own limit is 1 MiB.
HEAD_MAX_BYTES: Final = 64 * 1024
#: uvloop counts in milliseconds: a timer may come that much before its time.
CLOCK_STEP_S: Final = 0.001

_HEAD_TOO_LARGE: Final = (
    b"HTTP/1.1 431 Request Header Fields Too Large\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"
)
#: Where another protocol is offered, our parser ends the request with its head: what follows would be read as the next
#: request, though the client meant it as this one's body.
_NO_UPGRADE: Final = Reply(
    400,
    b"This port speaks HTTP/1.1 alone: leave out the Upgrade header.\n",
    [(b"content-type", b"text/plain; charset=utf-8")],
)
_BUG: Final = Reply(500, b"Internal Server Error", [(b"content-type", b"text/plain; charset=utf-8")])
#: What a header value cannot contain: with a line end in it, it would be a header of its own. A tab it may.
_CONTROLS: Final = bytes({*range(0x20), 0x7F} - {0x09})


class _NobodyWaits:
    """Stands for the event by which uvicorn wakes an application that reads."""

    def set(self) -> None:
        pass


_NOBODY_WAITS: Final = _NobodyWaits()


class HotExchange:
    """A hot request and its answer. uvicorn's protocol sees its first four fields, which its own cycles have too."""

    response_complete = False
    disconnected = False
    keep_alive: bool
    message_event: Final = _NOBODY_WAITS

    body: bytes | bytearray = b""
    #: What became of the body; None while it is arriving. All that comes after a refusal is read past.
    outcome: bytes | Refusal | None = None
    #: When everything before it had been answered, on the loop's clock; None until then.
    turn_began_s: float | None = None
    task: asyncio.Task[None]

    def __init__(self, handler: HotHandler, headers: list[tuple[bytes, bytes]], keep_alive: bool) -> None:
        self.handler = handler
        self.headers = headers
        self.keep_alive = keep_alive

    def add(self, piece: bytes) -> None:
        """One piece, the rule, is kept as it is; more are gathered in an array."""
        if not self.body:
            self.body = piece
            return
        if isinstance(self.body, bytes):
            self.body = bytearray(self.body)
        self.body += piece


class HttpConnection(HttpToolsProtocol):
    """Subclassed with its limits and routes as class attributes, since uvicorn makes the instances.

    There is one deadline, moved on from state to state: connected or idle, reading a head, reading a hot body. ASGI
    applications bound the reading of their bodies themselves.
    """

    read_timeout_s: float
    idle_timeout_s: float
    #: The longest time between two looks at the deadline: no more than the shortest time-out, so that none is seen late
    #: and moving the deadline costs nothing.
    patrol_s: float
    hot: HotRoutes
    counted: Connections  # uvicorn has a field `connections`
    #: Held until the connection is lost.
    place: Place | None = None

    # --- the connection -----------------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._exchange: HotExchange | None = None  # the newest request, if it is hot
        self._head_bytes = 0
        self._is_reading_head = self._is_reading_body = False
        self._body_bytes = self._frame_bytes = 0  # of the request that is arriving: its body, and what is around that
        self._large_body_bytes = 0  # counted with those of all connections
        self._is_deaf = False
        self._is_lost = self._is_cut = False
        self._deadline_s = self.loop.time() + self.idle_timeout_s
        self._unsent_deadline_s = math.inf  # while the client leaves an answer where it is
        self._patrol: asyncio.TimerHandle = self.loop.call_later(self.patrol_s, self._watch_deadline)

    def connection_lost(self, exc: Exception | None) -> None:
        self._is_lost = True
        self._patrol.cancel()
        super().connection_lost(exc)
        self._forget_body()
        if self.place is not None:
            self.place.give_back()

    def _is_over(self) -> bool:
        return self._is_lost or self.transport.is_closing()  # a lost TLS transport does not say that it is closing

    def abandon(self) -> None:
        """The server has waited long enough for a hot request that is still arriving. No other has to be told here:
        it has a task, which is cancelled.
        """
        exchange = self._exchange
        if exchange is not None and exchange.turn_began_s is not None and exchange.outcome is None:
            self._send_bug(exchange)

    def data_received(self, data: bytes) -> None:
        if self._is_deaf:
            return
        delivered_bytes = self._body_bytes
        super().data_received(data)
        if self._is_reading_head:
            self._head_bytes += len(data)
            if self._head_bytes > HEAD_MAX_BYTES:
                self.transport.write(_HEAD_TOO_LARGE)
                self._cut(Cut.HEAD_TOO_LARGE)
        elif self._is_reading_body:
            self._frame_bytes += len(data) - (self._body_bytes - delivered_bytes)
            # Trailers without end, or chunks of next to nothing.
            if self._frame_bytes > HEAD_MAX_BYTES + self._body_bytes:
                self._cut(Cut.FRAMES_TOO_LARGE)

    def _watch_deadline(self) -> None:
        now_s = self.loop.time()
        self._watch_answers(now_s)
        left_s = self._deadline_s - now_s
        if left_s <= CLOCK_STEP_S:
            self._deadline_passed()
            left_s = self.patrol_s
        self._patrol = self.loop.call_later(min(left_s, self.patrol_s), self._watch_deadline)

    def _watch_answers(self, now_s: float) -> None:
        """Closing, too, waits until everything is sent: without this a client that does not read is never lost."""
        if not self.transport.get_write_buffer_size():
            self._unsent_deadline_s = math.inf
        elif self._unsent_deadline_s is math.inf:
            self._unsent_deadline_s = now_s + self.idle_timeout_s
        elif self._unsent_deadline_s - now_s <= CLOCK_STEP_S:
            self._cut(Cut.ANSWER_NOT_TAKEN)

    def resume_writing(self) -> None:
        """The client has taken most of what there was."""
        self._unsent_deadline_s = math.inf
        super().resume_writing()

    def send_400_response(self, msg: str) -> None:
        """uvicorn's answer to what is not HTTP."""
        self.counted.was_cut(Cut.NOT_HTTP)
        super().send_400_response(msg)

    def _deadline_passed(self) -> None:
        exchange = self._exchange
        if exchange is None or exchange.outcome is not None or self._is_over():
            self._cut(Cut.HEAD_TOO_SLOW if self._is_reading_head else Cut.IDLE)
            return
        self._body_ended(exchange, InvalidRequest(f"request body did not arrive within {self.hot.body_timeout_s:g} s"))

    def _cut(self, reason: Cut) -> None:
        """Closes, for what the client does or does not do. Counted once."""
        if not self._is_cut:
            self._is_cut = True
            self.counted.was_cut(reason)
        if self.transport.get_write_buffer_size():  # which would be waited for, and nobody takes it
            self.transport.abort()
        self.transport.close()

    # --- what the parser calls ----------------------------------------------------------------------------------------

    def on_message_begin(self) -> None:
        """What uvicorn does here for ASGI waits until it is known to be needed."""
        self.url = b""
        self.headers = []
        self._is_reading_head = True
        self._is_reading_body = False
        self._body_bytes = self._frame_bytes = 0
        self._forget_body()
        self._deadline_s = self.loop.time() + self.read_timeout_s

    def on_header(self, name: bytes, value: bytes) -> None:
        if self._is_reading_head:  # a trailer is no part of the head, and nobody asks for it
            self.headers.append((name.lower(), value))

    def on_headers_complete(self) -> None:
        self._is_reading_head = False
        self._is_reading_body = True
        self._head_bytes = 0
        self._deadline_s = math.inf
        handler = self.hot.handlers.get((self.parser.get_method(), self.url))
        if self.parser.should_upgrade():
            self._is_deaf = True
            self._begin_hot_message(_refuse_upgrade)
        elif handler is not None:
            self._begin_hot_message(handler)
        else:
            self._exchange = None
            self._begin_asgi_message()
            super().on_headers_complete()

    def _begin_hot_message(self, handler: HotHandler) -> None:
        before = self.cycle
        self._exchange = exchange = HotExchange(
            handler,
            self.headers,
            self.parser.should_keep_alive() and self.parser.get_http_version() != "1.0" and not self._is_deaf,
        )
        self.cycle = cast("RequestResponseCycle", exchange)
        if before is None or before.response_complete:
            self._take_turn(exchange)
        else:
            self.flow.pause_reading()
            self.pipeline.appendleft((self.cycle, self.app))

    def _begin_asgi_message(self) -> None:
        url, headers = self.url, self.headers
        super().on_message_begin()
        self.url = url
        self.headers.extend(headers)  # the scope holds this very list
        self.expect_100_continue = expects_continue(headers)

    def on_body(self, body: bytes) -> None:
        self._body_bytes += len(body)
        exchange = self._exchange
        if exchange is not None and exchange.outcome is not None:
            return
        if self._body_bytes > SMALL_BODY_BYTES and not self._has_room():
            self._body_has_no_room(exchange)
        elif exchange is None:
            super().on_body(body)
        else:
            exchange.add(body)
            if len(exchange.body) > self.hot.body_max_bytes:
                self._body_ended(
                    exchange, RequestTooLarge(f"request body is larger than {self.hot.body_max_bytes} bytes")
                )

    def _has_room(self) -> bool:
        """For what is new of a large body. A body that is read past takes none."""
        new_bytes = self._body_bytes - self._large_body_bytes
        if not self.counted.has_room_for(new_bytes):
            return False
        self._large_body_bytes += new_bytes
        return True

    def _body_has_no_room(self, exchange: HotExchange | None) -> None:
        if exchange is None:
            self._cut(Cut.BODIES_TOO_LARGE)
        else:
            refusal = Overloaded("Too many large requests are arriving at once.", retry_after_s=1)
            self._body_ended(exchange, refusal)
        self._forget_body()

    def _forget_body(self) -> None:
        self.counted.large_bodies_bytes -= self._large_body_bytes
        self._large_body_bytes = 0

    def on_message_complete(self) -> None:
        self._is_reading_body = False
        exchange = self._exchange
        if exchange is None:
            super().on_message_complete()
        elif exchange.outcome is None:
            self._body_ended(exchange, bytes(exchange.body))

    # --- hot exchanges ------------------------------------------------------------------------------------------------

    def _start_asgi_task(self, cycle: RequestResponseCycle | HotExchange, app: ASGI3Application) -> None:
        """uvicorn calls this for a request whose turn it is."""
        if isinstance(cycle, HotExchange):
            self._take_turn(cycle)
        else:
            super()._start_asgi_task(cycle, app)

    def _take_turn(self, exchange: HotExchange) -> None:
        now_s = exchange.turn_began_s = self.loop.time()
        if expects_continue(exchange.headers):
            self.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        if exchange.outcome is not None:
            self._hand_over(exchange, HotRequest(exchange.headers, exchange.outcome, 0))
        else:
            self._deadline_s = now_s + self.hot.body_timeout_s

    def _body_ended(self, exchange: HotExchange, outcome: bytes | Refusal) -> None:
        exchange.outcome = outcome
        exchange.body = b""
        if exchange.turn_began_s is not None:
            self._deadline_s = math.inf
            self._hand_over(exchange, HotRequest(exchange.headers, outcome, self.loop.time() - exchange.turn_began_s))

    def _hand_over(self, exchange: HotExchange, request: HotRequest) -> None:
        """A client that hangs up from here on does not stop the call: it may be paid for already."""
        exchange.task = self.loop.create_task(self._answer(exchange, request))
        self.tasks.add(exchange.task)  # which the end of the server waits for

    async def _answer(self, exchange: HotExchange, request: HotRequest) -> None:
        try:
            reply = await exchange.handler(request)
            if self.flow.write_paused:  # the client is slow to take what it asked for before
                await self._taken()
            answer = self._rendered(reply, exchange)
        except BaseException as error:  # a cancellation too: the server's time to end in order is up
            self.logger.exception("Exception in a hot route")
            self._send_bug(exchange)
            if not isinstance(error, Exception):
                raise
        else:
            self._send(exchange, answer)
        finally:
            self.tasks.discard(exchange.task)  # cheaper than a callback of the task's

    async def _taken(self) -> None:
        """Returns when the client has taken most of its earlier answers, or when it has had time enough to."""
        try:
            async with asyncio.timeout(self.idle_timeout_s):
                await self.flow.drain()
        except TimeoutError:
            self._cut(Cut.ANSWER_NOT_TAKEN)

    def _send_bug(self, exchange: HotExchange) -> None:
        exchange.keep_alive = False
        self._send(exchange, self._rendered(_BUG, exchange))

    def _rendered(self, reply: Reply, exchange: HotExchange) -> bytes:
        return http_answer(reply, self.server_state.default_headers, keep_alive=exchange.keep_alive)

    def _send(self, exchange: HotExchange, answer: bytes) -> None:
        if self._is_over():
            return
        self.transport.write(answer)
        exchange.response_complete = True
        if not exchange.keep_alive:
            self.transport.close()
        self.on_response_complete()

    def on_response_complete(self) -> None:
        """After either kind of answer: the next one's turn."""
        self.server_state.total_requests += 1
        if not self._is_reading_body:
            self._forget_body()
        if self._is_over():
            return
        following = self.pipeline.pop() if self.pipeline else None
        if not self.pipeline:  # while requests queue, no more are read: a client could fill the memory with them
            self.flow.resume_reading()
        if following is not None:
            self._start_asgi_task(*following)
        elif not self._is_reading_head:
            self._deadline_s = self.loop.time() + self.idle_timeout_s


async def _refuse_upgrade(_: HotRequest) -> Reply:
    return _NO_UPGRADE


def http_answer(reply: Reply, server_headers: list[tuple[bytes, bytes]], *, keep_alive: bool) -> bytes:
    """The bytes of a whole answer. ValueError for a header that would be read as two."""
    headers = [b": ".join(header) for header in (*server_headers, *reply.headers)]
    headers.append(b"content-length: %d" % len(reply.body))
    if not keep_alive:
        headers.append(b"connection: close")
    head = b"\r\n".join(headers)
    if len(head) - len(head.translate(None, _CONTROLS)) != 2 * (len(headers) - 1):
        raise ValueError("a control character in a header of an answer")
    return b"%s%s\r\n\r\n%s" % (STATUS_LINE[reply.status], head, reply.body)


def expects_continue(headers: list[tuple[bytes, bytes]]) -> bool:
    """Whether the client waits with its body until it is told that the body is wanted."""
    for name, value in headers:  # noqa: SIM110 - any() with a generator costs three times as much, on every request
        if name == b"expect" and value.lower() == b"100-continue":
            return True
    return False
