"""What a gateway reads about how it is billed, and what it owes. Open to one that is held back, too."""

from __future__ import annotations

from typing import Any, Literal

from fastapi import APIRouter
from pydantic import Field

from clearinghouse.api.described import described
from clearinghouse.api.shapes import Answer
from clearinghouse.api.wiring import Authenticated, Wired
from clearinghouse.billing import billing_document

router = APIRouter(prefix="/v1", tags=["Account"])


class RefillAnswer(Answer):
    """An automatic top-up."""

    below: str = Field(description="A balance below it is topped up …", examples=["20"])
    to: str = Field(description="… to this.", examples=["100"])
    cooldown_s: int = Field(description="The least time between two.")
    day_max: str = Field(description="The most in a day of UTC.")
    month_max: str = Field(description="The most in a month of UTC.")


class TermsAnswer(Answer):
    """A way to be billed. What it does not have is null."""

    way: Literal["prepaid", "automatic", "postpaid", "subscription", "free"]
    begins_at: str | None = Field(description="Null where nothing else was ever agreed on.")
    cadence: str = Field(description="Where periods begin.", examples=["monthly:1"])
    time_zone: str = Field(description="Whose midnight that is.", examples=["Europe/Berlin"])
    credit_limit: str = Field(description="The most that may be owed.", examples=["0"])
    refill: RefillAnswer | None
    fee: str | None = Field(description="Of a subscription, for each period, in advance.")
    included: str | None = Field(description="Usage that is in it, lost with the end of the period.")
    ends_at: str | None = Field(description="Of free terms: nothing is signed from then on.")


class PeriodAnswer(Answer):
    """A billing period: both days are in it, and `ends_at` is not."""

    first_day: str = Field(examples=["2026-11-01"])
    last_day: str = Field(examples=["2026-11-30"])
    begins_at: str
    ends_at: str


class OpenInvoiceAnswer(Answer):
    """What is still to be paid."""

    number: str
    currency: str
    amount_due: str = Field(description="What is left to pay, with tax.", examples=["12.50"])
    due_at: str
    hosted_url: str | None = Field(description="Where it can be paid.")
    reminded_at: list[str] = Field(description="When the gateway was reminded of it, by notices.")
    next_reminder_at: str | None = Field(description="When it will be, if it is not paid; null after the last.")


class DunningAnswer(Answer):
    """What follows if nothing is paid, by the open invoice that is due first; null where none is open."""

    number: str | None = Field(description="That invoice. Once it is paid, the next one decides.")
    new_sessions_stop_at: str | None = Field(description="From then on no new session is signed for.")
    signing_stops_at: str | None = Field(description="From then on nothing is signed.")


class BillingAnswer(Answer):
    """How a gateway is billed, what it owes, and what that holds back."""

    gateway_id: str
    currency: str = Field(examples=["USD"])
    balance: str
    credit_limit: str = Field(description="That holds now.")
    available: str = Field(description="balance + credit_limit: what can be spent now.")
    terms: TermsAnswer
    period: PeriodAnswer | None = Field(description="The one that runs; null for the moment after one has ended.")
    next_change: TermsAnswer | None = Field(description="What will hold from its `begins_at` on.")
    hold: Literal["none", "new_sessions", "signing"] = Field(description="What is not signed: `billing_hold`.")
    hold_reason: str = Field(description="Why; empty otherwise.")
    open_invoices: list[OpenInvoiceAnswer] = Field(description="By when they are due.")
    dunning: DunningAnswer


@router.get("/billing", response_model=BillingAnswer, **described(None))
async def read_billing(caller: Authenticated, wired: Wired) -> dict[str, Any]:
    """How the calling gateway is billed: way, terms, period, what changes next; what it owes, and what is held back."""
    async with wired.engine.connect() as connection:
        return await billing_document(connection, caller.gateway_id, wired.dunning)
