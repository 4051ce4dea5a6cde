"""Plans over HTTP: limits that many gateways share. Part of what operators do (admin.py), with the same token.

A change to a plan is one transaction, and a further one for every so many of its gateways.
"""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, Path

from clearinghouse.api.admin import ACTOR, GatewayRef
from clearinghouse.api.bodies import PATH_PATTERN, ChosenPlan, NewPlan, json_body
from clearinghouse.api.described import described
from clearinghouse.api.shapes import DeletedPlan, LimitsAnswer, PlanAnswer, PlanList, limits_answer, plan_answer
from clearinghouse.api.wiring import Books, require_admin
from clearinghouse.identity import gateways, limits, plans

router = APIRouter(prefix="/v1/admin", tags=["Administration"], dependencies=[Depends(require_admin)])

PlanRef = Annotated[str, Path(description="Name of the plan.", pattern=PATH_PATTERN)]


@router.get("/plans", **described(None))
async def list_plans(books: Books) -> PlanList:
    """All plans, by name."""
    async with books.connect() as connection:
        return PlanList(items=[plan_answer(plan) for plan in await plans.list_plans(connection)])


@router.get("/plans/{plan}", **described(None, 400, 404))
async def show_plan(plan: PlanRef, books: Books) -> PlanAnswer:
    """A plan, and how many gateways are on it."""
    async with books.connect() as connection:
        return plan_answer(await plans.find(connection, plan))


@router.put("/plans/{plan}", **described(NewPlan, 400, 409))
async def put_plan(plan: PlanRef, wanted: Annotated[NewPlan, json_body(NewPlan)], books: Books) -> PlanAnswer:
    """Make a plan, or change what is given of one. Its gateways have it for their next call when this is answered."""
    named = wanted.model_dump()
    currency = named.pop("currency")
    async with books.begin() as connection:
        changed = await plans.put(connection, plan, named, currency=currency, actor=ACTOR)
    await plans.apply(books, changed)
    async with books.connect() as connection:
        return plan_answer(await plans.find(connection, plan))


@router.delete("/plans/{plan}", **described(None, 400, 404, 409))
async def delete_plan(plan: PlanRef, books: Books) -> DeletedPlan:
    """Delete a plan that no gateway is on. The plan `default` stays."""
    async with books.begin() as connection:
        await plans.delete(connection, plan)
    return DeletedPlan(name=plan)


@router.put("/gateways/{gateway}/plan", **described(ChosenPlan, 400, 404, 409))
async def set_plan(
    gateway: GatewayRef, wanted: Annotated[ChosenPlan, json_body(ChosenPlan)], books: Books
) -> LimitsAnswer:
    """Put a gateway on a plan. It holds for the next call; limits of the gateway's own stay."""
    async with books.begin() as connection:
        found = await gateways.set_plan(connection, await gateways.find(connection, gateway), wanted.plan)
        return limits_answer(await limits.gateway_limits(connection, found.id))
