"""The HTTP port: go-livepeer's routes and signTicket without a framework, all else in the management application.

    POST /generate-live-payment      go-livepeer's body, statuses, envelope and headers
    POST /sign-orchestrator-info     the sender's address and its proof
    GET  /discover-orchestrators     what the signer knows of orchestrators
    POST /v1/signTicket              the same as the first, in one canonical spelling, with a receipt
    POST /webhooks/remote-signer     where signers ask before they release a payment; /authorize is the same
    POST /webhooks/stripe            where Stripe tells its events

A framework would cost more than the work itself. Those of payments are hot routes, which the listener calls without
ASGI; written in another way than usual (`/v1/signTicket?`), they come as ASGI too, and are answered alike.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import structlog

from clearinghouse.api.answers import answer_parts, receipt_fields
from clearinghouse.api.heads import read_head
from clearinghouse.api.problems import (
    PROBLEM,
    MethodNotAllowed,
    bug,
    json_bytes,
    problem,
    problem_fields,
    refusal_headers,
)
from clearinghouse.api.sign_ticket_json import decode_sign_ticket
from clearinghouse.api.stripe_webhook import StripeWebhook
from clearinghouse.api.webhook import PATHS, NoQuestion, Webhook, verdict
from clearinghouse.asgi import Application, ClientGone, Receive, Reply, Scope, Send, read_body
from clearinghouse.errors import InvalidRequest, NotFound, Overloaded, Refusal
from clearinghouse.hot_routes import HotHandler, HotRequest, HotRoutes
from clearinghouse.identity.authenticate import Authenticator
from clearinghouse.ids import show
from clearinghouse.ledger.money import show_amount
from clearinghouse.metrics import Metrics
from clearinghouse.requests import decode_payment_request
from clearinghouse.signers.base import Signer, SignerAnswer
from clearinghouse.signing import Asked, SignCall, SignedAnswer, Signing
from clearinghouse.stripe_events import STRIPE_WEBHOOK_PATH

log = structlog.get_logger(__name__)

JSON = (b"content-type", b"application/json")
DISCOVERY_QUERY_MAX_BYTES = 8192


class _Route(NamedTuple):
    path: str
    method: str
    name: str  # in metrics and logs
    handle: HotHandler
    refused: Callable[[Refusal], Reply]


class HttpApi:
    """The ASGI application of the HTTP port. `management` answers what the hot routes do not."""

    def __init__(
        self,
        *,
        signing: Signing,
        authenticator: Authenticator,
        signer: Signer,
        metrics: Metrics,
        management: Application,
        body_max_bytes: int,
        read_timeout_s: float,
        webhook: Webhook | None = None,
        stripe: StripeWebhook | None = None,
    ) -> None:
        self._signing = signing
        self._authenticator = authenticator
        self._signer = signer
        self._metrics = metrics
        self._management = management
        self._body_max_bytes = body_max_bytes
        self._read_timeout_s = read_timeout_s
        generate_live_payment = _Route(
            "/generate-live-payment", "POST", "generate_live_payment", self._generate_live_payment, envelope
        )
        sign_orchestrator_info = _Route(
            "/sign-orchestrator-info", "POST", "sign_orchestrator_info", self._sign_orchestrator_info, envelope
        )
        discover_orchestrators = _Route(
            "/discover-orchestrators", "GET", "discover_orchestrators", self._discover_orchestrators, envelope
        )
        sign_ticket = _Route("/v1/signTicket", "POST", "sign_ticket", self._sign_ticket, problem)
        asked = [_Route(path, "POST", "webhook", webhook.answer, verdict) for path in PATHS if webhook is not None]
        self._hot = (generate_live_payment, sign_ticket, *asked)
        cold = [sign_orchestrator_info, discover_orchestrators]
        if stripe is not None:
            cold.append(_Route(STRIPE_WEBHOOK_PATH, "POST", "stripe_webhook", stripe.answer, problem))
        self._routes = {route.path: route for route in (*self._hot, *cold)}

    def hot_routes(self) -> HotRoutes:
        """What the listener is to call without ASGI."""
        return HotRoutes(
            {(route.method.encode(), route.path.encode()): partial(self._answered, route) for route in self._hot},
            body_max_bytes=self._body_max_bytes,
            body_timeout_s=self._read_timeout_s,
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        route = self._routes.get(scope["path"]) if scope["type"] == "http" else None
        if route is None:
            await self._management(scope, receive, send)
            return
        if scope["method"] != route.method:
            await _method_not_allowed(route, scope["method"]).send(send)
            return
        try:
            request = await self._read(scope, receive)
        except ClientGone:
            return
        await (await self._answered(route, request)).send(send)

    async def _answered(self, route: _Route, request: HotRequest) -> Reply:
        """The answer to a request on a route of ours, whichever way it came."""
        try:
            reply = await route.handle(request)
            self._metrics.answered(route.name)
        except Refusal as refusal:
            return self._refused(route, refusal, route.refused)
        except NoQuestion as no_question:
            return self._refused(route, no_question.refusal, problem)
        except Exception:  # noqa: BLE001 - the edge: a bug is logged with its trace and becomes a 500
            self._metrics.refused(route.name, "internal_error")
            return route.refused(bug(route.name, route.path))
        return reply

    def _refused(self, route: _Route, refusal: Refusal, shown: Callable[[Refusal], Reply]) -> Reply:
        self._metrics.refused(route.name, refusal.code, rule=refusal.facts.get("rule"))
        log.info("refused", route=route.name, code=refusal.code, reason=refusal.message, **refusal.facts)
        return shown(refusal)

    async def _read(self, scope: Scope, receive: Receive) -> HotRequest:
        """The request as the listener would have read it. Raises ClientGone."""
        began_s = time.monotonic()
        body: bytes | Refusal = b""
        if scope["method"] == "POST":  # the body of a GET means nothing
            try:
                body = await read_body(receive, bytes_max=self._body_max_bytes, timeout_s=self._read_timeout_s)
            except Refusal as refusal:
                body = refusal
        return HotRequest(scope["headers"], body, time.monotonic() - began_s, scope["query_string"])

    async def _generate_live_payment(self, request: HotRequest) -> Reply:
        received_at_s = self._metrics.now_s() - request.waited_s
        body = request.read()
        authorization, idempotency_key, end_user = read_head(request.headers)

        def asked() -> Asked:
            return Asked(decode_payment_request(body), idempotency_key, end_user)

        signed = await self._signing.sign_ticket(SignCall(authorization, asked, received_at_s))
        return Reply(200, signed.body, [JSON, *receipt_headers(signed)])

    async def _sign_ticket(self, request: HotRequest) -> Reply:
        received_at_s = self._metrics.now_s() - request.waited_s
        body = request.read()
        head = read_head(request.headers)

        def asked() -> Asked:
            payment_request, idempotency_key, end_user = decode_sign_ticket(body)
            return Asked(
                payment_request,
                _one_of("idempotency_key", idempotency_key, head.idempotency_key),
                _one_of("end_user", end_user, head.end_user),
            )

        signed = await self._signing.sign_ticket(SignCall(head.authorization, asked, received_at_s))
        payment, seg_creds, state, sig = answer_parts(signed)
        answer = {
            "payment": payment,
            "seg_creds": seg_creds,
            "state": {"state": state, "sig": sig},
            "receipt": receipt_fields(signed.receipt),
        }
        return Reply(200, json_bytes(answer), [JSON, *receipt_headers(signed)])

    async def _sign_orchestrator_info(self, request: HotRequest) -> Reply:
        request.read()
        await self._authenticator.authenticate(read_head(request.headers).authorization)
        return _pass_on(await self._signer.sign_orchestrator_info())

    async def _discover_orchestrators(self, request: HotRequest) -> Reply:
        await self._authenticator.authenticate(read_head(request.headers).authorization)
        if len(request.query) > DISCOVERY_QUERY_MAX_BYTES:
            raise NotFound("The query is too long for any orchestrator to match it.")
        answer = await self._signer.discover_orchestrators(request.query.decode("ascii", "replace"))
        if answer.status == 404:
            return _no_discovery()
        return _pass_on(answer)


def _one_of(name: str, in_body: str, in_header: str) -> str:
    """A value that may stand in either place. InvalidRequest for two that differ: no guess is made between them."""
    if in_body and in_header and in_body != in_header:
        raise InvalidRequest(f"{name} in the body and its header differ: send one")
    return in_body or in_header


def receipt_headers(signed: SignedAnswer) -> list[tuple[bytes, bytes]]:
    """What the call cost, for clients whose body belongs to go-livepeer."""
    receipt = signed.receipt
    headers = [
        (b"clearinghouse-receipt", show("iss", receipt.issuance_id).encode()),
        (b"clearinghouse-charge", f"{show_amount(receipt.charge)} {receipt.currency}".encode()),
        (b"clearinghouse-balance", f"{show_amount(receipt.balance)} {receipt.currency}".encode()),
        (b"clearinghouse-overhead-ms", b"%.3f" % (signed.overhead_s * 1000)),
    ]
    if signed.replayed:
        headers.append((b"clearinghouse-replayed", b"true"))
    return headers


def envelope(refusal: Refusal) -> Reply:
    """A refusal on go-livepeer's routes: a signer's own bytes unchanged, ours in its envelope."""
    body = refusal.signer_answer or json_bytes({"error": {"message": refusal.message}}) + b"\n"
    return Reply(refusal.http_status, body, [JSON, *refusal_headers(refusal)])


def busy() -> Reply:
    """For a connection without a place. What it would have asked for is not known: both formats in one body."""
    refusal = Overloaded(
        "All connections of this port are in use, or this address has its share of them.", retry_after_s=1
    )
    return _in_both_formats(refusal)


def _pass_on(answer: SignerAnswer) -> Reply:
    headers = [(b"content-type", answer.content_type.encode())]
    return Reply(answer.status, answer.body, headers)


def _no_discovery() -> Reply:
    """Discovery is go-livepeer's route, and the reason is ours."""
    return _in_both_formats(NotFound("The signer offers no discovery of orchestrators."))


def _in_both_formats(refusal: Refusal) -> Reply:
    body = {**problem_fields(refusal), "error": {"message": refusal.message}}
    return Reply(refusal.http_status, json_bytes(body), [PROBLEM, *refusal_headers(refusal)])


def _method_not_allowed(route: _Route, method: str) -> Reply:
    """On go-livepeer's routes as Go's multiplexer answers."""
    if route.refused is not envelope:
        return problem(MethodNotAllowed(f"There is no {method[:16]} here, only {route.method}.", allow=route.method))
    headers = [(b"content-type", b"text/plain; charset=utf-8"), (b"allow", route.method.encode())]
    return Reply(405, b"Method Not Allowed\n", headers)
