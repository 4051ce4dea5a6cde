"""Checkout: a link, a page, a payment, and the way back."""

from __future__ import annotations

from typing import Any

import pytest
import stripe

from tests.settlement.stripe_local.parts import Running
from tests.settlement.stripe_local.test_payments import event_types


async def session_of(local: Running, **more: Any) -> stripe.checkout.Session:
    wanted: Any = {
        "mode": "payment",
        "success_url": "https://shop.example/done?session={CHECKOUT_SESSION_ID}",
        "line_items": [
            {"price_data": {"currency": "usd", "unit_amount": 2500, "product_data": {"name": "Credit"}}, "quantity": 2}
        ],
        "metadata": {"topup": "7"},
        "payment_intent_data": {"metadata": {"topup": "7"}, "setup_future_usage": "off_session"},
        **more,
    }
    return await local.client.v1.checkout.sessions.create_async(wanted)


async def test_a_paid_session_is_complete_and_leads_back_and_its_card_is_saved(local: Running) -> None:
    customer = await local.client.v1.customers.create_async({"email": "a@example.org"})
    session = await session_of(local, customer=customer.id)
    assert (session.status, session.payment_status, session.amount_total) == ("open", "unpaid", 5000)
    assert session.url is not None
    assert "5000 minor units of usd" in (await local.http.get(session.url)).text
    back = await local.http.post(session.url, data={"card": "pm_card_visa"})
    assert back.headers["location"] == f"https://shop.example/done?session={session.id}"
    done = await local.client.v1.checkout.sessions.retrieve_async(
        session.id, {"expand": ["payment_intent", "line_items"]}
    )
    assert (done.status, done.payment_status, done.url) == ("complete", "paid", None)
    intent = done.payment_intent
    assert isinstance(intent, stripe.PaymentIntent)
    assert (intent.amount_received, intent.metadata["topup"]) == (5000, "7")
    assert done.line_items is not None
    assert [item.amount_total for item in done.line_items.data] == [5000]
    (card,) = (await local.client.v1.customers.payment_methods.list_async(customer.id)).data
    assert card.id == intent.payment_method
    assert (await event_types(local))[-1] == "checkout.session.completed"
    assert (await local.http.post(session.url, data={"card": "pm_card_visa"})).status_code == 400
    assert len((await local.client.v1.charges.list_async()).data) == 1


async def test_a_declined_card_leaves_the_session_open_for_another(local: Running) -> None:
    session = await session_of(local)
    refused = await local.http.post(session.url or "", data={"card": "pm_card_chargeDeclinedInsufficientFunds"})
    assert (refused.status_code, "insufficient funds" in refused.text) == (402, True)
    assert (await local.client.v1.checkout.sessions.retrieve_async(session.id)).status == "open"
    assert "payment_intent.payment_failed" in await event_types(local)
    await local.control(f"checkout/{session.id}/pay")
    assert (await local.client.v1.checkout.sessions.retrieve_async(session.id)).payment_status == "paid"


async def test_a_card_that_asks_leads_over_the_banks_page(local: Running) -> None:
    session = await session_of(local)
    to_bank = await local.http.post(session.url or "", data={"card": "pm_card_authenticationRequired"})
    assert (await local.client.v1.checkout.sessions.retrieve_async(session.id)).status == "open"
    page = local.base_url + to_bank.headers["location"]
    assert "Authorize" in (await local.http.get(page)).text
    back = await local.http.post(page, data={"consent": "yes"})
    assert back.headers["location"].startswith("https://shop.example/done")
    assert (await local.client.v1.checkout.sessions.retrieve_async(session.id)).status == "complete"


async def test_a_session_expires_when_it_is_told_to_or_after_a_day_and_cannot_be_paid_then(local: Running) -> None:
    told, late = await session_of(local), await session_of(local)
    assert (await local.client.v1.checkout.sessions.expire_async(told.id)).status == "expired"
    await local.control("clock", advance_s=86_400)
    assert (await local.client.v1.checkout.sessions.retrieve_async(late.id)).status == "expired"
    assert (await event_types(local)).count("checkout.session.expired") == 2
    for session in (told, late):
        assert (await local.http.post(session.url or "", data={"card": "pm_card_visa"})).status_code == 400
        with pytest.raises(stripe.InvalidRequestError, match="Only Checkout Sessions with a status of open"):
            await local.client.v1.checkout.sessions.expire_async(session.id)


@pytest.mark.parametrize(
    "wanted",
    [
        {"mode": "subscription"},
        {"invoice_creation": {"enabled": True}},
        {"allow_promotion_codes": True},
        {"allowed_payment_method_types": ["klarna"]},
    ],
    ids=str,
)
async def test_what_stripe_does_and_this_server_does_not_is_said_and_not_left_out(
    local: Running, wanted: dict[str, Any]
) -> None:
    with pytest.raises(stripe.InvalidRequestError) as caught:
        await session_of(local, **wanted)
    assert caught.value.code == "stripe_local_unsupported"


@pytest.mark.parametrize(
    "wanted",
    [
        {"line_items": []},
        {"line_items": [{"quantity": 1}]},
        {"line_items": [{"price": "price_none", "quantity": 1}]},
        {"success_url": ""},
        {"expires_at": 1},
        {"customer": "cus_none"},
        {"ui_mode": "embedded_page"},
    ],
    ids=str,
)
async def test_a_session_that_nobody_could_pay_is_refused(local: Running, wanted: dict[str, Any]) -> None:
    with pytest.raises(stripe.InvalidRequestError):
        await session_of(local, **wanted)
    assert (await local.client.v1.checkout.sessions.list_async()).data == []


async def test_a_session_takes_a_price_and_keeps_a_reference(local: Running) -> None:
    price = await local.client.v1.prices.create_async(
        {"currency": "jpy", "unit_amount": 700, "product_data": {"name": "Credit"}}
    )
    lines: Any = [{"price": price.id, "quantity": 3}]
    session = await session_of(local, line_items=lines, client_reference_id="topup-7", customer_email="a@example.org")
    assert (session.amount_total, session.currency, session.client_reference_id) == (2100, "jpy", "topup-7")
    (item,) = (await local.client.v1.checkout.sessions.line_items.list_async(session.id)).data
    assert (item.quantity, item.amount_total) == (3, 2100)
    await local.client.v1.checkout.sessions.update_async(session.id, {"metadata": {"note": "x"}})
    await local.control(f"checkout/{session.id}/pay")
    paid = await local.client.v1.checkout.sessions.retrieve_async(session.id)
    assert paid.customer_details is not None
    assert (paid.customer_details.email, paid.metadata and paid.metadata["note"]) == ("a@example.org", "x")
    with_both: Any = {"customer": "cus_x", "customer_email": "a@example.org"}
    with pytest.raises(stripe.InvalidRequestError):
        await session_of(local, **with_both)
