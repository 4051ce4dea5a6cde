"""What a gateway was asked to pay: GET /v1/invoices. Open to a suspended gateway too."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Path, Query
from pydantic import Field

from clearinghouse.api.bodies import PATH_PATTERN
from clearinghouse.api.described import described
from clearinghouse.api.queries import only_query
from clearinghouse.api.shapes import Answer
from clearinghouse.api.wiring import Authenticated, Wired
from clearinghouse.invoices import PAGE_SIZE_DEFAULT, PAGE_SIZE_MAX, get_invoice, list_invoices

router = APIRouter(prefix="/v1", tags=["Account"])


class InvoiceAnswer(Answer):
    """What was asked for, for a period."""

    id: str
    number: str | None = Field(description="As it stands on the invoice.", examples=["AB12-0001"])
    kind: str = Field(description="usage: of a period that is over; subscription: of one in advance.")
    status: str = Field(description="open, paid, void or uncollectible.", examples=["open"])
    currency: str = Field(examples=["USD"])
    first_day: str = Field(description="Of the period, by the gateway's calendar.", examples=["2026-10-01"])
    last_day: str = Field(description="The same, included.", examples=["2026-10-31"])
    begins_at: str
    ends_at: str
    total: str = Field(description="Without tax.", examples=["120.50"])
    tax: str = Field(description="On top of it.", examples=["0.00"])
    amount_due: str = Field(description="What is left to pay, with tax.", examples=["120.50"])
    issued_at: str
    due_at: str
    credited: str = Field(
        description="What credit notes took off it before it was paid, without tax.", examples=["0.00"]
    )
    paid_at: str | None = Field(description="When nothing was left to pay: it was paid, or credited.")
    replaced_at: str | None = Field(
        description="When another invoice of the same period took its place, by corrected rates. Whatever `status` "
        "says, nobody has to pay this one."
    )
    po_number: str
    hosted_url: str | None = Field(description="Where it can be paid.")
    pdf_url: str | None


class InvoiceLineAnswer(Answer):
    """`amount` is what is asked for, `exact` what the books have."""

    kind: str = Field(description="usage, fee, credit, carried, returned, correction or rounding.")
    description: str
    amount: str
    exact: str
    facts: dict[str, str] = Field(description="Of usage: app, pipeline, model, calls, ev_wei, charge, average_rate, …")


class InvoiceInFull(InvoiceAnswer):
    lines: list[InvoiceLineAnswer]


class InvoicePage(Answer):
    items: list[InvoiceAnswer]
    next_cursor: str | None = Field(description="For the next page; null on the last one.")


@router.get(
    "/invoices",
    dependencies=[Depends(only_query("limit", "cursor"))],
    response_model=InvoicePage,
    **described(None, 400),
)
async def read_invoices(
    caller: Authenticated,
    wired: Wired,
    limit: Annotated[int, Query(description=f"1 to {PAGE_SIZE_MAX}.")] = PAGE_SIZE_DEFAULT,
    cursor: Annotated[str | None, Query(description="`next_cursor` of the page before.", max_length=64)] = None,
) -> dict[str, Any]:
    """The calling gateway's invoices, newest first, in pages."""
    async with wired.engine.connect() as connection:
        return await list_invoices(connection, caller.gateway_id, limit=limit, cursor=cursor)


@router.get("/invoices/{invoice_id}", response_model=InvoiceInFull, **described(None, 400, 404))
async def read_invoice(
    invoice_id: Annotated[str, Path(pattern=PATH_PATTERN)], caller: Authenticated, wired: Wired
) -> dict[str, Any]:
    """One invoice of the calling gateway, with its lines."""
    async with wired.engine.connect() as connection:
        return await get_invoice(connection, caller.gateway_id, invoice_id)
