"""Bank transfers: as asked for, and otherwise. What comes is credited, once."""

from __future__ import annotations

from datetime import timedelta
from decimal import Decimal

import pytest

from settlement.payments.transfers_due import give_up_transfers
from settlement.schedule import JobFailed, Tick
from tests.parts.paying import Till, states


async def test_instructions_say_where_to_and_the_credit_is_there_when_the_money_is(till: Till) -> None:
    gateway = await till.new_gateway()
    payment_id = await till.asked_at_stripe(gateway, "bank_transfer", "50")
    asked = till.payment(payment_id)
    assert (asked["state"], asked["instructions"]["type"]) == ("open", "us_bank_transfer")
    assert asked["instructions"]["reference"]
    assert asked["expires_at"] - asked["created_at"] == timedelta(days=30)
    await till.transferred(gateway, 5000)
    await till.hear(repeat=3)
    await till.work()
    assert till.payment(payment_id)["state"] == "succeeded"
    assert till.entries(gateway) == [("payment", Decimal(50))]
    assert len(till.payments(gateway)) == 1


async def test_another_amount_is_credited_as_it_came_and_nothing_more_is_waited_for(till: Till) -> None:
    gateway = await till.new_gateway()
    payment_id = await till.asked_at_stripe(gateway, "bank_transfer", "50")
    await till.transferred(gateway, 3000)
    await till.hear(repeat=3)
    await till.work()
    await till.hear()
    asked, came = till.payments(gateway)
    assert (asked["id"], asked["state"], asked["failure"]) == (payment_id, "canceled", "another_amount")
    assert (came["method"], came["state"], came["amount"]) == ("cash_balance", "succeeded", 30)
    await till.transferred(gateway, 2000)
    await till.hear()
    await till.work()
    assert till.entries(gateway) == [("payment", Decimal(30)), ("payment", Decimal(20))]


async def test_what_is_more_than_was_asked_for_is_credited_too(till: Till) -> None:
    gateway = await till.new_gateway()
    await till.asked_at_stripe(gateway, "bank_transfer", "50")
    await till.transferred(gateway, 5750)
    await till.hear()
    await till.work()
    assert sorted(amount for _, amount in till.entries(gateway)) == [Decimal("7.5"), Decimal(50)]


async def test_a_transfer_that_nobody_announced_is_credited(till: Till) -> None:
    gateway = await till.new_gateway(currency="EUR")
    await till.transferred(gateway, 1234, "eur")
    await till.hear(repeat=2)
    await till.work()
    await till.hear()
    assert till.entries(gateway) == [("payment", Decimal("12.34"))]
    assert states(till.payments(gateway)) == ["succeeded"]


async def test_open_invoices_come_first(till: Till) -> None:
    gateway = await till.new_gateway()
    (row,) = till.rows("SELECT stripe_customer_id FROM customer")
    invoices = till.sdk.v1.invoices
    invoice = await invoices.create_async(
        {"customer": row["stripe_customer_id"], "collection_method": "send_invoice", "days_until_due": 9}
    )
    await till.sdk.v1.invoice_items.create_async(
        {"customer": row["stripe_customer_id"], "invoice": invoice.id, "amount": 9900, "currency": "usd"}
    )
    await invoices.finalize_invoice_async(invoice.id)
    await till.transferred(gateway, 3000)
    said = await till.hear()
    assert "what is left in the cash balance waits for open invoices" in said
    assert (await till.work(), till.entries(gateway)) == (0, [])
    await till.sweep()
    assert (await till.work(), till.entries(gateway)) == (0, [])
    await invoices.void_invoice_async(invoice.id)  # nothing of the cash balance moves with it
    await till.hear()
    await till.sweep()
    await till.work()
    assert till.entries(gateway) == [("payment", Decimal(30))]


async def test_money_in_another_currency_is_parked_and_too_little_waits_for_more(till: Till) -> None:
    gateway = await till.new_gateway()
    await till.transferred(gateway, 40)
    assert any("stays in the cash balance" in said for said in await till.hear())
    await till.transferred(gateway, 60)
    await till.hear()
    await till.work()
    assert till.entries(gateway) == [("payment", Decimal(1))]
    await till.transferred(gateway, 500, "eur")
    await till.hear()
    assert till.parked == ["5 EUR came for an account in USD: return it at Stripe"]
    await till.transferred(gateway, 200)
    await till.hear()
    await till.work()
    assert till.entries(gateway) == [("payment", Decimal(1)), ("payment", Decimal(2))]
    await till.transferred(gateway, 300)  # of which no event tells
    till.heard |= {event.id for event in await till.news()}
    await till.sweep()
    await till.work()
    assert till.entries(gateway)[2:] == [("payment", Decimal(3))]
    assert len(till.parked) == 1, "only what came in another currency"


async def test_what_does_not_come_expires_and_is_credited_if_it_comes_after_all(till: Till) -> None:
    gateway = await till.new_gateway()
    payment_id = await till.asked_at_stripe(gateway, "bank_transfer", "50")
    late = Tick(till.engine_of_work(), await till.desk.now() + timedelta(days=30, seconds=1))
    assert await give_up_transfers(late, till.desk) == "1 transfers given up"
    assert till.payment(payment_id)["state"] == "expired"
    await till.transferred(gateway, 5000)
    await till.hear()
    await till.work()
    assert till.entries(gateway) == [("payment", Decimal(50))]


async def test_a_late_transfer_that_is_wrong_keeps_no_other_from_being_given_up(till: Till) -> None:
    gateway = await till.new_gateway()
    wrong, late = [await till.asked_at_stripe(gateway, "bank_transfer", amount) for amount in ("50", "60")]
    till.rows("UPDATE payment SET stripe_intent_id = 'pi_gone' WHERE id = %s RETURNING 1", wrong)
    tick = Tick(till.engine_of_work(), await till.desk.now() + timedelta(days=30, seconds=1))
    with pytest.raises(JobFailed, match="pi_gone"):
        await give_up_transfers(tick, till.desk)
    assert till.payment(late)["state"] == "expired"


async def test_more_than_stripe_takes_at_once_is_credited_in_parts(till: Till) -> None:
    gateway = await till.new_gateway()
    await till.transferred(gateway, 100_000_099)
    for _ in range(2):
        await till.hear()
        await till.work()
    assert till.entries(gateway) == [("payment", Decimal("999999.99")), ("payment", Decimal(1))]


async def test_two_who_take_the_same_money_take_it_once(till: Till) -> None:
    gateway = await till.new_gateway()
    await till.transferred(gateway, 5000)
    movement = next(one for one in await till.news() if one.type == "customer_cash_balance_transaction.created")
    await till.hear()
    await till.handled(movement)
    assert len(till.payments(gateway)) == 1
    till.due_now()
    await till.work()
    await till.handled(movement)
    await till.work()
    assert till.entries(gateway) == [("payment", Decimal(50))]


async def test_a_transfer_in_a_currency_that_stripe_has_no_bank_for_is_refused_with_another_way(till: Till) -> None:
    gateway = await till.new_gateway(currency="CHF")
    ended = till.payment(await till.asked_at_stripe(gateway, "bank_transfer", "50"))
    assert (ended["state"], "use method checkout" in ended["said"]) == ("failed", True)
