"""Money by bank transfer: it comes when it comes, and pays what waits for it."""

from __future__ import annotations

from typing import Any

import pytest
import stripe

from tests.settlement.stripe_local.parts import Running
from tests.settlement.stripe_local.test_checkout import session_of
from tests.settlement.stripe_local.test_invoices import open_one
from tests.settlement.stripe_local.test_payments import event_types

BY_TRANSFER: dict[str, Any] = {
    "collection_method": "send_invoice",
    "days_until_due": 30,
    "payment_settings": {
        "payment_method_types": ["customer_balance", "card"],
        "payment_method_options": {
            "customer_balance": {"funding_type": "bank_transfer", "bank_transfer": {"type": "us_bank_transfer"}}
        },
    },
}


async def customer_of(local: Running) -> str:
    return (await local.client.v1.customers.create_async({"email": "a@example.org"})).id


async def transferred(
    local: Running, customer: str, amount: int, currency: str = "usd", *, reference: str = "R1"
) -> None:
    funding = local.client.v1.test_helpers.customers
    await funding.fund_cash_balance_async(customer, {"amount": amount, "currency": currency, "reference": reference})


async def cash_of(local: Running, customer: str) -> dict[str, int]:
    balance = await local.client.v1.customers.cash_balance.retrieve_async(customer)
    return dict(balance.available.to_dict()) if balance.available else {}


async def intent_by_transfer(local: Running, customer: str, amount: int) -> stripe.PaymentIntent:
    wanted: Any = {
        "amount": amount,
        "currency": "usd",
        "customer": customer,
        "allowed_payment_method_types": ["customer_balance"],
        "payment_method_data": {"type": "customer_balance"},
        "payment_method_options": {
            "customer_balance": {"funding_type": "bank_transfer", "bank_transfer": {"type": "us_bank_transfer"}}
        },
        "confirm": True,
    }
    return await local.client.v1.payment_intents.create_async(wanted)


async def test_an_intent_says_where_to_transfer_to_and_succeeds_when_all_of_it_has_come(local: Running) -> None:
    customer = await customer_of(local)
    intent = await intent_by_transfer(local, customer, 5000)
    assert intent.status == "requires_action"
    assert intent.next_action is not None
    asked = intent.next_action.display_bank_transfer_instructions
    assert asked is not None
    assert (asked.type, asked.amount_remaining) == ("us_bank_transfer", 5000)
    assert str(asked.reference) in (await local.http.get(str(asked.hosted_instructions_url))).text
    await transferred(local, customer, 3000)
    assert (await local.client.v1.payment_intents.retrieve_async(intent.id)).status == "requires_action"
    assert await cash_of(local, customer) == {"usd": 3000}
    await transferred(local, customer, 2500)
    paid = await local.client.v1.payment_intents.retrieve_async(intent.id, {"expand": ["latest_charge"]})
    assert (paid.status, paid.amount_received) == ("succeeded", 5000)
    assert isinstance(paid.latest_charge, stripe.Charge)
    assert paid.latest_charge.payment_method_details is not None
    assert paid.latest_charge.payment_method_details.type == "customer_balance"
    assert await cash_of(local, customer) == {"usd": 500}
    moved = (await local.client.v1.customers.cash_balance_transactions.list_async(customer)).data
    assert [(one.type, one.net_amount) for one in moved] == [
        ("applied_to_payment", -5000),
        ("funded", 2500),
        ("funded", 3000),
    ]
    assert "cash_balance.funds_available" in await event_types(local)


async def test_what_is_there_already_pays_at_once(local: Running) -> None:
    customer = await customer_of(local)
    await transferred(local, customer, 5000)
    assert (await intent_by_transfer(local, customer, 5000)).status == "succeeded"


async def test_a_transfer_pays_what_it_is_exactly_enough_for_and_then_the_oldest(local: Running) -> None:
    customer = await customer_of(local)
    first, second = await intent_by_transfer(local, customer, 1000), await intent_by_transfer(local, customer, 1500)
    await transferred(local, customer, 1500)
    intents = local.client.v1.payment_intents
    assert [(await intents.retrieve_async(one.id)).status for one in (first, second)] == [
        "requires_action",
        "succeeded",
    ]
    await transferred(local, customer, 1200)
    assert (await intents.retrieve_async(first.id)).status == "succeeded"
    assert await cash_of(local, customer) == {"usd": 200}


async def test_money_in_another_currency_pays_nothing(local: Running) -> None:
    customer = await customer_of(local)
    intent = await intent_by_transfer(local, customer, 1000)
    await transferred(local, customer, 1000, "eur")
    assert (await local.client.v1.payment_intents.retrieve_async(intent.id)).status == "requires_action"
    with pytest.raises(stripe.InvalidRequestError) as caught:
        await transferred(local, customer, 1000, "chf")
    assert caught.value.code == "stripe_local_unsupported"


async def test_an_invoice_is_paid_by_a_transfer(local: Running) -> None:
    customer = await customer_of(local)
    invoice = await open_one(local, customer, 1000, **BY_TRANSFER)
    assert invoice.status == "open"
    await transferred(local, customer, 1000)
    paid = await local.client.v1.invoices.retrieve_async(invoice.id, {"expand": ["payments"]})
    assert (paid.status, paid.amount_paid) == ("paid", 1000)
    assert paid.payments is not None
    assert [one.status for one in paid.payments.data] == ["paid"]
    assert "invoice.paid" in await event_types(local)


async def test_a_transfer_pays_what_it_names_or_is_exact_for_then_invoices_then_intents(local: Running) -> None:
    customer, invoices = await customer_of(local), local.client.v1.invoices
    intent = await intent_by_transfer(local, customer, 700)
    first, second, third, fourth = [
        await open_one(local, customer, amount, **BY_TRANSFER) for amount in (1000, 1500, 300, 400)
    ]

    async def are_open() -> set[str]:
        listed = await invoices.list_async({"customer": customer, "status": "open"})
        return {one.id for one in listed.data}

    await transferred(local, customer, 1600, reference=f"for {second.number}, thank you")
    assert (await are_open(), await cash_of(local, customer)) == ({first.id, third.id, fourth.id}, {"usd": 100})
    await transferred(local, customer, 700)
    assert (await local.client.v1.payment_intents.retrieve_async(intent.id)).status == "succeeded", "one, not two"
    await transferred(local, customer, 700)
    assert await are_open() == {first.id}
    later = await intent_by_transfer(local, customer, 500)
    await transferred(local, customer, 1300)
    assert (await are_open(), await cash_of(local, customer)) == (set(), {"usd": 400})
    assert (await local.client.v1.payment_intents.retrieve_async(later.id)).status == "requires_action"


async def test_an_invoice_that_is_overdue_for_a_month_is_paid_when_somebody_says_so(local: Running) -> None:
    customer, intents = await customer_of(local), local.client.v1.payment_intents
    invoice = await open_one(local, customer, 1000, **BY_TRANSFER)
    await local.control("clock", advance_s=61 * 24 * 3600)
    (intent,) = (await intents.list_async({"customer": customer})).data
    await transferred(local, customer, 900)
    with pytest.raises(stripe.InvalidRequestError, match="not enough"):
        await intents.apply_customer_balance_async(intent.id)
    await transferred(local, customer, 200)
    assert (await local.client.v1.invoices.retrieve_async(invoice.id)).status == "open"
    assert (await intents.apply_customer_balance_async(intent.id)).status == "succeeded"
    assert (await local.client.v1.invoices.retrieve_async(invoice.id)).status == "paid"
    assert await cash_of(local, customer) == {"usd": 100}
    with pytest.raises(stripe.InvalidRequestError, match="succeeded"):
        await intents.apply_customer_balance_async(intent.id)


@pytest.mark.parametrize("currency", ["eur", "gbp", "jpy", "mxn"])
async def test_there_is_a_bank_for_each_currency_that_stripe_has_one_for(local: Running, currency: str) -> None:
    customer = await customer_of(local)
    made = await local.client.v1.payment_intents.create_async(
        {
            "amount": 1000,
            "currency": currency,
            "customer": customer,
            "allowed_payment_method_types": ["customer_balance"],
            "payment_method_data": {"type": "customer_balance"},
            "confirm": True,
        }  # type: ignore[arg-type]
    )
    assert made.next_action is not None
    said = made.next_action.display_bank_transfer_instructions
    assert said is not None
    assert said.type == f"{ {'gbp': 'gb', 'eur': 'eu', 'jpy': 'jp', 'mxn': 'mx'}[currency] }_bank_transfer"
    assert said.financial_addresses is not None
    assert len(said.financial_addresses) == 1


async def test_an_invoice_that_awaits_a_transfer_can_still_be_paid_by_card_and_is_paid_once(local: Running) -> None:
    customer = await customer_of(local)
    invoice = await open_one(local, customer, 1000, **BY_TRANSFER)
    with pytest.raises(stripe.CardError):
        await local.client.v1.invoices.pay_async(invoice.id, {"payment_method": "pm_card_chargeDeclined"})
    assert (await local.client.v1.invoices.pay_async(invoice.id, {"payment_method": "pm_card_visa"})).status == "paid"
    await transferred(local, customer, 1000)
    assert await cash_of(local, customer) == {"usd": 1000}


async def test_a_credit_note_lowers_what_a_transfer_has_to_bring(local: Running) -> None:
    customer = await customer_of(local)
    invoice = await open_one(local, customer, 1000, **BY_TRANSFER)
    await transferred(local, customer, 800)
    await local.client.v1.credit_notes.create_async({"invoice": invoice.id, "amount": 200})
    found = await local.client.v1.invoices.retrieve_async(invoice.id)
    assert (found.status, found.amount_paid) == ("paid", 800)


async def test_a_void_invoice_takes_no_transfer(local: Running) -> None:
    customer = await customer_of(local)
    invoice = await open_one(local, customer, 1000, **BY_TRANSFER)
    await local.client.v1.invoices.void_invoice_async(invoice.id)
    await transferred(local, customer, 1000)
    assert await cash_of(local, customer) == {"usd": 1000}


async def test_a_transfer_needs_an_invoice_that_is_sent_and_a_customer(local: Running) -> None:
    customer = await customer_of(local)
    settings: Any = {"payment_method_types": ["customer_balance"]}
    with pytest.raises(stripe.InvalidRequestError, match="send_invoice"):
        await local.client.v1.invoices.create_async({"customer": customer, "payment_settings": settings})
    with pytest.raises(stripe.InvalidRequestError, match="needs a customer"):
        await session_of(local, allowed_payment_method_types=["customer_balance"])


async def test_a_session_by_transfer_is_complete_before_it_is_paid(local: Running) -> None:
    customer = await customer_of(local)
    session = await session_of(
        local, customer=customer, allowed_payment_method_types=["card", "customer_balance"], payment_intent_data={}
    )
    await local.control(f"checkout/{session.id}/pay", card="customer_balance")
    sessions = local.client.v1.checkout.sessions
    done = await sessions.retrieve_async(session.id)
    assert (done.status, done.payment_status) == ("complete", "unpaid")
    await transferred(local, customer, 5000)
    assert (await sessions.retrieve_async(session.id)).payment_status == "paid"
    told = [kind for kind in await event_types(local) if kind.startswith("checkout.session")]
    assert told == ["checkout.session.completed", "checkout.session.async_payment_succeeded"]


async def test_a_refund_of_a_transfer_is_the_customers_cash_again(local: Running) -> None:
    customer = await customer_of(local)
    await transferred(local, customer, 5000)
    intent = await intent_by_transfer(local, customer, 5000)
    await local.client.v1.refunds.create_async({"payment_intent": intent.id, "amount": 2000})
    assert await cash_of(local, customer) == {"usd": 2000}
