"""The little of ASGI that the hot routes need: a reply, and a body read within bounds of size and time."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, MutableMapping
from dataclasses import dataclass, field
from typing import Any

from clearinghouse.errors import InvalidRequest, RequestTooLarge

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
Application = Callable[[Scope, Receive, Send], Awaitable[None]]


@dataclass(slots=True)
class Reply:
    """An HTTP answer. Header names are lower case; content-length is added when it is sent."""

    status: int
    body: bytes
    headers: list[tuple[bytes, bytes]] = field(default_factory=list)

    async def send(self, send: Send) -> None:
        headers = [*self.headers, (b"content-length", b"%d" % len(self.body))]
        await send({"type": "http.response.start", "status": self.status, "headers": headers})
        await send({"type": "http.response.body", "body": self.body})


class ClientGone(Exception):
    """The client hung up in the middle of its request."""


async def read_body(receive: Receive, *, bytes_max: int, timeout_s: float) -> bytes:
    """The whole body; reading stops at the first byte too many.

    Raises RequestTooLarge, InvalidRequest when it takes longer than `timeout_s`, or ClientGone.
    """
    try:
        async with asyncio.timeout(timeout_s):  # around the first piece too: it may never come
            return await _read(receive, bytes_max)
    except TimeoutError:
        raise InvalidRequest(f"request body did not arrive within {timeout_s:g} s") from None


async def _read(receive: Receive, bytes_max: int) -> bytes:
    body = bytearray()
    while (message := await receive())["type"] == "http.request":
        body += message.get("body", b"")
        if len(body) > bytes_max:
            raise RequestTooLarge(f"request body is larger than {bytes_max} bytes")
        if not message.get("more_body", False):
            return bytes(body)
    raise ClientGone
