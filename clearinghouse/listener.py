"""An HTTP port: uvicorn with uvloop and httptools, TLS when configured, and a clean end."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import uvicorn

from clearinghouse.asgi import Application
from clearinghouse.hot_routes import HotRoutes
from clearinghouse.http_connection import HttpConnection


class _Server(uvicorn.Server):
    """Says when it listens, and leaves signals to whoever runs the whole service."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.listening = asyncio.Event()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self.listening.set()

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
        tls_cert_file: Path | None = None,
        tls_key_file: Path | None = None,
        tls_client_ca_file: Path | None = None,
    ) -> None:
        self._host, self._port = host, port
        wired = {
            "read_timeout_s": read_timeout_s,
            "idle_timeout_s": idle_timeout_s,
            "hot": hot or HotRoutes({}, body_max_bytes=0, body_timeout_s=read_timeout_s),
        }
        self._server = _Server(
            uvicorn.Config(
                application,
                http=type("Connection", (HttpConnection,), wired),
                interface="asgi3",  # which uvicorn would guess, and guess wrong for a method
                ws="none",
                lifespan="off",
                log_config=None,
                access_log=False,
                server_header=False,
                proxy_headers=False,  # X-Forwarded-For is anybody's claim (spec 10-A26)
                backlog=2048,
                timeout_graceful_shutdown=int(shutdown_timeout_s),
                ssl_certfile=tls_cert_file,
                ssl_keyfile=tls_key_file,
                ssl_ca_certs=str(tls_client_ca_file) if tls_client_ca_file is not None else None,
                ssl_cert_reqs=ssl.CERT_REQUIRED if tls_client_ca_file is not None else ssl.CERT_NONE,
            )
        )
        self._serving: asyncio.Task[None] | None = None

    async def start(self) -> int:
        """Returns the port it listens on. Raises OSError when the address is taken."""
        family = socket.AF_INET6 if ":" in self._host else socket.AF_INET
        listener = socket.create_server((self._host, self._port), family=family, backlog=2048)
        port: int = listener.getsockname()[1]
        self._serving = asyncio.create_task(self._server.serve(sockets=[listener]), name="http")
        listening = asyncio.create_task(self._server.listening.wait())
        await asyncio.wait([self._serving, listening], return_when=asyncio.FIRST_COMPLETED)
        if self._serving.done():  # a certificate that cannot be loaded, for one
            listening.cancel()
            listener.close()
            await self._serving
        return port

    async def stop(self) -> None:
        """Stops accepting, finishes what was accepted, then returns."""
        self._server.should_exit = True
        if self._serving is not None:
            await self._serving
            for connection in list(self._server.server_state.connections):
                if isinstance(connection, HttpConnection):
                    connection.abandon()
