"""The gRPC port: the clearinghouse's service with health and reflection beside it, and how it starts and stops."""

from __future__ import annotations

import asyncio
import ssl
from typing import Final, Protocol

import structlog
from grpc_health.v1 import health_pb2
from sqlalchemy.ext.asyncio import AsyncEngine

from clearinghouse.api.grpc_public import Health, public_methods
from clearinghouse.api.grpc_service import SERVICE_NAME, ClearinghouseService
from clearinghouse.background import Repeated
from clearinghouse.connections import Connections
from clearinghouse.identity.authenticate import Authenticator
from clearinghouse.metrics import Metrics
from clearinghouse.rpc.limits import RpcLimits
from clearinghouse.rpc.port import RpcPort
from clearinghouse.shares import Shares
from clearinghouse.signers.base import Signer
from clearinghouse.signing import Signing

log = structlog.get_logger(__name__)

READINESS_INTERVAL_S: Final = 1.0
#: Under way at once, on all connections together.
CALLS_MAX_COUNT: Final = 4096
#: For a port that nobody gave a number.
CONNECTIONS_MAX_COUNT: Final = 1024


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
        limits: RpcLimits | None = None,
        calls_max_count: int = CALLS_MAX_COUNT,
        readiness_interval_s: float = READINESS_INTERVAL_S,
    ) -> None:
        """`engine` reads balances and issuances; SELECT is all it needs."""
        self.calls = Shares(calls_max_count)
        self._limits = limits or RpcLimits()
        self._metrics = metrics
        self._service = ClearinghouseService(
            signing=signing, authenticator=authenticator, signer=signer, engine=engine, metrics=metrics
        )
        self._readiness = readiness
        self._watching = Repeated("watch-readiness", self._tell_readiness, every_s=readiness_interval_s)
        self._health = Health()
        self._port: RpcPort | None = None

    async def start(
        self, host: str, port: int, tls: ssl.SSLContext | None, *, connections_max_count: int = CONNECTIONS_MAX_COUNT
    ) -> int:
        """Listens, with `tls` if given, and returns the port. Raises OSError when the address is taken."""
        assert self._port is None, "starts once"
        connections = Connections(connections_max_count)
        self._metrics.watch_grpc(connections, self.calls)
        self._port = RpcPort(
            {
                **{f"/{SERVICE_NAME}/{name}".encode(): method for name, method in self._service.methods().items()},
                **public_methods(self._health, (SERVICE_NAME,), read_timeout_s=self._limits.read_timeout_s),
            },
            calls=self.calls,
            connections=connections,
            limits=self._limits,
            tls=tls,
        )
        await self._tell_readiness()
        bound = self._port.listen(host, port)
        self._watching.start(at_once=False)
        return bound

    async def stop(self, grace_s: float) -> None:
        """Takes no new calls, finishes the accepted ones within `grace_s`, then cancels what is left."""
        if self._port is None:
            return
        await self._watching.stop()
        await self._port.refuse_more()
        self._service.close_streams()
        closing = asyncio.create_task(self._port.close(grace_s))  # the grace counts for whoever watches health, too
        await self._health.close()
        await closing

    async def _tell_readiness(self) -> None:
        serving, not_serving = health_pb2.HealthCheckResponse.SERVING, health_pb2.HealthCheckResponse.NOT_SERVING
        try:
            status = serving if await self._readiness.is_ready() else not_serving
        except Exception:
            log.exception("readiness_unknown")
            status = not_serving
        for service in ("", SERVICE_NAME):
            await self._health.set(service, status)
