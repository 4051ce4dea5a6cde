"""GET /openapi.json and GET /docs: the same document, for programs and for people."""

from __future__ import annotations

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
    return Response(json_bytes(_document(request.app)), media_type="application/json")


@router.get("/docs", response_class=Response, responses={200: {"content": _HTML}})
async def read_docs(request: Request) -> Response:
    """The API for people: this page. It loads nothing from anywhere and runs no script."""
    headers = {
        "content-type": "text/html; charset=utf-8",
        "content-security-policy": content_security_policy(),
        "referrer-policy": "no-referrer",
    }
    return Response(docs_page(_document(request.app)), headers=headers)


def _document(app: FastAPI) -> dict[str, Any]:
    """Made once per application."""
    if app.openapi_schema is None:
        app.openapi_schema = openapi_document(app)
    document: dict[str, Any] = app.openapi_schema
    return document
