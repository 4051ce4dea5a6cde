"""Credit notes that somebody makes at Stripe: the books follow what they take off, once, and never give it twice."""

from __future__ import annotations

import asyncio
from decimal import Decimal
from typing import Any

import pytest

from settlement.invoices.entries import Disagrees
from settlement.invoices.handler import heard_of_credit_note
from settlement.invoices.notes import credited
from settlement.invoices.seen import Note
from settlement.stripe_link.desk import Park
from settlement.stripe_link.handlers import HANDLERS
from settlement.stripe_local.invoice_totals import settle
from tests.parts.invoiced import Debtor, Invoiced


async def open_one(house: Invoiced, **gateway: Any) -> Debtor:
    acme = await house.gateway("acme", **gateway)
    house.use(acme, "80.0049")
    house.close(acme)
    await house.run()
    return acme


async def noted(house: Invoiced, amount: int, **more: Any) -> str:
    ours = await house.invoice()
    line = {"type": "custom_line_item", "description": "too much", "quantity": 1, "unit_amount": amount}
    made = await house.stripe.running.client.v1.credit_notes.create_async(
        {"invoice": ours.at_stripe, "lines": [line], **more}  # type: ignore[typeddict-item]
    )
    return made.id


async def test_less_is_due_of_an_open_invoice_and_the_rest_is_paid(house: Invoiced) -> None:
    acme = await open_one(house)
    note_id = await noted(house, 3000)
    await asyncio.gather(*(heard_of_credit_note(house.desk, note_id) for _ in range(5)))
    ours = await house.invoice()
    assert (ours.credited_minor, ours.remaining_minor, house.balance(acme)) == (3000, 5000, -50)
    house.require_balanced(acme)
    await house.stripe.control(f"invoices/{ours.stripe_invoice_id}/pay", card="pm_card_visa")
    await house.hear(ours)
    assert (house.entries(acme, "payment"), house.balance(acme), house.unbilled(acme)) == ([Decimal(50)], 0, 0)


async def test_money_that_comes_after_a_note_has_paid_all_is_noted_as_what_stripe_keeps(house: Invoiced) -> None:
    """It had been under way, as direct debits are for days: a later invoice that it pays is booked as paid in full."""
    acme = await open_one(house)
    await heard_of_credit_note(house.desk, await noted(house, 8000))
    ours, desk = await house.invoice(), house.stripe.local.desk()
    assert ours.state == "paid"
    desk.get("invoice", ours.at_stripe)["amount_overpaid"] = 8000
    house.stripe.local.write(desk)
    for _ in range(2):
        await house.hear(ours)
    assert ((await house.invoice()).overpaid_minor, house.entries(acme, "payment")) == (8000, [])
    assert (house.balance(acme), house.unbilled(acme)) == (0, 0)


async def test_a_payment_that_is_heard_of_first_leaves_the_note_its_part(house: Invoiced) -> None:
    acme = await open_one(house)
    note_id = await noted(house, 3000)
    ours = await house.invoice()
    await house.stripe.control(f"invoices/{ours.stripe_invoice_id}/pay", card="pm_card_visa")
    await house.hear(ours)
    await heard_of_credit_note(house.desk, note_id)
    assert (house.entries(acme, "payment"), house.entries(acme, "adjustment")) == ([Decimal(50)], [Decimal(30)])
    assert (house.balance(acme), house.unbilled(acme)) == (0, 0)


async def test_a_void_note_and_a_void_invoice_take_back_what_was_credited(house: Invoiced) -> None:
    acme = await open_one(house)
    kept, dropped = await noted(house, 3000), await noted(house, 1000)
    await heard_of_credit_note(house.desk, kept)
    client = house.stripe.running.client.v1
    await client.credit_notes.void_credit_note_async(dropped)
    await heard_of_credit_note(house.desk, dropped)
    ours = await house.invoice()
    assert (ours.credited_minor, house.balance(acme)) == (3000, -50)
    await client.invoices.void_invoice_async(ours.at_stripe)
    await house.hear(ours)
    assert (house.balance(acme), house.unbilled(acme)) == (Decimal("-80.0049"), Decimal("80.0049"))


async def test_taxes_of_a_note_are_not_in_the_books_either(house: Invoiced) -> None:
    house.stripe.local.house.tax_percent_by_country["DE"] = "19"
    acme = await open_one(house, is_taxed=True, country="DE")
    ours = await house.invoice()
    found = await house.stripe.running.client.v1.invoices.retrieve_async(ours.at_stripe)
    line: Any = {"type": "invoice_line_item", "invoice_line_item": found.lines.data[0].id, "amount": 3000}
    made = await house.stripe.running.client.v1.credit_notes.create_async({"invoice": ours.at_stripe, "lines": [line]})
    await heard_of_credit_note(house.desk, made.id)
    await house.stripe.control(f"invoices/{ours.stripe_invoice_id}/pay", card="pm_card_visa")
    await house.hear(ours)
    assert (house.entries(acme, "payment"), house.balance(acme)) == ([Decimal(50)], 0)


async def paid_in_part(house: Invoiced, minor: int) -> None:
    """By a transfer: the rest is still open."""
    desk, ours = house.stripe.local.desk(), await house.invoice()
    theirs = desk.get("invoice", ours.at_stripe)
    theirs["amount_paid"] = minor
    settle(theirs)
    house.stripe.local.write(desk)
    await house.hear(ours)


@pytest.mark.parametrize("ends", ["paid", "void"])
async def test_what_was_paid_in_part_turns_out_to_be_tax_once_less_is_due_without_it(
    house: Invoiced, ends: str
) -> None:
    """80.00 and 15.20 of tax: 47.60 is 40.00 of them where the other half is not owed any more."""
    house.stripe.local.house.tax_percent_by_country["DE"] = "19"
    acme = await open_one(house, is_taxed=True, country="DE")
    await paid_in_part(house, 4760)
    ours, client = await house.invoice(), house.stripe.running.client.v1
    assert (ours.booked_minor, ours.remaining_minor) == (4760, 4760)
    found = await client.invoices.retrieve_async(ours.at_stripe)
    line: Any = {"type": "invoice_line_item", "invoice_line_item": found.lines.data[0].id, "amount": 3900}
    made = await client.credit_notes.create_async({"invoice": ours.at_stripe, "lines": [line]})
    await asyncio.gather(*(heard_of_credit_note(house.desk, made.id) for _ in range(3)))
    assert (house.entries(acme, "refund"), house.unbilled(acme)) == ([Decimal("-6.60")], 0), "41 of 47.60 are no tax"
    house.require_balanced(acme)
    if ends == "void":
        await client.invoices.void_invoice_async(ours.at_stripe)
        await house.hear(ours)
        assert house.balance(acme) == -house.unbilled(acme) == Decimal("-32.4049")
        return
    await client.credit_notes.void_credit_note_async(made.id)
    await heard_of_credit_note(house.desk, made.id)
    ours = await house.invoice()
    assert (ours.booked_minor, ours.credited_minor, house.balance(acme)) == (4760, 0, Decimal("-32.40"))
    made = await client.credit_notes.create_async({"invoice": ours.at_stripe, "lines": [{**line, "amount": 4000}]})
    await heard_of_credit_note(house.desk, made.id)
    ours = await house.invoice()
    assert (ours.state, ours.booked_minor, ours.credited_minor) == ("paid", 4000, 4000)
    came = sum(house.entries(acme, "payment")) + sum(house.entries(acme, "refund"))
    assert (came, house.balance(acme), house.unbilled(acme)) == (40, 0, 0)


async def test_a_note_over_more_than_was_asked_for_without_tax_is_parked(house: Invoiced) -> None:
    house.stripe.local.house.tax_percent_by_country["DE"] = "19"
    acme = await open_one(house, is_taxed=True, country="DE")
    note_id = await noted(house, 8001)
    with pytest.raises(Park, match="without tax"):
        await heard_of_credit_note(house.desk, note_id)
    assert (house.entries(acme, "adjustment"), house.balance(acme)) == ([], -80)


async def test_what_is_refunded_by_a_note_is_not_owed_again(house: Invoiced) -> None:
    acme = await open_one(house, card="pm_card_visa")
    note_id = await noted(house, 3000, refund_amount=3000)
    for _ in range(3):
        await heard_of_credit_note(house.desk, note_id)
    assert house.entries(acme, "adjustment") == [Decimal(30)]
    refunds = (await house.stripe.running.client.v1.refunds.list_async()).data
    await HANDLERS["refund"](house.desk, refunds[0].id)
    assert (house.entries(acme, "refund"), house.balance(acme), house.unbilled(acme)) == ([Decimal(-30)], 0, 0)


@pytest.mark.parametrize("field", ["credit_amount", "out_of_band_amount"])
async def test_credit_that_stripe_keeps_or_somebody_pays_out_changes_no_balance(house: Invoiced, field: str) -> None:
    acme = await open_one(house, card="pm_card_visa")
    note_id = await noted(house, 3000, **{field: 3000})
    await asyncio.gather(*(heard_of_credit_note(house.desk, note_id) for _ in range(5)))
    assert (house.entries(acme, "adjustment"), house.entries(acme, "refund")) == ([Decimal(30)], [Decimal(-30)])
    assert (house.balance(acme), house.unbilled(acme)) == (0, 0)


async def test_a_later_invoice_that_stripes_credit_pays_in_part_is_paid_in_full(house: Invoiced) -> None:
    acme = await open_one(house, card="pm_card_visa")
    await heard_of_credit_note(house.desk, await noted(house, 3000, credit_amount=3000))
    house.use(acme, "50")
    house.close(acme)
    await house.run()
    newest, _ = await house.invoices()
    assert [line.amount for line in await house.charges()] == [2000, 8000], "30 of the 50 were there already"
    assert (newest.state, newest.total_minor) == ("paid", 5000)
    assert (house.entries(acme, "payment"), house.balance(acme)) == ([Decimal(80), Decimal(50)], 0)
    came, went = house.entries(acme, "payment"), house.entries(acme, "refund")
    assert sum(came) + sum(went) == 100, "what was charged, and nothing twice"


async def test_a_note_that_refunds_a_part_and_keeps_the_other_gives_each_once(house: Invoiced) -> None:
    acme = await open_one(house, card="pm_card_visa")
    await heard_of_credit_note(house.desk, await noted(house, 3000, refund_amount=1000, credit_amount=2000))
    refunds = (await house.stripe.running.client.v1.refunds.list_async()).data
    await HANDLERS["refund"](house.desk, refunds[0].id)
    assert house.entries(acme, "refund") == [Decimal(-20), Decimal(-10)]
    assert (house.entries(acme, "adjustment"), house.balance(acme), house.unbilled(acme)) == ([Decimal(30)], 0, 0)


async def test_a_note_of_which_nobody_can_say_what_it_leaves_to_pay_is_parked(house: Invoiced) -> None:
    acme = await open_one(house)
    ours = await house.invoice()
    mixed = Note("cn_1", "A-CN-01", is_void=False, kind="mixed", net_minor=3000, total_minor=3000)
    with pytest.raises(Disagrees, match="gives money back as well"):
        async with house.desk.transaction() as connection:
            await credited(connection, ours, [mixed])
    assert house.entries(acme, "adjustment") == []
