"""What is promised of payments, over the local Stripe and over Stripe itself (test_both.py has how).

What only a person can do, at Stripe's page, is done with the same objects by the plain SDK. The account has to take US
bank transfers.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from decimal import Decimal
from typing import Any
from uuid import UUID

import pytest

from clearinghouse.ids import show
from settlement.customers.stripe_copy import ensure_customer
from settlement.payments.operators import refund
from settlement.payments.record import PAYMENT_KEY
from tests.parts.paying import Till, paying
from tests.settlement.stripe_itself.parts import till_over_stripe_itself

WITHIN_S = 120


@pytest.fixture(params=["local", "itself"])
async def till(request: pytest.FixtureRequest, database: str) -> AsyncIterator[Till]:
    over = paying if request.param == "local" else till_over_stripe_itself
    async with over(database) as made:
        yield made


async def test_a_link_leads_to_stripes_page_until_it_has_expired(till: Till) -> None:
    gateway = await till.new_gateway()
    payment_id = await till.asked_at_stripe(gateway, "checkout", "25")
    asked = till.payment(payment_id)
    session = await till.sdk.v1.checkout.sessions.retrieve_async(asked["stripe_session_id"])
    assert (asked["state"], asked["url"]) == ("open", session.url)
    assert (session.amount_total, session.currency, session.mode) == (2500, "usd", "payment")
    await till.sdk.v1.checkout.sessions.expire_async(session.id)
    await _seen(till, lambda: till.payment(payment_id)["state"] == "expired")
    assert till.entries(gateway) == []


async def test_a_saved_card_pays_once_and_part_of_it_goes_back(till: Till) -> None:
    gateway = await _with_card(till, "pm_card_visa")
    payment_id = await till.asked_at_stripe(gateway, "card", "40")
    assert till.payment(payment_id)["state"] == "succeeded"
    await till.handle("payment_intent", till.payment(payment_id)["stripe_intent_id"])
    assert till.entries(gateway) == [("payment", Decimal(40))]
    async with till.engine.begin() as connection:
        await refund(connection, payment_id, Decimal(15), reason="a mistake", actor="cli:ann")
    await till.work()
    await _seen(till, lambda: till.balance(gateway) == 25)
    assert till.entries(gateway) == [("payment", Decimal(40)), ("refund", Decimal(-15))]


async def test_a_card_that_is_declined_says_why_and_gives_no_credit(till: Till) -> None:
    gateway = await _with_card(till, "pm_card_chargeCustomerFail")
    payment_id = await till.asked_at_stripe(gateway, "card", "40")
    ended = till.payment(payment_id)
    assert (ended["state"], ended["failure"]) == ("failed", "generic_decline")
    assert "Save another card" in ended["said"]
    assert till.entries(gateway) == []


async def test_a_dispute_takes_the_money_and_stops_signing(till: Till) -> None:
    gateway = await _with_card(till, "pm_card_createDispute")
    payment_id = await till.asked_at_stripe(gateway, "card", "40")
    charge_id = till.payment(payment_id)["stripe_charge_id"]
    async with asyncio.timeout(WITHIN_S):
        while not (found := (await till.sdk.v1.disputes.list_async({"charge": charge_id})).data):
            await asyncio.sleep(1)
    await till.handle("dispute", found[0].id)
    assert till.entries(gateway) == [("payment", Decimal(40)), ("dispute", Decimal(-40))]
    assert till.hold(gateway) == "signing"


async def test_a_bank_transfer_is_credited_when_it_has_come(till: Till) -> None:
    gateway = await till.new_gateway()
    payment_id = await till.asked_at_stripe(gateway, "bank_transfer", "50")
    assert till.payment(payment_id)["instructions"]["type"] == "us_bank_transfer"
    await till.transferred(gateway, 5000)
    await _seen(till, lambda: till.payment(payment_id)["state"] == "succeeded")
    assert till.entries(gateway) == [("payment", Decimal(50))]


async def _with_card(till: Till, card: str) -> UUID:
    """Saved as by Stripe's page: under the name of what was asked for."""
    gateway = await till.new_gateway()
    payment_id = await till.asked_at_stripe(gateway, "setup", None)
    wanted: Any = {
        "customer": await ensure_customer(till.desk, gateway), "payment_method": card,
        "automatic_payment_methods": {"enabled": True, "allow_redirects": "never"},
        "confirm": True, "usage": "off_session", "metadata": {PAYMENT_KEY: show("pay", payment_id)},
    }  # fmt: skip
    setup = await till.sdk.v1.setup_intents.create_async(wanted)
    await till.handle("setup_intent", setup.id)
    assert till.payment(payment_id)["state"] == "succeeded"
    return gateway


async def _seen(till: Till, is_there: Callable[[], bool]) -> None:
    """By looking at what is not final, as events are not delivered to a test."""
    async with asyncio.timeout(WITHIN_S):
        while True:
            await till.sweep()
            await till.work()
            if is_there():
                return
            await asyncio.sleep(1)
