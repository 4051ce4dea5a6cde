"""A13: bodies and heads without end, callers without haste, and more connections than there is room for."""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import grpc

from clearinghouse.api.grpc_server import SERVICE_NAME
from clearinghouse.api.pb.clearinghouse_pb2_grpc import ClearinghouseStub
from tests.abuses.attack import metrics_page
from tests.clearinghouse.api.grpc_parts import metadata, next_request
from tests.parts.client import ANSWER_MAX_BYTES, call, request_bytes
from tests.parts.service import GO_LIVEPEER, OURS, Service, running

ATTACKER, NEIGHBOUR = "127.0.0.66", "127.0.0.77"
CONNECTIONS_MAX_COUNT = 32


@asynccontextmanager
async def held(service: Service, address: str, count: int) -> AsyncIterator[list[asyncio.StreamReader]]:
    """Connections that say nothing."""
    connections = [
        await asyncio.open_connection("127.0.0.1", service.port, local_addr=(address, 0)) for _ in range(count)
    ]
    try:
        yield [reader for reader, _ in connections]
    finally:
        for _, writer in connections:
            writer.close()
            with contextlib.suppress(ConnectionError):
                await writer.wait_closed()


async def cut_count(service: Service, reason: str) -> int:
    page = (await metrics_page(service)).decode()
    found = re.search(rf'^clearinghouse_connections_cut_total\{{reason="{reason}"\}} (\d+)', page, re.MULTILINE)
    assert found is not None, page
    return int(found[1])


async def test_one_address_cannot_take_the_connections_of_all(database: str) -> None:
    """The attacker's forged X-Forwarded-For makes him nobody else."""
    async with running(database, listen={"connections_max_count": CONNECTIONS_MAX_COUNT}) as service:
        gateway = await service.house.new_gateway()
        books = service.house.fingerprint()
        async with held(service, ATTACKER, CONNECTIONS_MAX_COUNT):
            for path in (GO_LIVEPEER, OURS, "/healthz"):
                reader, writer = await asyncio.open_connection(
                    "127.0.0.1", service.port, local_addr=(ATTACKER, 0), limit=ANSWER_MAX_BYTES
                )
                writer.write(request_bytes("POST", path, b"{}", [("X-Forwarded-For", NEIGHBOUR)]))
                answer = await reader.read()
                writer.close()
                head, _, body = answer.partition(b"\r\n\r\n")
                assert head.startswith(b"HTTP/1.1 503 "), head
                assert b"\r\nretry-after: 1\r\n" in head
                assert b"\r\nclearinghouse-error: overloaded\r\n" in head
                assert b'"code":"overloaded"' in body
                assert b'"error":{"message":' in body
            assert await cut_count(service, "address_share") >= 3 + CONNECTIONS_MAX_COUNT // 2
            await service.pay(gateway, service.new_stream())
        assert (await call(service.port, "GET", "/healthz")).status == 200
        assert service.house.fingerprint() != books


async def test_heads_and_idle_connections_that_are_cut_are_counted(database: str) -> None:
    async with running(database, listen={"read_timeout_s": 0.3, "idle_timeout_s": 1}) as service:
        async with held(service, ATTACKER, 3) as readers:
            for reader in readers:
                assert await asyncio.wait_for(reader.read(), 30) == b""
        reader, writer = await asyncio.open_connection("127.0.0.1", service.port)
        writer.write(b"POST /generate-live-payment HTTP/1.1\r\nX-Slow: ")
        assert await asyncio.wait_for(reader.read(), 30) == b""
        writer.close()
        assert (await cut_count(service, "idle"), await cut_count(service, "head_too_slow")) == (3, 1)


async def test_calls_without_a_message_and_without_a_key_do_not_fill_the_grpc_port(database: str) -> None:
    """More than all its places: each connection may have 1024 calls at once."""
    async with running(database, listen={"read_timeout_s": 2}) as service:
        gateway = await service.house.new_gateway()
        target = f"127.0.0.1:{service.running.grpc_port}"
        async with contextlib.AsyncExitStack() as stack:
            calls = []
            for _ in range(5):
                options = [("grpc.use_local_subchannel_pool", 1)]
                channel = await stack.enter_async_context(grpc.aio.insecure_channel(target, options=options))
                calls += [channel.stream_unary(f"/{SERVICE_NAME}/SignTicket")() for _ in range(1000)]
            await asyncio.wait([asyncio.ensure_future(call_.code()) for call_ in calls], timeout=30)
            assert {await call_.code() for call_ in calls} <= {
                grpc.StatusCode.INVALID_ARGUMENT,  # no message
                grpc.StatusCode.UNAVAILABLE,  # no place
                grpc.StatusCode.CANCELLED,  # gRPC's own: more than 1000 waited to be begun
            }
            channel = await stack.enter_async_context(grpc.aio.insecure_channel(target))
            stub = ClearinghouseStub(channel)
            assert await stub.SignTicket(next_request(service.new_stream()), metadata=metadata(gateway), timeout=30)
