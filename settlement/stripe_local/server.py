"""The listening local Stripe: an HTTP port around the frame, the control calls and the pages."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, MutableMapping
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from typing import Any, Final

from starlette.requests import ClientDisconnect
from starlette.requests import Request as HttpRequest
from starlette.responses import JSONResponse, Response

from clearinghouse.http_connection import HttpConnection
from clearinghouse.listener import HttpListener
from settlement.stripe_local.control import Control
from settlement.stripe_local.deliveries import Deliveries
from settlement.stripe_local.frame import Answer, LocalStripe, Request
from settlement.stripe_local.pages import page
from settlement.stripe_local.upkeep import kept_up

BANNER: Final = "TEST MODE: this is the clearinghouse's local Stripe server. No money moves, and no card is charged."
#: Where the connection under a request can be cut, which ASGI has no word for.
_CUT: Final = "stripe_local.cut"
_HANG_MAX_S: Final = 600
_READ_TIMEOUT_S: Final = 60
_IDLE_TIMEOUT_S: Final = 75
_SHUTDOWN_TIMEOUT_S: Final = 2
_BODY_MAX_BYTES: Final = 1_000_000

_Scope = MutableMapping[str, Any]
_Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
_Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]


class _Cuttable(HttpConnection):
    """With a way to cut the connection."""

    def on_headers_complete(self) -> None:
        super().on_headers_complete()
        if self._exchange is None:  # an ASGI application's
            self.scope[_CUT] = self.transport.abort  # type: ignore[typeddict-unknown-key]


def application(stripe: LocalStripe, control: Control) -> Callable[[_Scope, _Receive, _Send], Awaitable[None]]:
    """/v1 is Stripe's API, /_control what tests want, /_pay the pages a customer would see."""

    async def serve(scope: _Scope, receive: _Receive, send: _Send) -> None:
        if scope["type"] != "http":
            raise RuntimeError(f"Stripe speaks http, not {scope['type']}")
        http = HttpRequest(scope, receive)
        try:
            body = (await http.body())[: _BODY_MAX_BYTES + 1]
        except ClientDisconnect:
            return
        request = Request(
            http.method,
            http.url.path,
            http.url.query,
            {name.lower(): value for name, value in http.headers.items()},
            body.decode(errors="replace"),
        )
        if request.path.startswith("/_control"):
            await (await control.answer(request))(scope, receive, send)
        elif request.path.startswith("/_pay/"):
            await page(stripe, request)(scope, receive, send)
        elif len(body) > _BODY_MAX_BYTES:
            await JSONResponse({"error": {"message": "Request body too large"}}, 413)(scope, receive, send)
        else:
            await _sent(await stripe.answer(request), scope, receive, send)

    return serve


async def _sent(answer: Answer, scope: _Scope, receive: _Receive, send: _Send) -> None:
    if answer.silence == "hang":
        await _gone(receive)
    if answer.silence is not None:
        scope[_CUT]()
        return
    await Response(answer.body, answer.status, answer.headers)(scope, receive, send)


async def _gone(receive: _Receive) -> None:
    """Returns when the client has given up, or has waited longer than any client does."""
    with suppress(TimeoutError):
        await asyncio.wait_for(_disconnected(receive), _HANG_MAX_S)


async def _disconnected(receive: _Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


@asynccontextmanager
async def stripe_served(stripe: LocalStripe, *, host: str = "127.0.0.1", port: int = 0) -> AsyncIterator[str]:
    """Listens, delivers events and lets time pass until the block ends. Yields the base URL; port 0 takes a free one.

    Raises OSError when the address is taken.
    """
    deliveries = Deliveries(stripe)
    listener = HttpListener(
        application(stripe, Control(stripe, deliveries)),
        host=host,
        port=port,
        read_timeout_s=_READ_TIMEOUT_S,
        idle_timeout_s=_IDLE_TIMEOUT_S,
        shutdown_timeout_s=_SHUTDOWN_TIMEOUT_S,
        connection_type=_Cuttable,
    )
    base_url = f"http://{host}:{await listener.start()}"
    stripe.house = replace(stripe.house, base_url=base_url)
    beside = [asyncio.create_task(deliveries.run()), asyncio.create_task(kept_up(stripe))]
    try:
        yield base_url
    finally:
        for task in beside:
            task.cancel()
        ended = await asyncio.gather(listener.stop(), *beside, return_exceptions=True)
        stripe.store.close()
        for outcome in ended:
            if isinstance(outcome, Exception):
                raise outcome
