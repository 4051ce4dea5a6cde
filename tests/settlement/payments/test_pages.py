"""Stripe's pages: a link, a payment, a card that is saved."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest

from clearinghouse import payments
from clearinghouse.errors import IdempotencyConflict
from clearinghouse.ids import show
from clearinghouse.payments import TooManyPayments
from settlement.customers.stripe_copy import ensure_customer
from settlement.payments.operators import enter_receipt
from tests.parts.paying import Till


async def test_a_link_is_paid_and_the_credit_is_there_once_however_often_stripe_tells(till: Till) -> None:
    gateway = await till.new_gateway()
    payment_id = await till.asked_at_stripe(gateway, "checkout", "25.50")
    asked = till.payment(payment_id)
    assert (asked["state"], asked["url"].startswith(till.stripe.base_url)) == ("open", True)
    assert asked["expires_at"] > asked["created_at"]
    assert till.entries(gateway) == []
    await till.pay_page(payment_id)
    await till.hear(repeat=3)
    paid = till.payment(payment_id)
    assert (paid["state"], paid["stripe_charge_id"]) == ("succeeded", (await till.charges())[0].id)
    assert till.entries(gateway) == [("payment", Decimal("25.50"))]
    assert till.balance(gateway) == Decimal("25.5")
    assert till.parked == []


async def test_what_is_made_at_stripe_says_whose_it_is(till: Till) -> None:
    gateway = await till.new_gateway()
    payment_id = await till.asked_at_stripe(gateway, "checkout", "25")
    await till.pay_page(payment_id)
    (charge,) = await till.charges()
    intent = await till.sdk.v1.payment_intents.retrieve_async(str(charge.payment_intent))
    expected = {"clearinghouse_payment": show("pay", payment_id), "clearinghouse_gateway_id": show("gw", gateway)}
    assert intent.metadata.to_dict() == expected
    session = await till.sdk.v1.checkout.sessions.retrieve_async(till.payment(payment_id)["stripe_session_id"])
    assert session.metadata is not None
    assert (session.metadata.to_dict(), session.client_reference_id) == (expected, show("pay", payment_id))


async def test_a_link_that_nobody_uses_expires_and_says_what_to_do(till: Till) -> None:
    gateway = await till.new_gateway()
    payment_id = await till.asked_at_stripe(gateway, "checkout", "25")
    await till.stripe.control("clock", advance_s=86_401)
    await till.hear()
    ended = till.payment(payment_id)
    assert (ended["state"], ended["said"]) == ("expired", "The link was not used in time: ask for another.")
    assert till.entries(gateway) == []


@pytest.mark.parametrize("told", [True, False])
async def test_a_second_page_that_expires_leaves_the_first_to_be_paid(till: Till, told: bool) -> None:
    """As when Stripe had forgotten the key of the first; whether or not its maker lived to tell of it."""
    gateway = await till.new_gateway()
    customer_id = await ensure_customer(till.desk, gateway)
    payment_id = await till.ask(gateway, "checkout", "25")
    till.rows("UPDATE payment SET stripe_customer_id = %s, attempts_count = 1 RETURNING 1", customer_id)
    price = {"currency": "usd", "unit_amount": 2500, "product_data": {"name": "Credit"}}
    shown = {"clearinghouse_payment": show("pay", payment_id)}
    page: Any = {
        "customer": customer_id, "mode": "payment", "line_items": [{"price_data": price, "quantity": 1}],
        "metadata": shown, "payment_intent_data": {"metadata": shown}, "success_url": "https://gateway.example",
    }  # fmt: skip
    pages = till.sdk.v1.checkout.sessions
    first = await pages.create_async(page)
    if told:
        await till.work()
    await till.stripe.control("clock", advance_s=1)
    second = await pages.create_async(page)
    await pages.expire_async(second.id)
    await till.hear()
    assert till.payment(payment_id)["state"] == ("open" if told else "requested")
    till.due_now()
    await till.work()
    assert till.payment(payment_id)["stripe_session_id"] == first.id
    await till.pay_page(payment_id)
    await till.hear()
    assert (till.entries(gateway), till.parked) == ([("payment", Decimal(25))], [])


async def test_a_card_that_is_declined_at_the_page_leaves_the_link_open_for_another(till: Till) -> None:
    gateway = await till.new_gateway()
    payment_id = await till.asked_at_stripe(gateway, "checkout", "25")
    with pytest.raises(AssertionError, match="declined"):
        await till.pay_page(payment_id, "pm_card_chargeDeclined")
    await till.hear()
    assert till.payment(payment_id)["state"] == "open"
    await till.pay_page(payment_id)
    await till.hear()
    assert till.entries(gateway) == [("payment", Decimal(25))]


async def test_a_card_is_saved_with_a_payment_if_that_was_asked_for(till: Till) -> None:
    gateway, other = await till.new_gateway(), await till.new_gateway()
    for who, saves in ((gateway, True), (other, False)):
        payment_id = await till.asked_at_stripe(who, "checkout", "5", saves_card=saves)
        await till.pay_page(payment_id)
    await till.hear()
    saved = till.rows("SELECT gateway_id, brand, last4, refused FROM saved_card")
    assert saved == [{"gateway_id": gateway, "brand": "visa", "last4": "4242", "refused": None}]


async def test_a_card_is_saved_without_a_payment_and_replaces_the_one_before(till: Till) -> None:
    gateway = await till.new_gateway()
    await till.save_card(gateway)
    first = till.rows("SELECT * FROM saved_card")
    await till.save_card(gateway, "pm_card_mastercard")
    (second,) = till.rows("SELECT * FROM saved_card")
    assert (first[0]["brand"], second["brand"]) == ("visa", "mastercard")
    for event in await till.events():  # all of it again: an old event does not bring the old card back
        await till.handled(event)
    assert till.rows("SELECT * FROM saved_card") == [second]
    assert till.entries(gateway) == []


async def test_an_older_card_that_is_heard_of_last_does_not_take_the_place_of_a_newer_one(till: Till) -> None:
    gateway = await till.new_gateway()
    late = await till.asked_at_stripe(gateway, "setup", None)
    await till.pay_page(late)
    till.heard |= {event.id for event in await till.news()}  # which got lost
    await till.stripe.control("clock", advance_s=2)
    await till.save_card(gateway, "pm_card_mastercard")
    await till.sweep()
    assert till.payment(late)["state"] == "succeeded"
    assert [card["brand"] for card in till.rows("SELECT brand FROM saved_card")] == ["mastercard"]


async def test_a_card_that_is_taken_away_at_stripe_is_not_saved_any_more(till: Till) -> None:
    gateway = await till.new_gateway()
    await till.save_card(gateway)
    (saved,) = till.rows("SELECT payment_method_id FROM saved_card")
    await till.sdk.v1.payment_methods.detach_async(saved["payment_method_id"])
    await till.hear()
    assert till.rows("SELECT * FROM saved_card") == []


async def test_the_same_key_is_one_payment_and_another_request_under_it_is_refused(till: Till) -> None:
    gateway = await till.new_gateway()
    first = await till.ask(gateway, "checkout", "25", key="order-7")
    assert await till.ask(gateway, "checkout", "25.00", key="order-7") == first
    with pytest.raises(IdempotencyConflict):
        await till.ask(gateway, "checkout", "26", key="order-7")
    assert await till.ask(await till.new_gateway(), "checkout", "26", key="order-7") != first


async def test_nobody_can_ask_without_end(till: Till) -> None:
    gateway = await till.new_gateway()
    for _ in range(20):
        await till.ask(gateway, "checkout", "5")
    with pytest.raises(TooManyPayments):
        await till.ask(gateway, "checkout", "5")
    async with till.engine.begin() as connection:  # what has come is entered all the same
        await enter_receipt(connection, gateway, "wire", Decimal(5), reference="1", reason="", actor="cli:ann")


async def test_nobody_tries_cards_without_end(till: Till) -> None:
    gateway = await till.new_gateway()

    async def ask(key: str | None, actor: str) -> None:
        async with till.engine.begin() as connection:
            await payments.request(connection, gateway, "card", Decimal(5), key=key, actor=actor)
        await till.work()

    for count in range(20):
        await ask(f"try-{count}", "gateway:key_1")
    with pytest.raises(TooManyPayments, match="failed"):
        await ask(None, "gateway:key_1")
    await ask("try-3", "gateway:key_1")  # only asks how that went
    await ask(None, "cli:ann")
    assert [row["state"] for row in till.payments(gateway) if row["method"] == "card"] == ["failed"] * 21


@pytest.mark.parametrize(
    ("currency", "amount", "said"),
    [
        ("USD", "0.001", "smallest unit"),
        ("USD", "0.49", "too little"),
        ("JPY", "100.5", "smallest unit"),
        ("USD", "1000000", "too much"),
        ("ETH", "1", "nothing is billed in"),
    ],
)
async def test_what_cannot_be_paid_is_refused_before_stripe_is_asked(
    till: Till, currency: str, amount: str, said: str
) -> None:
    gateway = await till.new_gateway(currency=currency)
    payment_id = await till.asked_at_stripe(gateway, "checkout", amount)
    ended = till.payment(payment_id)
    assert (ended["state"], ended["failure"]) == ("failed", "invalid_amount")
    assert said in ended["said"]
    assert till.stripe.asked("POST", "/v1/checkout/sessions") == 0


@pytest.mark.parametrize(("currency", "amount", "minor"), [("JPY", "500", 500), ("KWD", "1.25", 1250)])
async def test_amounts_have_the_minor_units_of_their_currency(
    till: Till, currency: str, amount: str, minor: int
) -> None:
    gateway = await till.new_gateway(currency=currency)
    payment_id = await till.asked_at_stripe(gateway, "checkout", amount)
    await till.pay_page(payment_id)
    await till.hear()
    assert [charge.amount for charge in await till.charges()] == [minor]
    assert till.entries(gateway) == [("payment", Decimal(amount))]


async def test_what_stripe_says_otherwise_than_it_was_asked_for_is_parked_and_not_booked(till: Till) -> None:
    gateway, thief = await till.new_gateway(), await till.new_gateway()
    payment_id = await till.asked_at_stripe(gateway, "checkout", "25")
    shown = {"clearinghouse_payment": show("pay", payment_id)}
    for customer, amount, currency in ((gateway, 2600, "usd"), (gateway, 2500, "eur"), (thief, 2500, "usd")):
        ((customer_id,),) = [
            row.values() for row in till.rows("SELECT stripe_customer_id FROM customer WHERE gateway_id = %s", customer)
        ]
        await till.sdk.v1.payment_intents.create_async({
            "amount": amount, "currency": currency, "customer": customer_id, "confirm": True, "metadata": shown,
            "payment_method": "pm_card_visa", "return_url": "https://gateway.example",
        })  # fmt: skip
    await till.hear()
    assert till.entries(gateway) == till.entries(thief) == []
    assert till.payment(payment_id)["state"] == "open"
    assert len(set(till.parked)) == 3
    assert all("was asked for as" in reason for reason in till.parked)


async def test_who_pays_twice_is_credited_once_and_somebody_is_told(till: Till) -> None:
    gateway = await till.new_gateway()
    payment_id = await till.asked_at_stripe(gateway, "checkout", "25")
    await till.pay_page(payment_id)
    await till.hear()
    paid = till.payment(payment_id)
    await till.sdk.v1.payment_intents.create_async({
        "amount": 2500, "currency": "usd", "customer": paid["stripe_customer_id"], "confirm": True,
        "metadata": {"clearinghouse_payment": show("pay", payment_id)}, "payment_method": "pm_card_visa",
        "return_url": "https://gateway.example",
    })  # fmt: skip
    await till.hear()
    assert till.entries(gateway) == [("payment", Decimal(25))]
    assert "was paid twice" in till.parked[0]
