"""An HTTP port: uvicorn's HTTP behind a door of our own, TLS when configured, and a clean end."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import uvicorn

from clearinghouse.asgi import Application, Reply
from clearinghouse.connections import Connections
from clearinghouse.door import Door, listening_socket
from clearinghouse.hot_routes import HotRoutes
from clearinghouse.http_connection import HttpConnection, http_answer
from clearinghouse.shares import Place

#: For a port that nobody gave a number.
CONNECTIONS_MAX_COUNT: Final = 8192
_BUSY: Final = Reply(503, b"Too many connections.\n", [(b"content-type", b"text/plain; charset=utf-8")])


class _Server(uvicorn.Server):
    """Says when it could listen, which a door does for it, and leaves signals to whoever runs the whole service."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.listening = asyncio.Event()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        assert sockets == [], "the door has the socket"
        await self.lifespan.startup()
        self.servers = []
        self.started = True
        self.listening.set()

    def new_connection(self, place: Place) -> HttpConnection:
        connection = self.config.http_protocol_class(  # type: ignore[call-arg]
            config=self.config, server_state=self.server_state, app_state=self.lifespan.state
        )
        assert isinstance(connection, HttpConnection)
        connection.place = place
        return connection

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


class HttpListener:
    """Serves one ASGI application, and the hot routes beside it, on one address. `start`, then `stop`; both once."""

    def __init__(
        self,
        application: Application,
        *,
        host: str,
        port: int,
        read_timeout_s: float,
        idle_timeout_s: float,
        shutdown_timeout_s: float,
        hot: HotRoutes | None = None,
        connections: Connections | None = None,
        connection_type: type[HttpConnection] = HttpConnection,
        busy: Reply = _BUSY,
        tls_cert_file: Path | None = None,
        tls_key_file: Path | None = None,
        tls_client_ca_file: Path | None = None,
    ) -> None:
        """`busy` is what a client is told in cleartext when there is no place for its connection."""
        self._host, self._port = host, port
        self._connections = connections or Connections(CONNECTIONS_MAX_COUNT)
        self._busy = http_answer(busy, [], keep_alive=False)
        self._handshake_timeout_s = read_timeout_s
        hot = hot or HotRoutes({}, body_max_bytes=0, body_timeout_s=read_timeout_s)
        wired = {
            "counted": self._connections,
            "read_timeout_s": read_timeout_s,
            "idle_timeout_s": idle_timeout_s,
            "patrol_s": min(read_timeout_s, idle_timeout_s, hot.body_timeout_s),
            "hot": hot,
        }
        self._server = _Server(
            uvicorn.Config(
                application,
                http=type("Connection", (connection_type,), wired),
                interface="asgi3",  # which uvicorn would guess, and guess wrong for a method
                ws="none",
                lifespan="off",
                log_config=None,
                access_log=False,
                server_header=False,
                proxy_headers=False,  # X-Forwarded-For is anybody's claim (spec 10-A26)
                timeout_graceful_shutdown=int(shutdown_timeout_s),
                ssl_certfile=tls_cert_file,
                ssl_keyfile=tls_key_file,
                ssl_ca_certs=str(tls_client_ca_file) if tls_client_ca_file is not None else None,
                ssl_cert_reqs=ssl.CERT_REQUIRED if tls_client_ca_file is not None else ssl.CERT_NONE,
            )
        )
        self._serving: asyncio.Task[None] | None = None
        self._door: Door | None = None
        self._listener: socket.socket | None = None

    async def start(self) -> int:
        """Returns the port it listens on. Raises OSError when the address is taken."""
        self._listener = listener = listening_socket(self._host, self._port)
        port: int = listener.getsockname()[1]
        self._serving = asyncio.create_task(self._server.serve(sockets=[]), name="http")
        listening = asyncio.create_task(self._server.listening.wait())
        await asyncio.wait([self._serving, listening], return_when=asyncio.FIRST_COMPLETED)
        if self._serving.done():  # a certificate that cannot be loaded, for one
            listening.cancel()
            listener.close()
            await self._serving
        self._door = Door(
            listener,
            self._server.new_connection,
            self._connections,
            full=self._busy,
            tls=self._server.config.ssl,
            handshake_timeout_s=self._handshake_timeout_s,
        )
        self._door.open()
        return port

    async def stop(self) -> None:
        """Stops accepting, finishes what was accepted, then returns."""
        if self._door is not None:
            await self._door.close()
        if self._listener is not None:
            self._listener.close()
        self._server.should_exit = True
        if self._serving is not None:
            await self._serving
            for connection in list(self._server.server_state.connections):
                if isinstance(connection, HttpConnection):
                    connection.abandon()
