"""A local Stripe that listens, the official SDK as its client, and a judge of every answer."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import httpx
import stripe
from jsonschema import Draft4Validator
from referencing import Registry, Resource
from referencing.jsonschema import DRAFT4

from settlement.stripe_local.clock import Clock
from settlement.stripe_local.description import Description
from settlement.stripe_local.desk import House
from settlement.stripe_local.frame import Answer, LocalStripe, Request
from settlement.stripe_local.handlers import HANDLERS
from settlement.stripe_local.keys import DEFAULT_KEY, ApiKeys
from settlement.stripe_local.server import stripe_served
from settlement.stripe_local.store import Store


@cache
def description() -> Description:
    """Read once for the whole run."""
    return Description.packaged()


class JudgedStripe(LocalStripe):
    """Every answer must be what Stripe's description says: judged by a validator that is not ours."""

    async def answer(self, request: Request) -> Answer:
        answer = await super().answer(request)
        if answer.silence is None and "idempotent-replayed" not in answer.headers:
            judge(request, answer)
        return answer


@cache
def _registry() -> Registry[Any]:
    document = {"components": {"schemas": description().document["schemas"]}}
    return Registry().with_resource("urn:stripe", Resource(contents=_absolute(document), specification=DRAFT4))


@cache
def _validator(schema: str) -> Draft4Validator:
    return Draft4Validator(_absolute(json.loads(schema)), registry=_registry())


def _absolute(value: Any) -> Any:
    """References into the registry; and `nullable` as Stripe means it, beside anyOf and $ref too."""
    if isinstance(value, list):
        return [_absolute(inner) for inner in value]
    if not isinstance(value, dict):
        return value
    made = {
        key: f"urn:stripe{inner}" if key == "$ref" and isinstance(inner, str) else _absolute(inner)
        for key, inner in value.items()
    }
    return {"anyOf": [{"enum": [None]}, made]} if made.pop("nullable", None) is True else made


def judge(request: Request, answer: Answer) -> None:
    """Raises AssertionError where an answer is not as described."""
    body = json.loads(answer.body)
    found = description().found(request.method, request.path)
    schema: dict[str, Any] = {"$ref": "#/components/schemas/error"}
    if answer.status == 200:
        assert found is not None
        schema = found[0].answer
    errors = [
        f"{'.'.join(map(str, error.absolute_path))}: {error.message[:300]}"
        for error in _validator(json.dumps(schema)).iter_errors(body)
    ]
    assert not errors, f"{request.method} {request.path}: " + "\n".join(errors)


@dataclass(frozen=True)
class Reached:
    """A local Stripe that listens, be it in this process or in another."""

    base_url: str
    client: stripe.StripeClient
    http: httpx.AsyncClient

    async def control(self, path: str, method: str = "POST", /, **wanted: Any) -> Any:
        """A control call that must succeed."""
        answer = await self.http.request(method, f"{self.base_url}/_control/{path}", json=wanted)
        assert answer.status_code == 200, answer.text
        return answer.json()


@dataclass(frozen=True)
class Running(Reached):
    """One in this process."""

    local: LocalStripe


@asynccontextmanager
async def client_of(
    base_url: str, *, api_key: str = DEFAULT_KEY, timeout_s: float = 10
) -> AsyncIterator[stripe.StripeClient]:
    """The official SDK in front of a server."""
    http = stripe.HTTPXClient(timeout=timeout_s)
    try:
        yield stripe.StripeClient(api_key, base_addresses={"api": base_url}, http_client=http)
    finally:
        await http.close_async()


@asynccontextmanager
async def reached(base_url: str) -> AsyncIterator[Reached]:
    """One that listens there."""
    async with httpx.AsyncClient(trust_env=False, timeout=60) as http, client_of(base_url) as client:
        yield Reached(base_url, client, http)


@asynccontextmanager
async def running(
    journal: Path | None = None, keys: ApiKeys | None = None, house: House | None = None
) -> AsyncIterator[Running]:
    """A local Stripe on a free port, and the SDK in front of it."""
    local = JudgedStripe(
        HANDLERS, store=Store(journal), keys=keys, house=house, clock=Clock(), description=description()
    )
    async with stripe_served(local) as base_url, reached(base_url) as there:
        yield Running(base_url, there.client, there.http, local)
