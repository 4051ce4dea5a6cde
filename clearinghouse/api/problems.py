"""Refusals as HTTP answers: application/problem+json (RFC 9457) in the vocabulary that all of our routes share."""

from __future__ import annotations

import json
from typing import Any, Final
from uuid import uuid4

import structlog

from clearinghouse.asgi import Reply
from clearinghouse.errors import LimitReached, RefreshSession, Refusal
from clearinghouse.signers.envelope import header_text

log = structlog.get_logger(__name__)

PROBLEM: Final = (b"content-type", b"application/problem+json")


class MethodNotAllowed(Refusal):
    """The path exists, but not with this method."""

    code, http_status = "method_not_allowed", 405
    what_next = "Use one of the methods in the Allow header."

    def __init__(self, message: str, *, allow: str) -> None:
        super().__init__(message)
        self.allow = allow


class InternalError(Refusal):
    """What a bug looks like from outside: an incident's id and nothing else."""

    code, http_status = "internal_error", 500
    what_next = "Try again; if it persists, give the operator the incident's id. Nothing was released."


def problem(refusal: Refusal) -> Reply:
    """A refusal on our routes."""
    return Reply(refusal.http_status, json_bytes(problem_fields(refusal)), [PROBLEM, *refusal_headers(refusal)])


def problem_fields(refusal: Refusal) -> dict[str, Any]:
    """The members of a problem document, the same on every route of ours."""
    fields: dict[str, Any] = {
        "type": f"urn:livepeer:clearinghouse:{refusal.code}",
        "title": refusal.code.replace("_", " ").capitalize(),
        "status": refusal.http_status,
        "detail": refusal.message,
        "code": refusal.code,
        "what_next": refusal.what_next,
        **refusal.facts,
    }
    if refusal.retry_after_s is not None:
        fields["retry_after_s"] = refusal.retry_after_s
    if isinstance(refusal, RefreshSession):
        fields["orchestrator_url"] = refusal.orchestrator_url
    return fields


def refusal_headers(refusal: Refusal) -> list[tuple[bytes, bytes]]:
    """What a client can act on without reading the body; the same whatever format the body has."""
    headers = [(b"clearinghouse-error", refusal.code.encode())]
    if refusal.retry_after_s is not None:
        headers.append((b"retry-after", b"%d" % refusal.retry_after_s))
    if isinstance(refusal, LimitReached):
        headers.append((b"clearinghouse-limit", str(refusal.facts["rule"]).encode()))
    if isinstance(refusal, RefreshSession):
        headers.append((b"livepeer-orchestrator-url", header_text(refusal.orchestrator_url).encode()))
    if isinstance(refusal, MethodNotAllowed):
        headers.append((b"allow", refusal.allow.encode()))
    if refusal.http_status == 401:
        headers.append((b"www-authenticate", b'Bearer realm="clearinghouse"'))
    return headers


def bug(route: str, path: str) -> InternalError:
    """Logs the exception being handled, and gives what may be said of it."""
    incident = uuid4().hex
    log.exception("bug", route=route, path=path, incident=incident)
    return InternalError("Internal Server Error", incident=incident)


def json_bytes(document: object) -> bytes:
    return json.dumps(document, separators=(",", ":"), ensure_ascii=False).encode()
