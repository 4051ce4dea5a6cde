"""The gRPC port: the clearinghouse's service with health and reflection beside it, and how it starts and stops."""

from __future__ import annotations

import asyncio
from typing import Any, Final, Protocol

import grpc
import structlog
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection, reflection_pb2_grpc
from sqlalchemy.ext.asyncio import AsyncEngine

from clearinghouse.api.grpc_bounds import CallBounds, Registered, registered
from clearinghouse.api.grpc_service import SERVICE_NAME, ClearinghouseService
from clearinghouse.background import Repeated
from clearinghouse.identity.authenticate import Authenticator
from clearinghouse.metrics import Metrics
from clearinghouse.signers.base import Signer
from clearinghouse.signing import Signing

log = structlog.get_logger(__name__)

READINESS_INTERVAL_S: Final = 1.0
READ_TIMEOUT_S: Final = 10.0
CONNECTIONS_MAX_COUNT: Final = 1024
#: A request has a few KiB. What has arrived of a message is held in memory, for each call under way.
MESSAGE_MAX_BYTES: Final = 256 * 1024
#: As in a message's head with HTTP; gRPC's own limits are of the same order.
METADATA_MAX_BYTES: Final = 16 * 1024
CALLS_PER_CONNECTION_MAX_COUNT: Final = 1024
KEEPALIVE_S: Final = 30
KEEPALIVE_TIMEOUT_S: Final = 10
CONNECTION_IDLE_MAX_S: Final = 15 * 60

OPTIONS: Final = (
    ("grpc.max_receive_message_length", MESSAGE_MAX_BYTES),
    ("grpc.max_metadata_size", METADATA_MAX_BYTES),
    ("grpc.absolute_max_metadata_size", 2 * METADATA_MAX_BYTES),
    ("grpc.max_concurrent_streams", CALLS_PER_CONNECTION_MAX_COUNT),
    ("grpc.max_connection_idle_ms", CONNECTION_IDLE_MAX_S * 1000),
    # A peer that vanished without a word is noticed, also while a stream waits for its next request.
    ("grpc.keepalive_time_ms", KEEPALIVE_S * 1000),
    ("grpc.keepalive_timeout_ms", KEEPALIVE_TIMEOUT_S * 1000),
    # Clients may do the same, idle ones too, but not more often than this.
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.min_recv_ping_interval_without_data_ms", KEEPALIVE_TIMEOUT_S * 1000),
    # Two servers on one port would share its calls by chance: the second one must fail to start.
    ("grpc.so_reuseport", 0),
)


class IsReady(Protocol):
    """Whether this instance may be sent calls: clearinghouse.readiness.Readiness."""

    async def is_ready(self) -> bool: ...


class GrpcApi:
    """The gRPC port of one process. Starts once, stops once."""

    def __init__(
        self,
        *,
        signing: Signing,
        authenticator: Authenticator,
        signer: Signer,
        engine: AsyncEngine,
        readiness: IsReady,
        metrics: Metrics,
        bounds: CallBounds | None = None,
        readiness_interval_s: float = READINESS_INTERVAL_S,
    ) -> None:
        """`engine` reads balances and issuances; SELECT is all it needs."""
        self._bounds = bounds or CallBounds(read_timeout_s=READ_TIMEOUT_S)
        metrics.watch_grpc_calls(self._bounds.calls)
        self._service = ClearinghouseService(
            signing=signing,
            authenticator=authenticator,
            signer=signer,
            engine=engine,
            metrics=metrics,
            bounds=self._bounds,
        )
        self._readiness = readiness
        self._watching = Repeated("watch-readiness", self._tell_readiness, every_s=readiness_interval_s)
        self._health = _Health()
        self._server: grpc.aio.Server | None = None

    async def start(
        self,
        host: str,
        port: int,
        credentials: grpc.ServerCredentials | None,
        *,
        connections_max_count: int = CONNECTIONS_MAX_COUNT,
    ) -> int:
        """Listens, with TLS where there are credentials, and returns the port. OSError when the address is taken."""
        assert self._server is None, "starts once"
        own_options = (
            ("grpc.max_allowed_incoming_connections", connections_max_count),
            ("grpc.server_handshake_timeout_ms", int(self._bounds.read_timeout_s * 1000)),
        )
        self._server = server = grpc.aio.server(options=(*OPTIONS, *own_options))
        server.add_generic_rpc_handlers(
            (
                grpc.method_handlers_generic_handler(SERVICE_NAME, self._service.handlers()),
                *map(self._bounds.bounded, self._public_services()),
            )
        )
        await self._tell_readiness()
        bound = _bind(server, f"[{host}]:{port}" if ":" in host else f"{host}:{port}", credentials)
        await server.start()
        self._watching.start(at_once=False)
        return bound

    async def stop(self, grace_s: float) -> None:
        """Takes no new calls, finishes the accepted ones within `grace_s`, then cancels what is left."""
        if self._server is None:
            return
        await self._watching.stop()
        stopping = asyncio.create_task(self._server.stop(grace_s))
        self._service.close_streams()
        await self._health.close()
        await stopping

    def _public_services(self) -> list[Registered]:
        """Which everybody may call."""
        names = (SERVICE_NAME, health.SERVICE_NAME, reflection.SERVICE_NAME)
        describing = reflection.aio.ReflectionServicer(service_names=names)  # type: ignore[attr-defined]
        return [
            registered(health_pb2_grpc.add_HealthServicer_to_server, self._health),
            registered(reflection_pb2_grpc.add_ServerReflectionServicer_to_server, describing),
        ]

    async def _tell_readiness(self) -> None:
        serving, not_serving = health_pb2.HealthCheckResponse.SERVING, health_pb2.HealthCheckResponse.NOT_SERVING
        try:
            status = serving if await self._readiness.is_ready() else not_serving
        except Exception:
            log.exception("readiness_unknown")
            status = not_serving
        for service in ("", SERVICE_NAME):
            await self._health.set(service, status)


class _Health(health.aio.HealthServicer):  # type: ignore[name-defined,misc]  # unknown to the stubs
    """grpc.health.v1, whose watchers do not hold up a server that stops."""

    def __init__(self) -> None:
        super().__init__()
        self._closed = asyncio.Event()

    async def close(self) -> None:
        await self.enter_graceful_shutdown()
        self._closed.set()

    async def Watch(self, request: Any, context: Any) -> None:  # noqa: N802 - gRPC's name
        watching = asyncio.create_task(super().Watch(request, context))
        closing = asyncio.create_task(self._closed.wait())
        try:
            await asyncio.wait({watching, closing}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            watching.cancel()
            closing.cancel()
            await asyncio.gather(watching, closing, return_exceptions=True)
        await context.abort(grpc.StatusCode.UNAVAILABLE, "The service is stopping.")


def _bind(server: grpc.aio.Server, address: str, credentials: grpc.ServerCredentials | None) -> int:
    try:
        if credentials is None:
            return server.add_insecure_port(address)
        return server.add_secure_port(address, credentials)
    except RuntimeError as error:  # all that gRPC says; the reason is on standard error
        raise OSError(f"gRPC cannot listen on {address}: is it in use, or are certificate and key no pair?") from error
