"""The OpenAPI document of the whole HTTP port: the management routes as FastAPI knows them, the hot routes by hand."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from clearinghouse.api.described import IDEMPOTENCY_KEY, PROBLEM_SCHEMA, REFUSALS, refusals
from clearinghouse.api.hot_shapes import HOT_SHAPES
from clearinghouse.errors import Refusal
from clearinghouse.identity.webhook_signers import WEBHOOK_PATH

#: Of the contract, not of the program.
API_VERSION: Final = "1.0.0"

DESCRIPTION: Final = """\
Signed Livepeer tickets, each paid for before it leaves.

Gateways authenticate with `Authorization: Bearer <api key>`, or with HTTP Basic and the key as password. Amounts of \
money and wei are decimal strings, exact to the last digit; a JSON number is refused. Times are RFC 3339 in UTC.

A refusal never moves money. On our own routes it is an `application/problem+json` document, on go-livepeer's routes \
its error envelope; the `Clearinghouse-Error` header has the same code either way."""

TAGS: Final = [
    {"name": "Signing", "description": "Tickets, over go-livepeer's own routes and over ours."},
    {"name": "Account", "description": "What a gateway reads about itself."},
    {"name": "Operation", "description": "What machines ask about the service."},
    {"name": "Administration", "description": "Gateways, plans, credit and keys; with the admin token."},
]

_SECURITY_SCHEMES: Final = {
    "apiKey": {"type": "http", "scheme": "bearer", "description": "An API key: lpch_…"},
    "apiKeyBasic": {"type": "http", "scheme": "basic", "description": "The API key as password, or as user name."},
    "webhookSecret": {"type": "http", "scheme": "bearer", "description": "A signer's webhook secret: lpws_…"},
    "adminToken": {"type": "http", "scheme": "bearer", "description": "The operator's api.admin_token."},
    "metricsToken": {"type": "http", "scheme": "bearer", "description": "The operator's api.metrics_token, if set."},
}
_GO_LIVEPEER_PATHS: Final = {"/generate-live-payment", "/sign-orchestrator-info", "/discover-orchestrators"}
_GATEWAY: Final[list[dict[str, list[str]]]] = [{"apiKey": []}, {"apiKeyBasic": []}]


def openapi_document(app: FastAPI) -> dict[str, Any]:
    """Made anew at every call; what the application serves decides what it describes."""
    document = get_openapi(
        title="Livepeer Clearinghouse",
        version=API_VERSION,
        summary="Prepaid payment signing for Livepeer gateways.",
        description=DESCRIPTION,
        routes=app.routes,
        tags=TAGS,
        separate_input_output_schemas=False,
    )
    document["paths"] = {**_hot_paths(), **document["paths"]}
    for path, item in document["paths"].items():
        for operation in item.values():
            operation["responses"].pop("422", None)  # FastAPI's own; here it is a 400 problem
            operation["responses"]["default"] = _any_refusal(path)
            operation["security"] = _security(path)
    schemas = {**_schemas(app.state.bodies), **document.get("components", {}).get("schemas", {})}
    for name in ("HTTPValidationError", "ValidationError"):
        schemas.pop(name, None)
    document["components"] = {
        "schemas": dict(sorted(schemas.items())),
        "securitySchemes": _SECURITY_SCHEMES,
    }
    document["x-codes"] = _codes()
    return document


def _any_refusal(path: str) -> dict[str, Any]:
    """A bug, a body where none belongs: what any route may answer, in its own format."""
    problem = {"application/problem+json": {"schema": PROBLEM_SCHEMA}}
    content = _json("LivePaymentError") if path in _GO_LIVEPEER_PATHS else problem
    return {"description": "Any other refusal.", "content": content}


def _security(path: str) -> list[dict[str, list[str]]]:
    if path in {WEBHOOK_PATH, "/authorize"}:
        return [{"webhookSecret": []}]
    if path.startswith("/v1/admin/"):
        return [{"adminToken": []}]
    if path == "/v1/coverage":
        return [*_GATEWAY, {"adminToken": []}]
    if path == "/metrics":
        return [{"metricsToken": []}, {}]
    if path in {"/healthz", "/readyz", "/openapi.json", "/docs"}:
        return []
    return _GATEWAY


def _codes() -> list[dict[str, str | int]]:
    """Every code a refusal can have, in the order of statuses. Where one code has several reasons, the general one."""
    found: dict[str, type[Refusal]] = {}
    waiting = Refusal.__subclasses__()
    while waiting:
        refusal = waiting.pop(0)
        found.setdefault(refusal.code, refusal)
        waiting += refusal.__subclasses__()
    by_status = sorted(found.values(), key=lambda refusal: (refusal.http_status, refusal.code))
    return [
        {"code": refusal.code, "status": refusal.http_status, "what_next": refusal.what_next} for refusal in by_status
    ]


def _schemas(bodies: Iterable[type[BaseModel]]) -> dict[str, Any]:
    _, found = models_json_schema(
        [(model, "validation") for model in (*HOT_SHAPES, *bodies)],
        ref_template="#/components/schemas/{model}",
    )
    schemas: dict[str, Any] = found["$defs"]
    return schemas


# --- the hot routes ---------------------------------------------------------------------------------------------------

_PAYMENT_REFUSALS: Final = (400, 401, 402, 403, 409, 413, 429, 480, 481, 482, 500, 502, 503)

_RECEIPT_HEADERS: Final = {
    "Clearinghouse-Receipt": ("Id of the issuance.", "iss_0190f3c1a5f27c1e8b5d5b7c9a1e2f30"),
    "Clearinghouse-Charge": ("What the call cost.", "0.0123 USD"),
    "Clearinghouse-Balance": ("What is left.", "9.9877 USD"),
    "Clearinghouse-Overhead-Ms": ("Time spent here, without the signer's.", "0.412"),
    "Clearinghouse-Replayed": ("`true` where a stored answer was repeated: nothing was charged.", "true"),
}
_END_USER: Final = {
    "name": "Clearinghouse-End-User",
    "in": "header",
    "required": False,
    "description": "Whom the gateway serves with this call; recorded only.",
    "schema": {"type": "string", "maxLength": 255},
}


def _hot_paths() -> dict[str, Any]:
    return {
        "/v1/signTicket": {"post": _sign_ticket()},
        "/generate-live-payment": {"post": _generate_live_payment()},
        "/sign-orchestrator-info": {"post": _sign_orchestrator_info()},
        "/discover-orchestrators": {"get": _discover_orchestrators()},
        WEBHOOK_PATH: {"post": _webhook("askRemoteSigner")},
        "/authorize": {"post": _webhook("authorize")},
    }


def _sign_ticket() -> dict[str, Any]:
    return {
        "tags": ["Signing"],
        "operationId": "signTicket",
        "summary": "Sign Ticket",
        "description": "Sign the tickets one payment needs, debit the gateway durably, and only then answer.",
        "parameters": [IDEMPOTENCY_KEY, _END_USER],
        "requestBody": _json_body("SignTicketRequest"),
        "responses": {
            "200": _signed("SignTicketAnswer"),
            **{str(status): answer for status, answer in refusals(*_PAYMENT_REFUSALS).items()},
        },
    }


def _generate_live_payment() -> dict[str, Any]:
    return {
        "tags": ["Signing"],
        "operationId": "generateLivePayment",
        "summary": "Generate Live Payment",
        "description": "The same in go-livepeer's own words, byte for byte: point `-remoteSignerUrl` here. "
        "What it cost is in the headers.",
        "parameters": [IDEMPOTENCY_KEY, _END_USER],
        "requestBody": _json_body("LivePaymentRequest"),
        "responses": {"200": _signed("LivePaymentAnswer"), **_envelopes(*_PAYMENT_REFUSALS)},
    }


def _sign_orchestrator_info() -> dict[str, Any]:
    return {
        "tags": ["Signing"],
        "operationId": "signOrchestratorInfo",
        "summary": "Sign Orchestrator Info",
        "description": "The sender's address and its signature, which orchestrators ask for in GetOrchestrator. "
        "The body is ignored.",
        "responses": {
            "200": {"description": "Address and proof.", "content": _json("OrchestratorInfoSignature")},
            **_envelopes(401, 403, 413, 503),
        },
    }


def _discover_orchestrators() -> dict[str, Any]:
    caps = {
        "name": "caps",
        "in": "query",
        "required": False,
        "description": "`pipeline/model`; may be repeated: orchestrators that offer any of them.",
        "schema": {"type": "array", "items": {"type": "string"}},
    }
    listed = {"type": "array", "items": {"type": "object", "properties": {"address": {"type": "string"}}}}
    return {
        "tags": ["Signing"],
        "operationId": "discoverOrchestrators",
        "summary": "Discover Orchestrators",
        "description": "What the signer knows of orchestrators, unchanged.",
        "parameters": [caps],
        "responses": {
            "200": {"description": "The signer's list.", "content": {"application/json": {"schema": listed}}},
            **{str(status): answer for status, answer in refusals(404).items()},
            **_envelopes(401, 403, 503),
        },
    }


def _webhook(operation_id: str) -> dict[str, Any]:
    return {
        "tags": ["Signing"],
        "operationId": operation_id,
        "summary": "Ask Before A Payment Is Released",
        "description": "For signers operated elsewhere: go-livepeer's `-remoteSignerWebhookUrl`. A verdict is a 200 "
        "whatever it says. There only where webhook.enabled is set.",
        "requestBody": _json_body("WebhookQuestion"),
        "responses": {
            "200": {"description": "The verdict.", "content": _json("WebhookVerdict")},
            **{str(status): answer for status, answer in refusals(400, 401, 404, 413, 429, 503).items()},
        },
    }


def _signed(schema: str) -> dict[str, Any]:
    headers = {
        name: {"description": description, "schema": {"type": "string", "examples": [example]}}
        for name, (description, example) in _RECEIPT_HEADERS.items()
    }
    return {"description": "Signed, debited, recorded.", "headers": headers, "content": _json(schema)}


def _envelopes(*statuses: int) -> dict[str, Any]:
    return {str(status): {"description": REFUSALS[status], "content": _json("LivePaymentError")} for status in statuses}


def _json_body(schema: str) -> dict[str, Any]:
    return {"required": True, "content": _json(schema)}


def _json(schema: str) -> dict[str, Any]:
    return {"application/json": {"schema": {"$ref": f"#/components/schemas/{schema}"}}}
