"""Accepts the connections of one port: counted from the first moment, so that a TLS handshake has a place too.

    accept ──▶ a place free? ──no──▶ cleartext: 503 and closed; TLS: closed, a handshake would cost more than the rest
                  │yes
                  ▼
         TLS handshake, within a time limit ──▶ the protocol ──▶ lost: its place is free again

A server that accepts by itself (asyncio's) tells of a connection only once the handshake is done: whoever never
finishes one would hold a file that nobody counts.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Final

from clearinghouse.connections import Connections, Cut
from clearinghouse.shares import NoPlace, Place, holder_of

#: At most so many in one turn of the event loop: who is inside already waits meanwhile.
ACCEPTS_PER_TURN_COUNT: Final = 64
#: How long nothing is accepted when files have run out: by then some have been closed.
NO_FILES_PAUSE_S: Final = 0.5
#: How long a client may take to agree that a TLS connection ends.
TLS_SHUTDOWN_TIMEOUT_S: Final = 5.0
#: Of a request that gets no answer but 503: what has arrived is read, because unread it would become a reset, and the
#: client might see that instead of the answer.
_UNREAD_MAX_BYTES: Final = 64 * 1024


def listening_socket(host: str, port: int) -> socket.socket:
    """For a `Door`. Of both families where `host` is "::". Raises OSError when the address is taken."""
    return socket.create_server(
        (host, port),
        family=socket.AF_INET6 if ":" in host else socket.AF_INET,
        backlog=2048,
        dualstack_ipv6=host == "::" and socket.has_dualstack_ipv6(),
    )


class Door:
    """Opens once, closes once.

    `protocol` makes the one of a new connection, which gives the place back when the connection is lost. `full` is what
    a cleartext client is told when there is no place.
    """

    def __init__(
        self,
        listener: socket.socket,
        protocol: Callable[[Place], asyncio.Protocol],
        connections: Connections,
        *,
        full: bytes,
        tls: ssl.SSLContext | None,
        handshake_timeout_s: float,
    ) -> None:
        self._listener = listener
        self._protocol = protocol
        self._connections = connections
        self._full = full
        self._tls = tls
        self._handshake_timeout_s = handshake_timeout_s
        self._loop = asyncio.get_running_loop()
        self._welcoming: set[asyncio.Task[None]] = set()
        self._pause: asyncio.TimerHandle | None = None
        listener.setblocking(False)

    def open(self) -> None:
        self._pause = None
        self._loop.add_reader(self._listener.fileno(), self._accept)

    async def close(self) -> None:
        """Accepts nothing more, and gives up handshakes. The listening socket remains the caller's."""
        if self._pause is not None:
            self._pause.cancel()
        self._loop.remove_reader(self._listener.fileno())
        if self._tls is not None:  # else a welcome ends at once; uvloop, cancelled, would tell its protocol nothing
            for task in self._welcoming:
                task.cancel()
        await asyncio.gather(*self._welcoming, return_exceptions=True)

    def _accept(self) -> None:
        for _ in range(ACCEPTS_PER_TURN_COUNT):
            try:
                accepted, address = self._listener.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError:  # EMFILE, ENFILE, ENOBUFS, ENOMEM: asking again at once would be a loop without end
                self._connections.was_cut(Cut.NO_FILES)
                self._loop.remove_reader(self._listener.fileno())
                self._pause = self._loop.call_later(NO_FILES_PAUSE_S, self.open)
                return
            self._let_in_or_send_away(accepted, address[0])

    def _let_in_or_send_away(self, accepted: socket.socket, address: str) -> None:
        place = self._connections.shares.take(holder_of(address))
        if isinstance(place, NoPlace):
            self._connections.was_cut(Cut.ALL_TAKEN if place is NoPlace.ALL_TAKEN else Cut.ADDRESS_SHARE)
            self._send_away(accepted)
            return
        task = self._loop.create_task(self._welcome(accepted, place))
        self._welcoming.add(task)
        task.add_done_callback(partial(self._welcomed, accepted, place))

    def _send_away(self, accepted: socket.socket) -> None:
        with accepted, suppress(OSError):
            accepted.setblocking(False)
            if self._tls is None:
                accepted.send(self._full)  # a new socket has room for it
                accepted.shutdown(socket.SHUT_WR)
                accepted.recv(_UNREAD_MAX_BYTES)

    async def _welcome(self, accepted: socket.socket, place: Place) -> None:
        protocol = self._protocol(place)
        timeouts = {}
        if self._tls is not None:
            timeouts = {
                "ssl_handshake_timeout": self._handshake_timeout_s,
                "ssl_shutdown_timeout": TLS_SHUTDOWN_TIMEOUT_S,
            }
        try:
            accepted.setblocking(False)
            accepted.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            await self._loop.connect_accepted_socket(lambda: protocol, accepted, ssl=self._tls, **timeouts)
        except OSError:  # ssl.SSLError and the time-out's are OSErrors too
            self._connections.was_cut(Cut.HANDSHAKE)
            self._give_up(accepted, place)
        except Exception:
            self._give_up(accepted, place)
            raise

    def _welcomed(self, accepted: socket.socket, place: Place, task: asyncio.Task[None]) -> None:
        """One that is cancelled may never have begun, so that it could not give up by itself."""
        self._welcoming.discard(task)
        if task.cancelled():
            self._give_up(accepted, place)

    @staticmethod
    def _give_up(accepted: socket.socket, place: Place) -> None:
        place.give_back()
        accepted.close()
