"""The two ends of a connection without one: our HTTP/2 with a listener that checks it, and the h2 library as client."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from itertools import pairwise
from typing import Final

from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import DataReceived, Event
from h2.settings import SettingCodes, Settings

from clearinghouse.rpc.frames import (
    END_HEADERS,
    END_STREAM,
    HEAD_BYTES,
    PREFACE,
    Code,
    Header,
    Kind,
    frame,
    header_block,
    read_head,
    settings,
)
from clearinghouse.rpc.http2 import Broken, Http2

ASKED: Final[list[Header]] = [
    (b":method", b"POST"),
    (b":scheme", b"http"),
    (b":path", b"/a.B/C"),
    (b":authority", b"x"),
]
HELLO: Final = PREFACE + settings({})
STREAMS_MAX_COUNT: Final = 4
HEADERS_MAX_BYTES: Final = 4096

#: What a listener was told: the name of it, the stream, and whatever else there was.
Told = tuple[object, ...]


class Listening:
    """Fails when it is told what cannot be. `reply` may act on what it is told, as a server does."""

    def __init__(self, reply: Callable[[Told], None] | None = None) -> None:
        self.told: list[Told] = []
        self.http2: Http2
        self._reply = reply
        self._last_stream_id = 0
        self._ended: dict[int, bool] = {}  # streams that were told of and not given up: whether their input has ended

    def request(self, stream_id: int, headers: list[Header], *, is_end: bool) -> None:
        assert stream_id & 1
        assert stream_id > self._last_stream_id
        self._last_stream_id = stream_id
        self._ended[stream_id] = False
        assert len(self.http2.streams) <= STREAMS_MAX_COUNT
        self._heard("request", stream_id, headers, is_end)

    def data(self, stream_id: int, data: bytes, flow_bytes: int) -> None:
        assert not self._ended[stream_id]
        assert stream_id in self.http2.streams
        assert len(data) <= flow_bytes
        self._heard("data", stream_id, data, flow_bytes)

    def half_closed(self, stream_id: int) -> None:
        assert not self._ended[stream_id]
        assert stream_id in self.http2.streams
        self._ended[stream_id] = True
        self._heard("half_closed", stream_id)

    def given_up(self, stream_id: int) -> None:
        del self._ended[stream_id]
        assert stream_id not in self.http2.streams
        self._heard("given_up", stream_id)

    def windows_opened(self, stream_id: int) -> None:
        assert stream_id == 0 or stream_id in self.http2.streams
        self._heard("windows_opened", stream_id)

    def ponged(self, payload: bytes) -> None:
        assert len(payload) == 8
        self._heard("ponged", payload)

    def leaves(self) -> None:
        self._heard("leaves")

    def _heard(self, *told: object) -> None:
        self.told.append(told)
        if self._reply is not None:
            self._reply(told)


def server(listening: Listening) -> Http2:
    listening.http2 = Http2(listening, streams_max_count=STREAMS_MAX_COUNT, headers_max_bytes=HEADERS_MAX_BYTES)
    return listening.http2


def said_by(data: bytes) -> list[tuple[int, int, int, bytes]]:
    """Kind, flags, stream and payload of every frame."""
    frames, start = [], 0
    while start < len(data):
        length, kind, flags, stream_id = read_head(data, start)
        start += HEAD_BYTES + length
        assert start <= len(data), "a frame is cut off"
        frames.append((kind, flags, stream_id, data[start - length : start]))
    return frames


def goodbye(http2: Http2) -> Code | None:
    """Why the server ends the connection, of all that it has to say now."""
    codes = [payload[4:] for kind, _, _, payload in said_by(http2.take_output()) if kind == Kind.GOAWAY]
    assert len(codes) <= 1
    return Code(int.from_bytes(codes[0])) if codes else None


def hear(http2: Http2, pieces: Iterable[bytes]) -> bool:
    """Whether it was heard to the end. Whatever is raised but Broken is a bug."""
    try:
        for piece in pieces:
            http2.receive(piece)
    except Broken:
        return False
    return True


def cut(data: bytes, places: Iterable[int]) -> list[bytes]:
    """In pieces, at these places as far as there are such."""
    ends = sorted({0, len(data), *(place for place in places if place < len(data))})
    return [data[start:end] for start, end in pairwise(ends)]


def asked(stream_id: int, headers: list[Header] | None = None, *, flags: int = END_HEADERS | END_STREAM) -> bytes:
    return frame(Kind.HEADERS, flags, stream_id, header_block(ASKED if headers is None else headers))


class Answering(Listening):
    """Answers each request with the bytes that `answer` makes of what it was sent, as far as the windows let them."""

    def __init__(self, answer: Callable[[bytes], bytes]) -> None:
        super().__init__(self._act)
        self._answer = answer
        self._asked: dict[int, bytearray] = {}
        self.outboxes: dict[int, bytes] = {}
        self.reads_at_once = True

    def _act(self, told: Told) -> None:
        match told:
            case ("request", int(stream_id), *_):
                self._asked[stream_id] = bytearray()
            case ("data", int(stream_id), bytes(data), int(flow_bytes)):
                self._asked[stream_id] += data
                if self.reads_at_once:
                    self.http2.let_in(stream_id, flow_bytes)
            case ("half_closed", int(stream_id)):
                self.http2.send_headers(stream_id, header_block([(b":status", b"200")]))
                self.outboxes[stream_id] = self._answer(bytes(self._asked.pop(stream_id)))
                self._flush(stream_id)
            case ("given_up", int(stream_id)):
                self._asked.pop(stream_id, None)
                self.outboxes.pop(stream_id, None)
            case ("windows_opened", int(stream_id)):
                for each in [stream_id] if stream_id else list(self.outboxes):
                    self._flush(each)

    def _flush(self, stream_id: int) -> None:
        if stream_id not in self.outboxes:
            return
        outbox = self.outboxes[stream_id]
        if (sendable_bytes := self.http2.sendable_bytes(stream_id)) > 0:
            self.http2.send_data(stream_id, outbox[:sendable_bytes])
            outbox = self.outboxes[stream_id] = outbox[sendable_bytes:]
        if not outbox:
            del self.outboxes[stream_id]
            self.http2.send_headers(stream_id, header_block([(b"grpc-status", b"0")]), is_end=True)


class Client:
    """h2, which checks all that it is told, and a server that it talks with."""

    def __init__(self, listening: Listening, values: dict[SettingCodes, int] | None = None) -> None:
        self.h2 = H2Connection(H2Configuration(client_side=True, header_encoding=None))
        self.h2.local_settings = Settings(client=True, initial_values={SettingCodes.ENABLE_PUSH: 0, **(values or {})})
        self.h2.initiate_connection()
        self.listening = listening
        self.http2 = server(listening)
        self.events: list[Event] = []

    def talk(self) -> list[Event]:
        """Both say what they have to say, until neither has more; what the client heard."""
        before_count = len(self.events)
        while True:
            from_client = self.h2.data_to_send()
            if from_client:
                self.http2.receive(from_client)
            from_server = self.http2.take_output()
            if from_server:
                self.events += self.h2.receive_data(from_server)
            if not from_client and not from_server:
                return self.events[before_count:]

    def ask(self, data: bytes = b"", *, is_end: bool = True) -> int:
        """Begins a stream. What flow control does not let through goes later, by `send`."""
        stream_id: int = self.h2.get_next_available_stream_id()
        self.h2.send_headers(stream_id, ASKED, end_stream=is_end and not data)
        if data:
            self.send(stream_id, data, is_end=is_end)
        return stream_id

    def send(self, stream_id: int, data: bytes, *, is_end: bool = True) -> None:
        """As the server's windows let it, which it has to open."""
        while data:
            self.talk()
            size = min(self.h2.local_flow_control_window(stream_id), self.h2.max_outbound_frame_size, len(data))
            assert size > 0, "the server lets nothing in"
            self.h2.send_data(stream_id, data[:size], end_stream=is_end and size == len(data))
            data = data[size:]

    def take(self, events: Iterable[Event]) -> None:
        """Tells the server that the data of these has been read."""
        for event in events:
            if isinstance(event, DataReceived) and event.flow_controlled_length:
                self.h2.acknowledge_received_data(event.flow_controlled_length, event.stream_id)

    def answer(self, stream_id: int) -> bytes:
        """What it has been answered so far."""
        return b"".join(
            event.data or b""
            for event in self.events
            if isinstance(event, DataReceived) and event.stream_id == stream_id
        )
