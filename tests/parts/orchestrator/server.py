"""The orchestrator on the wire: gRPC and HTTP over TLS on one port, which is what its single address promises.

The official client derives everything from OrchestratorInfo.transcoder: GetOrchestrator over gRPC and POST /payment
over HTTP go to the same host and port, always with TLS and never with a certificate that anyone vouches for. So one
TLS listener splits connections by protocol and passes them on to two plain servers on the loopback interface.
"""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager

import grpc
import uvicorn

from chain.pb import lp_rpc_pb2 as pb
from chain.pb import lp_rpc_pb2_grpc as pb_grpc
from tests.parts.listening import Listener
from tests.parts.orchestrator.http import http_application
from tests.parts.orchestrator.lottery import NoTicketFits
from tests.parts.orchestrator.node import NotTheSender, Orchestrator
from tests.parts.orchestrator.settings import Settings
from tests.parts.orchestrator.tls import ProtocolSplitter, self_signed_context

START_TIMEOUT_S = 30


@contextmanager
def running_orchestrator(settings: Settings | None = None) -> Iterator[Orchestrator]:
    """Serve an orchestrator on a free port of 127.0.0.1 while the block runs.

    It runs on threads of its own, so it serves asynchronous and plain tests alike and shares no event loop with them.
    """
    listener = _loopback_socket()
    orchestrator = Orchestrator(f"https://127.0.0.1:{listener.getsockname()[1]}", settings)
    started: Future[asyncio.AbstractEventLoop] = Future()
    stop = asyncio.Event()
    thread = threading.Thread(
        target=lambda: asyncio.run(_serve(orchestrator, listener, started, stop)), name="orchestrator"
    )
    thread.start()
    try:
        loop = started.result(START_TIMEOUT_S)
        try:
            yield orchestrator
        finally:
            loop.call_soon_threadsafe(stop.set)
    finally:
        thread.join()


async def _serve(
    orchestrator: Orchestrator,
    listener: socket.socket,
    started: Future[asyncio.AbstractEventLoop],
    stop: asyncio.Event,
) -> None:
    """Everything that serves, from start to `stop`; a failure to start reaches the caller through `started`."""
    grpc_server = grpc.server(ThreadPoolExecutor(max_workers=4))
    pb_grpc.add_OrchestratorServicer_to_server(_GetOrchestrator(orchestrator), grpc_server)
    http_listener = _loopback_socket()
    config = uvicorn.Config(
        http_application(orchestrator), lifespan="off", log_config=None, access_log=False, timeout_graceful_shutdown=1
    )
    http_server = uvicorn.Server(config)
    try:
        splitter = ProtocolSplitter(
            grpc_port=grpc_server.add_insecure_port("127.0.0.1:0"), http_port=http_listener.getsockname()[1]
        )
        grpc_server.start()
        serving_http = asyncio.create_task(http_server.serve(sockets=[http_listener]))
        front = Listener(splitter, tls=self_signed_context())
        front.start_with(listener)
    except BaseException as error:
        started.set_exception(error)
        raise
    started.set_result(asyncio.get_running_loop())
    await stop.wait()
    await front.stop()
    await splitter.abort_connections()
    http_server.should_exit = True
    await serving_http
    grpc_server.stop(grace=None).wait()


def _loopback_socket() -> socket.socket:
    """Bound and listening at once: connections that come early wait in the queue instead of being refused."""
    return socket.create_server(("127.0.0.1", 0))


class _GetOrchestrator(pb_grpc.OrchestratorServicer):
    def __init__(self, orchestrator: Orchestrator) -> None:
        self._orchestrator = orchestrator

    def GetOrchestrator(self, request: pb.OrchestratorRequest, context: grpc.ServicerContext) -> pb.OrchestratorInfo:
        try:
            return self._orchestrator.answer_request(request)
        except (NotTheSender, NoTicketFits) as error:
            context.abort(grpc.StatusCode.UNKNOWN, str(error))
            raise
