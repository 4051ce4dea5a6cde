"""Credit that a gateway buys: it asks, and is told where to pay. Open to a suspended gateway too, which may owe.

The service asks nobody outside: it writes the request down, and `clearinghouse work` answers it.
"""

from __future__ import annotations

from typing import Annotated, Any, Final

from fastapi import APIRouter, Depends, Path, Query, Request, Response
from pydantic import Field

from clearinghouse import payments
from clearinghouse.api.bodies import PATH_PATTERN, NewTopup, json_body
from clearinghouse.api.described import described
from clearinghouse.api.heads import read_head
from clearinghouse.api.queries import only_query
from clearinghouse.api.shapes import Answer
from clearinghouse.api.wiring import Authenticated, Wired
from clearinghouse.errors import InvalidRequest
from clearinghouse.identity.authenticate import Caller
from clearinghouse.ids import show
from clearinghouse.ledger.money import parse_amount

router = APIRouter(prefix="/v1/topups", tags=["Account"])

ANSWER_WITHIN_S: Final = 10.0


class TopupAnswer(Answer):
    """One top-up, and how far it is."""

    id: str = Field(examples=["pay_0190f3c1a5f27c1e8b5d5b7c9a1e2f30"])
    gateway_id: str
    method: str = Field(description="As asked; or automatic, cash_balance (a transfer), wire, stablecoin.")
    state: str = Field(
        description="requested, open, processing (the page is done, and a bank has not answered), succeeded, failed, "
        "expired, canceled."
    )
    amount: str | None
    currency: str
    url: str | None = Field(description="Where to pay or to save the card.")
    instructions: dict[str, Any] | None = Field(description="Of a bank transfer: where to, how much, what to write.")
    failure: str | None = Field(description="Why it failed, as a code.", examples=["card_declined"])
    said: str = Field(description="What happened and what can be done, in words.")
    saves_card: bool
    created_at: str
    expires_at: str | None
    ended_at: str | None


class TopupPage(Answer):
    """Newest first."""

    items: list[TopupAnswer]
    next_cursor: str | None = Field(description="For the next page; null on the last one.")


@router.post("", status_code=201, **described(NewTopup, 400, 409, 429, idempotent=True))
async def ask_for_topup(
    wanted: Annotated[NewTopup, json_body(NewTopup)], caller: Authenticated, wired: Wired, request: Request,
    response: Response,
) -> TopupAnswer:  # fmt: skip
    """Ask for a top-up. 201 with where to pay, or with what came of it; 202 where that takes longer: look again."""
    method = _method(wanted.method)
    amount = parse_amount(wanted.amount, currency=caller.currency) if wanted.amount is not None else None
    key = read_head(request.scope["headers"]).idempotency_key
    async with wired.engine.begin() as connection:
        payment_id = await payments.request(
            connection, caller.gateway_id, method, amount, saves_card=wanted.save_card, key=key or None,
            actor=_actor(caller),
        )  # fmt: skip
    found = await payments.answered(wired.engine, caller.gateway_id, payment_id, within_s=ANSWER_WITHIN_S)
    if not found.is_answered:
        response.status_code = 202
    return topup_answer(found)


@router.get("", dependencies=[Depends(only_query("limit", "cursor"))], **described(None, 400))
async def list_topups(
    caller: Authenticated,
    wired: Wired,
    limit: Annotated[int, Query(description=f"1 to {payments.PAGE_SIZE_MAX}.")] = payments.PAGE_SIZE_DEFAULT,
    cursor: Annotated[str | None, Query(description="`next_cursor` of the page before.", max_length=64)] = None,
) -> TopupPage:
    """The calling gateway's top-ups, also those that were made automatically or entered by an operator."""
    before = payments.parse_payment_id(cursor) if cursor is not None else None
    async with wired.engine.connect() as connection:
        found = await payments.newest(connection, caller.gateway_id, limit=limit, before=before)
    cursor = show("pay", found[-1].id) if len(found) == limit else None
    return TopupPage(items=[topup_answer(payment) for payment in found], next_cursor=cursor)


@router.get("/{topup_id}", **described(None, 400, 404))
async def read_topup(
    topup_id: Annotated[str, Path(pattern=PATH_PATTERN)], caller: Authenticated, wired: Wired
) -> TopupAnswer:
    """One of the calling gateway's."""
    payment_id = payments.parse_payment_id(topup_id)
    async with wired.engine.connect() as connection:
        return topup_answer(await payments.find(connection, caller.gateway_id, payment_id))


def topup_answer(payment: payments.PaymentStanding) -> TopupAnswer:
    return TopupAnswer(**payments.payment_document(payment))


def _actor(caller: Caller) -> str:
    return f"gateway:{show('key', caller.key_id)}"


def _method(name: str) -> payments.Method:
    if name not in payments.METHODS:
        raise InvalidRequest(f"method must be one of {', '.join(payments.METHODS)}, not {name[:40]!a}")
    return name
