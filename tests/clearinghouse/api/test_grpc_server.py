"""The port itself: TLS, health, reflection, starting and stopping."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf.descriptor_pb2 import FileDescriptorProto
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from clearinghouse.api.grpc_server import GrpcApi
from clearinghouse.api.pb import clearinghouse_pb2 as pb
from clearinghouse.rpc.tls import server_tls
from tests.clearinghouse.api.grpc_parts import Port, Ready, metadata, next_request, running_port
from tests.parts.certificates import Authority, Certified
from tests.parts.stack import Stack, running_stack

SERVICE = "livepeer.clearinghouse.v1.Clearinghouse"
SERVING, NOT_SERVING = health_pb2.HealthCheckResponse.SERVING, health_pb2.HealthCheckResponse.NOT_SERVING


@pytest.fixture
async def stack(database: str) -> AsyncIterator[Stack]:
    async with running_stack(database) as stack:
        yield stack


@pytest.fixture
async def port(stack: Stack) -> AsyncIterator[Port]:
    async with running_port(stack) as port:
        yield port


def health(port: Port) -> Any:
    return health_pb2_grpc.HealthStub(port.channel)


async def test_health_follows_readiness(port: Port) -> None:
    for service in ("", SERVICE):
        request = health_pb2.HealthCheckRequest(service=service)
        assert (await health(port).Check(request)).status == SERVING
    watching = health(port).Watch(health_pb2.HealthCheckRequest(service=SERVICE))
    assert (await watching.read()).status == SERVING
    port.ready.ready = False
    assert (await watching.read()).status == NOT_SERVING
    port.ready.ready = True
    assert (await watching.read()).status == SERVING


async def test_a_readiness_that_cannot_be_told_is_not_serving(port: Port, monkeypatch: pytest.MonkeyPatch) -> None:
    async def fails() -> bool:
        raise RuntimeError("no idea")

    watching = health(port).Watch(health_pb2.HealthCheckRequest())
    assert (await watching.read()).status == SERVING
    monkeypatch.setattr(port.ready, "is_ready", fails)
    assert (await watching.read()).status == NOT_SERVING
    monkeypatch.undo()
    assert (await watching.read()).status == SERVING


async def test_a_health_watcher_learns_of_the_stop_and_does_not_hold_it_up(port: Port) -> None:
    watching = health(port).Watch(health_pb2.HealthCheckRequest())
    assert (await watching.read()).status == SERVING
    started_s = time.monotonic()
    stopping = asyncio.create_task(port.api.stop(30))
    with contextlib.suppress(grpc.aio.AioRpcError):
        assert (await watching.read()).status == NOT_SERVING
    assert await watching.code() is grpc.StatusCode.UNAVAILABLE
    await stopping
    assert time.monotonic() - started_s < 10


async def test_reflection_describes_the_service(port: Port) -> None:
    stub = reflection_pb2_grpc.ServerReflectionStub(port.channel)
    requests = [
        reflection_pb2.ServerReflectionRequest(list_services=""),
        reflection_pb2.ServerReflectionRequest(file_containing_symbol=SERVICE),
    ]
    listed, described = [answer async for answer in stub.ServerReflectionInfo(iter(requests))]
    names = {service.name for service in listed.list_services_response.service}
    assert names == {SERVICE, "grpc.health.v1.Health", "grpc.reflection.v1alpha.ServerReflection"}
    file = FileDescriptorProto.FromString(described.file_descriptor_response.file_descriptor_proto[0])
    assert file.package == "livepeer.clearinghouse.v1"


async def test_every_method_of_the_contract_is_served_and_asks_who_is_calling(stack: Stack, port: Port) -> None:
    valid = {"SignTicket": next_request(stack.new_stream()).SerializeToString()}  # decoded before anything else
    for method in pb.DESCRIPTOR.services_by_name["Clearinghouse"].methods:
        call = port.channel.stream_stream(f"/{SERVICE}/{method.name}")(iter([valid.get(method.name, b"")]))
        assert await call.code() is grpc.StatusCode.UNAUTHENTICATED, method.name


def written(folder: Path, certified: Certified) -> tuple[Path, Path]:
    cert_file, key_file = folder / "cert.pem", folder / "key.pem"
    cert_file.write_bytes(certified.cert_pem)
    key_file.write_bytes(certified.key_pem)
    return cert_file, key_file


async def test_tls_is_spoken_with_a_certificate_and_nothing_else_is(stack: Stack, tmp_path: Path) -> None:
    authority, gateway = Authority(), await stack.new_gateway()
    server = authority.issue()
    tls = server_tls(*written(tmp_path, server), client_ca_file=None)
    async with running_port(stack, tls=tls, client=grpc.ssl_channel_credentials(authority.cert_pem)) as port:
        assert (await port.stub.GetBalance(pb.GetBalanceRequest(), metadata=metadata(gateway))).balance == "10"
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port.number}") as plain:
            with pytest.raises(grpc.aio.AioRpcError) as error:
                await plain.unary_unary(f"/{SERVICE}/GetBalance")(b"", metadata=metadata(gateway), timeout=30)
        assert error.value.code() is grpc.StatusCode.UNAVAILABLE


async def test_mutual_tls_lets_in_only_clients_of_its_authority(stack: Stack, tmp_path: Path) -> None:
    authority, gateway = Authority(), await stack.new_gateway()
    server, known, stranger = authority.issue(), authority.issue("known"), Authority("another").issue("stranger")
    authority_file = tmp_path / "authority.pem"
    authority_file.write_bytes(authority.cert_pem)
    tls = server_tls(*written(tmp_path, server), client_ca_file=authority_file)
    for client, is_let_in in (
        (grpc.ssl_channel_credentials(authority.cert_pem, known.key_pem, known.cert_pem), True),
        (grpc.ssl_channel_credentials(authority.cert_pem, stranger.key_pem, stranger.cert_pem), False),
        (grpc.ssl_channel_credentials(authority.cert_pem), False),
    ):
        async with running_port(stack, tls=tls, client=client) as port:
            call = port.stub.GetBalance(pb.GetBalanceRequest(), metadata=metadata(gateway), timeout=30)
            if is_let_in:
                assert (await call).balance == "10"
                continue
            with pytest.raises(grpc.aio.AioRpcError) as error:
                await call
            assert error.value.code() is grpc.StatusCode.UNAVAILABLE


def new_api(stack: Stack) -> GrpcApi:
    return GrpcApi(
        signing=stack.signing,
        authenticator=stack.authenticator,
        signer=stack.signer,
        engine=stack.engine,
        readiness=Ready(),
        metrics=stack.metrics,
    )


async def test_an_address_that_is_taken_is_an_error_that_names_it(stack: Stack, port: Port) -> None:
    second = new_api(stack)
    with pytest.raises(OSError, match=f"in use .*'127.0.0.1', {port.number}"):
        await second.start("127.0.0.1", port.number, None)
    await second.stop(0)


async def test_stopping_twice_or_before_the_start_does_nothing(stack: Stack) -> None:
    api = new_api(stack)
    await api.stop(0)
    await api.start("127.0.0.1", 0, None)
    await api.stop(1)
    await api.stop(1)
