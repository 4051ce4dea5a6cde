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
from clearinghouse.asgi import Application, Receive, Reply, Scope, Send, read_body
from clearinghouse.listener import HttpListener
from clearinghouse.requests import MAX_BODY_BYTES, PaymentRequest
from clearinghouse.signers.go_livepeer import SignerEndpoint
from clearinghouse.signers.pool import SignerPool
from tests.bench.serving import serve_until_stopped


class Forwarded(NamedTuple):
    """All that the pool looks at in a request: the bytes to send on."""

    canonical: bytes


def plain_proxy(pool: SignerPool) -> Application:
    async def application(scope: Scope, receive: Receive, send: Send) -> None:
        body = await read_body(receive, bytes_max=MAX_BODY_BYTES, timeout_s=10)
        answer = await pool.generate_payment(cast("PaymentRequest", Forwarded(body)), auth_id="bench")
        await Reply(answer.status, answer.body, [(b"content-type", answer.content_type.encode())]).send(send)

    return application


@asynccontextmanager
async def serving(upstream_url: str, sender_address: str) -> AsyncIterator[int]:
    pool = SignerPool([SignerEndpoint(upstream_url)], expected_address=parse_address(sender_address))
    await pool.start()
    listener = HttpListener(
        plain_proxy(pool), host="127.0.0.1", port=0, read_timeout_s=10, idle_timeout_s=75, shutdown_timeout_s=5
    )
    try:
        yield await listener.start()
        await listener.stop()
    finally:
        await pool.close()


if __name__ == "__main__":
    serve_until_stopped(lambda: serving(*sys.argv[1:]))
