"""What the management routes work with, and the dependencies through which they ask for it."""

from __future__ import annotations

import hmac
from dataclasses import dataclass, field
from typing import Annotated, ClassVar, NamedTuple

from fastapi import APIRouter, Depends, Request
from pydantic import BaseModel
from sqlalchemy.ext.asyncio import AsyncEngine

from chain.rates import PriceSource
from clearinghouse.api.heads import read_head
from clearinghouse.asgi import Scope
from clearinghouse.config_alerts import NoticeSettings
from clearinghouse.config_dunning import DunningSettings
from clearinghouse.coverage.early import EarlyGate
from clearinghouse.dunning_steps import Policy, policy_of
from clearinghouse.errors import Unauthenticated
from clearinghouse.identity.authenticate import Authenticator, Caller, bearer
from clearinghouse.metrics import Metrics
from clearinghouse.readiness import Readiness


@dataclass(frozen=True, slots=True)
class Wiring:
    """Given once, when the application is made, and carried as its state.

    `engine` reads in role clearinghouse_serve; `admin_engine` changes what operators may change, in role
    clearinghouse_admin.
    """

    authenticator: Authenticator
    engine: AsyncEngine
    admin_engine: AsyncEngine | None
    prices: PriceSource
    pepper: bytes = field(repr=False)
    admin_token: str | None = field(repr=False)
    metrics: Metrics
    metrics_token: str | None = field(repr=False)
    readiness: Readiness
    body_max_bytes: int
    read_timeout_s: float
    #: None where no coverage is known.
    cover: EarlyGate | None = None
    #: From which amounts on a balance is low.
    notices: NoticeSettings = field(default_factory=NoticeSettings)
    #: When a gateway that does not pay is reminded and held back, as the worker does it.
    dunning: Policy = field(default_factory=lambda: policy_of(DunningSettings()))


class Routes(NamedTuple):
    """Routes for operators that the floor above adds, and the bodies that they describe."""

    router: APIRouter
    bodies: tuple[type[BaseModel], ...]


class AdminTokenNeeded(Unauthenticated):
    what_next: ClassVar[str] = "Send `Authorization: Bearer <admin token>`; api.admin_token sets it."


class MetricsTokenNeeded(Unauthenticated):
    what_next: ClassVar[str] = "Send `Authorization: Bearer <metrics token>`; api.metrics_token sets it."


async def wiring(request: Request) -> Wiring:
    found: Wiring = request.app.state.wiring
    return found


Wired = Annotated[Wiring, Depends(wiring)]


async def authenticated(request: Request, wired: Wired) -> Caller:
    """The gateway that asks. A suspended one may still look at what is its own."""
    return await wired.authenticator.authenticate(
        read_head(request.scope["headers"]).authorization, may_be_suspended=True
    )


Authenticated = Annotated[Caller, Depends(authenticated)]


async def require_admin(request: Request, wired: Wired) -> None:
    require_token(request.scope, wired.admin_token, AdminTokenNeeded)


async def operator_or_gateway(request: Request, wired: Wired) -> Caller | None:
    """None is the operator, by the admin token where there is one; everybody else is a gateway."""
    if wired.admin_token is not None and _has_token(request.scope, wired.admin_token):
        return None
    return await authenticated(request, wired)


async def require_scraper(request: Request, wired: Wired) -> None:
    """Whoever may read the metrics: anybody, unless a token is configured."""
    if wired.metrics_token is not None:
        require_token(request.scope, wired.metrics_token, MetricsTokenNeeded)


async def books(wired: Wired) -> AsyncEngine:
    """The database with an operator's rights."""
    assert wired.admin_engine is not None, "without it there are no admin routes"
    return wired.admin_engine


Books = Annotated[AsyncEngine, Depends(books)]


def require_token(scope: Scope, token: str | None, refusal: type[Unauthenticated]) -> None:
    """Raises `refusal` unless the call bears the token."""
    assert token, "a route that needs a token exists only where one is configured"
    try:
        is_right = _has_token(scope, token)
    except Unauthenticated as reason:
        raise refusal(reason.message) from None
    if not is_right:
        raise refusal("The token is not the right one.")


def _has_token(scope: Scope, token: str) -> bool:
    """In constant time: how much of a guess was right must not show. Raises Unauthenticated where there is none."""
    return hmac.compare_digest(bearer(read_head(scope["headers"]).authorization).encode("latin-1"), token.encode())
