"""What operators do over HTTP: gateways, their price and limit, credit in and out, API keys.

Every route asks for the admin token before anything else, and each change is one transaction. A gateway is named by its
id or its name, a key by its id or public id.
"""

from __future__ import annotations

from typing import Annotated, Final

from fastapi import APIRouter, Depends, Path, Request, Response
from sqlalchemy.ext.asyncio import AsyncConnection

from clearinghouse.api.bodies import (
    PATH_PATTERN,
    Grant,
    NewCreditLimit,
    NewGateway,
    NewGatewayLimits,
    NewKey,
    NewKeyLimits,
    NewPricing,
    Nothing,
    Rotation,
    Suspension,
    Withdrawal,
    json_body,
)
from clearinghouse.api.described import described
from clearinghouse.api.heads import read_head
from clearinghouse.api.shapes import (
    GatewayList,
    GatewayStanding,
    KeyAnswer,
    KeyLimitsAnswer,
    KeyList,
    LimitsAnswer,
    NewKeyAnswer,
    TransferAnswer,
    gateway_answer,
    gateway_standing,
    key_answer,
    key_limits_answer,
    limits_answer,
    new_key_answer,
    transfer_answer,
)
from clearinghouse.api.wiring import Books, Wired, require_admin
from clearinghouse.errors import InvalidRequest
from clearinghouse.identity import gateways, keys, limits
from clearinghouse.identity.gateways import Gateway
from clearinghouse.ids import show
from clearinghouse.ledger import accounts, transfers
from clearinghouse.ledger.money import parse_amount

#: Who changed something, in the books.
ACTOR: Final = "admin-api"

router = APIRouter(prefix="/v1/admin", tags=["Administration"], dependencies=[Depends(require_admin)])

GatewayRef = Annotated[str, Path(description="Id (`gw_…`) or name.", pattern=PATH_PATTERN)]
KeyRef = Annotated[str, Path(description="Id (`key_…`) or public id.", pattern=PATH_PATTERN)]


# --- gateways ---------------------------------------------------------------------------------------------------------


@router.post("/gateways", status_code=201, **described(NewGateway, 400, 404, 409))
async def create_gateway(wanted: Annotated[NewGateway, json_body(NewGateway)], books: Books) -> GatewayStanding:
    """Create a gateway and its account. It can sign once it has credit and a key."""
    minimum_charge = parse_amount(wanted.minimum_charge, currency=wanted.currency, may_be_zero=True)
    credit_limit = parse_amount(wanted.credit_limit, currency=wanted.currency, may_be_zero=True)
    async with books.begin() as connection:
        gateway = await gateways.create(
            connection,
            wanted.name,
            currency=wanted.currency,
            markup_bps=wanted.markup_bps,
            minimum_charge=minimum_charge,
            credit_limit=credit_limit,
            plan=wanted.plan,
        )
        return await _standing(connection, gateway)


@router.get("/gateways", **described(None))
async def list_gateways(books: Books) -> GatewayList:
    """All gateways, by name."""
    async with books.connect() as connection:
        return GatewayList(items=[gateway_answer(gateway) for gateway in await gateways.list_gateways(connection)])


@router.get("/gateways/{gateway}", **described(None, 400, 404))
async def show_gateway(gateway: GatewayRef, books: Books) -> GatewayStanding:
    """A gateway, its price, and where it stands."""
    async with books.connect() as connection:
        return await _standing(connection, await gateways.find(connection, gateway))


@router.post("/gateways/{gateway}/suspend", **described(Suspension, 400, 404))
async def suspend_gateway(
    gateway: GatewayRef, wanted: Annotated[Suspension, json_body(Suspension)], books: Books
) -> GatewayStanding:
    """Sign nothing for the gateway until it is resumed. It can still read its balance and issuances."""
    async with books.begin() as connection:
        found = await gateways.find(connection, gateway)
        return await _standing(connection, await gateways.suspend(connection, found.id, reason=wanted.reason))


@router.post("/gateways/{gateway}/resume", **described(Nothing, 400, 404))
async def resume_gateway(
    gateway: GatewayRef, _: Annotated[Nothing, json_body(Nothing)], books: Books
) -> GatewayStanding:
    """Lift a suspension."""
    async with books.begin() as connection:
        found = await gateways.find(connection, gateway)
        return await _standing(connection, await gateways.resume(connection, found.id))


@router.put("/gateways/{gateway}/credit-limit", **described(NewCreditLimit, 400, 404, 409))
async def set_credit_limit(
    gateway: GatewayRef, wanted: Annotated[NewCreditLimit, json_body(NewCreditLimit)], books: Books
) -> GatewayStanding:
    """Set how far below zero the balance may go. Refused where the gateway owes more than that already."""
    async with books.begin() as connection:
        found = await gateways.find(connection, gateway)
        limit = parse_amount(wanted.credit_limit, currency=found.currency, may_be_zero=True)
        return gateway_standing(found, await accounts.set_limit(connection, found.id, limit))


@router.put("/gateways/{gateway}/pricing", **described(NewPricing, 400, 404))
async def set_pricing(
    gateway: GatewayRef, wanted: Annotated[NewPricing, json_body(NewPricing)], books: Books
) -> GatewayStanding:
    """Set markup, minimum charge, or both, for calls from now on."""
    async with books.begin() as connection:
        found = await gateways.find(connection, gateway)
        minimum_charge = (
            parse_amount(wanted.minimum_charge, currency=found.currency, may_be_zero=True)
            if wanted.minimum_charge is not None
            else None
        )
        changed = await gateways.set_pricing(
            connection, found.id, markup_bps=wanted.markup_bps, minimum_charge=minimum_charge
        )
        return await _standing(connection, changed)


@router.get("/gateways/{gateway}/limits", **described(None, 400, 404))
async def show_limits(gateway: GatewayRef, books: Books) -> LimitsAnswer:
    """What the gateway and its keys may use, and have used."""
    async with books.connect() as connection:
        found = await gateways.find(connection, gateway)
        return limits_answer(await limits.gateway_limits(connection, found.id))


@router.put("/gateways/{gateway}/limits", **described(NewGatewayLimits, 400, 404))
async def set_limits(
    gateway: GatewayRef, wanted: Annotated[NewGatewayLimits, json_body(NewGatewayLimits)], books: Books
) -> LimitsAnswer:
    """Set what is given. It holds for the next call, and for a caller that was just refused within a second."""
    async with books.begin() as connection:
        found = await gateways.find(connection, gateway)
        changes = limits.parse_own_limits(wanted.model_dump(), currency=found.currency)
        return limits_answer(await limits.set_gateway_limits(connection, found.id, changes))


# --- credit -----------------------------------------------------------------------------------------------------------


@router.post("/gateways/{gateway}/credit/grants", status_code=201, **described(Grant, 400, 404, 409, idempotent=True))
async def grant_credit(
    gateway: GatewayRef,
    wanted: Annotated[Grant, json_body(Grant)],
    books: Books,
    request: Request,
    response: Response,
) -> TransferAnswer:
    """Give credit, for ever or until `expires_at`. Answers 200 instead of 201 where it had been booked before."""
    key = _idempotency_key(request, wanted)
    async with books.begin() as connection:
        found = await gateways.find(connection, gateway)
        amount = parse_amount(wanted.amount, currency=found.currency)
        transfer = await transfers.grant(
            connection,
            found.id,
            amount,
            reason=wanted.reason,
            actor=ACTOR,
            key=key,
            expires_at=wanted.expires_at,
        )
        return await _booked(connection, found, transfer, response)


@router.post(
    "/gateways/{gateway}/credit/withdrawals",
    status_code=201,
    **described(Withdrawal, 400, 402, 404, 409, idempotent=True),
)
async def withdraw_credit(
    gateway: GatewayRef,
    wanted: Annotated[Withdrawal, json_body(Withdrawal)],
    books: Books,
    request: Request,
    response: Response,
) -> TransferAnswer:
    """Take credit back, at most what is available: first what does not expire, then what expires last."""
    key = _idempotency_key(request, wanted)
    async with books.begin() as connection:
        found = await gateways.find(connection, gateway)
        amount = parse_amount(wanted.amount, currency=found.currency)
        transfer = await transfers.withdraw(connection, found.id, amount, reason=wanted.reason, actor=ACTOR, key=key)
        return await _booked(connection, found, transfer, response)


# --- keys -------------------------------------------------------------------------------------------------------------


@router.post("/gateways/{gateway}/keys", status_code=201, **described(NewKey, 400, 404))
async def create_key(
    gateway: GatewayRef, wanted: Annotated[NewKey, json_body(NewKey)], books: Books, wired: Wired
) -> NewKeyAnswer:
    """Make a further API key, valid at once. The whole key is in this answer and never again."""
    async with books.begin() as connection:
        found = await gateways.find(connection, gateway)
        return new_key_answer(
            await keys.create(connection, found.id, pepper=wired.pepper, name=wanted.name, expires_at=wanted.expires_at)
        )


@router.get("/gateways/{gateway}/keys", **described(None, 400, 404))
async def list_keys(gateway: GatewayRef, books: Books) -> KeyList:
    """All keys the gateway ever had."""
    async with books.connect() as connection:
        found = await gateways.find(connection, gateway)
        return KeyList(items=[key_answer(key) for key in await keys.list_keys(connection, found.id)])


@router.post("/keys/{key}/rotate", status_code=201, **described(Rotation, 400, 404, 409))
async def rotate_key(
    key: KeyRef, wanted: Annotated[Rotation, json_body(Rotation)], books: Books, wired: Wired
) -> NewKeyAnswer:
    """Make a new key in place of an active one, which goes on working for `grace_s`."""
    async with books.begin() as connection:
        return new_key_answer(
            await keys.rotate(connection, key, pepper=wired.pepper, grace=wanted.grace(), expires_at=wanted.expires_at)
        )


@router.post("/keys/{key}/revoke", **described(Nothing, 400, 404))
async def revoke_key(key: KeyRef, _: Annotated[Nothing, json_body(Nothing)], books: Books) -> KeyAnswer:
    """End a key now. From this moment nothing is signed with it; reads may still answer for up to half a minute."""
    async with books.begin() as connection:
        return key_answer(await keys.revoke(connection, key))


@router.put("/keys/{key}/limits", **described(NewKeyLimits, 400, 404))
async def set_key_limits(
    key: KeyRef, wanted: Annotated[NewKeyLimits, json_body(NewKeyLimits)], books: Books
) -> KeyLimitsAnswer:
    """Set what is given, within what the key's gateway may. What it used and has open counts from the start."""
    async with books.begin() as connection:
        found = await keys.find(connection, key)
        gateway = await gateways.find(connection, show("gw", found.gateway_id))
        changes = limits.parse_limits(wanted.model_dump(), currency=gateway.currency)
        return key_limits_answer(await limits.set_key_limits(connection, found.id, changes))


# --- what they share --------------------------------------------------------------------------------------------------


async def _standing(connection: AsyncConnection, gateway: Gateway) -> GatewayStanding:
    return gateway_standing(gateway, await accounts.standing(connection, gateway.id))


async def _booked(
    connection: AsyncConnection, gateway: Gateway, transfer: transfers.Transfer, response: Response
) -> TransferAnswer:
    if transfer.was_repeated:
        response.status_code = 200
    return transfer_answer(transfer, await accounts.standing(connection, gateway.id))


def _idempotency_key(request: Request, wanted: Withdrawal) -> str | None:
    """From the header or the field, where the caller likes it better."""
    header = read_head(request.scope["headers"]).idempotency_key
    if header and wanted.idempotency_key is not None and header != wanted.idempotency_key:
        raise InvalidRequest("the Idempotency-Key header and idempotency_key in the body differ: send one")
    return header or wanted.idempotency_key
