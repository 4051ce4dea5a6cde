"""Customers over HTTP: what is sent, and what is answered. The rest is judged by settlement/customers."""

from __future__ import annotations

from pydantic import Field

from clearinghouse.api.billing import PeriodAnswer, TermsAnswer
from clearinghouse.api.bodies import Amount, Body, Text, Truth, Whole
from clearinghouse.api.shapes import Answer


class CustomerDetails(Body):
    """What is left out stays as it is; "" takes away what may be missing. A new customer needs name and email."""

    name: Text | None = Field(default=None, description="As it stands on invoices.", examples=["Acme GmbH"])
    email: Text | None = Field(default=None, description="Where invoices go.", examples=["billing@acme.example"])
    line1: Text | None = Field(default=None, description="Street and number.")
    line2: Text | None = Field(default=None, description="What else the address has.")
    city: Text | None = None
    postal_code: Text | None = None
    state: Text | None = Field(default=None, description="State, county, province or region.")
    country: Text | None = Field(default=None, description="ISO 3166.", examples=["DE"])
    tax_id: Text | None = Field(
        default=None, description="TYPE:NUMBER, as Stripe names types.", examples=["eu_vat:DE123456789"]
    )
    is_taxed: Truth | None = Field(default=None, description="Whether Stripe Tax is asked for its invoices' tax.")
    locale: Text | None = Field(default=None, description="Language of invoices.", examples=["pt-BR"])
    po_number: Text | None = Field(default=None, description="Purchase order, printed on invoices.")
    collection: Text | None = Field(
        default=None,
        description="send_invoice, charge_automatically, or manual: without Stripe.",
        examples=["send_invoice"],
    )
    net_days: Whole | None = Field(default=None, description="From an invoice until it is due.", examples=[14])


class NewTerms(Body):
    """What is left out stays as it was before; another way begins with nothing of the old one."""

    begins: Text = Field(
        default="next",
        description='Of a period: "next", its month, or its first day; "start": of a gateway nothing was signed for.',
        examples=["2026-12"],
    )
    way: Text | None = Field(
        default=None, description="prepaid, automatic, postpaid, subscription or free.", examples=["postpaid"]
    )
    cadence: Text | None = Field(default=None, examples=["monthly:15"])
    time_zone: Text | None = Field(default=None, description="Whose midnight it is.", examples=["Europe/Berlin"])
    credit_limit: Amount | None = Field(default=None, description="Of postpaid and subscription.", examples=["500"])
    refill_below: Amount | None = Field(default=None, description="Automatic: a balance below it is topped up …")
    refill_to: Amount | None = Field(default=None, description="… to this.")
    refill_cooldown: Text | None = Field(default=None, description="The least time between two.", examples=["1h"])
    refill_day_max: Amount | None = Field(default=None, description="The most in a day of UTC.")
    refill_month_max: Amount | None = Field(default=None, description="The most in a month of UTC.")
    fee: Amount | None = Field(default=None, description="Of a subscription, for each period, in advance.")
    included: Amount | None = Field(default=None, description="Usage that is in it.")
    ends_at: Text | None = Field(
        default=None, description="Free: when nothing is signed any more.", examples=["2030-01-01T00:00:00Z"]
    )


class EndOfFreeTerms(Body):
    ends_at: Text = Field(description='RFC 3339, still to come; "never": no end.', examples=["2030-01-01T00:00:00Z"])


class AddressAnswer(Answer):
    line1: str
    line2: str
    city: str
    postal_code: str
    state: str
    country: str | None


class StripeCopyAnswer(Answer):
    """What Stripe has of a customer."""

    customer_id: str | None
    is_in_step: bool = Field(description="Whether Stripe has been told all of it.")
    refusal: str | None = Field(description="Why Stripe does not take it.")


class CustomerAnswer(Answer):
    """Who pays for a gateway."""

    gateway_id: str
    name: str
    email: str
    address: AddressAnswer
    tax_id: str | None
    is_taxed: bool
    currency: str
    locale: str
    po_number: str
    collection: str
    net_days: int
    stripe: StripeCopyAnswer
    changed_at: str
    changed_by: str


class CustomerList(Answer):
    items: list[CustomerAnswer] = Field(description="In the order of their names.")


class ScheduleAnswer(Answer):
    """How a gateway is billed, in which period it is, and what is to come."""

    terms: TermsAnswer
    period: PeriodAnswer
    to_come: list[TermsAnswer]
