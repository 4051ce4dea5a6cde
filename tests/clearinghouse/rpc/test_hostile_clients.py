"""Clients that write their own frames: what they can take of the port, and that every place comes back."""

from __future__ import annotations

import asyncio
import socket
import struct
import time
import zlib

import pytest
from grpc_health.v1 import health_pb2

from clearinghouse.api.grpc_public import Health, public_methods
from clearinghouse.rpc.frames import (
    END_HEADERS,
    PAYLOAD_MAX_BYTES,
    Code,
    Kind,
    Setting,
    frame,
    header_block,
    window_update,
)
from clearinghouse.rpc.http2 import Http2
from clearinghouse.shares import Shares
from tests.clearinghouse.rpc.raw_client import asked, begun, message, serving


async def until_free(shares: Shares) -> None:
    async with asyncio.timeout(60):
        while shares.taken_count:
            await asyncio.sleep(0.01)


async def test_clients_who_are_gone_when_they_are_accepted_give_their_places_back() -> None:
    async with serving() as served:
        for _ in range(16):
            gone = socket.create_connection(("127.0.0.1", served.number))
            gone.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            gone.close()  # with a reset
        async with served.client() as client:
            client.writer.write(asked(1, b"/t/Echo"))
            assert b"grpc-status\x010" in await client.end_of(1)
        await until_free(served.connections.shares)


async def test_a_call_whose_work_ends_without_an_end_is_ended_and_gives_its_place_back() -> None:
    async with serving() as served, served.client() as client:
        client.writer.write(asked(1, b"/t/Forsaken"))
        assert b"grpc-status\x0213" in await client.end_of(1)
        await until_free(served.calls)


async def test_tiny_messages_that_nobody_reads_count_with_what_they_take_of_the_memory() -> None:
    many = message(b"") * (PAYLOAD_MAX_BYTES // 5)
    async with serving() as served, served.client() as client:
        client.writer.write(begun(1, b"/t/Deaf") + frame(Kind.DATA, 0, 1, many) + frame(Kind.PING, 0, 0, b"8 bytes."))
        await client.until(lambda got: got.payload == b"8 bytes.")
        assert served.connections.large_bodies_bytes > 100 * (PAYLOAD_MAX_BYTES // 5)


async def test_large_messages_are_let_in_one_after_the_other() -> None:
    """Only the first: the sender waits until it is taken."""
    large = message(bytes(200_000))
    async with serving() as served, served.client() as client:
        client.writer.write(begun(1, b"/t/Deaf") + frame(Kind.DATA, 0, 1, large[:PAYLOAD_MAX_BYTES]))
        opened = await client.until(lambda got: got.kind == Kind.WINDOW_UPDATE and got.stream_id == 1)
        assert int.from_bytes(opened.payload) == len(large)
        for start in range(PAYLOAD_MAX_BYTES, len(large), PAYLOAD_MAX_BYTES):
            client.writer.write(frame(Kind.DATA, 0, 1, large[start : start + PAYLOAD_MAX_BYTES]))
        client.writer.write(frame(Kind.DATA, 0, 1, large[:PAYLOAD_MAX_BYTES]) + frame(Kind.PING, 0, 0, b"8 bytes."))
        count = len(client.frames)
        await client.until(lambda got: got.payload == b"8 bytes.")
        assert not [got for got in client.frames[count:] if got.kind == Kind.WINDOW_UPDATE and got.stream_id == 1]
        served.go.set()
        await client.until(lambda got: got.kind == Kind.WINDOW_UPDATE and got.stream_id == 1)


async def test_compressed_messages_are_decompressed_when_they_are_taken() -> None:
    packer = zlib.compressobj(wbits=31)
    small = packer.compress(bytes(250_000)) + packer.flush()
    head = header_block(
        [
            (b":method", b"POST"), (b":scheme", b"http"), (b":path", b"/t/Deaf"),
            (b"content-type", b"application/grpc"), (b"grpc-encoding", b"gzip"),
        ]
    )  # fmt: skip
    packed = b"\1" + len(small).to_bytes(4) + small
    broken = b"\1" + (4).to_bytes(4) + b"gzip"
    async with serving() as served, served.client({Setting.INITIAL_WINDOW_SIZE: 1 << 30}) as client:
        client.writer.write(window_update(0, 1 << 30) + frame(Kind.HEADERS, END_HEADERS, 1, head))
        client.writer.write(frame(Kind.DATA, 0, 1, packed * 40 + broken) + frame(Kind.PING, 0, 0, b"8 bytes."))
        await client.until(lambda got: got.payload == b"8 bytes.")
        assert served.connections.large_bodies_bytes < 2 * 250_000
        served.go.set()
        assert b"grpc-status\x0213" in await client.end_of(1)
        answered = sum(len(got.payload) for got in client.frames if got.kind == Kind.DATA)
        assert answered == 39 * (5 + 250_000), "the one before it was not begun to be answered"


async def test_refused_calls_do_not_cost_those_that_are_accepted_the_connection() -> None:
    async with serving() as served, served.client() as client:
        client.writer.write(begun(1, b"/t/Deaf"))
        for stream_id in range(3, 6003, 2):
            client.writer.write(asked(stream_id, b"/t/Nothing"))
            if stream_id % 100 == 1:
                await client.end_of(stream_id)
        served.go.set()
        client.writer.write(frame(Kind.DATA, 1, 1, message(b"still here")))
        assert b"grpc-status\x010" in await client.end_of(1)


def opened(count: int) -> Http2:
    """A connection with so many open streams, of which nobody is told."""

    class Nobody:
        def __getattr__(self, name: str) -> object:
            return lambda *_, **__: None

    http2 = Http2(Nobody(), streams_max_count=count, headers_max_bytes=16 * 1024)  # type: ignore[arg-type]
    http2.receive(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + frame(Kind.SETTINGS, 0, 0))
    http2.receive(b"".join(begun(2 * number + 1, b"/t/Echo") for number in range(count)))
    return http2


def test_a_frame_of_thousands_of_windows_is_looked_at_once_for_each_stream() -> None:
    flips = (struct.pack(">HL", 4, 0) + struct.pack(">HL", 4, 1)) * (PAYLOAD_MAX_BYTES // 12)
    http2 = opened(256)
    before_s = time.process_time()
    http2.receive(frame(Kind.SETTINGS, 0, 0, flips) * 10)
    assert time.process_time() - before_s < 0.1
    assert {stream.send_bytes for stream in http2.streams.values()} == {1}


def test_header_fields_that_only_resize_the_table_are_no_header_fields() -> None:
    http2 = opened(1)
    with pytest.raises(Exception, match=Code.COMPRESSION_ERROR.name):
        http2.receive(frame(Kind.HEADERS, END_HEADERS, 3, b"\x20" * 3))


async def test_what_arrives_after_a_goodbye_is_answered_until_the_client_has_heard_of_it() -> None:
    async with serving() as served, served.client() as client:
        client.writer.write(asked(1, b"/t/Echo"))
        await client.end_of(1)
        closing = asyncio.create_task(served.port.close(5))
        goodbye = await client.until(lambda got: got.kind == Kind.GOAWAY)
        ping = await client.until(lambda got: got.kind == Kind.PING)
        assert int.from_bytes(goodbye.payload[:4]) == (1 << 31) - 1
        client.writer.write(asked(3, b"/t/Echo"))
        assert b"grpc-status\x010" in await client.end_of(3)
        client.writer.write(frame(Kind.PING, 1, 0, ping.payload) + begun(5, b"/t/Echo"))
        last = await client.until(lambda got: got.kind == Kind.GOAWAY)
        assert int.from_bytes(last.payload[:4]) == 3
        refused = await client.until(lambda got: got.kind == Kind.RST_STREAM)
        assert (refused.stream_id, int.from_bytes(refused.payload)) == (5, Code.REFUSED_STREAM)
        assert await client.reader.read() == b"", "and closed, though the client does not"
        await closing


async def test_who_watches_health_and_takes_nothing_does_not_keep_others_from_it() -> None:
    health = Health()
    methods = public_methods(health, (), read_timeout_s=10)
    async with serving(methods) as served, served.client({Setting.INITIAL_WINDOW_SIZE: 0}) as client:
        client.writer.write(asked(1, b"/grpc.health.v1.Health/Watch"))
        await client.until(lambda got: got.kind == Kind.HEADERS)
        async with asyncio.timeout(10):
            await health.set("", health_pb2.HealthCheckResponse.NOT_SERVING)
            await health.close()


async def test_too_much_metadata_ends_the_call_and_not_its_neighbours() -> None:
    large = [
        (b":method", b"POST"),
        (b":scheme", b"http"),
        (b":path", b"/t/Echo"),
        (b"content-type", b"application/grpc"),
    ]
    large += [(b"x", bytes(b"v" * 5000))] * 4
    block = header_block(large)
    async with serving() as served, served.client() as client:
        client.writer.write(begun(1, b"/t/Deaf") + frame(Kind.HEADERS, 0, 3, block[:PAYLOAD_MAX_BYTES]))
        client.writer.write(frame(Kind.CONTINUATION, END_HEADERS, 3, block[PAYLOAD_MAX_BYTES:]))
        assert b"grpc-status\x018" in await client.end_of(3)
        served.go.set()
        client.writer.write(frame(Kind.DATA, 1, 1, message(b"still here")))
        assert b"grpc-status\x010" in await client.end_of(1)
