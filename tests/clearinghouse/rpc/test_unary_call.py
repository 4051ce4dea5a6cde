"""A unary gRPC call over TLS nobody vouches for: what real servers answer, and what others may do to us."""

from __future__ import annotations

import asyncio
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest

from chain.pb import lp_rpc_pb2 as pb
from chain.signatures import SigningKey, checksum_address, keccak
from clearinghouse.rpc.unary_call import ANSWER_MAX_BYTES, CallFailed, unary_call, unverified_tls
from tests.parts.listening import listening
from tests.parts.orchestrator import running_orchestrator
from tests.parts.orchestrator.tls import self_signed_context

KEY = SigningKey(keccak(b"a sender"))
Peer = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


async def call(port: int, message: bytes = b"question") -> bytes:
    async with asyncio.timeout(10):
        return await unary_call(
            "127.0.0.1",
            port,
            tls=unverified_tls(),
            host="orchestrator.example",
            authority=f"orchestrator.example:{port}",
            method="/net.Orchestrator/GetOrchestrator",
            message=message,
        )


@asynccontextmanager
async def peer(behaviour: Peer) -> AsyncIterator[int]:
    """A TLS server that does with each connection what `behaviour` does, on a port of its own."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await behaviour(reader, writer)
        except ConnectionError:
            pass
        finally:
            writer.transport.abort()

    async with listening(serve, tls=self_signed_context()) as port:
        yield port


def frame(kind: int, payload: bytes, *, flags: int = 0, stream: int = 1) -> bytes:
    return len(payload).to_bytes(3) + bytes([kind, flags]) + stream.to_bytes(4) + payload


def grpc_message(payload: bytes, *, compressed: int = 0) -> bytes:
    return struct.pack(">BI", compressed, len(payload)) + payload


def sends(*frames: bytes) -> Peer:
    async def behaviour(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"".join(frames))
        await reader.read()

    return behaviour


@pytest.mark.parametrize("app_chars", [0, 40_000])
async def test_a_real_orchestrator_answers(app_chars: int) -> None:
    """The second request takes several frames."""
    signature = KEY.bsign(checksum_address(KEY.address).encode())
    capabilities = pb.Capabilities(version="v" * app_chars)
    request = pb.OrchestratorRequest(address=KEY.address, sig=signature, capabilities=capabilities)
    with running_orchestrator() as orchestrator:
        port = int(orchestrator.url.rpartition(":")[2])
        answer = pb.OrchestratorInfo.FromString(await call(port, request.SerializeToString()))
        assert (answer.address, answer.transcoder) == (orchestrator.address, orchestrator.url)


async def test_what_a_real_server_refuses_has_no_answer() -> None:
    with running_orchestrator() as orchestrator:
        port = int(orchestrator.url.rpartition(":")[2])
        with pytest.raises(CallFailed, match="no answer"):
            await call(port, pb.OrchestratorRequest(address=KEY.address).SerializeToString())


async def test_an_answer_may_come_in_pieces_with_padding_between_pings_settings_and_headers() -> None:
    message = grpc_message(b"the answer")
    frames = [
        frame(4, b"", stream=0),
        frame(6, bytes(8), stream=0),
        frame(1, b"\x88", flags=4),
        frame(0, message[:3]),
        frame(8, bytes(4), stream=0),
        frame(0, b"\x02" + message[3:9] + b"\x00\x00", flags=8),
        frame(0, b"another stream's", stream=3),
        frame(0, message[9:], flags=1),
    ]
    async with peer(sends(*frames)) as port:
        assert await call(port) == b"the answer"


@pytest.mark.parametrize(
    "frames",
    [
        [b"HTTP/1.1 302 Found\r\nLocation: https://127.0.0.1/\r\nContent-Length: 0\r\n\r\n"],
        [
            frame(1, b"\x88\x00\x08location\x12https://127.0.0.1/", flags=5)
        ],  # a redirect in HTTP/2: headers, and the end
        [frame(0, grpc_message(b"swells", compressed=1))],
        [frame(0, struct.pack(">BI", 0, ANSWER_MAX_BYTES + 1))],
        [frame(0, b"\xff" + b"short", flags=8)],
        [frame(0, b"", flags=8)],
        [frame(0, bytes(16_385))],
        [frame(3, bytes(4))],
        [frame(7, bytes(8), stream=0)],
        [frame(5, bytes(4))],
        [frame(0, b"\x00\x00", flags=1)],
        [frame(6, bytes(8), stream=0)] * 10_000,
        [frame(1, b"\x88" * 16_000)] * 10,
        [],
    ],
)
async def test_whatever_else_a_peer_sends_is_no_answer(frames: list[bytes]) -> None:
    async def behaviour(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readexactly(24)
        writer.write(b"".join(frames))
        await writer.drain()
        if frames:
            await reader.read()

    async with peer(behaviour) as port:
        with pytest.raises(CallFailed):
            await call(port)


async def test_a_peer_without_tls_is_no_answer() -> None:
    async def greet(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"220 mail.example\r\n")
        writer.close()

    async with listening(greet) as port:
        with pytest.raises(OSError):
            await call(port)
