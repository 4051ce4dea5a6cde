"""Services that are not ours, and that everybody may call: gRPC's health and reflection, on our port.

Their servicers are written for grpcio's server. What they need of it is here: their messages decoded and encoded, and
a context to write to.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from typing import Any, NoReturn
from uuid import uuid4

import grpc
import structlog
from google.protobuf.message import DecodeError
from grpc_health.v1 import health, health_pb2_grpc
from grpc_reflection.v1alpha import reflection, reflection_pb2_grpc

from clearinghouse.api.grpc_refusals import internal_status, refusal_status
from clearinghouse.errors import InvalidRequest
from clearinghouse.rpc.call import Call
from clearinghouse.rpc.port import Method
from clearinghouse.rpc.status import Aborted, Status

log = structlog.get_logger(__name__)


class Health(health.aio.HealthServicer):  # type: ignore[name-defined,misc]  # unknown to the stubs
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


def public_methods(own_health: Health, service_names: tuple[str, ...], *, read_timeout_s: float) -> dict[bytes, Method]:
    """By path. `service_names` are what reflection tells of, beside these two."""
    names = (*service_names, health.SERVICE_NAME, reflection.SERVICE_NAME)
    describing = reflection.aio.ReflectionServicer(service_names=names)  # type: ignore[attr-defined]
    return {
        **dict(_methods_of(health_pb2_grpc.add_HealthServicer_to_server, own_health, read_timeout_s)),
        **dict(_methods_of(reflection_pb2_grpc.add_ServerReflectionServicer_to_server, describing, read_timeout_s)),
    }


class _Registered:
    """Stands for a server where generated code registers the methods of a service."""

    service: str
    methods: dict[str, Any]  # RpcMethodHandler, which the stubs know only for servers with threads

    def add_generic_rpc_handlers(self, handlers: object) -> None:
        """The same methods in a form that does not tell their names."""

    def add_registered_method_handlers(self, service: str, methods: dict[str, Any]) -> None:
        self.service, self.methods = service, methods


def _methods_of(register: Any, servicer: object, read_timeout_s: float) -> Iterator[tuple[bytes, Method]]:
    """The methods that a generated `add_…Servicer_to_server` would register."""
    registered = _Registered()
    register(servicer, registered)
    for name, handler in registered.methods.items():
        yield f"/{registered.service}/{name}".encode(), _method(handler, read_timeout_s)


def _method(handler: Any, read_timeout_s: float) -> Method:
    takes_one_message = handler.stream_stream is None

    async def work(call: Call) -> None:
        context = _Context(call, handler)
        try:
            if handler.unary_unary is not None:
                await context.write(await handler.unary_unary(_decoded(handler, call.take()), context))
            elif handler.unary_stream is not None:
                await handler.unary_stream(_decoded(handler, call.take()), context)
            else:
                async for answer in handler.stream_stream(_requests(call, handler, read_timeout_s), context):
                    await call.write(handler.response_serializer(answer))
            call.succeed()
        except Aborted as aborted:
            call.fail(aborted.status)
        except InvalidRequest as refusal:
            call.fail(refusal_status(refusal))
        except Exception:
            incident = uuid4().hex
            log.exception("bug", incident=incident)
            call.fail(internal_status(incident))

    return Method(work, refusal_status, begins_at_once=not takes_one_message)


async def _requests(call: Call, handler: Any, read_timeout_s: float) -> AsyncIterator[Any]:
    """Until the caller has said all, or says nothing."""
    while True:
        try:
            async with asyncio.timeout(read_timeout_s):
                encoded = await call.read()
        except TimeoutError:
            return
        if encoded is None:
            return
        yield _decoded(handler, encoded)


def _decoded(handler: Any, encoded: bytes) -> Any:
    try:
        return handler.request_deserializer(encoded)
    except DecodeError:
        raise InvalidRequest("the message is not one of this method") from None


class _Context:
    """What these services use of grpcio's ServicerContext."""

    def __init__(self, call: Call, handler: Any) -> None:
        self._call = call
        self._serialized = handler.response_serializer

    async def write(self, message: Any) -> None:
        """Does not wait for the caller: whoever watches health holds its lock meanwhile, and one who takes nothing
        would keep all others from hearing of a change. What waits is a few bytes for each change, and bounded in time.
        """
        self._call.send(self._serialized(message))

    async def abort(self, code: grpc.StatusCode, details: str = "") -> NoReturn:
        raise Aborted(Status(code, details))
