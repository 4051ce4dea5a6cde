"""A house with debtors over the local Stripe, or over Stripe itself."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

import psycopg
import pytest
import stripe
from pydantic import SecretStr
from sqlalchemy.ext.asyncio import AsyncEngine

from clearinghouse.config_payments import PaymentSettings
from clearinghouse.config_stripe import StripeSettings
from clearinghouse.database.connect import ADMIN_ROLE, WORK_ROLE, async_engine, in_role
from settlement.customers.stripe_copy import ensure_customer
from settlement.payments.asking import Asking
from settlement.payments.cards import save_card
from settlement.stripe_link.client import StripeLink, stripe_link
from settlement.stripe_link.desk import Desk
from tests.parts.invoiced import Debtor, Invoiced, invoiced
from tests.parts.paying import RETURN_URL, Till

KEY_NAME = "STRIPE_TEST_KEY"


@dataclass
class Tried:
    """`client` is the plain SDK, for what others do at Stripe; everything of ours goes through the house."""

    house: Invoiced
    client: stripe.StripeClient

    async def give_card(self, debtor: Debtor, card: str) -> None:
        """It has saved this one, as when Stripe tells of one that was entered at its page."""
        customer_id = await self.house.customer_at_stripe(debtor)
        method = await self.client.v1.payment_methods.attach_async(card, {"customer": customer_id})
        await save_card(self.house.desk, debtor.id, method.id)

    async def invoices_of(self, debtor: Debtor) -> list[stripe.Invoice]:
        """Stripe's, drafts and all: an account that was tried before has those of others, too."""
        customer_id = await self.house.customer_at_stripe(debtor)
        page = await self.client.v1.invoices.list_async({"customer": customer_id, "limit": 100})
        return list(page.data)


@asynccontextmanager
async def over_local_stripe(conninfo: str) -> AsyncIterator[Tried]:
    async with invoiced(conninfo) as house:
        yield Tried(house, house.stripe.running.client)


@asynccontextmanager
async def over_stripe_itself(conninfo: str) -> AsyncIterator[Tried]:
    """Skips the test, aloud, without a key; refuses one that moves real money."""
    async with _itself(conninfo) as (linked, admin, engine):
        with psycopg.connect(conninfo, autocommit=True) as owner:
            house = Invoiced(conninfo, owner, admin, engine, linked)  # type: ignore[arg-type] # see there
            yield Tried(house, linked.running.client)


@asynccontextmanager
async def till_over_stripe_itself(conninfo: str) -> AsyncIterator[Till]:
    """The same for payments."""
    async with _itself(conninfo) as (linked, admin, engine):
        desk = Desk(linked.link, engine)
        asking = Asking(desk, ensure_customer, PaymentSettings(return_url=RETURN_URL))
        yield Till(conninfo, linked, admin, desk, asking)  # type: ignore[arg-type] # see there


@asynccontextmanager
async def _itself(conninfo: str) -> AsyncIterator[tuple[_Linked, AsyncEngine, AsyncEngine]]:
    """With the engines of operator and worker."""
    key = os.environ.get(KEY_NAME, "")
    if not key:
        pytest.skip(f"STRIPE ITSELF IS NOT TRIED: {KEY_NAME} is not set")
    if not key.startswith(("sk_test_", "rk_test_")):
        pytest.fail(f"{KEY_NAME} is not a key of test mode: these tests charge cards")
    admin = async_engine(in_role(conninfo, ADMIN_ROLE))
    engine = async_engine(in_role(conninfo, WORK_ROLE), pool_size=10)
    http = stripe.HTTPXClient(timeout=60)
    try:
        async with stripe_link(StripeSettings(api_key=SecretStr(key), retry_for_s=60)) as link:
            yield _Linked(link, _Reached(stripe.StripeClient(key, http_client=http))), admin, engine
    finally:
        await http.close_async()
        await admin.dispose()
        await engine.dispose()


@dataclass(frozen=True)
class _Reached:
    client: stripe.StripeClient


@dataclass(frozen=True)
class _Linked:
    """Of tests.parts.stripe.LinkedStripe what does not need a server of ours."""

    link: StripeLink
    running: _Reached
