"""HTTP/2 as a server speaks it that answers with header fields and data: frames in and out, streams, flow control.

No sockets and no calls: what arrives is told to a `Listener`, what is to be sent is collected. Of HTTP/2 there is what
gRPC's clients need: no push, no priorities, and header fields are sent uncompressed. Those that arrive are decoded by
`hpack`. Its sister `h2` does all of HTTP/2, and takes 150 µs for a call where this takes 9, or 29 with header fields
that are new.
Source: RFC 9113.
"""

from __future__ import annotations

from struct import Struct
from typing import Final, Protocol, cast

from hpack import Decoder
from hpack.exceptions import HPACKError, OversizedHeaderListError

from clearinghouse.rpc.frames import (
    ACK,
    END_HEADERS,
    END_STREAM,
    HEAD_BYTES,
    HEADER_TABLE_BYTES,
    NO_TABLE,
    PAYLOAD_MAX_BYTES,
    PREFACE,
    PRIORITIZED,
    WINDOW_BYTES,
    WINDOW_MAX_BYTES,
    Code,
    Header,
    Kind,
    Setting,
    frame,
    goaway,
    read_head,
    rst_stream,
    settings,
    unpadded,
    window_update,
)

#: What the client may send on all streams together before it is let in.
CONNECTION_WINDOW_BYTES: Final = 1 << 20
#: Of header fields, what is remembered of a connection.
_KNOWN_BLOCKS_MAX_COUNT: Final = 16
_KNOWN_BLOCK_MAX_BYTES: Final = 512
_SETTING: Final = Struct(">HL")
#: Header fields beyond their limit are the listener's to refuse; so many times the limit ends the connection.
_HEADERS_HARD_FACTOR: Final = 4
_STREAM_MAX_ID: Final = (1 << 31) - 1
_PSEUDO_HEADERS: Final = frozenset((b":method", b":scheme", b":path", b":authority"))
_NEEDED: Final = frozenset((b":method", b":scheme", b":path"))
#: They belong to a connection of HTTP/1.1 (section 8.2.2).
_OF_CONNECTIONS: Final = frozenset(
    (b"connection", b"keep-alive", b"proxy-connection", b"transfer-encoding", b"upgrade")
)


class Listener(Protocol):
    """Is told what the client says, of a stream only while it is open: from `request` until it has ended."""

    def request(self, stream_id: int, headers: list[Header], *, is_end: bool) -> None: ...
    def data(self, stream_id: int, data: bytes, flow_bytes: int) -> None:
        """`flow_bytes` is what flow control counts: padding too."""

    def half_closed(self, stream_id: int) -> None: ...
    def given_up(self, stream_id: int) -> None:
        """The client reset it, or broke the protocol on it: it is gone."""

    def windows_opened(self, stream_id: int) -> None:
        """More may be sent on it, or with 0 on all streams."""

    def ponged(self, payload: bytes) -> None:
        """It has seen all that was sent before the ping of this payload."""

    def leaves(self) -> None:
        """The client begins no more streams."""


class Broken(Exception):
    """The client broke the protocol; the goodbye that says how is among what is to be sent."""


class _Violation(Exception):
    def __init__(self, code: Code) -> None:
        super().__init__(code.name)
        self.code = code


class _StreamViolation(_Violation):
    """Ends only the stream."""


class Stream:
    """Its windows, and whether the client has said all. Forgotten when we have, or one of us gave it up."""

    __slots__ = ("input_ended", "receive_bytes", "send_bytes")

    def __init__(self, send_bytes: int) -> None:
        self.send_bytes = send_bytes
        self.receive_bytes = WINDOW_BYTES
        self.input_ended = False


class Http2:
    """One connection. `streams` are those that are open; `frames_count` counts all that arrived."""

    def __init__(self, listener: Listener, *, streams_max_count: int, headers_max_bytes: int) -> None:
        self.streams: dict[int, Stream] = {}
        self.frames_count = 0
        self._listener = listener
        self._streams_max_count = streams_max_count
        self._headers_max_bytes = headers_max_bytes
        self._decoder = Decoder(_HEADERS_HARD_FACTOR * headers_max_bytes)
        self._known_blocks: dict[bytes, tuple[list[Header], bool]] = {}
        self._received: bytes = b""
        self._preface_left: bytes = PREFACE
        self._last_stream_id = 0
        self._table_update = b""  # what the next block has to say of the client's table of header fields
        self._block: bytearray | None = None  # header fields that go on in the next frame
        self._block_stream_id = self._block_flags = 0
        self._send_bytes = WINDOW_BYTES
        self._stream_send_bytes = WINDOW_BYTES
        self._receive_bytes = CONNECTION_WINDOW_BYTES
        self._handlers = {
            Kind.DATA: self._data,
            Kind.HEADERS: self._headers,
            Kind.PRIORITY: self._priority,
            Kind.RST_STREAM: self._rst_stream,
            Kind.SETTINGS: self._settings,
            Kind.PUSH_PROMISE: self._push_promise,
            Kind.PING: self._ping,
            Kind.GOAWAY: self._goaway,
            Kind.WINDOW_UPDATE: self._window_update,
            Kind.CONTINUATION: self._continuation,
        }
        limits = {Setting.MAX_CONCURRENT_STREAMS: streams_max_count, Setting.MAX_HEADER_LIST_SIZE: headers_max_bytes}
        self._out = [settings(limits), window_update(0, CONNECTION_WINDOW_BYTES - WINDOW_BYTES)]

    # --- what arrives -------------------------------------------------------------------------------------------------

    def receive(self, data: bytes) -> None:
        """Tells the listener of every frame. Raises Broken; nothing more can be received then."""
        try:
            if self._preface_left:
                data = self._after_preface(data)
            self._frames(self._received + data if self._received else data)
        except _Violation as violation:
            self._out.append(goaway(self._last_stream_id, violation.code))
            raise Broken(violation.code.name) from None

    def _after_preface(self, data: bytes) -> bytes:
        length = min(len(data), len(self._preface_left))
        if data[:length] != self._preface_left[:length]:
            raise _Violation(Code.PROTOCOL_ERROR)
        self._preface_left = self._preface_left[length:]
        return data[length:]

    def _frames(self, data: bytes) -> None:
        start, end = 0, len(data)
        while end - start >= HEAD_BYTES:
            length, kind, flags, stream_id = read_head(data, start)
            if length > PAYLOAD_MAX_BYTES:
                raise _Violation(Code.FRAME_SIZE_ERROR)
            if end - start < HEAD_BYTES + length:
                break
            if not self.frames_count and kind != Kind.SETTINGS:
                raise _Violation(Code.PROTOCOL_ERROR)
            self.frames_count += 1
            start += HEAD_BYTES + length
            self._frame(kind, flags, stream_id, data[start - length : start])
        self._received = data[start:]

    def _frame(self, kind: int, flags: int, stream_id: int, payload: bytes) -> None:
        if self._block is not None and (kind != Kind.CONTINUATION or stream_id != self._block_stream_id):
            raise _Violation(Code.PROTOCOL_ERROR)
        handle = self._handlers.get(cast("Kind", kind))
        if handle is None:
            return  # an extension, which is to be passed over
        try:
            handle(flags, stream_id, payload)
        except _StreamViolation as violation:
            was_open = stream_id in self.streams
            self.reset(stream_id, violation.code)
            if was_open:
                self._listener.given_up(stream_id)

    def _data(self, flags: int, stream_id: int, payload: bytes) -> None:
        flow_bytes = len(payload)
        self._receive_bytes -= flow_bytes
        if self._receive_bytes < 0:
            raise _Violation(Code.FLOW_CONTROL_ERROR)
        if self._receive_bytes <= CONNECTION_WINDOW_BYTES // 2:
            self._out.append(window_update(0, CONNECTION_WINDOW_BYTES - self._receive_bytes))
            self._receive_bytes = CONNECTION_WINDOW_BYTES
        data = _checked_unpadded(payload, flags)
        stream = self._known(stream_id)
        if stream is None or stream.input_ended:
            raise _StreamViolation(Code.STREAM_CLOSED)
        stream.receive_bytes -= flow_bytes
        if stream.receive_bytes < 0:
            raise _StreamViolation(Code.FLOW_CONTROL_ERROR)
        stream.input_ended = bool(flags & END_STREAM)
        self._listener.data(stream_id, data, flow_bytes)
        if stream.input_ended:
            self._half_closed(stream_id)

    def _headers(self, flags: int, stream_id: int, payload: bytes) -> None:
        if not stream_id & 1:
            raise _Violation(Code.PROTOCOL_ERROR)
        payload = _checked_unpadded(payload, flags)
        depends_on_itself = False
        if flags & PRIORITIZED:
            if len(payload) < 5:
                raise _Violation(Code.FRAME_SIZE_ERROR)
            depends_on_itself = _depends_on(payload) == stream_id
            payload = payload[5:]
        if flags & END_HEADERS:
            self._header_block(stream_id, flags, payload)
        else:
            self._block, self._block_stream_id, self._block_flags = bytearray(payload), stream_id, flags
        if depends_on_itself:
            raise _StreamViolation(Code.PROTOCOL_ERROR)

    def _continuation(self, flags: int, stream_id: int, payload: bytes) -> None:
        if self._block is None:
            raise _Violation(Code.PROTOCOL_ERROR)
        self._block += payload
        if len(self._block) > 2 * self._headers_max_bytes:
            raise _Violation(Code.ENHANCE_YOUR_CALM)
        if flags & END_HEADERS:
            block, self._block = bytes(self._block), None
            self._header_block(stream_id, self._block_flags, block)

    def _header_block(self, stream_id: int, flags: int, block: bytes) -> None:
        headers, is_well_formed = self._decoded(block)
        is_end = bool(flags & END_STREAM)
        if stream_id > self._last_stream_id:
            self._last_stream_id = stream_id
            if not is_well_formed:
                raise _StreamViolation(Code.PROTOCOL_ERROR)
            self._request(stream_id, headers, is_end)
            return
        stream = self.streams.get(stream_id)
        if stream is None:  # gRPC's clients send no trailers, so that none can be late
            raise _Violation(Code.STREAM_CLOSED)
        if stream.input_ended:
            raise _StreamViolation(Code.STREAM_CLOSED)
        if not is_end or any(name[:1] == b":" for name, _ in headers):  # no trailers
            raise _StreamViolation(Code.PROTOCOL_ERROR)
        stream.input_ended = True
        self._half_closed(stream_id)

    def _decoded(self, block: bytes) -> tuple[list[Header], bool]:
        """With whether they are those of a request. Most calls of a client begin with the same bytes, which mean
        the same for as long as HPACK's table is what it was.
        """
        if (known := self._known_blocks.get(block)) is not None:
            return known
        if _begins_with_many_resizes(block):
            raise _Violation(Code.COMPRESSION_ERROR)
        table = self._decoder.header_table.dynamic_entries
        before = len(table), table[0] if table else None
        try:
            headers = cast("list[Header]", self._decoder.decode(block, raw=True))
        except OversizedHeaderListError:
            raise _Violation(Code.ENHANCE_YOUR_CALM) from None
        except (HPACKError, ValueError, IndexError, KeyError):
            raise _Violation(Code.COMPRESSION_ERROR) from None
        decoded = headers, _are_well_formed(headers)
        if before[0] != len(table) or (table and table[0] is not before[1]):  # each new entry is an object of its own
            self._known_blocks.clear()
        elif (
            len(block) <= _KNOWN_BLOCK_MAX_BYTES
            and not _resizes(block)
            and len(self._known_blocks) < _KNOWN_BLOCKS_MAX_COUNT
        ):
            self._known_blocks[block] = decoded
        return decoded

    def _request(self, stream_id: int, headers: list[Header], is_end: bool) -> None:
        if len(self.streams) >= self._streams_max_count:
            raise _StreamViolation(Code.REFUSED_STREAM)
        self.streams[stream_id] = stream = Stream(self._stream_send_bytes)
        stream.input_ended = is_end
        self._listener.request(stream_id, headers, is_end=is_end)
        if is_end:
            self._half_closed(stream_id)

    def _half_closed(self, stream_id: int) -> None:
        if stream_id in self.streams:  # else what it said before has ended it
            self._listener.half_closed(stream_id)

    def _priority(self, _flags: int, stream_id: int, payload: bytes) -> None:
        if not stream_id:
            raise _Violation(Code.PROTOCOL_ERROR)
        if len(payload) != 5:
            raise _StreamViolation(Code.FRAME_SIZE_ERROR)
        if _depends_on(payload) == stream_id:
            raise _StreamViolation(Code.PROTOCOL_ERROR)

    def _rst_stream(self, _flags: int, stream_id: int, payload: bytes) -> None:
        if len(payload) != 4:
            raise _Violation(Code.FRAME_SIZE_ERROR)
        if self._known(stream_id) is not None:
            del self.streams[stream_id]
            self._listener.given_up(stream_id)

    def _settings(self, flags: int, stream_id: int, payload: bytes) -> None:
        if stream_id:
            raise _Violation(Code.PROTOCOL_ERROR)
        if len(payload) % 6 or (flags & ACK and payload):
            raise _Violation(Code.FRAME_SIZE_ERROR)
        if flags & ACK:
            return
        before_bytes = window_bytes = self._stream_send_bytes
        for identifier, value in _SETTING.iter_unpack(payload):
            _check_setting(identifier, value)
            if identifier == Setting.INITIAL_WINDOW_SIZE:
                window_bytes = value  # the last one counts: thousands in a frame are not looked at for each stream
            elif identifier == Setting.HEADER_TABLE_SIZE and value < HEADER_TABLE_BYTES:
                self._table_update = NO_TABLE
        self._resize_windows(window_bytes)
        self._out.append(frame(Kind.SETTINGS, ACK, 0))
        if self._stream_send_bytes > before_bytes:  # which the client goes by once it has our acknowledgement
            self._listener.windows_opened(0)

    def _resize_windows(self, window_bytes: int) -> None:
        more_bytes = window_bytes - self._stream_send_bytes
        if not more_bytes:
            return
        self._stream_send_bytes = window_bytes
        for stream in self.streams.values():
            stream.send_bytes += more_bytes
            if stream.send_bytes > WINDOW_MAX_BYTES:
                raise _Violation(Code.FLOW_CONTROL_ERROR)

    def _push_promise(self, _flags: int, _stream_id: int, _payload: bytes) -> None:
        raise _Violation(Code.PROTOCOL_ERROR)  # a client has nothing to push

    def _ping(self, flags: int, stream_id: int, payload: bytes) -> None:
        if stream_id:
            raise _Violation(Code.PROTOCOL_ERROR)
        if len(payload) != 8:
            raise _Violation(Code.FRAME_SIZE_ERROR)
        if flags & ACK:
            self._listener.ponged(payload)
        else:
            self._out.append(frame(Kind.PING, ACK, 0, payload))

    def _goaway(self, _flags: int, stream_id: int, payload: bytes) -> None:
        if stream_id:
            raise _Violation(Code.PROTOCOL_ERROR)
        if len(payload) < 8:
            raise _Violation(Code.FRAME_SIZE_ERROR)
        self._listener.leaves()

    def _window_update(self, _flags: int, stream_id: int, payload: bytes) -> None:
        if len(payload) != 4:
            raise _Violation(Code.FRAME_SIZE_ERROR)
        more_bytes = int.from_bytes(payload) & WINDOW_MAX_BYTES
        if not stream_id:
            if not more_bytes:
                raise _Violation(Code.PROTOCOL_ERROR)
            self._send_bytes += more_bytes
            if self._send_bytes > WINDOW_MAX_BYTES:
                raise _Violation(Code.FLOW_CONTROL_ERROR)
        else:
            stream = self._known(stream_id)
            if stream is None:
                return  # it has ended, which the client had not heard of
            if not more_bytes:
                raise _StreamViolation(Code.PROTOCOL_ERROR)
            stream.send_bytes += more_bytes
            if stream.send_bytes > WINDOW_MAX_BYTES:
                raise _StreamViolation(Code.FLOW_CONTROL_ERROR)
        self._listener.windows_opened(stream_id)

    def _known(self, stream_id: int) -> Stream | None:
        """None for one that has ended. Raises for one that never began."""
        if not stream_id & 1 or stream_id > self._last_stream_id:
            raise _Violation(Code.PROTOCOL_ERROR)
        return self.streams.get(stream_id)

    # --- what is sent -------------------------------------------------------------------------------------------------

    def take_output(self) -> bytes:
        """What is to be sent now."""
        out = self._out
        if not out:
            return b""
        data = out[0] if len(out) == 1 else b"".join(out)
        out.clear()
        return data

    def send_headers(self, stream_id: int, block: bytes, *, is_end: bool = False) -> None:
        """A block of frames.header_block; one frame may hold it. On a stream that has not ended."""
        flags = END_HEADERS | END_STREAM if is_end else END_HEADERS
        if self._table_update:
            block, self._table_update = self._table_update + block, b""
        self._out.append(frame(Kind.HEADERS, flags, stream_id, block))
        if is_end:
            self._ended(stream_id)

    def sendable_bytes(self, stream_id: int) -> int:
        """What the client's windows let through."""
        return min(self._send_bytes, self.streams[stream_id].send_bytes)

    def send_data(self, stream_id: int, data: bytes) -> None:
        """No more than is sendable."""
        for start in range(0, len(data), PAYLOAD_MAX_BYTES):
            self._out.append(frame(Kind.DATA, 0, stream_id, data[start : start + PAYLOAD_MAX_BYTES]))
        self._send_bytes -= len(data)
        self.streams[stream_id].send_bytes -= len(data)

    def let_in(self, stream_id: int, more_bytes: int) -> None:
        """So much more may arrive on it."""
        stream = self.streams.get(stream_id)
        if stream is not None and not stream.input_ended:
            stream.receive_bytes += more_bytes
            self._out.append(window_update(stream_id, more_bytes))

    def reset(self, stream_id: int, code: Code) -> None:
        self.streams.pop(stream_id, None)
        self._out.append(rst_stream(stream_id, code))

    def ping(self, payload: bytes = bytes(8)) -> None:
        self._out.append(frame(Kind.PING, 0, 0, payload))

    def announce_goodbye(self) -> None:
        """No more streams soon: those that are on their way are still taken (RFC 9113, 6.8)."""
        self._out.append(goaway(_STREAM_MAX_ID, Code.NO_ERROR))

    def say_goodbye(self, code: Code) -> None:
        """No more streams. Those that began go on."""
        self._out.append(goaway(self._last_stream_id, code))

    def _ended(self, stream_id: int) -> None:
        """We have said all. Who has not may stop: what it goes on to send would not be read."""
        stream = self.streams[stream_id]
        if stream.input_ended:
            del self.streams[stream_id]
        else:
            self.reset(stream_id, Code.NO_ERROR)


def _checked_unpadded(payload: bytes, flags: int) -> bytes:
    try:
        return unpadded(payload, flags)
    except ValueError:
        raise _Violation(Code.PROTOCOL_ERROR) from None


def _resizes(block: bytes) -> bool:
    """Whether it begins by setting the size of HPACK's table (RFC 7541, 6.3)."""
    return block[:1] > b"\x1f" and block[:1] < b"\x40"


def _begins_with_many_resizes(block: bytes) -> bool:
    """More than the two updates of the table's size that a block may begin with (RFC 7541, 4.2). `hpack` takes any."""
    at = 0
    for _ in range(3):
        if at >= len(block) or block[at] & 0xE0 != 0x20:
            return False
        is_long = block[at] & 0x1F == 0x1F
        at += 1
        while is_long and at < len(block):
            is_long = bool(block[at] & 0x80)
            at += 1
    return True


def _check_setting(identifier: int, value: int) -> None:
    if identifier == Setting.ENABLE_PUSH and value > 1:
        raise _Violation(Code.PROTOCOL_ERROR)
    if identifier == Setting.MAX_FRAME_SIZE and not PAYLOAD_MAX_BYTES <= value < 1 << 24:
        raise _Violation(Code.PROTOCOL_ERROR)
    if identifier == Setting.INITIAL_WINDOW_SIZE and value > WINDOW_MAX_BYTES:
        raise _Violation(Code.FLOW_CONTROL_ERROR)


def _depends_on(payload: bytes) -> int:
    return int.from_bytes(payload[:4]) & 0x7FFF_FFFF


def _are_well_formed(headers: list[Header]) -> bool:
    """Section 8.2 and 8.3.1: pseudo-header fields first and once, lower case, nothing of HTTP/1.1's connections."""
    seen: set[bytes] = set()
    is_past_pseudo = False
    for name, value in headers:
        if name[:1] == b":":
            if not value or is_past_pseudo or name in seen or name not in _PSEUDO_HEADERS:
                return False
            seen.add(name)
        else:
            is_past_pseudo = True
            if not name or name != name.lower() or name in _OF_CONNECTIONS or (name == b"te" and value != b"trailers"):
                return False
    return seen >= _NEEDED
