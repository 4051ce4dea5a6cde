"""The service without its business: the same listener and the same signer pool, and nothing between them.

Reads a body, forwards it, returns the answer. What the service costs above this is what the clearinghouse is.

    python -m tests.bench.plain_proxy UPSTREAM_URL SENDER_ADDRESS
"""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import NamedTuple, cast

from chain.signatures import parse_address
from clearinghouse.asgi import Receive, Reply, Scope, Send
from clearinghouse.hot_routes import HotRequest, HotRoutes
from clearinghouse.listener import HttpListener
from clearinghouse.requests import MAX_BODY_BYTES, PaymentRequest
from clearinghouse.signers.go_livepeer import SignerEndpoint
from clearinghouse.signers.pool import SignerPool
from tests.bench.serving import serve_until_stopped


class Forwarded(NamedTuple):
    """All that the pool looks at in a request: the bytes to send on."""

    canonical: bytes


def plain_proxy(pool: SignerPool) -> HotRoutes:
    async def forward(request: HotRequest) -> Reply:
        forwarded = cast("PaymentRequest", Forwarded(request.read()))
        answer = await pool.generate_payment(forwarded, auth_id="bench")
        return Reply(answer.status, answer.body, [(b"content-type", answer.content_type.encode())])

    return HotRoutes({(b"POST", b"/generate-live-payment"): forward}, body_max_bytes=MAX_BODY_BYTES, body_timeout_s=10)


async def nothing_else(scope: Scope, _receive: Receive, send: Send) -> None:
    await Reply(404, f"there is no {scope['path']} here\n".encode()).send(send)


@asynccontextmanager
async def serving(upstream_url: str, sender_address: str) -> AsyncIterator[int]:
    pool = SignerPool([SignerEndpoint(upstream_url)], expected_address=parse_address(sender_address))
    await pool.start()
    listener = HttpListener(
        nothing_else,
        host="127.0.0.1",
        port=0,
        read_timeout_s=10,
        idle_timeout_s=75,
        shutdown_timeout_s=5,
        hot=plain_proxy(pool),
    )
    try:
        yield await listener.start()
        await listener.stop()
    finally:
        await pool.close()


if __name__ == "__main__":
    serve_until_stopped(lambda: serving(*sys.argv[1:]))
