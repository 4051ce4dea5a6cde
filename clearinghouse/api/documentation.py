"""GET /openapi.json and GET /docs: the same document, for programs and for people."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from fastapi import APIRouter, FastAPI, Request, Response

from clearinghouse.api.docs_page import content_security_policy, docs_page
from clearinghouse.api.openapi import openapi_document
from clearinghouse.api.problems import json_bytes

router = APIRouter(tags=["Operation"])

_HTML: Final = {"text/html": {"schema": {"type": "string"}}}


@router.get("/openapi.json", response_model=dict[str, Any])
async def read_openapi(request: Request) -> Response:
    """The API in OpenAPI 3.1."""
    return Response(_rendered(request.app).openapi, media_type="application/json")


@router.get("/docs", response_class=Response, responses={200: {"content": _HTML}})
async def read_docs(request: Request) -> Response:
    """The API for people: this page. It loads nothing from anywhere and runs no script."""
    headers = {
        "content-type": "text/html; charset=utf-8",
        "content-security-policy": content_security_policy(),
        "referrer-policy": "no-referrer",
    }
    return Response(_rendered(request.app).page, headers=headers)


@dataclass(frozen=True, slots=True)
class _Rendered:
    openapi: bytes
    page: bytes


def _rendered(app: FastAPI) -> _Rendered:
    """Made once per application: whoever asks needs no key, and making them takes as long as many payments."""
    if not hasattr(app.state, "rendered"):
        app.openapi_schema = openapi_document(app)
        app.state.rendered = _Rendered(json_bytes(app.openapi_schema), docs_page(app.openapi_schema).encode())
    rendered: _Rendered = app.state.rendered
    return rendered
