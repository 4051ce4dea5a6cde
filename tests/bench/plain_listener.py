"""The service without its business and without a signer: the same listener, and one answer for everybody.

What the plain proxy costs above this is its call to the upstream signer.

    python -m tests.bench.plain_listener
"""

from __future__ import annotations

import base64
import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from clearinghouse.asgi import Reply
from clearinghouse.hot_routes import HotRequest, HotRoutes
from clearinghouse.listener import HttpListener
from clearinghouse.requests import MAX_BODY_BYTES
from tests.bench.plain_proxy import nothing_else
from tests.bench.serving import serve_until_stopped


def answer_of_usual_size() -> bytes:
    """A payment, its credentials and a state, in form: nobody here reads more of it than where the state begins."""
    payment, seg_creds, state, sig = (base64.b64encode(secrets.token_bytes(size)) for size in (700, 150, 480, 65))
    return b'{"payment":"%b","segCreds":"%b","state":{"State":"%b","Sig":"%b"}}\n' % (payment, seg_creds, state, sig)


@asynccontextmanager
async def serving() -> AsyncIterator[int]:
    body = answer_of_usual_size()

    async def answer(request: HotRequest) -> Reply:
        request.read()
        return Reply(200, body, [(b"content-type", b"application/json")])

    listener = HttpListener(
        nothing_else,
        host="127.0.0.1",
        port=0,
        read_timeout_s=10,
        idle_timeout_s=75,
        shutdown_timeout_s=5,
        hot=HotRoutes({(b"POST", b"/generate-live-payment"): answer}, body_max_bytes=MAX_BODY_BYTES, body_timeout_s=10),
    )
    yield await listener.start()
    await listener.stop()


if __name__ == "__main__":
    serve_until_stopped(serving)
