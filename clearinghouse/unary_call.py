"""One gRPC call, one answer, over TLS with a peer that nobody vouches for: bounded in bytes, and in time by its caller.

Orchestrators make their certificates themselves at each start, so there is nothing to verify; TLS keeps others from
reading along, and no more. grpcio can only trust a certificate that it was given before, which would take a second
connection to fetch it. What a unary call needs of HTTP/2 is little: five kinds of frames to write, and of those that
come only the data of the one stream. Headers that come are skipped and never decoded, so nothing in them can be
followed, and none of their compression can swell.

    ask ─▶ preface SETTINGS HEADERS DATA…        (END_STREAM)
        ◀─ SETTINGS HEADERS DATA… HEADERS        settings and pings are acknowledged
    frame  = length:3 type:1 flags:1 stream:4 payload
    message = compressed:1 length:4 bytes        (one in each direction)
"""

from __future__ import annotations

import asyncio
import ssl
import struct
from collections.abc import Iterator
from typing import Final

_PREFACE: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
_FRAME_PAYLOAD_MAX_BYTES: Final = 16_384  # of both sides, until another value is agreed, and we agree none
#: The window that HTTP/2 begins with; we open no larger one.
ANSWER_MAX_BYTES: Final = 65_535
_DATA, _HEADERS, _RST_STREAM, _SETTINGS, _PUSH_PROMISE, _PING, _GOAWAY = 0, 1, 3, 4, 5, 6, 7
_ACK = _END_STREAM = 0x1
_END_HEADERS, _PADDED = 0x4, 0x8
_STREAM: Final = 1
_SETTING_ENABLE_PUSH: Final = 2


class CallFailed(Exception):
    """There is no answer. The text is for the log; nothing in it comes from the peer."""


def unverified_tls() -> ssl.SSLContext:
    """TLS 1.2 or newer with HTTP/2, and with whatever certificate the peer has."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.set_alpn_protocols(["h2"])
    return context


async def unary_call(
    address: str,
    port: int,
    *,
    tls: ssl.SSLContext,
    host: str,
    authority: str,
    method: str,
    message: bytes,
) -> bytes:
    """The encoded answer to `message`. Connects to `address`, an IP address; `host` is only told to the peer.

    Reads ANSWER_MAX_BYTES at most, framing included. Raises CallFailed or OSError; takes as long as the peer wants, so
    bound it in time.
    """
    reader, writer = await asyncio.open_connection(address, port, ssl=tls, server_hostname=host, limit=ANSWER_MAX_BYTES)
    try:
        writer.write(b"".join(_request(authority, method, message)))
        return await _answer(reader, writer)
    except (asyncio.IncompleteReadError, ssl.SSLError) as error:
        raise CallFailed("the connection ended before the answer did") from error
    finally:
        writer.transport.abort()  # nobody waits for a peer's goodbye


def _request(authority: str, method: str, message: bytes) -> Iterator[bytes]:
    yield _PREFACE
    yield _frame(_SETTINGS, 0, 0, struct.pack(">HI", _SETTING_ENABLE_PUSH, 0))
    headers = {
        ":method": "POST",
        ":scheme": "https",
        ":path": method,
        ":authority": authority,
        "te": "trailers",
        "content-type": "application/grpc",
    }
    block = b"".join(_literal(name) + _literal(value, first=False) for name, value in headers.items())
    yield _frame(_HEADERS, _END_HEADERS, _STREAM, block)
    data = struct.pack(">BI", 0, len(message)) + message
    for start in range(0, len(data), _FRAME_PAYLOAD_MAX_BYTES):
        chunk = data[start : start + _FRAME_PAYLOAD_MAX_BYTES]
        is_last = start + len(chunk) == len(data)
        yield _frame(_DATA, _END_STREAM if is_last else 0, _STREAM, chunk)


def _literal(text: str, *, first: bool = True) -> bytes:
    """HPACK: a string as it is; before a name, that it and its value are not to be remembered (RFC 7541, 6.2.2)."""
    raw = text.encode("ascii")
    return (b"\x00" if first else b"") + _length(len(raw)) + raw


def _length(number: int) -> bytes:
    """RFC 7541, 5.1, with a prefix of seven bits."""
    if number < 127:
        return bytes([number])
    encoded, rest = bytearray([127]), number - 127
    while rest >= 128:
        encoded.append(rest % 128 + 128)
        rest //= 128
    return bytes(encoded + bytes([rest]))


async def _answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bytes:
    """Reads frames until the message is whole."""
    message = bytearray()
    bytes_left = ANSWER_MAX_BYTES
    while True:
        head = await reader.readexactly(9)
        length, kind, flags = int.from_bytes(head[:3]), head[3], head[4]
        stream = int.from_bytes(head[5:]) & 0x7FFF_FFFF
        bytes_left -= len(head) + length
        if length > _FRAME_PAYLOAD_MAX_BYTES or bytes_left < 0:
            raise CallFailed(f"the answer is larger than {ANSWER_MAX_BYTES} bytes, or is not HTTP/2")
        payload = await reader.readexactly(length)
        if kind == _SETTINGS and not flags & _ACK:
            writer.write(_frame(_SETTINGS, _ACK, 0, b""))
        elif kind == _PING and not flags & _ACK:
            writer.write(_frame(_PING, _ACK, 0, payload))
        elif kind in {_RST_STREAM, _GOAWAY, _PUSH_PROMISE}:
            raise CallFailed("the peer ended the call")
        elif kind == _DATA and stream == _STREAM:
            message += _unpadded(payload, flags)
            if (whole := _message_in(message)) is not None:
                return whole
        if kind in {_DATA, _HEADERS} and stream == _STREAM and flags & _END_STREAM:
            raise CallFailed("the peer has no answer")


def _unpadded(payload: bytes, flags: int) -> bytes:
    if not flags & _PADDED:
        return payload
    if not payload or payload[0] >= len(payload):
        raise CallFailed("not HTTP/2")
    return payload[1 : len(payload) - payload[0]]


def _message_in(data: bytearray) -> bytes | None:
    """The message once it is there as a whole."""
    if len(data) < 5:
        return None
    is_compressed, length = struct.unpack_from(">BI", data)
    if is_compressed or length > ANSWER_MAX_BYTES:
        raise CallFailed("a compressed or larger message than was asked for")
    return bytes(data[5 : 5 + length]) if len(data) >= 5 + length else None


def _frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    return len(payload).to_bytes(3) + bytes([kind, flags]) + stream.to_bytes(4) + payload
