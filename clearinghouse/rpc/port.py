"""A port that serves gRPC: its methods, the connections behind its door, and a clean end."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass
from typing import Any, Final

import grpc

from clearinghouse.connections import Connections
from clearinghouse.door import Door, listening_socket
from clearinghouse.errors import Refusal
from clearinghouse.rpc.call import Call
from clearinghouse.rpc.connection import FULL, RpcConnection
from clearinghouse.rpc.limits import RpcLimits
from clearinghouse.rpc.status import Status
from clearinghouse.shares import Shares

#: How long connections may take to hear that all is over, after their calls have been ended.
_GOODBYE_S: Final = 1.0
_STOPPING: Final = Status(grpc.StatusCode.UNAVAILABLE, "The service is stopping.")


@dataclass(frozen=True, slots=True)
class Method:
    """`work` answers a call, or ends it in another way, and raises nothing.

    It begins when the call's only message is there; where it `begins_at_once`, with the call. `refuse` gives the status
    of a call that is refused before.
    """

    work: Callable[[Call], Coroutine[Any, Any, None]]
    refuse: Callable[[Refusal], Status]
    begins_at_once: bool = False


class RpcPort:
    """Opens once, closes once. `methods` are named by path, `/package.Service/Method`."""

    def __init__(
        self,
        methods: Mapping[bytes, Method],
        *,
        calls: Shares,
        connections: Connections,
        limits: RpcLimits,
        tls: ssl.SSLContext | None,
    ) -> None:
        """`calls` are the places of calls under way, shared by address."""
        self.methods = methods
        self.calls = calls
        self.counted = connections
        self.limits = limits
        self.tls = tls
        self.open: set[RpcConnection] = set()
        self.is_closing = False
        self._listener: socket.socket | None = None
        self._door: Door | None = None
        self._all_closed = asyncio.Event()
        self._ending: set[asyncio.Task[None]] = set()

    def listen(self, host: str, port: int) -> int:
        """Returns the port it listens on. Raises OSError when the address is taken."""
        assert self._listener is None, "opens once"
        self._listener = listening_socket(host, port)
        self._door = Door(
            self._listener,
            lambda place: RpcConnection(self, place),
            self.counted,
            full=FULL,
            tls=self.tls,
            handshake_timeout_s=self.limits.read_timeout_s,
        )
        self._door.open()
        number: int = self._listener.getsockname()[1]
        return number

    async def refuse_more(self) -> None:
        """Takes neither connections nor calls from now on. What was accepted goes on."""
        if self.is_closing:
            return
        self.is_closing = True
        if self._door is not None:
            await self._door.close()
        if self._listener is not None:
            self._listener.close()
        for connection in list(self.open):
            connection.take_leave()
        if not self.open:
            self._all_closed.set()

    async def close(self, grace_s: float) -> None:
        """Waits for the accepted calls, then ends those that are left."""
        if self._listener is None:
            return
        await self.refuse_more()
        for wait_s, end in ((grace_s, self._end_calls), (_GOODBYE_S, self._abandon)):
            try:
                async with asyncio.timeout(wait_s):
                    await self._all_closed.wait()
            except TimeoutError:
                end()
        await self._all_closed.wait()
        await asyncio.gather(*self._ending, return_exceptions=True)

    def _end_calls(self) -> None:
        for connection in list(self.open):
            connection.end_calls(_STOPPING)

    def _abandon(self) -> None:
        for connection in list(self.open):
            connection.abandon()

    # --- for its connections ------------------------------------------------------------------------------------------

    def wait_for(self, task: asyncio.Task[None]) -> None:
        """Its call is over, and it is not: nothing closes before it has ended."""
        self._ending.add(task)
        task.add_done_callback(self._ending.discard)

    def lost(self, connection: RpcConnection) -> None:
        self.open.discard(connection)
        if self.is_closing and not self.open:
            self._all_closed.set()
