"""What operators do over HTTP about customers: who pays, and how. As `clearinghouse customers` does, by the same code.

Under the admin token, like clearinghouse/api/admin.py; each change is one transaction.
"""

from __future__ import annotations

from typing import Annotated, Any, Final

from fastapi import APIRouter, Depends

from clearinghouse.api.admin import ACTOR, GatewayRef
from clearinghouse.api.billing import BillingAnswer
from clearinghouse.api.bodies import json_body
from clearinghouse.api.described import described
from clearinghouse.api.wiring import Books, Routes, Wired, require_admin
from clearinghouse.billing import billing_document
from clearinghouse.identity import gateways
from settlement.api.customer_shapes import (
    CustomerAnswer,
    CustomerDetails,
    CustomerList,
    EndOfFreeTerms,
    NewTerms,
    ScheduleAnswer,
)
from settlement.customers.changes import (
    Schedule,
    cancel_changes,
    change_terms,
    parse_end,
    schedule,
    set_end_of_free_terms,
)
from settlement.customers.documents import customer_document, schedule_document
from settlement.customers.store import find_customer, list_customers, set_details

router = APIRouter(prefix="/v1/admin", tags=["Administration"], dependencies=[Depends(require_admin)])


@router.get("/customers", **described(None))
async def list_all_customers(books: Books) -> CustomerList:
    """All customers, with what Stripe does not take of them."""
    async with books.connect() as connection:
        found = await list_customers(connection)
    return CustomerList(items=[CustomerAnswer.model_validate(customer_document(each)) for each in found])


@router.get("/gateways/{gateway}/customer", **described(None, 400, 404))
async def show_customer(gateway: GatewayRef, books: Books) -> CustomerAnswer:
    """Who pays for a gateway."""
    async with books.connect() as connection:
        found = await find_customer(connection, (await gateways.find(connection, gateway)).id)
        return CustomerAnswer.model_validate(customer_document(found))


@router.put("/gateways/{gateway}/customer", **described(CustomerDetails, 400, 404, 409))
async def set_customer(
    gateway: GatewayRef, wanted: Annotated[CustomerDetails, json_body(CustomerDetails)], books: Books
) -> CustomerAnswer:
    """Say who pays for a gateway, or change what is given. If anything is wrong, all of that is said."""
    async with books.begin() as connection:
        found = await gateways.find(connection, gateway)
        changed = await set_details(connection, found.id, _given(wanted), actor=ACTOR)
        return CustomerAnswer.model_validate(customer_document(changed))


@router.get("/gateways/{gateway}/billing", **described(None, 400, 404))
async def show_billing(gateway: GatewayRef, books: Books, wired: Wired) -> BillingAnswer:
    """What the gateway reads at GET /v1/billing: terms, what it owes, and what that holds back."""
    async with books.connect() as connection:
        found = await gateways.find(connection, gateway)
        return BillingAnswer.model_validate(await billing_document(connection, found.id, wired.dunning))


@router.get("/gateways/{gateway}/terms", **described(None, 400, 404))
async def show_terms(gateway: GatewayRef, books: Books) -> ScheduleAnswer:
    """How a gateway is billed, and what is to come."""
    async with books.connect() as connection:
        return _schedule(await schedule(connection, await gateways.find(connection, gateway)))


@router.post("/gateways/{gateway}/terms", **described(NewTerms, 400, 404, 409))
async def agree_on_terms(
    gateway: GatewayRef, wanted: Annotated[NewTerms, json_body(NewTerms)], books: Books
) -> ScheduleAnswer:
    """Agree on other terms from where a period begins. What was to change then or later is replaced."""
    given = _given(wanted)
    begins = given.pop("begins")
    async with books.begin() as connection:
        found = await gateways.find(connection, gateway)
        return _schedule(await change_terms(connection, found, given, begins=begins, actor=ACTOR))


@router.delete("/gateways/{gateway}/terms", **described(None, 400, 404, 409))
async def cancel_terms(gateway: GatewayRef, books: Books) -> ScheduleAnswer:
    """Take back all that is still to change. What has begun stays."""
    async with books.begin() as connection:
        return _schedule(await cancel_changes(connection, await gateways.find(connection, gateway)))


@router.put("/gateways/{gateway}/terms/end", **described(EndOfFreeTerms, 400, 404, 409))
async def set_end_of_terms(
    gateway: GatewayRef, wanted: Annotated[EndOfFreeTerms, json_body(EndOfFreeTerms)], books: Books
) -> ScheduleAnswer:
    """Move the end of the free terms that hold; where they have ended, they go on."""
    ends_at = parse_end(wanted.ends_at)
    async with books.begin() as connection:
        return _schedule(
            await set_end_of_free_terms(connection, await gateways.find(connection, gateway), ends_at)
        )  # fmt: skip


def _given(wanted: CustomerDetails | NewTerms) -> dict[str, Any]:
    """Without what was left out."""
    return {name: value for name, value in wanted.model_dump().items() if value is not None}


def _schedule(found: Schedule) -> ScheduleAnswer:
    return ScheduleAnswer.model_validate(schedule_document(found))


ROUTES: Final = Routes(router, (CustomerDetails, NewTerms, EndOfFreeTerms))
