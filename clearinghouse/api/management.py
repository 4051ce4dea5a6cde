"""The management application: everything on the HTTP port that is not a hot route.

    GET  /v1/balance, /v1/limits, /v1/prices, /v1/issuances… a gateway about itself         account.py
    GET  /v1/usage                                           the same, added up             usage.py
    GET  /v1/invoices, /v1/invoices/{id}                     the same                       invoices.py
    GET  /v1/billing                                         how it is billed               billing.py
    /v1/topups…                                              a gateway buys credit          topups.py
    GET  /v1/statements, /v1/statements/{period}             the same                       statements.py
    GET  /healthz, /readyz, /metrics                         machines about the service     probes.py
    GET  /openapi.json, /docs                                people about the API           documentation.py
         /v1/admin/…                                         operators                      admin.py, admin_plans.py,
                                                             admin_rates.py, webhook_signers.py
    GET  /v1/jobs                                       operators                      jobs.py

The admin routes exist only where a token and a database with an operator's rights are configured; otherwise they are
404 like any other path that is not there. Every refusal is a problem document in the shared vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import structlog
from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from sqlalchemy.exc import InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlalchemy.ext.asyncio import AsyncEngine
from starlette.exceptions import HTTPException
from starlette.routing import Match

from chain.rates import PriceSource
from clearinghouse.api import (
    account,
    admin,
    admin_plans,
    admin_rates,
    billing,
    coverage,
    documentation,
    invoices,
    jobs,
    probes,
    statements,
    topups,
    usage,
    webhook_signers,
)
from clearinghouse.api.bodies import BODIES, first_reason
from clearinghouse.api.edge import Edge
from clearinghouse.api.problems import MethodNotAllowed, problem
from clearinghouse.api.wiring import Routes, Wiring
from clearinghouse.asgi import Scope
from clearinghouse.config_alerts import NoticeSettings
from clearinghouse.config_dunning import DunningSettings
from clearinghouse.coverage.early import EarlyGate
from clearinghouse.dunning_steps import policy_of
from clearinghouse.errors import DatabaseUnavailable, InvalidRequest, NotFound, Refusal
from clearinghouse.identity.authenticate import Authenticator
from clearinghouse.metrics import Metrics, Route
from clearinghouse.readiness import Readiness
from clearinghouse.requests import MAX_BODY_BYTES

log = structlog.get_logger(__name__)

METHODS: Final = ("GET", "POST", "PUT", "PATCH", "DELETE")
READ_TIMEOUT_S: Final = 10.0


def management_app(
    *,
    authenticator: Authenticator,
    engine: AsyncEngine,
    admin_engine: AsyncEngine | None,
    prices: PriceSource,
    pepper: bytes,
    admin_token: str | None,
    metrics: Metrics,
    metrics_token: str | None,
    readiness: Readiness,
    docs_enabled: bool,
    body_max_bytes: int = MAX_BODY_BYTES,
    read_timeout_s: float = READ_TIMEOUT_S,
    cover: EarlyGate | None = None,
    notices: NoticeSettings | None = None,
    dunning: DunningSettings | None = None,
    above: Sequence[Routes] = (),
) -> FastAPI:
    """The application; it connects to nothing until it is asked. `engine` is for reads, `admin_engine` for changes.

    `above`: further routes for operators.
    """
    app = FastAPI(openapi_url=None, docs_url=None, redoc_url=None, redirect_slashes=False)
    app.state.bodies = (*BODIES, *admin_rates.ROUTES.bodies, *(body for routes in above for body in routes.bodies))
    app.state.wiring = Wiring(
        authenticator=authenticator,
        engine=engine,
        admin_engine=admin_engine,
        prices=prices,
        pepper=pepper,
        admin_token=admin_token,
        metrics=metrics,
        metrics_token=metrics_token,
        readiness=readiness,
        body_max_bytes=body_max_bytes,
        read_timeout_s=read_timeout_s,
        cover=cover,
        notices=notices or NoticeSettings(),
        dunning=policy_of(dunning or DunningSettings()),
    )
    app.include_router(account.router)
    app.include_router(usage.router)
    app.include_router(billing.router)
    app.include_router(topups.router)
    app.include_router(coverage.router)
    app.include_router(invoices.router)
    app.include_router(statements.router)
    app.include_router(probes.router)
    if admin_token and admin_engine is not None:
        app.include_router(admin.router)
        app.include_router(webhook_signers.router)
        app.include_router(admin_plans.router)
        app.include_router(jobs.router)
        for routes in (admin_rates.ROUTES, *above):
            app.include_router(routes.router)
    if docs_enabled:
        app.include_router(documentation.router)
    for expected in (
        Refusal, HTTPException, RequestValidationError, OperationalError, InterfaceError, PoolTimeoutError,
    ):  # fmt: skip
        app.add_exception_handler(expected, _refuse)
    app.add_middleware(Edge, metrics=metrics, body_max_bytes=body_max_bytes)
    return app


async def _refuse(request: Request, error: Exception) -> Response:
    """The one place where what was raised becomes an answer."""
    refusal = _refusal(request, error)
    request.app.state.wiring.metrics.refused(Route.MANAGEMENT, refusal.code)
    log.info("refused", route=Route.MANAGEMENT, code=refusal.code, reason=refusal.message, **refusal.facts)
    reply = problem(refusal)
    response = Response(reply.body, reply.status)
    response.raw_headers.extend(reply.headers)
    return response


def _refusal(request: Request, error: Exception) -> Refusal:
    match error:
        case Refusal():
            return error
        case RequestValidationError():
            return InvalidRequest(first_reason([{**found, "loc": found["loc"][1:]} for found in error.errors()]))
        case HTTPException(status_code=405):
            return MethodNotAllowed("This path has no such method.", allow=_allowed(request.app, request.scope))
        case HTTPException(status_code=404):
            return NotFound("There is nothing at this path; GET /docs lists what there is.")
        case PoolTimeoutError():
            return DatabaseUnavailable("All database connections are in use.", retry_after_s=1)
        case OperationalError() | InterfaceError():
            log.warning("database_unavailable", reason=str(error.orig).partition("\n")[0])
            return DatabaseUnavailable("The database cannot be reached.")
        case _:
            raise error


def _allowed(app: FastAPI, scope: Scope) -> str:
    """The methods this path has, over all routes that share it."""
    methods = [
        method
        for method in METHODS
        if any(route.matches({**scope, "method": method})[0] is Match.FULL for route in app.routes)
    ]
    return ", ".join([*methods, "HEAD"] if "GET" in methods else methods)
