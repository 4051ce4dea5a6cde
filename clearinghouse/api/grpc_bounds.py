"""What one caller of the gRPC port can hold of it: calls at once, and time until it has said what it wants.

gRPC begins a call with its headers. A method that takes one message would wait for that for ever, and a server's own
limit on calls counts everybody's alike: calls without a message on a handful of connections, which need no key, would
fill it. So every method is served as one that takes a stream: it begins with the headers, takes a place by the address
of the caller (`shares`), and reads its message within a time limit.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable
from functools import lru_cache
from typing import Any, Final
from urllib.parse import unquote

import grpc
from google.protobuf.message import DecodeError

from clearinghouse.api.grpc_refusals import refusal_status
from clearinghouse.api.grpc_stream import Context
from clearinghouse.deadlines import Deadlines
from clearinghouse.errors import InvalidRequest, Overloaded, Refusal
from clearinghouse.shares import NoPlace, Place, Shares, holder_of

CALLS_MAX_COUNT: Final = 4096
RETRY_AFTER_S: Final = 1
#: Connections whose holders are remembered: one call follows another on each.
_PEERS_REMEMBERED_MAX_COUNT: Final = 4096


class CallBounds:
    """For one port. `calls` are the calls under way, of every method."""

    def __init__(self, *, read_timeout_s: float, calls_max_count: int = CALLS_MAX_COUNT) -> None:
        self.calls = Shares(calls_max_count)
        self._read_timeout_s = read_timeout_s
        self._reading = Deadlines(read_timeout_s)

    @property
    def read_timeout_s(self) -> float:
        return self._read_timeout_s

    def place(self, context: Context) -> Place:
        """To be given back by who takes it. Raises Overloaded where there is none."""
        place = self.calls.take(_holder_at(context.peer()))
        if isinstance(place, NoPlace):
            raise Overloaded(
                "As many calls are under way as there may be, or as this address may have of them.",
                retry_after_s=RETRY_AFTER_S,
            )
        return place

    async def message(self, context: Context) -> bytes:
        """The only message of a call, or the next one. InvalidRequest when there is none, or not in time."""
        try:
            encoded = await self._reading.run(_next_message, context)
        except TimeoutError:
            raise InvalidRequest(f"no message arrived within {self.read_timeout_s:g} s") from None
        if encoded is grpc.aio.EOF:  # type: ignore[attr-defined]  # unknown to the stubs
            raise InvalidRequest("the call has no message")
        return encoded  # type: ignore[no-any-return]

    def bounded(self, handlers: Registered) -> grpc.GenericRpcHandler[Any, Any]:
        """Methods of a service that is not ours (health, reflection), within the same bounds."""
        return grpc.method_handlers_generic_handler(
            handlers.service, {name: self._bounded(handler) for name, handler in handlers.methods.items()}
        )

    def _bounded(self, handler: Any) -> grpc.RpcMethodHandler[Any, Any]:
        work = self._of_one_message(handler) if handler.unary_unary or handler.unary_stream else self._of_many(handler)
        return grpc.stream_stream_rpc_method_handler(work, response_serializer=handler.response_serializer)

    def _of_one_message(self, handler: Any) -> Any:
        async def work(_: object, context: Context) -> None:
            try:
                with self.place(context):
                    request = _decoded(handler, await self.message(context))
                    if handler.unary_unary is not None:
                        await context.write(await handler.unary_unary(request, context))
                    else:
                        await handler.unary_stream(request, context)
            except Refusal as refusal:
                await refuse(context, refusal)

        return work

    def _of_many(self, handler: Any) -> Any:
        async def requests(context: Context) -> AsyncIterator[Any]:
            while True:
                try:
                    encoded = await self.message(context)
                except InvalidRequest:  # the caller has said all, or says nothing
                    return
                yield _decoded(handler, encoded)

        async def work(_: object, context: Context) -> None:
            try:
                with self.place(context):
                    async for answer in handler.stream_stream(requests(context), context):
                        await context.write(answer)
            except Refusal as refusal:
                await refuse(context, refusal)

        return work


def _decoded(handler: Any, encoded: bytes) -> Any:
    try:
        return handler.request_deserializer(encoded)
    except DecodeError:
        raise InvalidRequest("the message is not one of this method") from None


class Registered:
    """Stands for a server where generated code registers the methods of a service."""

    service: str
    methods: dict[str, Any]  # RpcMethodHandler, which the stubs know only for servers with threads

    def add_generic_rpc_handlers(self, handlers: object) -> None:
        """The same methods in a form that does not tell their names."""

    def add_registered_method_handlers(self, service: str, methods: dict[str, Any]) -> None:
        self.service, self.methods = service, methods


def registered(register: Any, servicer: object) -> Registered:
    """The methods that a generated `add_…Servicer_to_server` would register."""
    methods = Registered()
    register(servicer, methods)
    return methods


async def refuse(context: Context, refusal: Refusal) -> None:
    status = refusal_status(refusal)
    await context.abort(status.code, status.details, status.trailing_metadata)


def _next_message(context: Context) -> Awaitable[Any]:
    return context.read()


@lru_cache(_PEERS_REMEMBERED_MAX_COUNT)
def _holder_at(peer: str) -> str:
    return holder_of(address_of(peer))


def address_of(peer: str) -> str:
    """The IP address in gRPC's name of a peer: `ipv4:127.0.0.1:4711`, `ipv6:%5B::1%5D:4711`."""
    kind, _, rest = peer.partition(":")
    if kind not in ("ipv4", "ipv6"):
        return peer
    return unquote(rest.rpartition(":")[0]).strip("[]")
