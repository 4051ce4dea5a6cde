"""An HTTP port: uvicorn with uvloop and httptools, TLS when configured, and a clean end."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from clearinghouse.asgi import Application

#: Room for any sensible set of headers; go-livepeer's own limit is 1 MiB.
HEAD_MAX_BYTES = 64 * 1024


class _PatientProtocol(HttpToolsProtocol):
    """uvicorn's HTTP/1.1, which has no bound of its own on how long or how large the head of a request may be."""

    read_timeout_s: float
    idle_timeout_s: float

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._head_bytes = 0
        self._head_timer: asyncio.TimerHandle | None = self.loop.call_later(self.idle_timeout_s, self._give_up)

    def connection_lost(self, exc: Exception | None) -> None:
        self._end_of_head()
        super().connection_lost(exc)

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._end_of_head()
        self._head_timer = self.loop.call_later(self.read_timeout_s, self._give_up)

    def on_headers_complete(self) -> None:
        self._end_of_head()
        super().on_headers_complete()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self._head_timer is not None:
            self._head_bytes += len(data)
            if self._head_bytes > HEAD_MAX_BYTES:
                self._end_of_head()
                self.transport.write(_HEAD_TOO_LARGE)
                self.transport.close()

    def _end_of_head(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None
        self._head_bytes = 0

    def _give_up(self) -> None:
        self._head_timer = None
        self.transport.close()


_HEAD_TOO_LARGE = b"HTTP/1.1 431 Request Header Fields Too Large\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"


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
    """Serves one ASGI application on one address. `start`, then `stop`; both once."""

    def __init__(
        self,
        application: Application,
        *,
        host: str,
        port: int,
        read_timeout_s: float,
        idle_timeout_s: float,
        shutdown_timeout_s: float,
        tls_cert_file: Path | None = None,
        tls_key_file: Path | None = None,
        tls_client_ca_file: Path | None = None,
    ) -> None:
        self._host, self._port = host, port
        timeouts = {"read_timeout_s": read_timeout_s, "idle_timeout_s": idle_timeout_s}
        self._server = _Server(
            uvicorn.Config(
                application,
                http=type("Protocol", (_PatientProtocol,), timeouts),
                ws="none",
                lifespan="off",
                log_config=None,
                access_log=False,
                server_header=False,
                proxy_headers=False,  # X-Forwarded-For is anybody's claim (spec 10-A26)
                backlog=2048,
                timeout_keep_alive=int(idle_timeout_s),
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
