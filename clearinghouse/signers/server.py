"""The HTTP surface of a remote signer, around any `Signer`: what `clearinghouse signer` listens with.

    POST /generate-live-payment     a payment, or a refusal in go-livepeer's envelope
    POST /sign-orchestrator-info    the sender's address and its proof; the body is ignored
    GET  /discover-orchestrators    what the signer knows; the native signer knows none: 404
    GET  /healthz                   200, empty

An `AskingSigner` is shown the headers of every payment's request, and its work ends when the client hangs up.
Plain HTTP without authentication, as in go-livepeer: it belongs on a loopback or a private network, behind a front.
Source: remote-signer protocol, section 1. Bodies are bounded, which the reference signer's are not (section 10-A13).
"""

from __future__ import annotations

import asyncio
import posixpath
from collections.abc import AsyncIterator, Awaitable, Coroutine
from contextlib import asynccontextmanager
from typing import Any, Final
from urllib.parse import quote

import structlog

from clearinghouse.asgi import Application, ClientGone, Receive, Reply, Scope, Send, read_body
from clearinghouse.errors import Refusal, SignerFailed
from clearinghouse.hot_routes import HotRequest, HotRoutes
from clearinghouse.listener import HttpListener
from clearinghouse.requests import MAX_BODY_BYTES, decode_payment_request
from clearinghouse.signers.asking import AskingSigner
from clearinghouse.signers.base import Signer, SignerAnswer
from clearinghouse.signers.envelope import refusal_answer

IDLE_TIMEOUT_S: Final = 600  # go-livepeer's IdleTimeout
READ_TIMEOUT_S: Final = 10  # the reference has none (section 10-A13)
SHUTDOWN_TIMEOUT_S: Final = 5  # no client waits longer for an answer

_log = structlog.get_logger(__name__)


def signer_app(signer: Signer | AskingSigner) -> Application:
    """An ASGI application (http scope only) that answers for `signer`."""

    async def application(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            raise RuntimeError(f"a signer speaks http, not {scope['type']}")
        try:
            reply = await _settled(_answer(signer, scope, receive), scope["path"])
        except ClientGone:
            return
        await reply.send(send)

    return application


def signer_hot_routes(signer: Signer) -> HotRoutes:
    """The one route that is called for every segment of every stream: without ASGI, answered alike."""
    path = "/generate-live-payment"

    async def generate_live_payment(request: HotRequest) -> Reply:
        return await _settled(_payment(signer, request), path)

    return HotRoutes(
        {(b"POST", path.encode()): generate_live_payment},
        body_max_bytes=MAX_BODY_BYTES,
        body_timeout_s=READ_TIMEOUT_S,
    )


async def _settled(answering: Awaitable[Reply], path: str) -> Reply:
    """An answer in any case. Raises ClientGone, where nobody is left to have it."""
    try:
        return await answering
    except ClientGone:
        raise
    except Refusal as refusal:
        return _from_answer(refusal_answer(refusal))
    except Exception:  # noqa: BLE001 (the edge: a bug is logged, and answered as the reference answers a 500)
        _log.exception("signer_bug", path=path)
        return _from_answer(refusal_answer(SignerFailed("unexpected error")))


# --- routes -----------------------------------------------------------------------------------------------------------

_METHODS: Final = {
    "/generate-live-payment": ("POST",),
    "/sign-orchestrator-info": ("POST",),
    "/discover-orchestrators": ("GET", "HEAD"),
    "/healthz": ("GET", "HEAD"),
}


async def _answer(signer: Signer | AskingSigner, scope: Scope, receive: Receive) -> Reply:
    path: str = scope["path"]
    if (clean := _cleaned(path)) != path:
        query = b"?" + scope["query_string"] if scope["query_string"] else b""
        return Reply(301, b"", [(b"location", quote(clean).encode() + query)])
    if path not in _METHODS:
        return _plain(404, "404 page not found\n")
    if scope["method"] not in _METHODS[path]:
        return _plain(405, "Method Not Allowed\n", [(b"allow", ", ".join(_METHODS[path]).encode())])
    if path == "/generate-live-payment":
        body = await read_body(receive, bytes_max=MAX_BODY_BYTES, timeout_s=READ_TIMEOUT_S)
        request = HotRequest(scope["headers"], body, 0)
        if not isinstance(signer, AskingSigner):
            return await _payment(signer, request)
        asking = signer.generate_payment(
            decode_payment_request(body), auth_id=_auth_id(request), headers=request.headers
        )
        return _from_answer(await _unless_gone(asking, receive))
    if path == "/sign-orchestrator-info":
        return _from_answer(await signer.sign_orchestrator_info())
    if path == "/discover-orchestrators":
        return _from_answer(await signer.discover_orchestrators(scope["query_string"].decode("latin-1")))
    return Reply(200, b"")


async def _payment(signer: Signer, request: HotRequest) -> Reply:
    payment_request = decode_payment_request(request.read())
    return _from_answer(await signer.generate_payment(payment_request, auth_id=_auth_id(request)))


async def _unless_gone(work: Coroutine[Any, Any, SignerAnswer], receive: Receive) -> SignerAnswer:
    """What `work` returns. It is cancelled, and ClientGone raised, when the client hangs up first."""
    working, watching = asyncio.ensure_future(work), asyncio.ensure_future(_gone(receive))
    try:
        await asyncio.wait([working, watching], return_when=asyncio.FIRST_COMPLETED)
        if not working.done():
            raise ClientGone
        return working.result()
    finally:
        working.cancel()
        watching.cancel()
        await asyncio.gather(working, watching, return_exceptions=True)


async def _gone(receive: Receive) -> None:
    """Returns when the client has hung up."""
    while (await receive())["type"] != "http.disconnect":
        pass


def _cleaned(path: str) -> str:
    """The path as Go's multiplexer would have it: one slash at a time, no dots; a trailing slash stays."""
    clean = "/" + posixpath.normpath(path).lstrip("/")
    return f"{clean}/" if path.endswith("/") and clean != "/" else clean


def _auth_id(request: HotRequest) -> str:
    """The first Signer-Auth-Id, which is the one the reference signer's `Header.Get` takes."""
    first = next((value for name, value in request.headers if name == b"signer-auth-id"), b"")
    return first.strip(b" \t").decode(errors="replace")


def _from_answer(answer: SignerAnswer) -> Reply:
    headers = [(b"content-type", answer.content_type.encode())]
    if answer.orchestrator_url is not None:
        headers.append((b"livepeer-orchestrator-url", answer.orchestrator_url.encode()))
    return Reply(answer.status, answer.body, headers)


def _plain(status: int, text: str, headers: list[tuple[bytes, bytes]] | None = None) -> Reply:
    """As Go's http.Error writes it."""
    own = [(b"content-type", b"text/plain; charset=utf-8"), (b"x-content-type-options", b"nosniff")]
    return Reply(status, text.encode(), [*own, *(headers or [])])


# --- listening --------------------------------------------------------------------------------------------------------


@asynccontextmanager
async def signer_served(signer: Signer | AskingSigner, *, host: str = "127.0.0.1", port: int = 0) -> AsyncIterator[str]:
    """Listens until the block ends, then finishes what was accepted. Yields the base URL; port 0 takes a free one.

    Raises OSError when the address is taken.
    """
    listener = HttpListener(
        signer_app(signer),
        host=host,
        port=port,
        read_timeout_s=READ_TIMEOUT_S,
        idle_timeout_s=IDLE_TIMEOUT_S,
        shutdown_timeout_s=SHUTDOWN_TIMEOUT_S,
        # One that asks must learn when its client hangs up, which a hot route does not tell.
        hot=signer_hot_routes(signer) if not isinstance(signer, AskingSigner) else None,
    )
    chosen_port = await listener.start()
    try:
        yield f"http://{f'[{host}]' if ':' in host else host}:{chosen_port}"
    finally:
        await listener.stop()
