"""Every way to break HTTP/2 that RFC 9113 has a word for, and the word."""

from __future__ import annotations

import struct

import pytest

from clearinghouse.rpc.frames import (
    ACK,
    END_HEADERS,
    END_STREAM,
    PADDED,
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
    header_block,
    rst_stream,
    settings,
    window_update,
)
from tests.clearinghouse.rpc.http2_parts import (
    ASKED,
    HEADERS_MAX_BYTES,
    HELLO,
    STREAMS_MAX_COUNT,
    Listening,
    asked,
    hear,
    said_by,
    server,
)

BEGUN = asked(1, flags=END_HEADERS)
SAID = asked(1)
BLOCK = header_block(ASKED)
SETTING = struct.Struct(">HL")
#: Four times what they may be; less is for the listener to refuse.
LARGE_BLOCK = header_block([*ASKED, (b"x-large", b"x" * (4 * HEADERS_MAX_BYTES - 200))])
#: Four bytes for a header field of 4,000, which goes into the table, and then one byte for each time.
BOMB = BLOCK + b"\x40\x01x" + b"\x7f\xa1\x1e" + b"x" * 4000 + b"\xbe" * 100


def data(stream_id: int, payload: bytes = b"hello", flags: int = 0) -> bytes:
    return frame(Kind.DATA, flags, stream_id, payload)


def priority(stream_id: int, depends_on: int) -> bytes:
    return frame(Kind.PRIORITY, 0, stream_id, depends_on.to_bytes(4) + b"\0")


def fields(*headers: Header) -> bytes:
    return asked(1, list(headers))


def without(name: bytes) -> list[Header]:
    return [header for header in ASKED if header[0] != name]


ENDS_THE_CONNECTION = {
    "no preface": (b"GET / HTTP/1.1\r\n\r\n", Code.PROTOCOL_ERROR),
    "a preface that goes wrong at its end": (PREFACE[:-1] + b"x", Code.PROTOCOL_ERROR),
    "no settings first": (PREFACE + frame(Kind.PING, 0, 0, bytes(8)), Code.PROTOCOL_ERROR),
    "an extension before settings": (PREFACE + frame(0xFA, 0, 0), Code.PROTOCOL_ERROR),
    "sizes of the table and no header fields": (
        HELLO + frame(Kind.HEADERS, END_HEADERS, 1, b"\x20" * 3),
        Code.COMPRESSION_ERROR,
    ),
    "a frame too large": (HELLO + data(1, bytes(PAYLOAD_MAX_BYTES + 1)), Code.FRAME_SIZE_ERROR),
    "the head of one": (HELLO + b"\xff\xff\xff\0\0\0\0\0\x01", Code.FRAME_SIZE_ERROR),
    "one of an extension": (HELLO + frame(0xFA, 0, 0, bytes(PAYLOAD_MAX_BYTES + 1)), Code.FRAME_SIZE_ERROR),
    "data on no stream": (HELLO + data(0), Code.PROTOCOL_ERROR),
    "data before the stream": (HELLO + data(1), Code.PROTOCOL_ERROR),
    "data on a stream of ours": (HELLO + BEGUN + data(2), Code.PROTOCOL_ERROR),
    "data padded beyond its end": (HELLO + BEGUN + data(1, b"\x06hello", PADDED), Code.PROTOCOL_ERROR),
    "data without its padding's length": (HELLO + BEGUN + data(1, b"", PADDED), Code.PROTOCOL_ERROR),
    "header fields on no stream": (HELLO + asked(0), Code.PROTOCOL_ERROR),
    "header fields on a stream of ours": (HELLO + asked(2), Code.PROTOCOL_ERROR),
    "header fields on a stream that was passed over": (HELLO + asked(3) + asked(1), Code.STREAM_CLOSED),
    "header fields padded beyond their end": (
        HELLO + frame(Kind.HEADERS, END_HEADERS | PADDED, 1, b"\xff" + BLOCK),
        Code.PROTOCOL_ERROR,
    ),
    "header fields with half a priority": (
        HELLO + frame(Kind.HEADERS, END_HEADERS | PRIORITIZED, 1, b"\0\0\0\0"),
        Code.FRAME_SIZE_ERROR,
    ),
    "header fields that end within one": (
        HELLO + frame(Kind.HEADERS, END_HEADERS, 1, BLOCK[:-1]),
        Code.COMPRESSION_ERROR,
    ),
    "header fields from nowhere in the table": (
        HELLO + frame(Kind.HEADERS, END_HEADERS, 1, BLOCK + b"\xff\x7f"),
        Code.COMPRESSION_ERROR,
    ),
    "header fields with a number without end": (
        HELLO + frame(Kind.HEADERS, END_HEADERS, 1, b"\xff" * 100),
        Code.COMPRESSION_ERROR,
    ),
    "header fields with a wrong code of Huffman's": (
        HELLO + frame(Kind.HEADERS, END_HEADERS, 1, BLOCK + b"\0\x84\xff\xff\xff\xff\0"),
        Code.COMPRESSION_ERROR,
    ),
    "a table larger than we have": (
        HELLO + frame(Kind.HEADERS, END_HEADERS, 1, b"\x3f\xe2\x1f" + BLOCK),
        Code.COMPRESSION_ERROR,
    ),
    "header fields too large": (
        HELLO + frame(Kind.HEADERS, END_HEADERS, 1, LARGE_BLOCK),
        Code.ENHANCE_YOUR_CALM,
    ),
    "header fields that swell": (HELLO + frame(Kind.HEADERS, END_HEADERS, 1, BOMB), Code.ENHANCE_YOUR_CALM),
    "header fields without end": (
        HELLO + frame(Kind.HEADERS, 0, 1, BLOCK) + frame(Kind.CONTINUATION, 0, 1, bytes(1000)) * 9,
        Code.ENHANCE_YOUR_CALM,
    ),
    "another frame between header fields": (
        HELLO + asked(1, flags=0) + frame(Kind.PING, 0, 0, bytes(8)),
        Code.PROTOCOL_ERROR,
    ),
    "an extension between header fields": (HELLO + asked(1, flags=0) + frame(0xFA, 0, 0), Code.PROTOCOL_ERROR),
    "header fields that go on elsewhere": (
        HELLO + asked(1, flags=0) + frame(Kind.CONTINUATION, END_HEADERS, 3),
        Code.PROTOCOL_ERROR,
    ),
    "nothing that goes on": (HELLO + frame(Kind.CONTINUATION, END_HEADERS, 1, BLOCK), Code.PROTOCOL_ERROR),
    "what has ended goes on": (HELLO + SAID + frame(Kind.CONTINUATION, END_HEADERS, 1), Code.PROTOCOL_ERROR),
    "a priority of no stream": (HELLO + priority(0, 1), Code.PROTOCOL_ERROR),
    "a reset of no stream": (HELLO + rst_stream(0, Code.CANCEL), Code.PROTOCOL_ERROR),
    "a reset before the stream": (HELLO + rst_stream(1, Code.CANCEL), Code.PROTOCOL_ERROR),
    "a reset of another length": (HELLO + BEGUN + frame(Kind.RST_STREAM, 0, 1, bytes(3)), Code.FRAME_SIZE_ERROR),
    "settings of a stream": (HELLO + frame(Kind.SETTINGS, 0, 1), Code.PROTOCOL_ERROR),
    "settings of another length": (HELLO + frame(Kind.SETTINGS, 0, 0, bytes(5)), Code.FRAME_SIZE_ERROR),
    "an acknowledgement with settings": (HELLO + frame(Kind.SETTINGS, ACK, 0, bytes(6)), Code.FRAME_SIZE_ERROR),
    "half a push": (HELLO + settings({Setting.ENABLE_PUSH: 2}), Code.PROTOCOL_ERROR),
    "a window too large": (
        HELLO + settings({Setting.INITIAL_WINDOW_SIZE: WINDOW_MAX_BYTES + 1}),
        Code.FLOW_CONTROL_ERROR,
    ),
    "a window that grows too large": (
        HELLO + BEGUN + window_update(1, 1) + settings({Setting.INITIAL_WINDOW_SIZE: WINDOW_MAX_BYTES}),
        Code.FLOW_CONTROL_ERROR,
    ),
    "frames too small": (HELLO + settings({Setting.MAX_FRAME_SIZE: PAYLOAD_MAX_BYTES - 1}), Code.PROTOCOL_ERROR),
    "frames too large": (HELLO + settings({Setting.MAX_FRAME_SIZE: 1 << 24}), Code.PROTOCOL_ERROR),
    "a push": (HELLO + BEGUN + frame(Kind.PUSH_PROMISE, END_HEADERS, 1, bytes(4) + BLOCK), Code.PROTOCOL_ERROR),
    "a ping of a stream": (HELLO + frame(Kind.PING, 0, 1, bytes(8)), Code.PROTOCOL_ERROR),
    "a ping of another length": (HELLO + frame(Kind.PING, 0, 0, bytes(7)), Code.FRAME_SIZE_ERROR),
    "a goodbye of a stream": (HELLO + frame(Kind.GOAWAY, 0, 1, bytes(8)), Code.PROTOCOL_ERROR),
    "a goodbye of another length": (HELLO + frame(Kind.GOAWAY, 0, 0, bytes(7)), Code.FRAME_SIZE_ERROR),
    "a window opened by nothing": (HELLO + window_update(0, 0), Code.PROTOCOL_ERROR),
    "a window opened too far": (HELLO + window_update(0, WINDOW_MAX_BYTES), Code.FLOW_CONTROL_ERROR),
    "a window before its stream": (HELLO + window_update(1, 1), Code.PROTOCOL_ERROR),
    "a window of a stream of ours": (HELLO + window_update(2, 1), Code.PROTOCOL_ERROR),
    "an update of another length": (HELLO + frame(Kind.WINDOW_UPDATE, 0, 0, bytes(5)), Code.FRAME_SIZE_ERROR),
}

#: What is sent on stream 1 unless it says another.
ENDS_THE_STREAM = {
    "data after the end": (SAID + data(1), Code.STREAM_CLOSED),
    "data after the end by trailers": (
        BEGUN + asked(1, [(b"x-late", b"1")]) + data(1),
        Code.STREAM_CLOSED,
    ),
    "data after a reset": (BEGUN + rst_stream(1, Code.CANCEL) + data(1), Code.STREAM_CLOSED),
    "data beyond its window": (
        BEGUN
        + data(1, bytes(PAYLOAD_MAX_BYTES)) * (WINDOW_BYTES // PAYLOAD_MAX_BYTES)
        + data(1, bytes(PAYLOAD_MAX_BYTES)),
        Code.FLOW_CONTROL_ERROR,
    ),
    "padding beyond its window": (
        BEGUN + data(1, b"\xff" + bytes(255), PADDED) * (WINDOW_BYTES // 256 + 1),
        Code.FLOW_CONTROL_ERROR,
    ),
    "header fields after the end": (SAID + asked(1), Code.STREAM_CLOSED),
    "header fields twice": (BEGUN + asked(1, flags=END_HEADERS), Code.PROTOCOL_ERROR),
    "trailers that name a path": (BEGUN + asked(1), Code.PROTOCOL_ERROR),
    "a stream too many": (
        b"".join(asked(2 * number + 3) for number in range(STREAMS_MAX_COUNT)) + asked(101),
        Code.REFUSED_STREAM,
    ),
    "a priority over itself": (BEGUN + priority(1, 1), Code.PROTOCOL_ERROR),
    "a priority over itself with its header fields": (
        frame(Kind.HEADERS, END_HEADERS | PRIORITIZED, 1, (1).to_bytes(4) + b"\0" + BLOCK),
        Code.PROTOCOL_ERROR,
    ),
    "a priority of another length": (BEGUN + frame(Kind.PRIORITY, 0, 1, bytes(4)), Code.FRAME_SIZE_ERROR),
    "a window opened by nothing": (BEGUN + window_update(1, 0), Code.PROTOCOL_ERROR),
    "a window opened too far": (BEGUN + window_update(1, WINDOW_MAX_BYTES), Code.FLOW_CONTROL_ERROR),
    "upper case": (fields(*ASKED, (b"X-Upper", b"1")), Code.PROTOCOL_ERROR),
    "no name": (fields(*ASKED, (b"", b"1")), Code.PROTOCOL_ERROR),
    "a pseudo-header field after others": (fields(*ASKED[1:], (b"x", b"1"), ASKED[0]), Code.PROTOCOL_ERROR),
    "a pseudo-header field twice": (fields(*ASKED, (b":path", b"/")), Code.PROTOCOL_ERROR),
    "a pseudo-header field of answers": (fields(*ASKED, (b":status", b"200")), Code.PROTOCOL_ERROR),
    "a pseudo-header field nobody knows": (fields(*ASKED, (b":x", b"1")), Code.PROTOCOL_ERROR),
    "no method": (fields(*without(b":method")), Code.PROTOCOL_ERROR),
    "no scheme": (fields(*without(b":scheme")), Code.PROTOCOL_ERROR),
    "no path": (fields(*without(b":path")), Code.PROTOCOL_ERROR),
    "an empty path": (fields(*without(b":path"), (b":path", b"")), Code.PROTOCOL_ERROR),
    "nothing at all": (asked(1, []), Code.PROTOCOL_ERROR),
    "connection": (fields(*ASKED, (b"connection", b"close")), Code.PROTOCOL_ERROR),
    "keep-alive": (fields(*ASKED, (b"keep-alive", b"1")), Code.PROTOCOL_ERROR),
    "proxy-connection": (fields(*ASKED, (b"proxy-connection", b"1")), Code.PROTOCOL_ERROR),
    "transfer-encoding": (fields(*ASKED, (b"transfer-encoding", b"chunked")), Code.PROTOCOL_ERROR),
    "upgrade": (fields(*ASKED, (b"upgrade", b"h2c")), Code.PROTOCOL_ERROR),
    "te but for trailers": (fields(*ASKED, (b"te", b"gzip")), Code.PROTOCOL_ERROR),
}

IS_NONE = {
    "what extensions send": frame(0xFA, 0xFF, 7, b"hello"),
    "settings that nobody knows": frame(Kind.SETTINGS, 0, 0, SETTING.pack(0xFADA, 1)),
    "the largest window": window_update(0, WINDOW_MAX_BYTES - WINDOW_BYTES),
    "the largest window of all streams": settings({Setting.INITIAL_WINDOW_SIZE: WINDOW_MAX_BYTES}),
    "a window of a stream that is over": BEGUN + rst_stream(1, Code.CANCEL) + window_update(1, 100),
    "a reset of a stream that is over": BEGUN + rst_stream(1, Code.CANCEL) * 2,
    "a priority of a stream that never was": priority(9, 7),
    "a priority with header fields": frame(Kind.HEADERS, END_HEADERS | PRIORITIZED, 1, bytes(4) + b"\x10" + BLOCK),
    "padding of nothing": BEGUN + data(1, b"\0", PADDED) + data(1, b"\x05" + bytes(5), PADDED),
    "te for trailers": fields(*ASKED, (b"te", b"trailers")),
    "no authority": fields(*without(b":authority")),
    "header fields in pieces": frame(Kind.HEADERS, END_STREAM, 1, BLOCK[:5])
    + frame(Kind.CONTINUATION, 0, 1)
    + frame(Kind.CONTINUATION, END_HEADERS, 1, BLOCK[5:]),
    "an answer to a ping that nobody sent": frame(Kind.PING, ACK, 0, bytes(8)),
    "a goodbye": goaway(0, Code.NO_ERROR),
}


def ends_of(kind: Kind, frames: list[tuple[int, int, int, bytes]]) -> list[tuple[int, Code]]:
    """Streams and codes of the GOAWAY or RST_STREAM frames."""
    return [(stream_id, Code(int.from_bytes(payload[-4:]))) for each, _, stream_id, payload in frames if each == kind]


@pytest.mark.parametrize("broken", ENDS_THE_CONNECTION)
def test_the_connection_ends_with(broken: str) -> None:
    sent, code = ENDS_THE_CONNECTION[broken]
    http2 = server(Listening())
    assert not hear(http2, [sent])
    said = said_by(http2.take_output())
    assert ends_of(Kind.GOAWAY, said) == [(0, code)]
    assert said[-1][0] == Kind.GOAWAY, "the last word"


@pytest.mark.parametrize("broken", ENDS_THE_STREAM)
def test_only_the_stream_ends_with(broken: str) -> None:
    """And the next one is heard."""
    sent, code = ENDS_THE_STREAM[broken]
    listening = Listening()
    http2 = server(listening)
    assert hear(http2, [HELLO, sent])
    assert {code for _, code in ends_of(Kind.RST_STREAM, said_by(http2.take_output()))} == {code}
    for stream_id in list(http2.streams):
        http2.reset(stream_id, Code.CANCEL)
    assert hear(http2, [asked(103)])
    assert listening.told[-1] == ("half_closed", 103)


@pytest.mark.parametrize("allowed", IS_NONE)
def test_nothing_ends_with(allowed: str) -> None:
    listening = Listening()
    http2 = server(listening)
    assert hear(http2, [HELLO, IS_NONE[allowed], asked(103)])
    said = said_by(http2.take_output())
    assert ends_of(Kind.GOAWAY, said) == ends_of(Kind.RST_STREAM, said) == []
    assert listening.told[-1] == ("half_closed", 103)
