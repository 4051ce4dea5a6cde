"""Stripe tells of invoices ten times, shuffled, and of a fifth never: our rows and the books end as it says."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any
from unittest.mock import AsyncMock

import pytest

from clearinghouse.config_alerts import AlertSettings
from settlement.alerts.state import KEEP_S
from settlement.invoices import arrived
from settlement.invoices.arrived import arrive
from settlement.invoices.handler import heard_of_invoice
from settlement.invoices.notes import notes_on
from settlement.invoices.seen import seen
from settlement.runs import tick_engine
from settlement.schedule import Tick
from settlement.stripe_link.desk import Park, desk_of
from settlement.stripe_link.handlers import HANDLERS, SWEEPABLES
from settlement.stripe_link.sweep import sweep
from tests.parts.invoiced import Debtor, Invoiced
from tests.parts.service import running
from tests.parts.stripe_process import processing
from tests.parts.watched import watched

SECRET = "whsec_of_this_endpoint"


async def owing(house: Invoiced, count: int) -> list[Debtor]:
    debtors = []
    for number in range(count):
        debtor = await house.gateway(f"acme-{number}")
        house.use(debtor, f"{80 + number}.0049")
        house.close(debtor)
        debtors.append(debtor)
    await house.run()
    return debtors


async def swept(house: Invoiced) -> str:
    engine = tick_engine(house.conninfo)
    tick = Tick(engine, datetime.now(UTC))
    try:
        async with desk_of(house.stripe.settings, tick) as desk:
            return await sweep(tick, desk, {"invoice": HANDLERS["invoice"]}, {"invoice": SWEEPABLES["invoice"]})
    finally:
        await engine.dispose()


async def end_them_at_stripe(house: Invoiced) -> None:
    """A third is paid, a third voided, a third given up."""
    api = house.stripe.running.client.v1.invoices
    for number, each in enumerate(await house.invoices()):
        ways: Any = (api.pay_async, api.void_invoice_async, api.mark_uncollectible_async)
        await ways[number % 3](each.at_stripe, *([{"paid_out_of_band": True}] if number % 3 == 0 else []))


async def require_as_stripe(house: Invoiced, debtors: list[Debtor]) -> None:
    theirs = {each.id: each.status for each in await house.at_stripe()}
    ours = await house.invoices()
    assert {each.at_stripe: each.state for each in ours} == theirs
    assert sorted(theirs.values()) == sorted(["paid", "void", "uncollectible"] * (len(debtors) // 3))
    for debtor in debtors:
        house.require_balanced(debtor)
        assert len(house.entries(debtor, "payment")) <= 1
    assert sum(len(house.entries(debtor, "payment")) for debtor in debtors) == len(debtors) // 3


async def test_events_repeated_shuffled_and_lost_leave_rows_and_books_as_stripes(house: Invoiced) -> None:
    async with (
        running(house.conninfo, stripe={"webhook_secrets": [SECRET]}) as service,
        processing(house.conninfo, house.stripe.base_url, HANDLERS, count=2),
    ):
        house.stripe.delivers_signed_to(f"http://127.0.0.1:{service.port}/webhooks/stripe", SECRET)
        await house.stripe.control("deliveries", repeat=10, shuffle=True, lose_percent=20, seed=7)
        debtors = await owing(house, 6)
        await end_them_at_stripe(house)
        await house.stripe.delivered(within_s=60)
        async with asyncio.timeout(60):
            while house.value("SELECT count(*) FROM stripe_event WHERE state NOT IN ('done', 'parked')"):
                await asyncio.sleep(0.05)
        assert house.value("SELECT count(*) FROM stripe_event WHERE state = 'parked'") == 0
    await swept(house)
    await require_as_stripe(house, debtors)


async def test_of_what_stripe_never_told_the_sweep_hears(house: Invoiced) -> None:
    debtors = await owing(house, 3)
    await end_them_at_stripe(house)
    assert await swept(house) == "3 invoice"
    await require_as_stripe(house, debtors)
    assert await swept(house) == "1 invoice", "what was given up may still be paid"


async def test_an_invoice_of_somebody_else_is_not_ours(house: Invoiced) -> None:
    client = house.stripe.running.client.v1
    customer = await client.customers.create_async({"email": "a@example.org"})
    foreign = await client.invoices.create_async({"customer": customer.id, "auto_advance": False})
    assert (await heard_of_invoice(house.desk, foreign.id)).startswith("not one of ours")


async def test_a_draft_that_is_gone_is_parked_for_somebody_to_look(house: Invoiced) -> None:
    await house.stripe.fault("status", status=400, method="POST", path="/v1/invoices/*/finalize", times=1)
    await owing(house, 1)
    ours = await house.invoice()
    await house.stripe.running.client.v1.invoices.delete_async(ours.at_stripe)
    with pytest.raises(Park, match="is gone from Stripe"):
        await house.hear(ours)


async def test_one_that_is_overdue_is_an_alert_until_it_is_paid(house: Invoiced) -> None:
    """From the period to the alert and back: nothing of it is written by hand."""
    await owing(house, 2)
    first, second = await house.invoices()
    assert first.due_at is not None
    async with watched(house.conninfo, AlertSettings()) as watch:
        due_s = (first.due_at - watch.begun_at) / timedelta(seconds=1)
        await watch.until_over(after_s=due_s - 3600)
        assert "invoices_unpaid" not in watch.told_rules()
        await watch.evaluated(after_s=due_s + 3600)
        assert watch.facts("invoices_unpaid")["invoices"] == "2"
        for each in (first, second):
            await house.stripe.running.client.v1.invoices.pay_async(each.at_stripe, {"paid_out_of_band": True})
            await house.hear(each)
        await watch.until_over(after_s=due_s + 3600 + 2 * KEEP_S)
        assert watch.told("invoices_unpaid") == ["firing", "resolved"]


async def test_an_older_answer_does_not_raise_what_is_left_to_pay(house: Invoiced) -> None:
    await owing(house, 1)
    ours, api = await house.invoice(), house.stripe.running.client.v1
    asked_at = await house.desk.now()
    late = seen(await api.invoices.retrieve_async(ours.at_stripe), asked_at)
    line: Any = {"type": "custom_line_item", "description": "too much", "quantity": 1, "unit_amount": 3000}
    await api.credit_notes.create_async({"invoice": ours.at_stripe, "lines": [line]})
    await house.hear(ours)
    assert (await house.invoice()).remaining_minor == 5000
    await arrive(house.desk, late)
    assert (await house.invoice()).remaining_minor == 5000


async def test_a_note_that_is_void_by_now_is_not_booked_by_who_read_it_before(
    house: Invoiced, monkeypatch: pytest.MonkeyPatch
) -> None:
    (acme,) = await owing(house, 1)
    ours, api = await house.invoice(), house.stripe.running.client.v1
    line: Any = {"type": "custom_line_item", "description": "too much", "quantity": 1, "unit_amount": 3000}
    made = await api.credit_notes.create_async({"invoice": ours.at_stripe, "lines": [line]})
    late = seen(await api.invoices.retrieve_async(ours.at_stripe), await house.desk.now())
    read = await notes_on(house.desk, late)
    assert [(each.id, each.is_void) for each in read] == [(made.id, False)]
    await api.credit_notes.void_credit_note_async(made.id)
    await house.hear(ours)
    monkeypatch.setattr(arrived, "notes_on", AsyncMock(return_value=read))
    await arrive(house.desk, late)
    after = await house.invoice()
    assert (after.credited_minor, after.remaining_minor, house.entries(acme, "adjustment")) == (0, 8000, [])


async def test_one_that_was_edited_at_stripe_is_not_asked_for_twice(house: Invoiced) -> None:
    """What "Edit invoice" does there: another asks in its place, and it is void."""
    await owing(house, 1)
    ours, client = await house.invoice(), house.stripe.running.client.v1
    revised = await client.invoices.create_async({"customer": str(ours.stripe_customer_id), "auto_advance": False})
    await client.invoice_items.create_async(
        {"customer": str(ours.stripe_customer_id), "invoice": revised.id, "amount": 7000, "currency": "usd"}
    )
    await client.invoices.finalize_invoice_async(revised.id)
    await client.invoices.void_invoice_async(ours.at_stripe)
    desk = house.stripe.local.desk()
    desk.get("invoice", ours.at_stripe)["latest_revision"] = revised.id
    house.stripe.local.write(desk)
    with pytest.raises(Park, match=f"{revised.id} asks in its place"):
        await house.hear(ours)
    assert (await house.invoice()).state == "open"
    await client.invoices.void_invoice_async(revised.id)
    assert await house.hear(ours) == "it is void"
