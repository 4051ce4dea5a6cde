"""The outermost layer of the management application: HEAD, bounds, headers of every answer, and bugs."""

from __future__ import annotations

from collections.abc import MutableMapping
from typing import Any, Final

from clearinghouse.api.problems import bug, problem
from clearinghouse.asgi import Application, ClientGone, Receive, Scope, Send
from clearinghouse.errors import Refusal, RequestTooLarge
from clearinghouse.metrics import Metrics, Route

#: Added where an answer does not say otherwise: balances and keys belong into no cache.
_DEFAULT_HEADERS: Final = {b"cache-control": b"no-store", b"x-content-type-options": b"nosniff"}


class Edge:
    """ASGI middleware. Refusals are translated further in; what arrives here as an exception is a bug."""

    def __init__(self, app: Application, *, metrics: Metrics, body_max_bytes: int) -> None:
        self._app = app
        self._metrics = metrics
        self._body_max_bytes = body_max_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        answer = _Answer(send, without_body=scope["method"] == "HEAD")
        try:
            self._require_bounded(scope)
            await self._app(_as_get(scope), receive, answer.send)
        except ClientGone:
            return
        except RequestTooLarge as refusal:
            await self._refuse(refusal, answer)
        except Exception:  # noqa: BLE001 - the edge: a bug is logged with its trace and becomes a 500
            await self._refuse(bug(Route.MANAGEMENT, scope["path"]), answer)
        else:
            if answer.is_success:
                self._metrics.answered(Route.MANAGEMENT)

    def _require_bounded(self, scope: Scope) -> None:
        """Before anything is read. A body without a declared length is counted where it is read."""
        declared = next((value for name, value in scope["headers"] if name == b"content-length"), b"0")
        if not declared.isdigit() or int(declared[:20]) > self._body_max_bytes:
            raise RequestTooLarge(f"request body is larger than {self._body_max_bytes} bytes")

    async def _refuse(self, refusal: Refusal, answer: _Answer) -> None:
        self._metrics.refused(Route.MANAGEMENT, refusal.code)
        if not answer.has_begun:  # an answer that broke off in the middle cannot be taken back
            await problem(refusal).send(answer.send)


def _as_get(scope: Scope) -> Scope:
    """HEAD is GET without the body, wherever there is a GET."""
    return {**scope, "method": "GET"} if scope["method"] == "HEAD" else scope


class _Answer:
    """The way out: adds headers, leaves the body of a HEAD away, and knows what was said."""

    def __init__(self, send: Send, *, without_body: bool) -> None:
        self._send = send
        self._without_body = without_body
        self._status = 0

    @property
    def has_begun(self) -> bool:
        return self._status != 0

    @property
    def is_success(self) -> bool:
        return 200 <= self._status < 400

    async def send(self, message: MutableMapping[str, Any]) -> None:
        if message["type"] == "http.response.start":
            self._status = message["status"]
            present = {name.lower() for name, _ in message["headers"]}
            added = [(name, value) for name, value in _DEFAULT_HEADERS.items() if name not in present]
            message = {**message, "headers": [*message["headers"], *added]}
        elif self._without_body:
            message = {**message, "body": b""}
        await self._send(message)
