"""What strangers can hold of the gRPC port: calls that never say what they want, watchers, connections."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2
from grpc_health.v1.health_pb2_grpc import HealthStub
from grpc_reflection.v1alpha import reflection_pb2
from grpc_reflection.v1alpha.reflection_pb2_grpc import ServerReflectionStub

from clearinghouse.api.grpc_server import SERVICE_NAME
from clearinghouse.rpc.limits import RpcLimits
from tests.clearinghouse.api.grpc_parts import Port, Refused, metadata, next_request, running_port, until
from tests.parts.stack import Stack, TestGateway, running_stack

READ_TIMEOUT_S = 0.4
CALLS_MAX_COUNT = 16
UNARY = (f"/{SERVICE_NAME}/SignTicket", f"/{SERVICE_NAME}/GetBalance", "/grpc.health.v1.Health/Check")
STREAMING = ("/grpc.health.v1.Health/Watch", "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo")


@pytest.fixture
async def stack(database: str) -> AsyncIterator[Stack]:
    async with running_stack(database) as stack:
        yield stack


@pytest.fixture
async def gateway(stack: Stack) -> TestGateway:
    return await stack.new_gateway()


@pytest.fixture
async def port(stack: Stack) -> AsyncIterator[Port]:
    limits = RpcLimits(read_timeout_s=READ_TIMEOUT_S)
    async with running_port(stack, limits=limits, calls_max_count=CALLS_MAX_COUNT) as port:
        yield port
    assert port.api.calls.taken_count == 0, "every place is given back"


def begun(port: Port, method: str) -> Any:
    """A call that has sent its headers and no message."""
    return port.channel.stream_stream(method)()


async def outcome(call: Any) -> Refused | list[bytes]:
    try:
        return [answer async for answer in call]
    except grpc.aio.AioRpcError as error:
        return Refused.of(error)


@pytest.mark.parametrize("method", [*UNARY, *STREAMING])
async def test_a_call_without_a_message_ends_in_time(port: Port, method: str) -> None:
    started = time.monotonic()
    ended = await outcome(begun(port, method))
    assert READ_TIMEOUT_S * 0.9 < time.monotonic() - started < READ_TIMEOUT_S + 20
    if method.endswith("Info"):
        assert ended == [], "nothing was asked, nothing is answered"
    else:
        assert isinstance(ended, Refused)
        assert (ended.code, ended.info.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "invalid_request")


@pytest.fixture
async def patient_port(stack: Stack) -> AsyncIterator[Port]:
    """Longer than a machine stands still: who sends nothing is there when another one calls."""
    limits = RpcLimits(read_timeout_s=2)
    async with running_port(stack, limits=limits, calls_max_count=CALLS_MAX_COUNT) as port:
        yield port


@pytest.mark.parametrize("method", [*UNARY, *STREAMING])
async def test_calls_without_a_key_or_a_message_leave_half_of_the_places_to_others_and_all_of_them_soon(
    stack: Stack, patient_port: Port, gateway: TestGateway, method: str
) -> None:
    port = patient_port
    calls = [begun(port, method) for _ in range(3 * CALLS_MAX_COUNT)]
    ends = [asyncio.create_task(outcome(call)) for call in calls]
    await until(lambda: port.api.calls.taken_count > 0)
    refused = await Refused.by(port.stub.SignTicket(next_request(stack.new_stream()), metadata=metadata(gateway)))
    assert (refused.code, refused.info.reason) == (grpc.StatusCode.UNAVAILABLE, "overloaded")
    assert refused.retry_after_s == 1
    assert port.api.calls.taken_count <= CALLS_MAX_COUNT // 2
    await asyncio.wait_for(asyncio.gather(*ends), 60)
    assert await port.stub.SignTicket(next_request(stack.new_stream()), metadata=metadata(gateway))


async def test_health_and_reflection_answer_as_ever(port: Port) -> None:
    health = HealthStub(port.channel)
    assert (await health.Check(health_pb2.HealthCheckRequest())).status == health_pb2.HealthCheckResponse.SERVING
    unknown = await Refused.by(health.Check(health_pb2.HealthCheckRequest(service="nobody")))
    assert unknown.code is grpc.StatusCode.NOT_FOUND
    watching = health.Watch(health_pb2.HealthCheckRequest())
    assert (await watching.read()).status == health_pb2.HealthCheckResponse.SERVING
    watching.cancel()
    asked = [reflection_pb2.ServerReflectionRequest(list_services="")] * 2
    answers = [answer async for answer in ServerReflectionStub(port.channel).ServerReflectionInfo(iter(asked))]
    assert [SERVICE_NAME in str(answer.list_services_response) for answer in answers] == [True, True]


async def test_what_is_no_message_of_theirs_ends_health_and_reflection_without_a_bug(
    port: Port, caplog: pytest.LogCaptureFixture
) -> None:
    for method in (*STREAMING, "/grpc.health.v1.Health/Check"):
        ended = await outcome(port.channel.stream_stream(method)(iter([b"\xff\xff\xff"])))
        assert isinstance(ended, Refused)
        assert (ended.code, ended.info.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "invalid_request")
    assert caplog.records == []


async def test_connections_are_bounded_and_idle_ones_without_http2_end(stack: Stack, gateway: TestGateway) -> None:
    limits = RpcLimits(read_timeout_s=READ_TIMEOUT_S)
    async with running_port(stack, limits=limits, connections_max_count=4) as port:
        silent = [await asyncio.open_connection("127.0.0.1", port.number) for _ in range(8)]
        for reader, _ in silent:
            async with asyncio.timeout(60):
                await reader.read()
        assert await port.stub.SignTicket(next_request(stack.new_stream()), metadata=metadata(gateway))
        for _, writer in silent:
            writer.close()
            with contextlib.suppress(ConnectionError):
                await writer.wait_closed()
