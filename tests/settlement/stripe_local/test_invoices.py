"""Invoices and credit notes, by the official SDK: drafts that add up, states that only go forward, money taken once."""

from __future__ import annotations

from typing import Any

import pytest
import stripe

from settlement.stripe_local.desk import House
from tests.settlement.stripe_local.parts import Running, running
from tests.settlement.stripe_local.test_payments import customer_with, event_types


async def draft_of(local: Running, customer: str, *amounts: int, **more: Any) -> stripe.Invoice:
    """A draft as settlement makes one, with a line for each amount."""
    wanted: Any = {
        "customer": customer,
        "auto_advance": False,
        "pending_invoice_items_behavior": "exclude",
        "currency": "usd",
        **more,
    }
    invoice = await local.client.v1.invoices.create_async(wanted)
    for amount in amounts:
        await local.client.v1.invoice_items.create_async(
            {
                "customer": customer,
                "invoice": invoice.id,
                "amount": amount,
                "currency": "usd",
                "description": f"{amount}",
            }
        )
    return await local.client.v1.invoices.retrieve_async(invoice.id)


async def open_one(local: Running, customer: str, *amounts: int, **more: Any) -> stripe.Invoice:
    draft = await draft_of(local, customer, *amounts, **more)
    return await local.client.v1.invoices.finalize_invoice_async(draft.id)


async def test_an_invoice_walks_from_draft_to_paid_and_tells_every_step(local: Running) -> None:
    customer, method = await customer_with(local)
    draft = await draft_of(local, customer, 1200, 34, default_payment_method=method, metadata={"period": "2026-10"})
    assert (draft.status, draft.subtotal, draft.total, draft.amount_due) == ("draft", 1234, 1234, 1234)
    assert [line.amount for line in draft.lines.data] == [1200, 34]
    assert draft.number is None
    final = await local.client.v1.invoices.finalize_invoice_async(draft.id)
    assert (final.status, final.amount_remaining) == ("open", 1234)
    assert final.number is not None
    assert final.number.endswith("-0001")
    paid = await local.client.v1.invoices.pay_async(draft.id, {"expand": ["payments"]})
    assert (paid.status, paid.amount_paid, paid.amount_remaining) == ("paid", 1234, 0)
    assert paid.payments is not None
    (payment,) = paid.payments.data
    intent = await local.client.v1.payment_intents.retrieve_async(str(payment.payment.payment_intent))
    assert (intent.status, intent.amount) == ("succeeded", 1234)
    told = [kind for kind in await event_types(local) if kind.startswith("invoice.") and kind != "invoice.updated"]
    assert told == ["invoice.created", "invoice.finalized", "invoice.paid", "invoice.payment_succeeded"]
    with pytest.raises(stripe.InvalidRequestError, match="already paid"):
        await local.client.v1.invoices.pay_async(draft.id)


async def test_items_are_priced_by_exact_decimals_and_rounded_once_half_away_from_zero(local: Running) -> None:
    customer, _ = await customer_with(local)
    product = await local.client.v1.products.create_async({"name": "Transcoding"})
    price = await local.client.v1.prices.create_async(
        {"currency": "usd", "product": product.id, "unit_amount_decimal": "0.000000000001"}
    )
    draft = await draft_of(local, customer)
    items = local.client.v1.invoice_items
    common: Any = {"customer": customer, "invoice": draft.id}
    for given, amount in (
        ({"unit_amount_decimal": "0.5", "quantity_decimal": "1"}, 1),
        ({"unit_amount_decimal": "-0.5", "quantity_decimal": "1"}, -1),
        ({"unit_amount_decimal": "0.123456789012", "quantity_decimal": "1000000"}, 123_457),
        ({"pricing": {"price": price.id}, "quantity_decimal": "2500000000000"}, 3),
        ({"price_data": {"currency": "usd", "product": product.id, "unit_amount_decimal": "1.5"}, "quantity": 3}, 5),
    ):
        item = await items.create_async({**common, **given})
        assert item.amount == amount, given
    found = await local.client.v1.invoices.retrieve_async(draft.id)
    assert found.total == 1 - 1 + 123_457 + 3 + 5


async def test_a_draft_follows_its_items_and_a_finalized_invoice_is_never_edited(local: Running) -> None:
    customer, _ = await customer_with(local)
    draft = await draft_of(local, customer, 1000, 500)
    items = local.client.v1.invoice_items
    first, second = reversed((await items.list_async({"invoice": draft.id})).data)
    await items.update_async(first.id, {"amount": 700})
    await items.delete_async(second.id)
    assert (await local.client.v1.invoices.retrieve_async(draft.id)).total == 700
    await local.client.v1.invoices.finalize_invoice_async(draft.id)
    for refused in (
        items.update_async(first.id, {"amount": 1}),
        items.delete_async(first.id),
        items.create_async({"customer": customer, "invoice": draft.id, "amount": 5, "currency": "usd"}),
        local.client.v1.invoices.update_async(draft.id, {"description": "late"}),
        local.client.v1.invoices.delete_async(draft.id),
        local.client.v1.invoices.finalize_invoice_async(draft.id),
    ):
        with pytest.raises(stripe.InvalidRequestError) as caught:
            await refused
        assert caught.value.code == "invoice_not_editable"
    kept = await local.client.v1.invoices.update_async(draft.id, {"metadata": {"seen": "yes"}})
    assert (kept.total, kept.metadata and kept.metadata["seen"]) == (700, "yes")


async def test_pending_items_are_taken_only_when_they_are_wanted(local: Running) -> None:
    customer, _ = await customer_with(local)
    await local.client.v1.invoice_items.create_async({"customer": customer, "amount": 300, "currency": "usd"})
    assert (await draft_of(local, customer)).total == 0
    taken = await draft_of(local, customer, pending_invoice_items_behavior="include")
    assert taken.total == 300
    assert (await local.client.v1.invoice_items.list_async({"customer": customer, "pending": True})).data == []


@pytest.mark.parametrize("last", ["paid", "void", "uncollectible"])
async def test_what_has_ended_does_not_begin_again(local: Running, last: str) -> None:
    customer, _ = await customer_with(local)
    invoice = await open_one(local, customer, 1000)
    invoices = local.client.v1.invoices
    ends = {
        "paid": lambda: invoices.pay_async(invoice.id, {"paid_out_of_band": True}),
        "void": lambda: invoices.void_invoice_async(invoice.id),
        "uncollectible": lambda: invoices.mark_uncollectible_async(invoice.id),
    }
    assert (await ends[last]()).status == last
    still_possible = {"paid": set(), "void": set(), "uncollectible": {"paid", "void"}}[last]
    for name in ends.keys() - still_possible:
        with pytest.raises(stripe.InvalidRequestError):
            await ends[name]()
    assert (await invoices.retrieve_async(invoice.id)).status == last
    assert (await invoices.list_async({"customer": customer, "status": last})).data[0].id == invoice.id


async def test_a_receipt_out_of_band_pays_without_a_charge(local: Running) -> None:
    customer, _ = await customer_with(local)
    invoice = await open_one(local, customer, 1000)
    paid = await local.client.v1.invoices.pay_async(invoice.id, {"paid_out_of_band": True})
    assert (paid.status, paid.amount_paid, paid.amount_remaining) == ("paid", 1000, 0)
    assert (await local.client.v1.charges.list_async()).data == []
    (intent,) = (await local.client.v1.payment_intents.list_async({"customer": customer})).data
    assert intent.status == "canceled"


async def test_a_refused_card_leaves_the_invoice_open_and_another_card_pays_it(local: Running) -> None:
    customer, method = await customer_with(local, "pm_card_chargeCustomerFail")
    invoice = await open_one(local, customer, 1000, default_payment_method=method)
    with pytest.raises(stripe.CardError):
        await local.client.v1.invoices.pay_async(invoice.id)
    left = await local.client.v1.invoices.retrieve_async(invoice.id)
    assert (left.status, left.attempt_count, left.amount_remaining) == ("open", 1, 1000)
    paid = await local.client.v1.invoices.pay_async(invoice.id, {"payment_method": "pm_card_visa"})
    assert paid.status == "paid"
    charges = (await local.client.v1.charges.list_async()).data
    assert [one.status for one in charges] == ["succeeded", "failed"]


async def test_a_card_that_asks_leaves_the_invoice_open_until_the_customer_consents(local: Running) -> None:
    customer, method = await customer_with(local, "pm_card_authenticationRequired")
    invoice = await open_one(local, customer, 1000, default_payment_method=method)
    with pytest.raises(stripe.CardError) as caught:
        await local.client.v1.invoices.pay_async(invoice.id)
    assert caught.value.code == "invoice_payment_intent_requires_action"
    assert "invoice.payment_action_required" in await event_types(local)
    intent = caught.value.json_body["error"]["payment_intent"]["id"]
    await local.control(f"payment_intents/{intent}/authenticate", succeeds=True)
    assert (await local.client.v1.invoices.retrieve_async(invoice.id)).status == "paid"


async def test_without_a_card_there_is_nothing_to_charge(local: Running) -> None:
    customer = await local.client.v1.customers.create_async({})
    invoice = await open_one(local, customer.id, 1000)
    with pytest.raises(stripe.InvalidRequestError, match="no default_payment_method"):
        await local.client.v1.invoices.pay_async(invoice.id)


async def test_an_invoice_that_is_sent_has_a_due_date_and_a_page_where_it_is_paid(local: Running) -> None:
    customer, _ = await customer_with(local)
    with pytest.raises(stripe.InvalidRequestError, match="due_date"):
        await draft_of(local, customer, collection_method="send_invoice")
    draft = await draft_of(local, customer, 1000, collection_method="send_invoice", days_until_due=14)
    sent = await local.client.v1.invoices.send_invoice_async(draft.id)
    assert sent.status == "open"
    assert sent.due_date is not None
    assert sent.due_date - sent.created in range(14 * 86400, 14 * 86400 + 60)
    assert "invoice.sent" in await event_types(local)
    assert sent.hosted_invoice_url is not None
    assert "1000 minor units of usd" in (await local.http.get(sent.hosted_invoice_url)).text
    refused = await local.http.post(sent.hosted_invoice_url, data={"card": "pm_card_chargeDeclined"})
    assert refused.status_code == 402
    assert (await local.http.post(sent.hosted_invoice_url, data={"card": "pm_card_visa"})).status_code == 200
    assert (await local.client.v1.invoices.retrieve_async(sent.id)).status == "paid"


async def test_only_invoices_that_are_to_be_sent_are_sent(local: Running) -> None:
    customer, _ = await customer_with(local)
    with pytest.raises(stripe.InvalidRequestError, match="collection method"):
        await local.client.v1.invoices.send_invoice_async((await open_one(local, customer, 1000)).id)


async def test_what_is_below_the_smallest_charge_is_carried_to_the_next_invoice(local: Running) -> None:
    customer, method = await customer_with(local)
    small = await open_one(local, customer, 49)
    assert (small.status, small.amount_due, small.total) == ("paid", 0, 49)
    assert (await local.client.v1.customers.retrieve_async(customer)).balance == 49
    following = await open_one(local, customer, 1000, default_payment_method=method)
    assert (following.status, following.starting_balance, following.amount_due) == ("open", 49, 1049)
    assert (await local.client.v1.customers.retrieve_async(customer)).balance == 0


async def test_credit_pays_first_and_a_void_gives_it_back(local: Running) -> None:
    customer, _ = await customer_with(local)
    await local.client.v1.customers.balance_transactions.create_async(customer, {"amount": -300, "currency": "usd"})
    invoice = await open_one(local, customer, 1000)
    assert (invoice.amount_due, invoice.ending_balance) == (700, 0)
    await local.client.v1.invoices.void_invoice_async(invoice.id)
    assert (await local.client.v1.customers.retrieve_async(customer)).balance == -300
    covered = await open_one(local, customer, 200)
    assert (covered.status, covered.amount_due) == ("paid", 0)
    assert (await local.client.v1.customers.retrieve_async(customer)).balance == -100


async def test_automatic_tax_follows_the_customers_country_and_needs_to_know_it() -> None:
    async with running(house=House(tax_percent_by_country={"DE": "19"})) as local:
        customer, _ = await customer_with(local)
        draft = await draft_of(local, customer, 1003, automatic_tax={"enabled": True})
        assert (draft.automatic_tax.status, draft.total) == ("requires_location_inputs", 1003)
        with pytest.raises(stripe.InvalidRequestError) as caught:
            await local.client.v1.invoices.finalize_invoice_async(draft.id)
        assert caught.value.code == "customer_tax_location_invalid"
        await local.client.v1.customers.update_async(customer, {"address": {"country": "DE"}})
        final = await local.client.v1.invoices.finalize_invoice_async(draft.id)
        assert (final.automatic_tax.status, final.total) == ("complete", 1003 + 191)
        await local.client.v1.customers.update_async(customer, {"address": {"country": "JP"}})
        assert (await open_one(local, customer, 1003, automatic_tax={"enabled": True})).total == 1003


async def test_taxes_are_by_rate_and_left_away_from_who_is_exempt(local: Running) -> None:
    rate = await local.client.v1.tax_rates.create_async({"display_name": "VAT", "inclusive": False, "percentage": 19.0})
    customer, _ = await customer_with(local)
    invoice = await draft_of(local, customer, 1003, 997, default_tax_rates=[rate.id])
    assert (invoice.subtotal, invoice.total) == (2000, 2000 + 191 + 189)
    assert invoice.total_taxes is not None
    assert [tax.amount for tax in invoice.total_taxes] == [380]
    await local.client.v1.customers.update_async(customer, {"tax_exempt": "reverse"})
    final = await local.client.v1.invoices.finalize_invoice_async(invoice.id)
    assert (final.total, final.customer_tax_exempt) == (2000, "reverse")


async def test_automatic_invoices_are_finalized_and_collected_as_time_passes(local: Running) -> None:
    customer, method = await customer_with(local, "pm_card_chargeCustomerFail")
    draft = await draft_of(local, customer, 1000, auto_advance=True, default_payment_method=method)
    assert draft.automatically_finalizes_at is not None
    await local.control("clock", advance_s=3601)
    failed = await local.client.v1.invoices.retrieve_async(draft.id)
    assert (failed.status, failed.attempt_count) == ("open", 1)
    assert failed.next_payment_attempt is not None
    other = await local.client.v1.payment_methods.attach_async("pm_card_visa", {"customer": customer})
    await local.client.v1.invoices.update_async(draft.id, {"default_payment_method": other.id})
    await local.control("clock", advance_s=3 * 86400)
    assert (await local.client.v1.invoices.retrieve_async(draft.id)).status == "paid"


async def test_a_credit_note_on_an_open_invoice_leaves_less_to_pay_and_can_be_voided(local: Running) -> None:
    customer, method = await customer_with(local)
    invoice = await open_one(local, customer, 1000, default_payment_method=method)
    notes = local.client.v1.credit_notes
    shown = await notes.preview_async({"invoice": invoice.id, "amount": 400})
    assert (shown.total, shown.type) == (400, "pre_payment")
    assert (await notes.list_async({"invoice": invoice.id})).data == []
    note = await notes.create_async({"invoice": invoice.id, "amount": 400, "reason": "order_change"})
    assert note.number == f"{invoice.number}-CN-01"
    assert (await local.client.v1.invoices.retrieve_async(invoice.id)).amount_remaining == 600
    await notes.void_credit_note_async(note.id)
    assert (await local.client.v1.invoices.retrieve_async(invoice.id)).amount_remaining == 1000
    await notes.create_async({"invoice": invoice.id, "amount": 250})
    paid = await local.client.v1.invoices.pay_async(invoice.id)
    assert (paid.amount_paid, paid.pre_payment_credit_notes_amount) == (750, 250)
    with pytest.raises(stripe.InvalidRequestError, match="must equal"):
        await notes.create_async({"invoice": invoice.id, "amount": 100})


async def test_an_open_invoice_that_is_credited_whole_is_paid_without_a_charge(local: Running) -> None:
    customer, _ = await customer_with(local)
    invoice = await open_one(local, customer, 1000)
    await local.client.v1.credit_notes.create_async({"invoice": invoice.id, "amount": 1000})
    found = await local.client.v1.invoices.retrieve_async(invoice.id)
    assert (found.status, found.amount_paid) == ("paid", 0)
    assert (await local.client.v1.charges.list_async()).data == []


async def test_a_credit_note_on_a_paid_invoice_gives_back_what_it_credits_and_no_more(local: Running) -> None:
    rate = await local.client.v1.tax_rates.create_async({"display_name": "VAT", "inclusive": False, "percentage": 10.0})
    customer, method = await customer_with(local)
    invoice = await open_one(local, customer, 1000, default_payment_method=method, default_tax_rates=[rate.id])
    await local.client.v1.invoices.pay_async(invoice.id)
    notes = local.client.v1.credit_notes
    line = invoice.lines.data[0].id
    lines: Any = [{"type": "invoice_line_item", "invoice_line_item": line, "amount": 300}]
    note = await notes.create_async(
        {"invoice": invoice.id, "lines": lines, "refund_amount": 200, "credit_amount": 130, "memo": "a wrong rate"}
    )
    assert (note.type, note.subtotal, note.total) == ("post_payment", 300, 330)
    (refund,) = note.refunds
    assert (await local.client.v1.refunds.retrieve_async(str(refund.refund))).amount == 200
    assert (await local.client.v1.customers.retrieve_async(customer)).balance == -130
    found = await local.client.v1.invoices.retrieve_async(invoice.id)
    assert (found.status, found.total, found.post_payment_credit_notes_amount) == ("paid", 1100, 330)
    with pytest.raises(stripe.InvalidRequestError, match="more than what is left"):
        await notes.create_async({"invoice": invoice.id, "amount": 771, "credit_amount": 771})


async def test_a_customer_is_billed_in_one_currency(local: Running) -> None:
    customer, _ = await customer_with(local)
    await draft_of(local, customer, 100)
    with pytest.raises(stripe.InvalidRequestError, match="cannot combine currencies"):
        await draft_of(local, customer, currency="eur")


@pytest.mark.parametrize(
    ("wanted", "param"),
    [
        ({"days_until_due": 14}, "days_until_due"),
        ({"collection_method": "send_invoice", "days_until_due": 14, "due_date": 4_000_000_000}, "due_date"),
        ({"collection_method": "send_invoice", "due_date": 1}, "due_date"),
        ({"payment_settings": {"payment_method_types": ["klarna"]}}, None),
        ({"payment_settings": {"payment_method_types": ["sepa_debit"]}}, "payment_method_types"),
        ({"default_payment_method": "pm_none"}, "default_payment_method"),
        ({"default_tax_rates": ["txr_none"]}, "default_tax_rates"),
    ],
    ids=str,
)
async def test_a_draft_that_cannot_be_collected_as_it_says_is_refused(
    local: Running, wanted: dict[str, Any], param: str | None
) -> None:
    customer, _ = await customer_with(local)
    with pytest.raises(stripe.InvalidRequestError) as caught:
        await draft_of(local, customer, **wanted)
    assert caught.value.param == param
    assert (await local.client.v1.invoices.list_async()).data == []


@pytest.mark.parametrize(
    "wanted",
    [
        {"amount": 5, "quantity": 2},
        {"amount": 5, "unit_amount_decimal": "1"},
        {"quantity": 2},
        {"amount": 5, "currency": "eur"},
        {"price_data": {"currency": "usd", "unit_amount": 5}},
    ],
    ids=str,
)
async def test_an_item_that_says_its_price_twice_or_not_at_all_is_refused(
    local: Running, wanted: dict[str, Any]
) -> None:
    customer, _ = await customer_with(local)
    draft = await draft_of(local, customer)
    item: Any = {"customer": customer, "invoice": draft.id, **wanted}
    with pytest.raises(stripe.InvalidRequestError):
        await local.client.v1.invoice_items.create_async(item)
    assert (await local.client.v1.invoices.retrieve_async(draft.id)).total == 0


@pytest.mark.parametrize(
    "wanted",
    [
        {"amount": 1001},
        {"amount": 0},
        {"amount": 100, "refund_amount": 100},
        {"amount": 100, "lines": [{"type": "custom_line_item", "unit_amount": 1, "quantity": 1}]},
        {"lines": [{"type": "invoice_line_item", "invoice_line_item": "il_none", "amount": 1}]},
        {"lines": [{"type": "custom_line_item", "unit_amount": 1, "quantity": 1, "tax_rates": ["txr_none"]}]},
    ],
    ids=str,
)
async def test_a_credit_note_that_does_not_add_up_is_refused(local: Running, wanted: dict[str, Any]) -> None:
    customer, _ = await customer_with(local)
    invoice = await open_one(local, customer, 1000)
    with pytest.raises(stripe.InvalidRequestError):
        await local.client.v1.credit_notes.create_async(
            stripe.params.CreditNoteCreateParams(invoice=invoice.id, **wanted)
        )
    assert (await local.client.v1.invoices.retrieve_async(invoice.id)).amount_remaining == 1000


async def test_lines_of_a_credit_note_can_be_ones_own(local: Running) -> None:
    customer, _ = await customer_with(local)
    invoice = await open_one(local, customer, 1000)
    lines: Any = [{"type": "custom_line_item", "unit_amount_decimal": "12.5", "quantity": 3, "description": "delay"}]
    note = await local.client.v1.credit_notes.create_async({"invoice": invoice.id, "lines": lines})
    assert note.total == 38
    (line,) = (await local.client.v1.credit_notes.line_items.list_async(note.id)).data
    assert (line.amount, line.description, line.quantity) == (38, "delay", 3)
    changed = await local.client.v1.credit_notes.update_async(note.id, {"memo": "late", "metadata": {"case": "7"}})
    assert changed.memo == "late"


async def test_what_was_paid_by_hand_has_no_charge_to_refund(local: Running) -> None:
    customer, _ = await customer_with(local)
    invoice = await open_one(local, customer, 1000)
    await local.client.v1.invoices.pay_async(invoice.id, {"paid_out_of_band": True})
    notes = local.client.v1.credit_notes
    with pytest.raises(stripe.InvalidRequestError, match="not paid by card"):
        await notes.create_async({"invoice": invoice.id, "amount": 100, "refund_amount": 100})
    note = await notes.create_async({"invoice": invoice.id, "amount": 100, "out_of_band_amount": 100})
    assert note.out_of_band_amount == 100


async def test_lines_and_payments_of_an_invoice_are_listed_and_invoices_are_searched(local: Running) -> None:
    customer, _ = await customer_with(local)
    invoice = await open_one(local, customer, *range(100, 112), metadata={"period": "2026-10"})
    assert (len(invoice.lines.data), invoice.lines.has_more) == (10, True)
    lines = await local.client.v1.invoices.line_items.list_async(invoice.id, {"limit": 100})
    assert [line.amount for line in lines.data] == list(range(100, 112))
    found = await local.client.v1.invoices.search_async({"query": "metadata['period']:'2026-10' AND total>=1000"})
    assert [one.id for one in found.data] == [invoice.id]
    (payment,) = (await local.client.v1.invoice_payments.list_async({"invoice": invoice.id})).data
    assert (payment.status, payment.amount_requested, payment.is_default) == ("open", invoice.total, True)
    by_intent: Any = {"payment": {"type": "payment_intent", "payment_intent": payment.payment.payment_intent}}
    assert len((await local.client.v1.invoice_payments.list_async(by_intent)).data) == 1
    assert (await local.client.v1.invoice_payments.retrieve_async(payment.id)).invoice == invoice.id


async def test_the_intent_of_an_invoice_is_not_canceled_beside_it(local: Running) -> None:
    customer, _ = await customer_with(local)
    await open_one(local, customer, 1000)
    (intent,) = (await local.client.v1.payment_intents.list_async({"customer": customer})).data
    with pytest.raises(stripe.InvalidRequestError, match="void the invoice"):
        await local.client.v1.payment_intents.cancel_async(intent.id)
