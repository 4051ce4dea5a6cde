"""One request from its bytes to its answer: key, idempotency, trouble on demand, parameters, rules, events.

key ─▶ idempotency key ─▶ trouble before ─▶ parameters ─▶ the handler ─▶ written in one step ─▶ trouble after
"""

from __future__ import annotations

import asyncio
import json
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from typing import Any, Final

from settlement.stripe_local.amendments import OLD_NAME, renamed_away
from settlement.stripe_local.clock import Clock
from settlement.stripe_local.description import API_VERSION, Description, Json, Operation
from settlement.stripe_local.desk import Desk, Handler, House
from settlement.stripe_local.errors import StripeError, unsupported
from settlement.stripe_local.expand import answered
from settlement.stripe_local.faults import Fault, Faults
from settlement.stripe_local.forms import decoded
from settlement.stripe_local.idempotency import IdempotencyKeys, fingerprint, record, record_id_of
from settlement.stripe_local.ids import new_id
from settlement.stripe_local.keys import ApiKeys
from settlement.stripe_local.parameters import Params, checked
from settlement.stripe_local.store import Store

RATE_LIMITED: Final = 429


@dataclass(frozen=True)
class Request:
    """What arrived, headers by lower-case name."""

    method: str
    path: str
    query: str = ""
    headers: dict[str, str] = field(default_factory=dict)
    body: str = ""

    @property
    def form(self) -> str:
        """Where this method carries its parameters; some clients put those of a POST into its query."""
        return self.body if self.method == "POST" and self.body else self.query


@dataclass(frozen=True)
class Answer:
    """What goes back. `silence`: no answer at all, the connection hangs or is cut."""

    status: int
    body: str
    headers: dict[str, str] = field(default_factory=dict)
    silence: str | None = None


class LocalStripe:
    """The account and all that is in it."""

    def __init__(
        self,
        handlers: dict[str, Handler],
        *,
        store: Store,
        keys: ApiKeys | None = None,
        house: House | None = None,
        clock: Clock | None = None,
        description: Description | None = None,
    ) -> None:
        self.store = store
        self.clock = clock or Clock()
        self.house = house or House()
        self.faults = Faults()
        self.keys = keys or ApiKeys()
        self.description = description or Description.packaged()
        self.written = asyncio.Event()  # there may be events to deliver
        self.requests: list[str] = []  # "POST /v1/invoices": what was asked for, oldest first
        self._handlers = handlers
        self._idempotency = IdempotencyKeys(store)

    def desk(self, request: Json | None = None) -> Desk:
        """A desk for work that is nobody's request: what falls due by itself, and what a test brings about."""
        return Desk(self.store, self.description, self.house, self.clock.now_s(), request)

    def write(self, desk: Desk, *more: Json) -> None:
        """Makes a desk's work visible, in one step with `more`."""
        self.store.apply({**desk.changes.written(), **{one["id"]: one for one in more}})
        self.written.set()

    async def answer(self, request: Request) -> Answer:
        """The answer to a call of Stripe's API."""
        self.requests.append(f"{request.method} {request.path}")
        headers = {"request-id": new_id("request"), "stripe-version": API_VERSION}
        try:
            api_key = self.keys.require(request.headers.get("authorization"), request.method, request.path)
            _require_version(request.headers.get("stripe-version"))
            answer = await self._answer_once(request, api_key, headers["request-id"])
        except StripeError as error:
            answer = _error_answer(error, headers["request-id"])
        return replace(answer, headers={"content-type": "application/json", **headers, **answer.headers})

    async def _answer_once(self, request: Request, api_key: str, request_id: str) -> Answer:
        key = request.headers.get("idempotency-key") if request.method == "POST" else None
        print_ = fingerprint(request.method, request.path, request.form)
        named = {"id": request_id, "idempotency_key": key}
        using = self._idempotency.using(api_key, key, print_, self.clock.now_s()) if key else nullcontext()
        with using as earlier:
            fault, delay_ms = self.faults.strike(request.method, request.path)
            await asyncio.sleep(delay_ms / 1000)
            if fault is not None and fault.kind in {"status", "hang", "cut"}:
                return _trouble(fault, request_id)
            if earlier is not None:
                answer = Answer(earlier["status"], earlier["body"], {"idempotent-replayed": "true"})
            else:
                spoiled = _trouble(fault, request_id) if fault is not None and fault.kind == "status_after" else None
                answer = self._worked(request, named, (record_id_of(api_key, key), print_) if key else None, spoiled)
            if key:
                answer.headers["idempotency-key"] = key
            return answer if fault is None or fault.kind == "latency" else _trouble(fault, request_id)

    def _worked(self, request: Request, named: Json, key: tuple[str, str] | None, spoiled: Answer | None) -> Answer:
        """Does what is asked, and remembers the answer under the key. Errors before the work began are forgotten."""
        operation, handler, places = self._operation(request)
        params = self._params(operation, request)
        desk = self.desk(named)
        try:
            result = handler(desk, params, *places)
            params.require_all_seen()
            answer = Answer(200, json.dumps(answered(desk, result, params.get("expand", []))))
        except StripeError as error:
            if not error.keeps_changes:
                desk = self.desk(named)
            answer = _error_answer(error, named["id"])
        answer = spoiled or answer
        records = [record(*key, self.clock.now_s(), answer.status, answer.body)] if key else []
        self.write(desk, *records)
        return answer

    def _operation(self, request: Request) -> tuple[Operation, Handler, tuple[str, ...]]:
        found = self.description.found(request.method, request.path)
        if found is None:
            text = (
                f"Unrecognized request URL ({request.method}: {request.path}). If this call is one that Stripe has, "
                "the local Stripe server does not know it."
            )
            raise StripeError(text, status=404)
        operation, places = found
        handler = self._handlers.get(operation.name)
        if handler is None:
            raise unsupported(operation.name)
        return operation, handler, places

    def _params(self, operation: Operation, request: Request) -> Params:
        raw = decoded(request.form)
        is_pinned = request.headers.get("stripe-version") == API_VERSION
        if is_pinned and OLD_NAME in raw and renamed_away(operation.name, OLD_NAME):
            raise StripeError(f"Received unknown parameter: {OLD_NAME}", code="parameter_unknown", param=OLD_NAME)
        return Params(checked(self.description, operation.form, raw))


def _require_version(version: str | None) -> None:
    if version not in (None, API_VERSION):
        text = f"Invalid Stripe API version: {version}. The local Stripe server speaks {API_VERSION} alone."
        raise StripeError(text)


def _error_answer(error: StripeError, request_id: str) -> Answer:
    body: dict[str, Any] = {**error.error, "request_log_url": f"https://stripe.local.invalid/logs/{request_id}"}
    if error.code is not None:
        body["doc_url"] = f"https://stripe.com/docs/error-codes/{error.code.replace('_', '-')}"
    return Answer(error.status, json.dumps({"error": body}))


def _trouble(fault: Fault, request_id: str) -> Answer:
    """What the caller sees of a fault."""
    kind = fault.kind.removesuffix("_after")
    if kind in {"hang", "cut"}:
        return Answer(0, "", silence=kind)
    if fault.status == RATE_LIMITED:
        error = StripeError(
            "Request rate limit exceeded. You can learn more about rate limits here https://stripe.com/docs/rate-limits.",
            status=fault.status,
            code="rate_limit",
        )
        headers = {"stripe-rate-limited-reason": "global-rate"}
    else:
        error = StripeError("An unexpected error occurred.", status=fault.status, kind="api_error")
        headers = {}
    return replace(_error_answer(error, request_id), headers=headers)
