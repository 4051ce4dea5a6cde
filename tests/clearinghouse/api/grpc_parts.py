"""A gRPC port over a stack, a client of it, and signers that can be held up."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import grpc
from google.rpc.error_details_pb2 import BadRequest, ErrorInfo, RetryInfo
from google.rpc.status_pb2 import Status

from clearinghouse.api.grpc_server import CALLS_MAX_COUNT, GrpcApi
from clearinghouse.api.pb import clearinghouse_pb2 as pb
from clearinghouse.api.pb.clearinghouse_pb2_grpc import ClearinghouseStub
from clearinghouse.requests import PaymentRequest
from clearinghouse.rpc.limits import RpcLimits
from clearinghouse.signers.base import Signer, SignerAnswer
from tests.parts.stack import Clock, Stack, Stream, TestGateway, native_signer

DETAILS_KEY = "grpc-status-details-bin"


@dataclass
class Ready:
    """A readiness that a test decides."""

    ready: bool = True

    async def is_ready(self) -> bool:
        return self.ready


@dataclass
class Port:
    """A running port and one client connected to it."""

    api: GrpcApi
    number: int
    channel: grpc.aio.Channel
    ready: Ready

    @property
    def stub(self) -> Any:
        return ClearinghouseStub(self.channel)


@asynccontextmanager
async def running_port(
    stack: Stack,
    *,
    tls: ssl.SSLContext | None = None,
    client: grpc.ChannelCredentials | None = None,
    signer: Signer | None = None,
    limits: RpcLimits | None = None,
    calls_max_count: int = CALLS_MAX_COUNT,
    connections_max_count: int = 1024,
) -> AsyncIterator[Port]:
    ready = Ready()
    api = GrpcApi(
        signing=stack.signing,
        authenticator=stack.authenticator,
        signer=signer or stack.signer,
        engine=stack.engine,
        readiness=ready,
        metrics=stack.metrics,
        limits=limits,
        calls_max_count=calls_max_count,
        readiness_interval_s=0.02,
    )
    number = await api.start("127.0.0.1", 0, tls, connections_max_count=connections_max_count)
    target = f"127.0.0.1:{number}"
    try:
        async with grpc.aio.secure_channel(target, client) if client else grpc.aio.insecure_channel(target) as channel:
            yield Port(api, number, channel, ready)
    finally:
        await api.stop(5)


def metadata(gateway: TestGateway) -> tuple[tuple[str, str], ...]:
    return (("authorization", gateway.authorization),)


def next_request(stream: Stream, **fields: Any) -> pb.SignTicketRequest:
    """The stream's next call; `fields` replace or add."""
    request = pb.SignTicketRequest(
        orchestrator=stream.offer.SerializeToString(),
        manifest_id=stream.manifest_id,
        app=stream.app,
        in_pixels=stream.in_pixels,
        type=stream.job_type,
        capabilities=stream.capabilities,
    )
    if stream.state is not None:
        request.state.CopyFrom(pb.PaymentState(state=stream.state.state, sig=stream.state.sig))
    request.MergeFrom(pb.SignTicketRequest(**fields))
    return request


@dataclass
class Refused:
    """An AioRpcError taken apart."""

    code: grpc.StatusCode
    message: str
    status: Status | None

    @classmethod
    async def by(cls, call: Any) -> Refused:
        """Awaits a call that must be refused."""
        try:
            answer = await call
        except grpc.aio.AioRpcError as error:
            return cls.of(error)
        raise AssertionError(f"not refused: {answer}")

    @classmethod
    def of(cls, error: grpc.aio.AioRpcError) -> Refused:
        packed = dict(error.trailing_metadata() or ()).get(DETAILS_KEY)
        return cls(error.code(), error.details() or "", Status.FromString(packed) if packed else None)

    def detail(self, kind: type[Any]) -> Any:
        for wrapped in self.status.details if self.status else ():
            if wrapped.Is(kind.DESCRIPTOR):
                found = kind()
                wrapped.Unpack(found)
                return found
        return None

    @property
    def info(self) -> ErrorInfo:
        info = self.detail(ErrorInfo)
        assert isinstance(info, ErrorInfo), self
        return info

    @property
    def retry_after_s(self) -> int | None:
        retry = self.detail(RetryInfo)
        return retry.retry_delay.seconds if retry else None

    @property
    def violations(self) -> list[str]:
        bad = self.detail(BadRequest)
        return [violation.description for violation in bad.field_violations] if bad else []


@dataclass
class HeldSigner:
    """The native signer, which waits before every payment until `go` is set, and counts who is waiting."""

    inner: Signer = field(default_factory=lambda: native_signer(Clock()))
    go: asyncio.Event = field(default_factory=asyncio.Event)
    holds: Callable[[PaymentRequest], bool] = lambda request: True
    working_count: int = 0
    working_max_count: int = 0

    @property
    def address(self) -> bytes:
        return self.inner.address

    async def generate_payment(self, request: PaymentRequest, *, auth_id: str) -> SignerAnswer:
        self.working_count += 1
        self.working_max_count = max(self.working_max_count, self.working_count)
        try:
            if self.holds(request):
                await self.go.wait()
            return await self.inner.generate_payment(request, auth_id=auth_id)
        finally:
            self.working_count -= 1

    async def sign_orchestrator_info(self) -> SignerAnswer:
        return await self.inner.sign_orchestrator_info()

    async def discover_orchestrators(self, query: str) -> SignerAnswer:
        return await self.inner.discover_orchestrators(query)


async def until(condition: Callable[[], bool], *, timeout_s: float = 60) -> None:
    """Returns as soon as the condition holds; TimeoutError when it never does."""
    async with asyncio.timeout(timeout_s):
        while not condition():
            await asyncio.sleep(0.005)
