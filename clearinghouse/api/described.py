"""What a route's refusals and body look like, said once per route for the OpenAPI document."""

from __future__ import annotations

from typing import Any, Final

from pydantic import BaseModel

PROBLEM_SCHEMA: Final = {"$ref": "#/components/schemas/Problem"}
REFUSALS: Final = {
    400: "The request is wrong; the detail says where.",
    401: "The credentials are missing or wrong.",
    402: "More than is available.",
    403: "Not allowed.",
    404: "There is no such thing, or it is another gateway's.",
    409: "In conflict with what is there.",
    413: "The body is too large.",
    429: "Too many requests, or a limit is reached: `rule` says which, `Retry-After` when to try again.",
    480: "Fresh ticket parameters are needed: `orchestrator_url` says from where.",
    481: "The orchestrator's price is above a limit.",
    482: "Nothing is due yet; nothing was charged.",
    500: "A bug, or an internal error of the signer.",
    502: "The signer's answer was not what was asked for and has been thrown away.",
    503: "Something this depends on is missing; try again later.",
}


def described(body: type[BaseModel] | None, *statuses: int, idempotent: bool = False) -> dict[str, Any]:
    """Keyword arguments of a route: its body, and the statuses it can refuse with besides those of every route."""
    always = (401, 413, 503) if body is not None else (401, 503)
    arguments: dict[str, Any] = {"responses": refusals(*statuses, *always)}
    if idempotent:
        arguments["responses"] |= {200: {"description": "It had been booked before under this idempotency key."}}
    extra: dict[str, Any] = {}
    if body is not None:
        schema = {"$ref": f"#/components/schemas/{body.__name__}"}
        required = any(field.is_required() for field in body.model_fields.values())
        extra["requestBody"] = {"required": required, "content": {"application/json": {"schema": schema}}}
    if idempotent:
        extra["parameters"] = [IDEMPOTENCY_KEY]
    return {**arguments, "openapi_extra": extra}


def refusals(*statuses: int) -> dict[int | str, dict[str, Any]]:
    return {
        status: {
            "description": REFUSALS[status],
            "content": {"application/problem+json": {"schema": PROBLEM_SCHEMA}},
        }
        for status in sorted(set(statuses))
    }


IDEMPOTENCY_KEY: Final = {
    "name": "Idempotency-Key",
    "in": "header",
    "required": False,
    "description": "The same key with the same request takes effect once; with another request it is refused (409).",
    "schema": {"type": "string", "maxLength": 255},
}
