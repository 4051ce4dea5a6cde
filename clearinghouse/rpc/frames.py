"""The frames of HTTP/2 as bytes (RFC 9113, sections 4 and 6), and header fields without HPACK's tables (RFC 7541)."""

from __future__ import annotations

import struct
from collections.abc import Iterable
from enum import IntEnum
from typing import Final

PREFACE: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
HEAD_BYTES: Final = 9
#: Of both sides, until another value is agreed, and we agree none.
PAYLOAD_MAX_BYTES: Final = 16_384
#: Of each stream and of the connection, until more is let in.
WINDOW_BYTES: Final = 65_535
WINDOW_MAX_BYTES: Final = (1 << 31) - 1
#: Of each side's table of header fields. We use none, and say so to who has less room: its update to 0 (RFC 7541, 6.3).
HEADER_TABLE_BYTES: Final = 4096
NO_TABLE: Final = b"\x20"

ACK: Final = 0x1
END_STREAM: Final = 0x1
END_HEADERS: Final = 0x4
PADDED: Final = 0x8
PRIORITIZED: Final = 0x20

Header = tuple[bytes, bytes]
_HEAD: Final = struct.Struct(">BHBBL")
_STREAM_BITS: Final = 0x7FFF_FFFF


class Kind(IntEnum):
    """Types of frames."""

    DATA = 0
    HEADERS = 1
    PRIORITY = 2
    RST_STREAM = 3
    SETTINGS = 4
    PUSH_PROMISE = 5
    PING = 6
    GOAWAY = 7
    WINDOW_UPDATE = 8
    CONTINUATION = 9


class Code(IntEnum):
    """Why a stream or a connection ends (section 7)."""

    NO_ERROR = 0
    PROTOCOL_ERROR = 1
    INTERNAL_ERROR = 2
    FLOW_CONTROL_ERROR = 3
    STREAM_CLOSED = 5
    FRAME_SIZE_ERROR = 6
    REFUSED_STREAM = 7
    CANCEL = 8
    COMPRESSION_ERROR = 9
    ENHANCE_YOUR_CALM = 11


class Setting(IntEnum):
    """Identifiers of settings."""

    HEADER_TABLE_SIZE = 1
    ENABLE_PUSH = 2
    MAX_CONCURRENT_STREAMS = 3
    INITIAL_WINDOW_SIZE = 4
    MAX_FRAME_SIZE = 5
    MAX_HEADER_LIST_SIZE = 6


def frame(kind: int, flags: int, stream_id: int, payload: bytes = b"") -> bytes:
    length = len(payload)
    return _HEAD.pack(length >> 16, length & 0xFFFF, kind, flags, stream_id) + payload


def read_head(data: bytes, start: int) -> tuple[int, int, int, int]:
    """Length, kind, flags and stream of the frame that begins at `start`, of which HEAD_BYTES must be there."""
    high, low, kind, flags, stream_id = _HEAD.unpack_from(data, start)
    return high << 16 | low, kind, flags, stream_id & _STREAM_BITS


def settings(values: dict[Setting, int]) -> bytes:
    payload = b"".join(struct.pack(">HL", identifier, value) for identifier, value in values.items())
    return frame(Kind.SETTINGS, 0, 0, payload)


def window_update(stream_id: int, more_bytes: int) -> bytes:
    return frame(Kind.WINDOW_UPDATE, 0, stream_id, more_bytes.to_bytes(4))


def rst_stream(stream_id: int, code: Code) -> bytes:
    return frame(Kind.RST_STREAM, 0, stream_id, code.to_bytes(4))


def goaway(last_stream_id: int, code: Code) -> bytes:
    return frame(Kind.GOAWAY, 0, 0, struct.pack(">LL", last_stream_id, code))


def unpadded(payload: bytes, flags: int) -> bytes:
    """Raises ValueError for padding that is longer than the payload."""
    if not flags & PADDED:
        return payload
    if not payload or payload[0] >= len(payload):
        raise ValueError("padding without end")
    return payload[1 : len(payload) - payload[0]]


def header_block(headers: Iterable[Header]) -> bytes:
    """As they are: neither compressed nor to be remembered (RFC 7541, 6.2.2)."""
    block = bytearray()
    for name, value in headers:
        block += b"\0"
        for text in (name, value):
            block += _length(len(text))
            block += text
    return bytes(block)


def _length(number: int) -> bytes:
    """RFC 7541, 5.1, with a prefix of seven bits."""
    if number < 127:
        return number.to_bytes()
    encoded, rest = bytearray([127]), number - 127
    while rest >= 128:
        encoded.append(rest % 128 + 128)
        rest //= 128
    return bytes(encoded + bytes([rest]))
