"""Saving a card without a payment: by a setup intent, or by a Checkout session that does nothing else."""

from __future__ import annotations

from typing import Any

import pytest
import stripe

from tests.settlement.stripe_local.parts import Running
from tests.settlement.stripe_local.test_checkout import session_of
from tests.settlement.stripe_local.test_payments import OFF_SESSION, event_types


async def saved(local: Running, customer: str) -> list[str]:
    return [one.id for one in (await local.client.v1.customers.payment_methods.list_async(customer)).data]


async def customer_of(local: Running) -> str:
    return (await local.client.v1.customers.create_async({"email": "a@example.org"})).id


async def setup_session(local: Running, customer: str) -> stripe.checkout.Session:
    made = {"mode": "setup", "customer": customer, "line_items": [], "payment_intent_data": {}}
    return await session_of(local, **made, setup_intent_data={"metadata": {"gateway": "acme"}})


async def test_a_card_saved_at_checkout_can_be_charged_off_session(local: Running) -> None:
    customer = await customer_of(local)
    session = await setup_session(local, customer)
    assert (session.mode, session.payment_status) == ("setup", "no_payment_required")
    assert "save a card" in (await local.http.get(session.url or "")).text
    back = await local.http.post(session.url or "", data={"card": "pm_card_visa"})
    assert back.headers["location"].startswith("https://shop.example/done")
    done = await local.client.v1.checkout.sessions.retrieve_async(session.id, {"expand": ["setup_intent"]})
    assert (done.status, done.payment_status, done.payment_intent) == ("complete", "no_payment_required", None)
    assert isinstance(done.setup_intent, stripe.SetupIntent)
    method = str(done.setup_intent.payment_method)
    assert (done.setup_intent.status, await saved(local, customer)) == ("succeeded", [method])
    assert done.setup_intent.metadata is not None
    assert done.setup_intent.metadata["gateway"] == "acme"
    charge: Any = {**OFF_SESSION, "customer": customer, "payment_method": method}
    assert (await local.client.v1.payment_intents.create_async(charge)).status == "succeeded"


async def test_a_card_that_asks_is_saved_once_its_bank_has_the_consent(local: Running) -> None:
    customer = await customer_of(local)
    session = await setup_session(local, customer)
    to_bank = await local.http.post(session.url or "", data={"card": "pm_card_authenticationRequired"})
    assert await saved(local, customer) == []
    page = local.base_url + to_bank.headers["location"]
    assert "Authorize" in (await local.http.get(page)).text
    await local.http.post(page, data={"consent": "yes"})
    assert len(await saved(local, customer)) == 1
    assert (await local.client.v1.checkout.sessions.retrieve_async(session.id)).status == "complete"


async def test_a_declined_card_is_not_saved_and_the_session_stays_open(local: Running) -> None:
    customer = await customer_of(local)
    session = await setup_session(local, customer)
    assert (await local.http.post(session.url or "", data={"card": "pm_card_chargeDeclined"})).status_code == 402
    assert (await local.client.v1.checkout.sessions.retrieve_async(session.id)).status == "open"
    assert await saved(local, customer) == []
    assert "setup_intent.setup_failed" in await event_types(local)


async def test_a_setup_intent_goes_through_its_states_and_no_others(local: Running) -> None:
    customer = await customer_of(local)
    setups = local.client.v1.setup_intents
    intent = await setups.create_async({"customer": customer, "usage": "off_session", "metadata": {"a": "1"}})
    assert intent.status == "requires_payment_method"
    with pytest.raises(stripe.InvalidRequestError) as caught:
        await setups.confirm_async(intent.id)
    assert caught.value.code == "setup_intent_unexpected_state"
    with pytest.raises(stripe.CardError) as declined:
        await setups.confirm_async(intent.id, {"payment_method": "pm_card_chargeDeclinedExpiredCard"})
    assert declined.value.code == "expired_card"
    assert (await setups.retrieve_async(intent.id)).last_setup_error is not None
    asked = await setups.confirm_async(intent.id, {"payment_method": "pm_card_authenticationRequired"})
    assert asked.status == "requires_action"
    await local.control(f"setup_intents/{intent.id}/authenticate", succeeds=False)
    assert (await setups.retrieve_async(intent.id)).status == "requires_payment_method"
    card: Any = {"payment_method": "pm_card_visa"}
    assert (await setups.confirm_async(intent.id, card)).status == "succeeded"
    assert len(await saved(local, customer)) == 1
    for refused in (setups.cancel_async(intent.id), setups.confirm_async(intent.id, card)):
        with pytest.raises(stripe.InvalidRequestError, match="status of succeeded"):
            await refused
    other = await setups.create_async({"customer": customer})
    assert (await setups.cancel_async(other.id)).status == "canceled"
    assert len((await setups.list_async({"customer": customer})).data) == 2


async def test_only_a_customers_cards_can_be_saved(local: Running) -> None:
    with pytest.raises(stripe.InvalidRequestError, match="needs a customer"):
        await session_of(local, mode="setup")
    with pytest.raises(stripe.InvalidRequestError) as caught:
        await local.client.v1.setup_intents.create_async({"allowed_payment_method_types": ["sepa_debit"]})
    assert caught.value.code == "stripe_local_unsupported"
