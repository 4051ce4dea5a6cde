"""Who is billed, and at what prices: customers with what belongs to them, products, prices and tax rates."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest
import stripe

from tests.settlement.stripe_local.parts import Running
from tests.settlement.stripe_local.test_payments import event_types


async def test_a_customer_keeps_what_an_invoice_needs(local: Running) -> None:
    wanted: Any = {
        "name": "Acme GmbH",
        "email": "billing@example.org",
        "address": {"country": "DE", "city": "Berlin", "line1": "Weg 1", "postal_code": "10115"},
        "preferred_locales": ["de", "en"],
        "tax_exempt": "reverse",
        "tax_id_data": [{"type": "eu_vat", "value": "DE123456789"}],
        "invoice_settings": {"footer": "Thank you", "custom_fields": [{"name": "PO", "value": "4711"}]},
        "balance": -500,
        "expand": ["tax_ids"],
    }
    made = await local.client.v1.customers.create_async(wanted)
    assert (made.name, made.balance, made.currency, made.tax_exempt) == ("Acme GmbH", -500, "usd", "reverse")
    assert made.tax_ids is not None
    (tax_id,) = made.tax_ids.data
    assert (tax_id.type, tax_id.value, tax_id.country) == ("eu_vat", "DE123456789", "DE")
    assert made.invoice_settings is not None
    assert made.invoice_settings.footer == "Thank you"
    invoice = await local.client.v1.invoices.create_async({"customer": made.id})
    assert invoice.customer_address is not None
    assert invoice.customer_tax_ids is not None
    assert (invoice.customer_name, invoice.customer_address.country) == ("Acme GmbH", "DE")
    assert [one.value for one in invoice.customer_tax_ids] == ["DE123456789"]


async def test_tax_ids_come_and_go(local: Running) -> None:
    customer = await local.client.v1.customers.create_async({})
    tax_ids = local.client.v1.customers.tax_ids
    made = await tax_ids.create_async(customer.id, {"type": "us_ein", "value": "12-3456789"})
    assert [one.id for one in (await tax_ids.list_async(customer.id)).data] == [made.id]
    assert (await tax_ids.delete_async(customer.id, made.id)).deleted is True
    assert (await tax_ids.list_async(customer.id)).data == []


async def test_the_credit_balance_is_the_sum_of_its_movements(local: Running) -> None:
    customer = await local.client.v1.customers.create_async({"balance": 100})
    await local.client.v1.customers.balance_transactions.create_async(
        customer.id, {"amount": -300, "currency": "usd", "description": "goodwill"}
    )
    assert (await local.client.v1.customers.update_async(customer.id, {"balance": 50})).balance == 50
    moved = (await local.client.v1.customers.balance_transactions.list_async(customer.id)).data
    assert [(one.amount, one.ending_balance, one.type) for one in moved] == [
        (250, 50, "adjustment"),
        (-300, -200, "adjustment"),
        (100, 100, "initial"),
    ]


async def test_a_default_card_must_be_the_customers_own(local: Running) -> None:
    customer = await local.client.v1.customers.create_async({})
    method = await local.client.v1.payment_methods.create_async({"type": "card", "card": {"token": "tok_visa"}})
    wanted: Any = {"invoice_settings": {"default_payment_method": method.id}}
    with pytest.raises(stripe.InvalidRequestError, match="must be attached"):
        await local.client.v1.customers.update_async(customer.id, wanted)
    await local.client.v1.payment_methods.attach_async(method.id, {"customer": customer.id})
    settings = (await local.client.v1.customers.update_async(customer.id, wanted)).invoice_settings
    assert settings is not None
    assert settings.default_payment_method == method.id
    other = await local.client.v1.customers.create_async({})
    with pytest.raises(stripe.InvalidRequestError, match="already been attached"):
        await local.client.v1.payment_methods.attach_async(method.id, {"customer": other.id})


async def test_cards_are_test_cards_by_number_or_token_and_can_be_corrected(local: Running) -> None:
    methods = local.client.v1.payment_methods
    card: Any = {"number": "4000 0027 6000 0016", "exp_month": 3, "exp_year": 2031, "cvc": "123"}
    made = await methods.create_async({"type": "card", "card": card, "billing_details": {"name": "A"}})
    assert made.card is not None
    assert (made.card.last4, made.card.country, made.card.exp_year) == ("0016", "DE", 2031)
    changed = await methods.update_async(made.id, {"card": {"exp_month": 4}, "billing_details": {"name": "B"}})
    assert changed.card is not None
    assert (changed.card.exp_month, changed.billing_details.name) == (4, "B")
    with pytest.raises(stripe.CardError) as caught:
        await methods.create_async({"type": "card", "card": {**card, "number": "4111111111111111"}})
    assert caught.value.code == "incorrect_number"
    with pytest.raises(stripe.InvalidRequestError, match="No such payment method"):
        await methods.attach_async(
            "pm_card_imaginary", {"customer": (await local.client.v1.customers.create_async({})).id}
        )
    with pytest.raises(stripe.InvalidRequestError) as refused:
        await methods.create_async({"type": "sepa_debit", "sepa_debit": {"iban": "DE89370400440532013000"}})
    assert refused.value.code == "stripe_local_unsupported"


async def test_a_product_has_prices_whose_amounts_never_change(local: Running) -> None:
    prices, products = local.client.v1.prices, local.client.v1.products
    price = await prices.create_async({"currency": "EUR", "unit_amount": 250, "product_data": {"name": "Minutes"}})
    assert (price.currency, price.unit_amount, price.unit_amount_decimal) == ("eur", 250, Decimal(250))
    product = await products.update_async(str(price.product), {"name": "Seconds", "metadata": {"pipeline": "live"}})
    assert (product.name, product.active) == ("Seconds", True)
    assert (await prices.update_async(price.id, {"nickname": "old", "active": False})).nickname == "old"
    with pytest.raises(stripe.InvalidRequestError, match="user-created prices"):
        await products.delete_async(product.id)
    bare = await products.create_async({"id": "prod_own", "name": "Bare"})
    with pytest.raises(stripe.InvalidRequestError) as caught:
        await products.create_async({"id": "prod_own", "name": "Bare"})
    assert caught.value.code == "resource_already_exists"
    assert (await products.delete_async(bare.id)).deleted is True
    told = await event_types(local)
    assert {"price.updated", "product.updated", "product.deleted"} <= set(told)


@pytest.mark.parametrize(
    "wanted",
    [
        {"currency": "usd", "unit_amount": 1},
        {"currency": "usd", "product_data": {"name": "x"}},
        {"currency": "usd", "product_data": {"name": "x"}, "unit_amount": 1, "unit_amount_decimal": "1"},
        {"currency": "usd", "product": "prod_none", "unit_amount": 1},
    ],
    ids=str,
)
async def test_a_price_that_says_too_little_or_too_much_is_refused(local: Running, wanted: dict[str, Any]) -> None:
    with pytest.raises(stripe.InvalidRequestError):
        await local.client.v1.prices.create_async(stripe.params.PriceCreateParams(**wanted))
    assert (await local.client.v1.products.list_async()).data == []


async def test_recurring_prices_can_be_made_but_not_be_billed_here(local: Running) -> None:
    wanted: Any = {
        "currency": "usd",
        "unit_amount": 100,
        "product_data": {"name": "Plan"},
        "recurring": {"interval": "month"},
    }
    price = await local.client.v1.prices.create_async(wanted)
    assert price.type == "recurring"
    customer = await local.client.v1.customers.create_async({})
    with pytest.raises(stripe.InvalidRequestError, match="only one_time"):
        await local.client.v1.invoice_items.create_async({"customer": customer.id, "pricing": {"price": price.id}})


async def test_an_inclusive_tax_is_within_the_amount(local: Running) -> None:
    rate = await local.client.v1.tax_rates.create_async({"display_name": "VAT", "inclusive": True, "percentage": 19.0})
    renamed = await local.client.v1.tax_rates.update_async(rate.id, {"display_name": "MwSt"})
    assert (renamed.display_name, renamed.percentage) == ("MwSt", 19.0)
    customer = await local.client.v1.customers.create_async({})
    invoice = await local.client.v1.invoices.create_async({"customer": customer.id, "currency": "usd"})
    item: Any = {
        "customer": customer.id,
        "invoice": invoice.id,
        "amount": 1190,
        "currency": "usd",
        "tax_rates": [rate.id],
    }
    made = await local.client.v1.invoice_items.create_async(item)
    found = await local.client.v1.invoices.retrieve_async(invoice.id)
    assert (found.total, found.total_excluding_tax) == (1190, 1000)
    await local.client.v1.invoice_items.update_async(made.id, {"tax_rates": ""})
    assert (await local.client.v1.invoices.retrieve_async(invoice.id)).total_excluding_tax == 1190
