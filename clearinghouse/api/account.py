"""What a gateway reads about itself: balance, limits, price of ETH and issuances. Open to a suspended gateway too."""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated, Any
from uuid import UUID

from fastapi import APIRouter, Depends, Path, Query

from chain.rates import PriceUnknown
from clearinghouse.api.bodies import PATH_PATTERN
from clearinghouse.api.described import described
from clearinghouse.api.queries import only_query
from clearinghouse.api.shapes import (
    BalanceStatusAnswer,
    IssuanceAnswer,
    IssuancePage,
    LimitsAnswer,
    PriceAnswer,
    balance_status_answer,
    limits_answer,
    price_answer,
)
from clearinghouse.api.wiring import Authenticated, Wired
from clearinghouse.balance_bounds import bounds_of
from clearinghouse.charging import price_stale
from clearinghouse.errors import InvalidRequest
from clearinghouse.identity.gateways import find
from clearinghouse.identity.keys import expiring_keys
from clearinghouse.identity.limits import gateway_limits
from clearinghouse.ids import parse, show
from clearinghouse.issuances import (
    PAGE_SIZE_DEFAULT,
    PAGE_SIZE_MAX,
    get_issuance,
    issuance_json,
    list_issuances,
    page_json,
    parse_issuance_id,
)
from clearinghouse.ledger.accounts import standing

router = APIRouter(prefix="/v1", tags=["Account"])


@router.get("/balance", **described(None))
async def read_balance(caller: Authenticated, wired: Wired) -> BalanceStatusAnswer:
    """What the calling gateway has and can spend, the credit that expires, and all that notices tell it of."""
    expiry = timedelta(days=wired.notices.key_expiry_days)
    async with wired.engine.connect() as connection:
        now = await standing(connection, caller.gateway_id)
        bounds = await bounds_of(connection, caller.gateway_id, now.currency, wired.notices)
        gateway = await find(connection, show("gw", caller.gateway_id))
        expiring = await expiring_keys(connection, caller.gateway_id, within=expiry)
        return balance_status_answer(now, bounds, gateway, expiring)


@router.get("/limits", **described(None))
async def read_limits(caller: Authenticated, wired: Wired) -> LimitsAnswer:
    """What the calling gateway and its keys may use, and have used."""
    async with wired.engine.connect() as connection:
        return limits_answer(await gateway_limits(connection, caller.gateway_id))


@router.get("/prices", **described(None))
async def read_price(caller: Authenticated, wired: Wired) -> PriceAnswer:
    """What the calling gateway is charged at now: the price of ETH in its currency, before its markup."""
    try:
        return price_answer(wired.prices.price(caller.currency))
    except PriceUnknown as error:
        raise price_stale(error) from error


@router.get(
    "/issuances",
    dependencies=[Depends(only_query("limit", "cursor", "session_id"))],
    response_model=IssuancePage,
    **described(None, 400),
)
async def read_issuances(
    caller: Authenticated,
    wired: Wired,
    limit: Annotated[int, Query(description=f"1 to {PAGE_SIZE_MAX}.")] = PAGE_SIZE_DEFAULT,
    cursor: Annotated[str | None, Query(description="`next_cursor` of the page before.", max_length=64)] = None,
    session_id: Annotated[str | None, Query(description="Only this session's.", max_length=64)] = None,
) -> dict[str, Any]:
    """The calling gateway's payments, newest first, in pages. New ones never shift a later page."""
    session = _session(session_id) if session_id is not None else None
    async with wired.engine.connect() as connection:
        return page_json(
            await list_issuances(connection, caller.gateway_id, limit=limit, cursor=cursor, session_id=session)
        )


@router.get("/issuances/{issuance_id}", response_model=IssuanceAnswer, **described(None, 400, 404))
async def read_issuance(
    issuance_id: Annotated[str, Path(pattern=PATH_PATTERN)], caller: Authenticated, wired: Wired
) -> dict[str, Any]:
    """One payment of the calling gateway, as named by its receipt."""
    issuance = parse_issuance_id(issuance_id)
    async with wired.engine.connect() as connection:
        return issuance_json(await get_issuance(connection, caller.gateway_id, issuance))


def _session(session_id: str) -> UUID:
    try:
        return parse("ses", session_id)
    except ValueError as error:
        raise InvalidRequest(f"session_id is {error}") from None
