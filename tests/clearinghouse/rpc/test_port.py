"""A gRPC port and the grpc library's client: calls, streams, compression, sizes, deadlines."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import grpc
import pytest

from clearinghouse.rpc.tls import server_tls
from tests.clearinghouse.rpc.port_parts import (
    DEAF,
    ECHO,
    LARGE,
    LARGE_BYTES,
    NEVER,
    PATIENT,
    PIECE,
    PIECES,
    PIECES_COUNT,
    STREAM,
    Port,
    running,
    until,
)
from tests.parts.certificates import Authority

OPTIONS = (("grpc.max_receive_message_length", -1), ("grpc.use_local_subchannel_pool", 1))


@asynccontextmanager
async def calling(port: Port, **more: Any) -> AsyncIterator[Any]:
    async with grpc.aio.insecure_channel(port.target, options=OPTIONS, **more) as channel:
        yield channel


async def code_of(call: Any) -> grpc.StatusCode:
    try:
        answer = await call
    except grpc.aio.AioRpcError as error:
        return error.code()
    raise AssertionError(f"not refused: {answer[:100]}")


async def test_a_call_is_answered_and_so_are_thousands_side_by_side() -> None:
    """More than a connection may have: the others wait with their client."""
    async with running(replace(PATIENT, calls_per_connection_max_count=50)) as port, calling(port) as channel:
        echo = channel.unary_unary(ECHO)
        assert await echo(b"hello") == b"hello"
        assert await echo(b"") == b""
        messages = [b"%d" % number for number in range(1000)]
        assert await asyncio.gather(*map(echo, messages)) == messages


async def test_a_stream_is_answered_message_by_message_and_ends_with_its_client() -> None:
    async with running() as port, calling(port) as channel:
        call = channel.stream_stream(STREAM)()
        for number in range(300):
            await call.write(b"%d" % number)
            assert await call.read() == b"%d" % number
        await call.done_writing()
        assert await call.read() is grpc.aio.EOF  # type: ignore[attr-defined] # the stubs do not know it
        assert await call.code() is grpc.StatusCode.OK


async def test_more_than_all_windows_goes_through_a_stream_in_both_directions() -> None:
    async with running() as port, calling(port) as channel:
        messages = [bytes([number]) * 200_000 for number in range(20)] + [b"x" * 10_000] * 100
        assert [answer async for answer in channel.stream_stream(STREAM)(iter(messages))] == messages
        assert port.connections.large_bodies_bytes == 0


@pytest.mark.parametrize("compression", [grpc.Compression.Gzip, grpc.Compression.Deflate])
async def test_what_a_client_compresses_is_read(compression: grpc.Compression) -> None:
    async with running() as port, calling(port, compression=compression) as channel:
        for message in (b"x" * 1000, bytes(PATIENT.message_max_bytes), b""):
            assert await channel.unary_unary(ECHO)(message) == message
        messages = [b"x" * size for size in (5000, 1, 100_000, 0)]
        assert [answer async for answer in channel.stream_stream(STREAM)(iter(messages))] == messages


@pytest.mark.parametrize("compression", [None, grpc.Compression.Gzip])
async def test_a_message_may_be_as_large_as_is_said_and_not_a_byte_larger(compression: grpc.Compression | None) -> None:
    async with running() as port, calling(port) as channel:
        for method in (channel.unary_unary(ECHO), channel.stream_unary(STREAM)):
            streamed = isinstance(method, grpc.aio.StreamUnaryMultiCallable)
            largest = bytes(PATIENT.message_max_bytes)
            asked: Any = iter([largest]) if streamed else largest
            assert await method(asked, compression=compression) == largest
            asked = iter([largest + b"x"]) if streamed else largest + b"x"
            assert await code_of(method(asked, compression=compression)) is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert await channel.unary_unary(ECHO)(b"hello") == b"hello", "the connection goes on"


async def test_answers_far_larger_than_any_window_arrive() -> None:
    async with running() as port, calling(port) as channel:
        answers = await asyncio.gather(*(channel.unary_unary(LARGE)(b"") for _ in range(3)))
        assert answers == [bytes(LARGE_BYTES)] * 3
        assert [answer async for answer in channel.unary_stream(PIECES)(b"")] == [PIECE] * PIECES_COUNT


async def test_a_client_that_cancels_ends_the_work_and_its_place_is_free() -> None:
    async with running() as port, calling(port) as channel:
        calls = [channel.unary_unary(NEVER)(b"hello"), channel.stream_stream(DEAF)(), channel.stream_stream(STREAM)()]
        await until(lambda: len(port.work.begun) == 3)
        for call in calls:
            call.cancel()
        await until(lambda: len(port.work.cancelled) == 3)
        assert port.calls.taken_count == 0


async def test_a_deadline_ends_the_work() -> None:
    async with running() as port, calling(port) as channel:
        assert await channel.unary_unary(ECHO)(b"hello") == b"hello"  # connecting may take longer than the deadline
        assert await code_of(channel.unary_unary(NEVER)(b"hello", timeout=0.5)) is grpc.StatusCode.DEADLINE_EXCEEDED
        await until(lambda: port.work.cancelled == [NEVER])
        assert port.calls.taken_count == 0


async def test_a_client_that_goes_away_ends_all_its_calls() -> None:
    async with running() as port:
        async with calling(port) as channel:
            calls = [channel.unary_unary(NEVER)(b"hello") for _ in range(10)]
            await until(lambda: len(port.work.begun) == 10)
        await until(lambda: port.work.cancelled == [NEVER] * 10)
        assert port.calls.taken_count == 0
        for call in calls:
            assert call.done()


async def test_what_is_not_there_is_not_implemented() -> None:
    async with running() as port, calling(port) as channel:
        assert await code_of(channel.unary_unary("/test.Echo/Nothing")(b"hello")) is grpc.StatusCode.UNIMPLEMENTED
        assert await code_of(channel.stream_unary("/test.Echo/Nothing")(iter([b"hello"] * 100))) is (
            grpc.StatusCode.UNIMPLEMENTED
        )


@pytest.fixture
def tls_files(tmp_path: Path) -> tuple[Authority, Path, Path]:
    authority = Authority()
    certified = authority.issue()
    cert_file, key_file = tmp_path / "cert.pem", tmp_path / "key.pem"
    cert_file.write_bytes(certified.cert_pem)
    key_file.write_bytes(certified.key_pem)
    return authority, cert_file, key_file


async def test_over_tls_calls_are_answered_as_well(tls_files: tuple[Authority, Path, Path]) -> None:
    authority, cert_file, key_file = tls_files
    credentials = grpc.ssl_channel_credentials(authority.cert_pem)
    channel: Any
    async with (
        running(tls=server_tls(cert_file, key_file, client_ca_file=None)) as port,
        grpc.aio.secure_channel(port.target, credentials, options=OPTIONS) as channel,
    ):
        assert await channel.unary_unary(ECHO)(b"hello") == b"hello"
        assert await channel.unary_unary(LARGE)(b"") == bytes(LARGE_BYTES)


@pytest.mark.parametrize("protocols", [[], ["http/1.1"]])
async def test_over_tls_who_does_not_agree_on_http2_is_not_served(
    tls_files: tuple[Authority, Path, Path], protocols: list[str]
) -> None:
    _, cert_file, key_file = tls_files
    client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    client.check_hostname, client.verify_mode = False, ssl.CERT_NONE
    if protocols:
        client.set_alpn_protocols(protocols)
    async with running(tls=server_tls(cert_file, key_file, client_ca_file=None)) as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port.number, ssl=client)
        async with asyncio.timeout(30):
            await reader.read()
        await until(port.is_empty)
        writer.transport.abort()
        assert port.cuts() == {"not_http": 1}
