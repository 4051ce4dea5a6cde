"""Rate cards over HTTP: what is sent and answered. A card itself is the document of docs/rates.md, in JSON."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from clearinghouse.api.bodies import Amount, Body, Instant, Text, Truth, Whole
from clearinghouse.api.shapes import Answer
from clearinghouse.rates.card import CardVersion
from clearinghouse.rates.document import digest, document, summary
from clearinghouse.rates.rules import StoredVersion, stored_summary


class RateTierDocument(Body):
    """Up to `up_to` units of a month, this price; the last tier has no end."""

    up_to: Text | None = Field(default=None, examples=["10000"])
    price: Text | None = Field(default=None, description="Of a unit.", examples=["0.10"])
    markup_bps: Whole | None = Field(default=None, description="In place of a price, per cost.")


class RateDocument(Body):
    """Which calls, by what unit, at which price."""

    application: Text | None = Field(default=None, description="Left out: any; so are the next two.")
    pipeline: Text | None = Field(default=None, examples=["live-video-to-video"])
    model: Text | None = None
    per: Literal["cost", "second", "minute", "720p-pixel-second", "request"] = Field(examples=["cost"])
    price: Text | None = Field(default=None, description="Of one unit.", examples=["0.10"])
    markup_bps: Whole | None = Field(default=None, description="Per cost, in place of a price.", examples=[500])
    tiers: list[RateTierDocument] | None = Field(default=None, description="In place of one price.")
    minimum_charge: Text | None = Field(default=None, description="Of a call that used or cost something.")
    floor: Literal["period", "call", "none"] | None = Field(default=None, description="Without it: period.")


class RateCardDocument(Body):
    """A version of a rate card, as `clearinghouse rates apply` reads it from a file."""

    card: Text = Field(examples=["standard"])
    version: Whole = Field(description="1, 2, …: each number once.", examples=[1])
    currency: Text = Field(examples=["USD"])
    effective_from: Instant
    note: Text | None = Field(default=None, description="For people.")
    rates: list[RateDocument] = Field(description="At least one.", examples=[[{"per": "cost", "markup_bps": 500}]])


class ChosenCard(Body):
    card: Text = Field(
        description='Name of a card; "none": no card, whatever the plan has; "inherit": what the plan has.',
        examples=["standard"],
    )


class ChosenPlanCard(Body):
    card: Text = Field(description='Name of a card, or "none".', examples=["standard"])
    below_cost: Truth = Field(
        default=False, description="Its gateways may be charged below cost, where a card says so."
    )


class NewQuote(Body):
    """A call as it might be. What is left out it does not have."""

    application: Text = ""
    pipeline: Text = Field(default="", examples=["live-video-to-video"])
    model: Text = ""
    seconds: Amount | None = Field(default=None, description="How long it was.", examples=["5"])
    pixels: Whole | None = Field(default=None, description="That it was billed for.")
    requests: Whole = 1
    ev_wei: Amount = Field(default="0", description="What its tickets are worth.", examples=["2000000000000"])
    eth_price: Amount | None = Field(default=None, description="Of one ETH; needed with ev_wei.", examples=["3120.50"])
    at: Instant | None = Field(default=None, description="When it is made; without it now.")
    card: Text | None = Field(default=None, description="By this card, and not by the gateway's own.")
    version: Whole | None = Field(default=None, description="Of that card; without it the newest that was applied.")


RATE_BODIES = (
    RateTierDocument, RateDocument, RateCardDocument, ChosenCard, ChosenPlanCard, NewQuote,
)  # fmt: skip


class RateCardVersionAnswer(Answer):
    """A version of a card."""

    card: str = Field(examples=["standard"])
    version: int
    currency: str = Field(examples=["USD"])
    effective_from: str
    rates: int = Field(description="How many.")
    applied_at: str
    applied_by: str


class RateCardVersionList(Answer):
    items: list[RateCardVersionAnswer] = Field(description="By card, in the order in which they take effect.")


class WholeRateCardVersionAnswer(RateCardVersionAnswer):
    document: dict[str, Any] = Field(description="The card as docs/rates.md describes it.")


class RateCardPreview(Answer):
    """What a card would be as a version."""

    card: str
    version: int
    currency: str
    effective_from: str
    rates: int
    sha256: str = Field(description="Of its document: cards that read alike have the same.")
    is_stored: bool = Field(description="Whether this very version was applied already.")


class GatewayCardAnswer(Answer):
    gateway_id: str
    rate_card: str = Field(description='That holds now, the plan\'s counted; "none" for none.')
    below_cost: bool = Field(description="Whether its calls may be charged below cost.")


class PlanCardAnswer(Answer):
    plan: str
    rate_card: str
    below_cost: bool
    gateways_count: int


class QuotePartAnswer(Answer):
    price: str
    quantity: str
    amount: str


class QuoteAnswer(Answer):
    """A charge, and how it comes about. What is no decimal is written as a fraction."""

    card: str
    version: int
    currency: str
    rate: str = Field(description="Which calls the rate is for.")
    per: str
    quantity: str
    quantity_before: str = Field(description="In the month so far.")
    parts: list[QuotePartAnswer]
    rounding: str
    usage_amount: str
    minimum_charge: str
    rated: str
    ev_wei: str
    eth_price: str
    eth_price_source: str
    cost: str
    floor: str
    by_floor: str
    charge: str
    margin: str


def version_answer(stored: StoredVersion) -> RateCardVersionAnswer:
    return RateCardVersionAnswer(**stored_summary(stored))


def whole_version_answer(stored: StoredVersion) -> WholeRateCardVersionAnswer:
    return WholeRateCardVersionAnswer(**stored_summary(stored), document=document(stored.version))


def preview_answer(version: CardVersion, *, is_stored: bool) -> RateCardPreview:
    return RateCardPreview(**summary(version), sha256=digest(version).hex(), is_stored=is_stored)
