"""One connection of a gRPC port: what is a call on it, and what its client may hold. HTTP/2 itself is in `http2`.

    HEADERS ──▶ a method? a place? ──▶ DATA: messages ──▶ task: the method's work ──▶ HEADERS DATA… HEADERS(status)

Whatever arrives in one piece is worked on in one turn, so that calls which come together are answered together. There
is one timer, which looks at all times now and then: calls whose message does not come, deadlines, answers that nobody
takes, silence.
"""

from __future__ import annotations

import asyncio
from enum import IntEnum
from typing import TYPE_CHECKING, Final, cast

import grpc

from clearinghouse.connections import Cut
from clearinghouse.errors import InvalidRequest, Overloaded
from clearinghouse.rpc.call import Call
from clearinghouse.rpc.deadline import timeout_s
from clearinghouse.rpc.frames import Code, Header, goaway, header_block, settings
from clearinghouse.rpc.http2 import Broken, Http2
from clearinghouse.rpc.inbox import ACCEPTED_ENCODINGS, Inbox, is_readable
from clearinghouse.rpc.status import Status
from clearinghouse.shares import NoPlace, Place

if TYPE_CHECKING:
    from clearinghouse.rpc.port import RpcPort

#: How often times are looked at, unless one of them is shorter.
_PATROL_S: Final = 1.0
_RETRY_AFTER_S: Final = 1
#: A client has so long to say that it has heard of a goodbye. Calls that it begins until then are taken.
_LEAVE_S: Final = 1.0
#: A connection without calls is closed so long after the goodbye, if the client has not closed it: what it sent before
#: it heard is refused with a word that lets it call elsewhere, and not with a reset of the line.
_LINGER_S: Final = 0.25
#: How long a client may take to close when all is sent.
_CLOSE_S: Final = 0.5
#: Of a ping: its answer says that the goodbye before it has been heard.
_LEAVING: Final = b"goodbye?"
_OVERLOADED: Final = "As many calls are under way as there may be, or as this address may have of them."
_ANSWER: Final = header_block(
    [(b":status", b"200"), (b"content-type", b"application/grpc"), (b"grpc-accept-encoding", ACCEPTED_ENCODINGS)]
)
_NO_GRPC: Final = header_block([(b":status", b"415")])
#: What a client is told for whose connection there is no place: to come again later.
FULL: Final = settings({}) + goaway(0, Code.ENHANCE_YOUR_CALM)


class _Phase(IntEnum):
    """How far a connection has come. It goes forward, and may skip some."""

    OPEN = 0
    LEAVING = 1  # a goodbye is announced; what the client begins before it hears of it is taken
    REFUSING = 2  # no more calls
    LINGERED = 3  # closes with its last call
    OVER = 4  # all is said: the client closes too, or is cut off
    CUT = 5  # closed, or about to be


class RpcConnection(asyncio.Protocol):
    """Made by the port's door, with the place that it gives back when it is lost."""

    def __init__(self, port: RpcPort, place: Place) -> None:
        self._port = port
        self._limits = port.limits
        self._place = place
        self._loop = asyncio.get_running_loop()
        self._calls: dict[int, Call] = {}
        self._phase = _Phase.OPEN
        self._is_paused = False
        self._allowance: float = self._limits.frames_max_count
        self._made_s = self._heard_s = self._busy_s = self._looked_s = self._loop.time()
        self._pinged_s: float | None = None  # while a ping of ours is not answered
        self._next_phase: asyncio.TimerHandle | None = None  # of a goodbye
        self._unsent_since_s: float | None = None  # while the client leaves what was written

    # --- the connection -----------------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._port.open.add(self)
        self._http2 = Http2(
            self,
            streams_max_count=self._limits.calls_per_connection_max_count,
            headers_max_bytes=self._limits.metadata_max_bytes,
        )
        self._patrol_s = min(_PATROL_S, self._limits.read_timeout_s, self._limits.idle_timeout_s)
        self._patrol = self._loop.call_later(self._patrol_s, self._look)
        tls = transport.get_extra_info("ssl_object")
        if tls is not None and tls.selected_alpn_protocol() != "h2":
            self._cut(Cut.NOT_HTTP)
        else:
            self._write()

    def connection_lost(self, exc: Exception | None) -> None:
        self._phase = _Phase.CUT
        self._patrol.cancel()
        if self._next_phase is not None:
            self._next_phase.cancel()
        for call in list(self._calls.values()):
            self._forget(call)
        self._place.give_back()
        self._port.lost(self)

    def data_received(self, data: bytes) -> None:
        if self._phase >= _Phase.OVER:
            return
        self._heard_s = self._loop.time()
        self._pinged_s = None  # whatever it says, it is there
        http2, before_count = self._http2, self._http2.frames_count
        try:
            http2.receive(data)
        except Broken:
            self._write()
            self._cut(Cut.NOT_HTTP)
            return
        self._write()
        self._allowance -= http2.frames_count - before_count
        if self._allowance < 0:
            self._say_goodbye(Code.ENHANCE_YOUR_CALM)
            self._cut(Cut.RESTLESS)

    def pause_writing(self) -> None:
        """Nothing is read from who does not read: not even what would be answered with a few bytes."""
        self._is_paused = True
        if not self._transport.is_closing():
            self._transport.pause_reading()

    def resume_writing(self) -> None:
        self._is_paused = False
        self._unsent_since_s = None
        if not self._transport.is_closing():
            self._transport.resume_reading()
            self.windows_opened(0)

    def _write(self) -> None:
        if (data := self._http2.take_output()) and self._phase < _Phase.OVER and not self._transport.is_closing():
            self._transport.write(data)

    def take_leave(self) -> None:
        """Takes no new calls once the client has heard of it, and closes when those under way have ended."""
        if self._phase is _Phase.OPEN:
            self._phase = _Phase.LEAVING
            self._http2.announce_goodbye()
            self._http2.ping(_LEAVING)
            self._write()
            self._next_phase = self._loop.call_later(_LEAVE_S, self._take_no_more)

    def _take_no_more(self) -> None:
        if self._phase < _Phase.REFUSING:
            self._phase = _Phase.REFUSING
            self._say_goodbye(Code.NO_ERROR)
            if self._next_phase is not None:
                self._next_phase.cancel()
            self._next_phase = self._loop.call_later(_LINGER_S, self._lingered)

    def _lingered(self) -> None:
        if self._phase is _Phase.REFUSING:
            self._phase = _Phase.LINGERED
            self._close_if_done()

    def end_calls(self, status: Status) -> None:
        """They have had time enough."""
        self._take_no_more()
        for call in list(self._calls.values()):
            self._abort(call, status)

    def abandon(self) -> None:
        self._phase = _Phase.CUT
        self._transport.abort()

    def _say_goodbye(self, code: Code) -> None:
        self._http2.say_goodbye(code)
        self._write()

    def _close_if_done(self) -> None:
        if self._phase is _Phase.LINGERED and not self._calls:
            self._end()

    def _end(self) -> None:
        """Closes when everything is sent and the client has closed too, or has had time to (`_look_at_client`).

        Until then it is read from. With something unread TCP would drop what is not delivered yet: clients open windows
        while they read the last answer.
        """
        self._phase, self._busy_s = _Phase.OVER, self._loop.time()
        if not self._transport.can_write_eof():
            self._transport.close()  # TLS, which has such an end of its own
            return
        try:
            self._transport.write_eof()
        except OSError:  # asyncio's, where the client has reset the connection and nobody has looked yet
            self._transport.abort()

    def _cut(self, reason: Cut) -> None:
        """Closes, for what the client does or does not do. What it does not take in time is aborted (`_look`)."""
        self._phase = _Phase.CUT
        self._port.counted.was_cut(reason)
        self._transport.close()

    # --- what the client says (http2.Listener) ------------------------------------------------------------------------

    def request(self, stream_id: int, headers: list[Header], *, is_end: bool) -> None:
        said = dict(headers)
        if self._phase >= _Phase.REFUSING:
            self._http2.reset(stream_id, Code.REFUSED_STREAM)
        elif said[b":method"] != b"POST" or not said.get(b"content-type", b"").startswith(b"application/grpc"):
            self._http2.send_headers(stream_id, _NO_GRPC, is_end=True)
        elif _size_bytes(headers) > self._limits.metadata_max_bytes:
            self._refuse(stream_id, Status(grpc.StatusCode.RESOURCE_EXHAUSTED, "The call's metadata is too large."))
        elif (method := self._port.methods.get(said[b":path"])) is None:
            self._refuse(stream_id, Status(grpc.StatusCode.UNIMPLEMENTED, "There is no such method here."))
        elif not is_readable(encoding := said.get(b"grpc-encoding", b"identity")):
            self._refuse(stream_id, Status(grpc.StatusCode.UNIMPLEMENTED, "Such a compression is not understood here."))
        elif isinstance(place := self._port.calls.take(self._place.holder), NoPlace):
            self._refuse(stream_id, method.refuse(Overloaded(_OVERLOADED, retry_after_s=_RETRY_AFTER_S)))
        else:
            self._calls[stream_id] = call = Call(
                self,
                stream_id,
                method,
                headers,
                inbox=Inbox(self._port.counted, message_max_bytes=self._limits.message_max_bytes, encoding=encoding),
                place=place,
                began_s=self._heard_s,
                ends_at_s=self._heard_s + timeout_s(said.get(b"grpc-timeout")),
            )
            if method.begins_at_once:
                self._work_on(call)

    def _refuse(self, stream_id: int, status: Status) -> None:
        """Without a place for it: what it may send is not read.

        It asked for something, as a message does: an overloaded port does not cut off, with the calls that it accepted,
        a client who goes on asking.
        """
        self._allow(self._limits.frames_per_message)
        self._http2.send_headers(stream_id, _ANSWER + header_block(status.trailers()), is_end=True)

    def data(self, stream_id: int, data: bytes, flow_bytes: int) -> None:
        call = self._calls.get(stream_id)
        if call is None:
            return
        new_count = call.arrived(data, flow_bytes)
        if not new_count:
            return
        self._allow(new_count * self._limits.frames_per_message)
        if call.task is None and call.trailers is None:
            call.stop_listening()  # it takes one message
            self._work_on(call)

    def half_closed(self, stream_id: int) -> None:
        call = self._calls.get(stream_id)
        if call is None:
            return
        call.half_closed()
        if call.task is None and call.trailers is None:
            self._abort(call, call.method.refuse(InvalidRequest("the call has no message")))

    def given_up(self, stream_id: int) -> None:
        if (call := self._calls.get(stream_id)) is not None:
            self._forget(call)

    def windows_opened(self, stream_id: int) -> None:
        calls = self._calls
        for call in list(calls.values()) if not stream_id else [calls[stream_id]] if stream_id in calls else []:
            self.flush(call)

    def ponged(self, payload: bytes) -> None:
        if payload == _LEAVING:
            self._take_no_more()

    def leaves(self) -> None:
        self._take_no_more()

    def _allow(self, frames: float) -> None:
        self._allowance = min(self._limits.frames_max_count, self._allowance + frames)

    # --- calls --------------------------------------------------------------------------------------------------------

    def _work_on(self, call: Call) -> None:
        call.task = self._loop.create_task(call.method.work(call))
        call.task.add_done_callback(call.worked)

    def _abort(self, call: Call, status: Status) -> None:
        """Ends it over the head of whoever works on it."""
        if call.outbox:  # in the middle of a message
            self._reset(call, Code.CANCEL)
        else:
            call.abort(status)

    def _reset(self, call: Call, code: Code) -> None:
        self._http2.reset(call.stream_id, code)
        self._write()
        self._forget(call)

    def _forget(self, call: Call) -> None:
        del self._calls[call.stream_id]
        self._busy_s = self._loop.time()
        if (cancelled := call.over()) is not None:
            self._port.wait_for(cancelled)
        self._close_if_done()

    # --- what calls need ----------------------------------------------------------------------------------------------

    def let_in(self, call: Call, more_bytes: int) -> None:
        """So much more may arrive of its messages."""
        self._http2.let_in(call.stream_id, more_bytes)
        self._write()

    def flush(self, call: Call) -> None:
        """Sends of a call's answer what may be sent."""
        if self._phase is _Phase.CUT or self._is_paused or call.is_over or not call.has_something_to_send():
            return
        http2, stream_id = self._http2, call.stream_id
        block = b"" if call.has_begun_to_answer else _ANSWER
        call.has_begun_to_answer = True
        if call.outbox:
            if block:
                http2.send_headers(stream_id, block)
                block = b""
            self._send_messages(call)
        trailers = call.trailers if not call.outbox else None
        if trailers is not None:
            http2.send_headers(stream_id, block + header_block(trailers), is_end=True)
        self._write()
        if trailers is not None:
            self._forget(call)

    def _send_messages(self, call: Call) -> None:
        """As far as the client's windows let them through."""
        outbox = call.outbox
        sendable_bytes = self._http2.sendable_bytes(call.stream_id)
        if sendable_bytes > 0:
            self._http2.send_data(call.stream_id, bytes(outbox[:sendable_bytes]))
            del outbox[:sendable_bytes]
        if not outbox:
            call.sent()
        elif call.blocked_since_s is None or sendable_bytes > 0:
            call.blocked_since_s = self._loop.time()

    # --- times --------------------------------------------------------------------------------------------------------

    def _look(self) -> None:
        if self._phase is _Phase.CUT:  # and has not been lost for that long: nobody takes the goodbye
            self._transport.abort()
            return
        now_s = self._loop.time()
        self._allow((now_s - self._looked_s) * self._limits.frames_per_s)
        self._looked_s = now_s
        self._look_at_calls(now_s)
        if not self._leaves_what_is_written(now_s):
            self._look_at_client(now_s)
        self._patrol = self._loop.call_later(self._patrol_s, self._look)

    def _look_at_calls(self, now_s: float) -> None:
        limits = self._limits
        for call in list(self._calls.values()):
            if now_s >= call.ends_at_s:
                self._abort(call, Status(grpc.StatusCode.DEADLINE_EXCEEDED, "The call's time is over."))
            elif call.task is None and call.trailers is None and now_s - call.began_s >= limits.read_timeout_s:
                late = InvalidRequest(f"no message arrived within {limits.read_timeout_s:g} s")
                self._abort(call, call.method.refuse(late))
            elif call.blocked_since_s is not None and now_s - call.blocked_since_s >= limits.idle_timeout_s:
                self._port.counted.was_cut(Cut.ANSWER_NOT_TAKEN)
                self._reset(call, Code.CANCEL)

    def _leaves_what_is_written(self, now_s: float) -> bool:
        """Whether the client has been cut for that."""
        if not self._transport.get_write_buffer_size():
            self._unsent_since_s = None
        elif self._unsent_since_s is None:
            self._unsent_since_s = now_s
        elif now_s - self._unsent_since_s >= self._limits.idle_timeout_s:
            self._cut(Cut.ANSWER_NOT_TAKEN)
            self._transport.abort()
            return True
        return False

    def _look_at_client(self, now_s: float) -> None:
        limits, silent_s = self._limits, now_s - self._heard_s
        if self._phase is _Phase.OVER:
            if self._unsent_since_s is None and now_s - self._busy_s >= _CLOSE_S:
                self._transport.abort()
        elif not self._http2.frames_count and now_s - self._made_s >= limits.read_timeout_s:
            self._cut(Cut.HEAD_TOO_SLOW)
        elif self._phase is _Phase.OPEN and not self._calls and now_s - self._busy_s >= limits.connection_idle_max_s:
            self._port.counted.was_cut(Cut.IDLE)
            self.take_leave()
        elif self._is_paused or silent_s < limits.keepalive_s:
            self._pinged_s = None
        elif self._pinged_s is None:
            self._pinged_s = now_s
            self._http2.ping()
            self._write()
        elif now_s - self._pinged_s >= limits.keepalive_timeout_s:
            self._cut(Cut.VANISHED)
            self._transport.abort()


def _size_bytes(headers: list[Header]) -> int:
    """As HTTP/2 counts header fields (RFC 9113, 6.5.2)."""
    return sum(len(name) + len(value) + 32 for name, value in headers)
