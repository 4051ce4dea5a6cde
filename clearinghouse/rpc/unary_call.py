"""One gRPC call, one answer, over TLS with a peer that nobody vouches for: bounded in bytes, and in time by its caller.

Orchestrators make their certificates themselves at each start, so there is nothing to verify; TLS keeps others from
reading along, and no more. grpcio can only trust a certificate that it was given before, which would take a second
connection to fetch it. What a unary call needs of HTTP/2 is little: five kinds of frames to write, and of those that
come only the data of the one stream. Headers that come are skipped and never decoded, so nothing in them can be
followed, and none of their compression can swell.

    ask ─▶ preface SETTINGS HEADERS DATA…        (END_STREAM)
        ◀─ SETTINGS HEADERS DATA… HEADERS        settings and pings are acknowledged
    one message in each direction
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Iterator
from typing import Final

from clearinghouse.rpc.frames import (
    ACK,
    END_HEADERS,
    END_STREAM,
    HEAD_BYTES,
    PAYLOAD_MAX_BYTES,
    PREFACE,
    WINDOW_BYTES,
    Kind,
    Setting,
    frame,
    header_block,
    read_head,
    settings,
    unpadded,
)
from clearinghouse.rpc.message import PREFIX_BYTES, length_bytes, prefixed

#: The window that HTTP/2 begins with; we open no larger one.
ANSWER_MAX_BYTES: Final = WINDOW_BYTES
_STREAM: Final = 1


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
    yield PREFACE
    yield settings({Setting.ENABLE_PUSH: 0})
    headers = {
        ":method": "POST",
        ":scheme": "https",
        ":path": method,
        ":authority": authority,
        "te": "trailers",
        "content-type": "application/grpc",
    }
    block = header_block((name.encode("ascii"), value.encode("ascii")) for name, value in headers.items())
    yield frame(Kind.HEADERS, END_HEADERS, _STREAM, block)
    data = prefixed(message)
    for start in range(0, len(data), PAYLOAD_MAX_BYTES):
        chunk = data[start : start + PAYLOAD_MAX_BYTES]
        is_last = start + len(chunk) == len(data)
        yield frame(Kind.DATA, END_STREAM if is_last else 0, _STREAM, chunk)


async def _answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bytes:
    """Reads frames until the message is whole."""
    message = bytearray()
    bytes_left = ANSWER_MAX_BYTES
    while True:
        length, kind, flags, stream = read_head(await reader.readexactly(HEAD_BYTES), 0)
        bytes_left -= HEAD_BYTES + length
        if length > PAYLOAD_MAX_BYTES or bytes_left < 0:
            raise CallFailed(f"the answer is larger than {ANSWER_MAX_BYTES} bytes, or is not HTTP/2")
        payload = await reader.readexactly(length)
        if kind == Kind.SETTINGS and not flags & ACK:
            writer.write(frame(Kind.SETTINGS, ACK, 0))
        elif kind == Kind.PING and not flags & ACK:
            writer.write(frame(Kind.PING, ACK, 0, payload))
        elif kind in {Kind.RST_STREAM, Kind.GOAWAY, Kind.PUSH_PROMISE}:
            raise CallFailed("the peer ended the call")
        elif kind == Kind.DATA and stream == _STREAM:
            message += _unpadded(payload, flags)
            if (whole := _message_in(message)) is not None:
                return whole
        if kind in {Kind.DATA, Kind.HEADERS} and stream == _STREAM and flags & END_STREAM:
            raise CallFailed("the peer has no answer")


def _unpadded(payload: bytes, flags: int) -> bytes:
    try:
        return unpadded(payload, flags)
    except ValueError:
        raise CallFailed("not HTTP/2") from None


def _message_in(data: bytearray) -> bytes | None:
    """The message once it is there as a whole."""
    if len(data) < PREFIX_BYTES:
        return None
    is_compressed, end = data[0], PREFIX_BYTES + length_bytes(data)
    if is_compressed or end > ANSWER_MAX_BYTES:
        raise CallFailed("a compressed or larger message than was asked for")
    return bytes(data[PREFIX_BYTES:end]) if len(data) >= end else None
