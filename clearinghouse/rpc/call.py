"""One call: the messages that its caller sends, those that it is answered with, and the status that ends it."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Final

import grpc
import structlog

from clearinghouse.connections import SMALL_BODY_BYTES
from clearinghouse.rpc.frames import Header
from clearinghouse.rpc.inbox import Inbox
from clearinghouse.rpc.message import prefixed
from clearinghouse.rpc.status import Aborted, Status, ok_trailers
from clearinghouse.shares import Place

if TYPE_CHECKING:
    from clearinghouse.rpc.connection import RpcConnection
    from clearinghouse.rpc.port import Method

log = structlog.get_logger(__name__)

_NO_END: Final = Status(
    grpc.StatusCode.INTERNAL, "Internal error. The operator finds it in the log as call_without_end."
)
#: Flow control is given back in pieces of this size.
_GIVEN_BACK_BYTES: Final = SMALL_BODY_BYTES


class Call:
    """For one event loop. What is sent waits here for as long as the caller's flow control does not let it through."""

    __slots__ = (
        "_connection", "_freed_bytes", "_is_deaf", "_place", "_reader", "_writer",
        "began_s", "blocked_since_s", "ends_at_s", "has_begun_to_answer", "headers", "inbox", "input_ended",
        "is_over", "method", "outbox", "stream_id", "task", "trailers", "trailing_metadata",
    )  # fmt: skip

    def __init__(
        self,
        connection: RpcConnection,
        stream_id: int,
        method: Method,
        headers: list[Header],
        *,
        inbox: Inbox,
        place: Place,
        began_s: float,
        ends_at_s: float,
    ) -> None:
        """Times are those of the loop's clock; `ends_at_s` is the caller's deadline."""
        self._connection = connection
        self._place = place
        self._is_deaf = False
        self._freed_bytes = 0
        self._reader: asyncio.Future[None] | None = None
        self._writer: asyncio.Future[None] | None = None
        self.stream_id = stream_id
        self.method = method
        self.headers = headers
        self.inbox = inbox
        self.began_s = began_s
        self.ends_at_s = ends_at_s
        self.input_ended = self.is_over = False
        self.task: asyncio.Task[None] | None = None
        self.has_begun_to_answer = False
        self.outbox = bytearray()
        #: What comes with the status of a call that went well.
        self.trailing_metadata: Sequence[tuple[str, str | bytes]] = ()
        self.trailers: list[Header] | None = None  # from its end on
        self.blocked_since_s: float | None = None  # while the caller takes nothing of the outbox

    # --- for who works on it ------------------------------------------------------------------------------------------

    def metadata(self, name: bytes) -> list[str]:
        """All values of this name."""
        return [value.decode("latin-1") for key, value in self.headers if key == name]

    async def read(self) -> bytes | None:
        """The next message; None when there are no more. For one reader at a time."""
        await self._wait_for_message()
        return self.take() if self.inbox.messages else None

    async def hear_out(self, timeout_s: float) -> None:
        """Waits until the caller has sent something, or for so long: some clients take a refusal that crosses their
        first message for a failure of the line.
        """
        with suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                await self._wait_for_message()

    def take(self) -> bytes:
        """The message that has arrived."""
        message, freed_bytes = self.inbox.take()
        if not self._is_deaf:
            try:
                self.inbox.unpack_first()
            except Aborted as aborted:  # the one after it cannot be read
                self.abort(aborted.status)
            else:
                self._let_in(self.inbox.to_let_in_bytes())
        self._give_back(freed_bytes)
        return message

    async def write(self, message: bytes) -> None:
        """Sends one of several messages, and returns when the next one may be made. For one writer at a time."""
        self.send(message)
        while self.outbox and not self.is_over:
            self._writer = asyncio.get_running_loop().create_future()
            await self._writer

    def send(self, message: bytes) -> None:
        self.outbox += prefixed(message)
        self._connection.flush(self)

    def answer(self, message: bytes) -> None:
        """The only message, and the end: the call went well."""
        self.outbox += prefixed(message)
        self.succeed()

    def succeed(self) -> None:
        """The end of a call whose messages are sent."""
        self._end(ok_trailers(self.trailing_metadata))

    def fail(self, status: Status) -> None:
        self._end(status.trailers())

    def _end(self, trailers: list[Header]) -> None:
        """The first end counts: after it nothing is read or sent."""
        if self.trailers is None and not self.is_over:
            self.trailers = trailers
            self.stop_listening()
            self._connection.flush(self)

    # --- for its connection -------------------------------------------------------------------------------------------

    def arrived(self, data: bytes, flow_bytes: int) -> int:
        """A piece of the caller's messages, for which flow control has counted `flow_bytes`, padding included.

        Returns how many messages it made complete.
        """
        if self._is_deaf:
            return 0
        before_count = len(self.inbox.messages)
        try:
            if data:
                self.inbox.add(data)
            self._let_in(self.inbox.to_let_in_bytes())
        except Aborted as aborted:
            self.abort(aborted.status)
            return 0
        self._give_back(flow_bytes - len(data))
        new_count = len(self.inbox.messages) - before_count
        if new_count:
            self._wake_reader()
        return new_count

    def half_closed(self) -> None:
        """The caller has said all."""
        self.input_ended = True
        if self.inbox.is_in_the_middle() and not self._is_deaf:
            self.abort(Status(grpc.StatusCode.INTERNAL, "The last message is cut off."))
        self._wake_reader()

    def abort(self, status: Status) -> None:
        """Ends it over the head of whoever works on it."""
        if self.trailers is None:
            if self.task is not None:
                self.task.cancel()
            self.fail(status)

    def worked(self, task: asyncio.Task[None]) -> None:
        """Whoever worked on it is done. Without an end it would wait for ever, and keep its place."""
        if self.trailers is None and not self.is_over:
            error = None if task.cancelled() else task.exception()
            log.error("call_without_end", exc_info=error)
            self.fail(_NO_END)

    def stop_listening(self) -> None:
        """What arrives from now on is dropped, and flow control lets no more of it through."""
        self._is_deaf = True

    def has_something_to_send(self) -> bool:
        return bool(self.outbox) or self.trailers is not None

    def sent(self) -> None:
        """The outbox is empty."""
        self.blocked_since_s = None
        if self._writer is not None and not self._writer.done():
            self._writer.set_result(None)

    def over(self) -> asyncio.Task[None] | None:
        """Nothing more is sent. Whoever works on it without a caller is cancelled, and returned."""
        self.is_over = self._is_deaf = True
        self.inbox.empty()
        self.outbox.clear()
        self._place.give_back()
        if self.task is not None and self.trailers is None:
            self.task.cancel()
        return self.task if self.task is not None and self.task.cancelling() else None

    def _let_in(self, more_bytes: int) -> None:
        if more_bytes and not self.input_ended:
            self._connection.let_in(self, more_bytes)

    def _give_back(self, flow_bytes: int) -> None:
        self._freed_bytes += flow_bytes
        if self._freed_bytes >= _GIVEN_BACK_BYTES and not self.input_ended:
            self._connection.let_in(self, self._freed_bytes)
            self._freed_bytes = 0

    async def _wait_for_message(self) -> None:
        """Or for the end of them."""
        while not (self.inbox.messages or self.input_ended or self.is_over):
            self._reader = asyncio.get_running_loop().create_future()
            await self._reader

    def _wake_reader(self) -> None:
        if self._reader is not None and not self._reader.done():
            self._reader.set_result(None)
