"""Routes that are answered without ASGI: the listener reads the whole request, calls a handler, and writes the answer.

Meant for the few routes that are called thousands of times per second. A handler is an ordinary coroutine from one
request to one reply; everything about connections is the listener's.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

from clearinghouse.asgi import Reply
from clearinghouse.errors import Refusal


class HotRequest(NamedTuple):
    """A request whose path and method are known from the handler it is given to."""

    headers: list[tuple[bytes, bytes]]  # in the order they came; names in lower case
    body: bytes | Refusal  # whole, or why it is not
    waited_s: float  # for the body; 0 when it came with its head
    query: bytes = b""  # always empty where the listener matched the target

    def read(self) -> bytes:
        """The body. Raises RequestTooLarge, or InvalidRequest for one that took too long."""
        if isinstance(self.body, Refusal):
            raise self.body
        return self.body


HotHandler = Callable[[HotRequest], Awaitable[Reply]]


@dataclass(frozen=True, slots=True)
class HotRoutes:
    """Handlers by method and request target, byte for byte: `/a?b`, `//a` and `/%61` are the application's to judge."""

    handlers: Mapping[tuple[bytes, bytes], HotHandler]
    body_max_bytes: int
    body_timeout_s: float
