"""Opens both ports, as far as files and certificates allow, and closes them with the service."""

from __future__ import annotations

import ssl
from contextlib import AsyncExitStack

import structlog

from clearinghouse.api.grpc_server import GrpcApi
from clearinghouse.api.http import HttpApi, busy
from clearinghouse.config import ListenSettings, Settings
from clearinghouse.configured import ServiceError
from clearinghouse.connections import Connections
from clearinghouse.file_limit import Fitting, fitting, needed_count, raise_limit
from clearinghouse.listener import HttpListener
from clearinghouse.metrics import Metrics
from clearinghouse.rpc.tls import server_tls

log = structlog.get_logger(__name__)


async def open_ports(
    stack: AsyncExitStack, settings: Settings, http: HttpApi, grpc_api: GrpcApi, metrics: Metrics
) -> tuple[int, int]:
    """The numbers of the HTTP and the gRPC port, which answer from now on. Raises ServiceError.

    They are closed with `stack`: calls that were accepted have `limits.shutdown_timeout_s` to end.
    """
    listen, shutdown_timeout_s = settings.listen, settings.limits.shutdown_timeout_s
    tls = _tls_for_grpc(listen)
    fits = _connections_that_fit(listen)
    connections = Connections(fits.http_count)
    metrics.watch_connections(connections)
    listener = HttpListener(
        http,
        host=listen.host,
        port=listen.http_port,
        read_timeout_s=listen.read_timeout_s,
        idle_timeout_s=listen.idle_timeout_s,
        shutdown_timeout_s=shutdown_timeout_s,
        hot=http.hot_routes(),
        connections=connections,
        busy=busy(),
        tls_cert_file=listen.tls_cert_file,
        tls_key_file=listen.tls_key_file,
        tls_client_ca_file=listen.tls_client_ca_file,
    )
    try:
        http_port = await listener.start()
    except OSError as error:
        raise ServiceError(
            f"Cannot listen for HTTP on {listen.host}:{listen.http_port} ({error.strerror or error}): is another "
            "instance running? listen.http_port (--http-port) chooses another."
        ) from error
    stack.push_async_callback(listener.stop)
    try:
        grpc_port = await grpc_api.start(listen.host, listen.grpc_port, tls, connections_max_count=fits.grpc_count)
    except OSError as error:
        raise ServiceError(
            f"Cannot listen for gRPC on {listen.host}:{listen.grpc_port} ({error.strerror or error}): is another "
            "instance running? listen.grpc_port (--grpc-port) chooses another."
        ) from error
    stack.push_async_callback(grpc_api.stop, shutdown_timeout_s)
    return http_port, grpc_port


def _connections_that_fit(listen: ListenSettings) -> Fitting:
    """Fewer than configured rather than none at all: without files, the database could not be reached either."""
    needed = needed_count(listen)
    limit = raise_limit(needed)
    fits = fitting(listen, limit)
    if limit < needed:
        log.warning("file_limit_low", limit=limit, needed=needed, http=fits.http_count, grpc=fits.grpc_count)
    return fits


def _tls_for_grpc(listen: ListenSettings) -> ssl.SSLContext | None:
    """Raises ServiceError, before anything listens: later a bad certificate could look like a taken address."""
    if listen.tls_cert_file is None:
        return None
    try:
        return server_tls(listen.tls_cert_file, listen.tls_key_file, client_ca_file=listen.tls_client_ca_file)
    except OSError as error:
        raise ServiceError(
            f"listen.tls_cert_file {listen.tls_cert_file}, tls_key_file {listen.tls_key_file} or tls_client_ca_file "
            f"{listen.tls_client_ca_file or '(none)'} cannot be used: {error}"
        ) from error
