"""A saved card, charged while nobody sits before a page."""

from __future__ import annotations

from decimal import Decimal

import pytest

from clearinghouse.payments import ChargeUnderWay
from tests.parts.paying import Till, states


async def test_a_saved_card_is_charged_and_the_credit_is_there_without_waiting_for_an_event(till: Till) -> None:
    gateway = await till.new_gateway()
    await till.save_card(gateway)
    payment_id = await till.asked_at_stripe(gateway, "card", "40")
    assert till.payment(payment_id)["state"] == "succeeded"
    await till.hear(repeat=10)
    assert till.entries(gateway) == [("payment", Decimal(40))]
    assert [charge.amount for charge in await till.charges()] == [4000]


async def test_without_a_saved_card_nothing_is_charged_and_the_gateway_hears_how_to_save_one(till: Till) -> None:
    gateway = await till.new_gateway()
    ended = till.payment(await till.asked_at_stripe(gateway, "card", "40"))
    assert (ended["state"], ended["failure"]) == ("failed", "no_card")
    assert "POST /v1/topups with method setup" in ended["said"]


@pytest.mark.parametrize(
    ("card", "failure", "said"),
    [
        ("pm_card_chargeCustomerFail", "generic_decline", "Save another card"),
        ("pm_card_authenticationRequired", "authentication_required", "only works at Stripe's page"),
    ],
)
async def test_a_declined_charge_says_why_and_what_can_be_done(till: Till, card: str, failure: str, said: str) -> None:
    gateway = await till.new_gateway()
    customer_id = till.rows("SELECT stripe_customer_id FROM customer")[0]["stripe_customer_id"]
    method = await till.sdk.v1.payment_methods.attach_async(card, {"customer": customer_id})
    till.rows("INSERT INTO saved_card VALUES (%s, %s, 'visa', '0341', 12, 2030) RETURNING 1", gateway, method.id)
    payment_id = await till.asked_at_stripe(gateway, "card", "40")
    await till.hear(repeat=2)
    ended = till.payment(payment_id)
    assert (ended["state"], ended["failure"]) == ("failed", failure)
    assert said in ended["said"]
    assert till.entries(gateway) == []
    assert await till.charges() == []
    intent = await till.sdk.v1.payment_intents.retrieve_async(str(ended["stripe_intent_id"]))
    assert intent.status == "canceled", "or somebody pays it beside the next one"
    await till.asked_at_stripe(gateway, "checkout", "40")  # which is what can be done
    assert states(till.payments(gateway)) == ["failed", "open"]


async def test_a_card_is_charged_once_at_a_time(till: Till) -> None:
    gateway = await till.new_gateway()
    await till.save_card(gateway)
    await till.ask(gateway, "card", "40")
    with pytest.raises(ChargeUnderWay):
        await till.ask(gateway, "card", "50")
    await till.work()
    await till.asked_at_stripe(gateway, "card", "50")
    assert till.balance(gateway) == 90


async def test_a_card_that_stripe_does_not_show_for_another_reason_is_still_saved(till: Till) -> None:
    gateway = await till.new_gateway()
    await till.save_card(gateway)
    (card,) = till.rows("SELECT payment_method_id FROM saved_card")
    await till.stripe.fault("status", method="GET", path="/v1/payment_methods/*", times=2, status=400)
    await till.handle("payment_method", card["payment_method_id"])
    assert till.rows("SELECT payment_method_id FROM saved_card") == [card]
    assert [said.split(":")[0] for said in till.parked] == [f"Stripe does not show {card['payment_method_id']}"]
