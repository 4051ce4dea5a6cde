"""The whole HTTP port over a stack, and a client that holds every answer against the OpenAPI document."""

from __future__ import annotations

import asyncio
import http.client
import json
import re
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from jsonschema import Draft202012Validator
from sqlalchemy.ext.asyncio import AsyncEngine

from clearinghouse.api.http import HttpApi
from clearinghouse.api.management import management_app
from clearinghouse.api.openapi import openapi_document
from clearinghouse.database.connect import SERVE_ROLE, async_engine, in_role
from clearinghouse.listener import HttpListener
from clearinghouse.readiness import Probe, Readiness
from clearinghouse.requests import MAX_BODY_BYTES
from settlement.api import operators_routes
from tests.parts.stack import PEPPER, Stack, TestGateway

ADMIN_TOKEN = "admin-token-of-a-test"
#: Refusals any route can give, which stand in the document as "default": a body where none belongs, a bug.
UNLIKELY = (413, 500)
ADMIN = {"Authorization": f"Bearer {ADMIN_TOKEN}"}


async def fine() -> str:
    return "answers"


@dataclass
class Answer:
    status: int
    headers: http.client.HTTPMessage
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    def problem(self, status: int, code: str) -> dict[str, Any]:
        """The body, which must be a problem with this status and code."""
        assert self.status == status, self.body
        assert self.headers["content-type"] == "application/problem+json"
        assert self.headers["clearinghouse-error"] == code
        document: dict[str, Any] = self.json
        assert (document["status"], document["code"]) == (status, code)
        return document


@dataclass
class HttpPort:
    """A running port, its OpenAPI document, and one way to call it."""

    number: int
    document: dict[str, Any]
    stack: Stack
    _patterns: list[tuple[re.Pattern[str], str]] = field(default_factory=list)

    async def call(
        self, method: str, path: str, body: object = None, *, headers: dict[str, str] | None = None
    ) -> Answer:
        """`body` is sent as it is where it is bytes, and as JSON otherwise. The answer must be a documented one."""
        data = body if isinstance(body, bytes) or body is None else json.dumps(body).encode()
        answer = await asyncio.to_thread(self._exchange, method, path, data, headers or {})
        self._check_documented(method, path, answer)
        return answer

    async def as_gateway(self, gateway: TestGateway, method: str, path: str, body: object = None) -> Answer:
        return await self.call(method, path, body, headers={"Authorization": gateway.authorization})

    async def admin(self, method: str, path: str, body: object = None, **headers: str) -> Answer:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return await self.call(method, f"/v1/admin{path}", body, headers={**ADMIN, **named})

    def _exchange(self, method: str, path: str, data: bytes | None, headers: dict[str, str]) -> Answer:
        connection = http.client.HTTPConnection("127.0.0.1", self.number, timeout=60)
        try:
            connection.request(method, path, data, headers)
            response = connection.getresponse()
            return Answer(response.status, response.headers, response.read())
        finally:
            connection.close()

    def _check_documented(self, method: str, path: str, answer: Answer) -> None:
        operation = self._operation(method.lower(), path.partition("?")[0])
        if operation is None:
            return
        responses = operation["responses"]
        status = "default" if answer.status in UNLIKELY and str(answer.status) not in responses else str(answer.status)
        assert status in responses, f"{method} {path} gave an undocumented {answer.status}: {answer.body!r}"
        content = responses[status].get("content", {})
        kind = answer.headers["content-type"].partition(";")[0]
        assert not content or kind in content, f"{method} {path} gave an undocumented {kind}"
        if kind.endswith("json") and content:
            schema = {**content[kind]["schema"], "components": self.document["components"]}
            Draft202012Validator(schema).validate(answer.json)

    def _operation(self, method: str, path: str) -> dict[str, Any] | None:
        for template, item in self.document["paths"].items():
            if re.fullmatch(re.sub(r"\{\w+\}", "[^/]+", template), path) and method in item:
                found: dict[str, Any] = item[method]
                return found
        return None


@asynccontextmanager
async def running_port(
    stack: Stack,
    *,
    engine: AsyncEngine | None = None,
    admin_token: str | None = ADMIN_TOKEN,
    metrics_token: str | None = None,
    docs_enabled: bool = True,
    probes: Mapping[str, Probe] | None = None,
) -> AsyncIterator[HttpPort]:
    """`engine` replaces the one for reads; the admin routes work with the stack's."""
    own_engine = async_engine(in_role(stack.conninfo, SERVE_ROLE))
    management = management_app(
        authenticator=stack.authenticator,
        engine=engine or own_engine,
        admin_engine=stack.engine,
        prices=stack.prices,
        pepper=PEPPER,
        admin_token=admin_token,
        metrics=stack.metrics,
        metrics_token=metrics_token,
        readiness=Readiness(probes if probes is not None else {"database": fine}),
        docs_enabled=docs_enabled,
        read_timeout_s=1,
        above=operators_routes(),
    )
    api = HttpApi(
        signing=stack.signing,
        authenticator=stack.authenticator,
        signer=stack.signer,
        metrics=stack.metrics,
        management=management,
        body_max_bytes=MAX_BODY_BYTES,
        read_timeout_s=1,
    )
    listener = HttpListener(
        api,
        host="127.0.0.1",
        port=0,
        read_timeout_s=5,
        idle_timeout_s=5,
        shutdown_timeout_s=5,
        hot=api.hot_routes(),
    )
    number = await listener.start()
    try:
        yield HttpPort(number, openapi_document(management), stack)
    finally:
        await listener.stop()
        await own_engine.dispose()
