"""The port of `clearinghouse work`, for machines alone.

GET /healthz     200 as long as the process answers
GET /readyz      whether it can do its work: leads or stands by, and the database answers
GET /metrics     for Prometheus; asks for the metrics token where one is configured
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4

from clearinghouse.api.problems import MethodNotAllowed, json_bytes, problem
from clearinghouse.api.wiring import MetricsTokenNeeded, require_token
from clearinghouse.asgi import Application, Receive, Reply, Scope, Send
from clearinghouse.errors import NotFound, Refusal
from clearinghouse.listener import HttpListener
from clearinghouse.readiness import Readiness

READ_TIMEOUT_S: Final = 10
IDLE_TIMEOUT_S: Final = 75
SHUTDOWN_TIMEOUT_S: Final = 2
_JSON: Final = (b"content-type", b"application/json")


def work_app(readiness: Readiness, registry: CollectorRegistry, *, metrics_token: str | None) -> Application:
    """An ASGI application (http scope only)."""

    async def answer(scope: Scope) -> Reply:
        if scope["path"] not in {"/healthz", "/readyz", "/metrics"}:
            raise NotFound("There is nothing at this path: there are /healthz, /readyz and /metrics.")
        if scope["method"] not in {"GET", "HEAD"}:
            raise MethodNotAllowed("This path has no such method.", allow="GET, HEAD")
        if scope["path"] == "/healthz":
            return Reply(200, json_bytes({"status": "ok"}), [_JSON])
        if scope["path"] == "/metrics":
            if metrics_token is not None:
                require_token(scope, metrics_token, MetricsTokenNeeded)
            content_type = (b"content-type", CONTENT_TYPE_PLAIN_0_0_4.encode())
            return Reply(200, generate_latest(registry), [content_type])
        checks = await readiness.checks()
        is_ready = all(check.ok for check in checks)
        shown = [{"name": each.name, "ok": each.ok, "detail": each.detail} for each in checks]
        return Reply(200 if is_ready else 503, json_bytes({"ready": is_ready, "checks": shown}), [_JSON])

    async def application(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            raise RuntimeError(f"this port speaks http, not {scope['type']}")
        try:
            reply = await answer(scope)
        except Refusal as refusal:
            reply = problem(refusal)
        await reply.send(send)

    return application


@asynccontextmanager
async def work_served(application: Application, *, host: str, port: int) -> AsyncIterator[int]:
    """Serves as long as the block lasts; the port that was taken. Raises OSError where it is not free."""
    listener = HttpListener(
        application, host=host, port=port, read_timeout_s=READ_TIMEOUT_S, idle_timeout_s=IDLE_TIMEOUT_S,
        shutdown_timeout_s=SHUTDOWN_TIMEOUT_S,
    )  # fmt: skip
    try:
        yield await listener.start()
    finally:
        await listener.stop()
