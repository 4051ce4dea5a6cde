"""What was begun in one period and is decided in a later one, and nobody heard of: the report of the later one has it.

Stripe's clock is put on for that, and the later period is what it then says: it begins after all that our rows have.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any, Final

from clearinghouse.config import Settings
from clearinghouse.ledger.transfers import book
from settlement.reconciliation.report import Period, Report
from settlement.reconciliation.run import reconciled
from settlement.stripe_local.refunds import fail
from tests.parts.paying import Till, till_of
from tests.settlement.reconciliation.parts import DAY, compared, differences, report_of, section
from tests.settlement.reconciliation.test_stripe_books import House, house

__all__ = ["house"]
#: The bank answers a debit within it; a month later nothing of the earlier period is younger.
LATER: Final = timedelta(days=30)


async def later(house: House, by: timedelta = LATER) -> None:
    await house.stripe.control("clock", advance_s=by.total_seconds())


async def later_report(house: House, by: timedelta = LATER) -> Report:
    """Of the day that Stripe's clock has reached."""
    begins_at = datetime.now(UTC) + by - timedelta(hours=1)
    settings = Settings(signer_events={"grace_s": 0}).model_copy(update={"stripe": house.stripe.settings})
    return await reconciled(house.admin, settings, Period(begins_at, begins_at + DAY))


def by_debit(house: House) -> Till:
    return till_of(house, checkout_methods=("card", "us_bank_account"))


async def charged(house: House, customer_id: str, minor: int, card: str = "pm_card_visa") -> str:
    """By somebody else, in the dashboard. The charge's id."""
    asked: Any = {"customer": customer_id, "amount": minor, "currency": "usd", "confirm": True,
                  "payment_method": card, "off_session": True}  # fmt: skip
    return str((await house.v1.payment_intents.create_async(asked)).latest_charge)


async def test_invoices_and_notes_that_are_paid_and_voided_a_period_later(house: House) -> None:
    await house.owing("late", "20")
    await house.owing("noted", "30")
    await house.owing("void", "50")
    await house.run()
    paid, noted, void = sorted(await house.invoices(), key=lambda one: one.total_minor)
    lines = (await house.v1.invoices.retrieve_async(noted.at_stripe)).lines.data
    less: Any = {"type": "invoice_line_item", "invoice_line_item": lines[0].id, "amount": 500}
    note = await house.v1.credit_notes.create_async({"invoice": noted.at_stripe, "lines": [less]})
    await house.hear_all()
    assert differences(await report_of(house.admin, house.stripe)) == set()
    await later(house)
    await house.stripe.control(f"invoices/{paid.at_stripe}/pay", card="pm_card_visa")
    await house.v1.invoices.void_invoice_async(void.at_stripe)
    await house.v1.credit_notes.void_credit_note_async(note.id)
    asked = house.stripe.asked("GET", f"/v1/invoices/{paid.at_stripe}")
    report = await later_report(house)
    assert differences(report) == {
        ("invoice_status_differs", "23.8", "USD"), ("invoice_paid_differs", "20", "USD"),
        ("invoice_status_differs", "59.5", "USD"), ("credit_note_amount_differs", "5", "USD"),
    }  # fmt: skip
    assert house.stripe.asked("GET", f"/v1/invoices/{paid.at_stripe}") == asked  # by a list
    await house.hear_all()
    report = await later_report(house)
    assert differences(report) == set()
    stripe = compared(section(report, "stripe"))
    assert stripe["invoices of before that are open or changed, with tax"] == (3, ["119 USD"])


async def test_a_debit_that_the_bank_answers_a_period_later(house: House) -> None:
    house.takes_debits()
    debtor = await house.gateway("acme")
    till = by_debit(house)
    await till.pay_page(await till.asked_at_stripe(debtor.id, "checkout", "40"), "pm_usBankAccount_success")
    await house.owing("late", "20")
    await house.run()
    (invoice,) = await house.invoices()
    await house.stripe.control(f"invoices/{invoice.at_stripe}/pay", card="pm_usBankAccount_success")
    customer_id = await house.customer_at_stripe(debtor)
    await charged(house, customer_id, 777, "pm_usBankAccount_success")  # by somebody else
    await house.hear_all()  # of nothing but that they have begun: their charges are pending
    assert differences(await report_of(house.admin, house.stripe)) == set()
    await later(house)
    report = await later_report(house)
    assert differences(report) == {
        ("payment_amount_differs", "40", "USD"), ("invoice_status_differs", "23.8", "USD"),
        ("invoice_paid_differs", "20", "USD"), ("charge_unknown_to_books", "7.77", "USD"),
    }  # fmt: skip
    assert differences(await report_of(house.admin, house.stripe)) == differences(report)  # and so has the earlier one
    await house.hear_all()
    assert differences(await later_report(house)) == {("charge_unknown_to_books", "7.77", "USD")}


async def test_a_refund_that_fails_and_a_dispute_that_is_won_a_period_later(house: House) -> None:
    debtor = await house.gateway("acme")
    payments = [await house.till.asked_at_stripe(debtor.id, "checkout", amount) for amount in ("40", "30")]
    for payment_id, card in zip(payments, ("pm_card_visa", "pm_card_createDispute"), strict=True):
        await house.till.pay_page(payment_id, card)
    (to_fail,) = [one for one in await house.till.charges() if one.amount == 4000]
    refund = await house.v1.refunds.create_async({"charge": to_fail.id, "amount": 1500})
    await house.hear_all()
    assert differences(await report_of(house.admin, house.stripe)) == set()
    await later(house)
    desk = house.stripe.local.desk()
    fail(desk, desk.get("refund", refund.id))  # as with the card for it, but not before the other period
    house.stripe.local.write(desk)
    (dispute,) = (await house.v1.disputes.list_async()).data
    await house.v1.disputes.update_async(dispute.id, {"evidence": {"uncategorized_text": "winning_evidence"}})
    assert differences(await later_report(house)) == {
        ("refund_status_differs", "15", "USD"), ("dispute_status_differs", "30", "USD"),
    }  # fmt: skip
    await house.hear_all()
    assert differences(await later_report(house)) == set()


async def test_what_is_given_back_of_an_invoice_that_was_paid_long_before(house: House) -> None:
    """In the dashboard, and nobody heard of it."""
    for name, amount in (("whole", "20"), ("part", "30")):
        await house.owing(name, amount)
    await house.run()
    for invoice in await house.invoices():
        await house.stripe.control(f"invoices/{invoice.at_stripe}/pay", card="pm_card_visa")
    await house.hear_all()
    whole, in_part = sorted(await house.till.charges(), key=lambda one: one.amount)
    months = timedelta(days=150)
    await later(house, months)
    await house.v1.refunds.create_async({"charge": whole.id})
    await house.v1.refunds.create_async({"charge": in_part.id, "amount": 100})
    report = await later_report(house, months)
    assert differences(report) == {
        ("refund_unknown_to_books", "-23.8", "USD"),
        ("refund_unknown_to_books", "-1", "USD"),
    }


async def test_what_is_given_back_a_period_later_of_what_the_books_never_knew_is_missed_by_nobody(house: House) -> None:
    customer_id = await house.customer_at_stripe(await house.gateway("acme"))
    whole = await charged(house, customer_id, 777)
    in_part = await charged(house, customer_id, 600)
    await later(house)
    await house.v1.refunds.create_async({"charge": whole})
    await house.v1.refunds.create_async({"charge": in_part, "amount": 100})
    report = await later_report(house)
    assert differences(report) == {("charge_unknown_to_books", "5", "USD")}
    assert [one.subject for one in section(report, "stripe").differences] == [in_part]


async def test_charges_that_pay_nothing_of_ours_are_not_asked_for_one_by_one(house: House) -> None:
    customer_id = await house.customer_at_stripe(await house.gateway("acme"))
    for _ in range(3):
        await charged(house, customer_id, 500)
    before_count = len(house.stripe.local.requests)
    report = await report_of(house.admin, house.stripe)
    assert section(report, "stripe").differences_count == 3
    assert len(house.stripe.local.requests) == before_count + 9  # a page of each list: of invoices one before, too


async def test_an_entry_that_only_looks_like_a_payment_has_no_record(house: House) -> None:
    """Written by an operator's own hand: the admin role may book, and only the worker says of which invoice."""
    debtor = await house.owing("late", "20")
    other = await house.owing("other", "50")
    await house.run()
    await house.hear_all()
    await house.topped_up(debtor, "40")
    open_, void = sorted(await house.invoices(), key=lambda one: one.total_minor)
    await house.v1.invoices.void_invoice_async(void.at_stripe)
    await house.hear_all()
    intent_id = house.value("SELECT stripe_intent_id FROM payment")
    assert differences(await report_of(house.admin, house.stripe)) == set()
    forged = {
        "invoice:that-never-was": "500", f"invoice:{open_.id}:by-hand": "20", f"invoice:{void.id}:edited": "50",
        "credit_note:cn_none:tax:void": "7", f"{intent_id}:again": "40",
    }  # fmt: skip
    async with house.admin.begin() as connection:
        for key, amount in forged.items():
            await book(connection, other.id, "payment", Decimal(amount), key=key, reason="x", actor="y")
    report = await report_of(house.admin, house.stripe)
    assert differences(report) == {("entry_without_record", f"-{amount}", "USD") for amount in forged.values()}
    assert section(report, "stripe").differences_count == len(forged)
