"""Stripe that is away, slow, crowded or forgetful; two workers; people who change drafts: one invoice, or an alert."""

from __future__ import annotations

import asyncio
from decimal import Decimal
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from clearinghouse.config import Settings
from settlement.invoices.jobs import InvoiceMetrics, InvoicesHeld, turn
from settlement.schedule import JobFailed, Tick
from tests.parts.invoiced import DAY_S, Debtor, Invoiced
from tests.settlement.invoices.job import job_turn


async def owing(house: Invoiced, name: str = "acme", charge: str = "80.0049", **gateway: Any) -> Debtor:
    debtor = await house.gateway(name, **gateway)
    house.use(debtor, charge)
    house.close(debtor)
    return debtor


async def require_one(house: Invoiced, debtor: Debtor, *, is_paid: bool = False) -> None:
    """At Stripe, in our rows, and in the books."""
    (ours,) = [each for each in await house.invoices() if each.gateway_id == debtor.id]
    theirs = [each for each in await house.at_stripe() if each.customer == ours.stripe_customer_id]
    assert [(each.id, each.status, each.total) for each in theirs] == [
        (ours.stripe_invoice_id, "paid" if is_paid else "open", 8000)
    ]
    assert house.entries(debtor, "rounding") == [Decimal("0.0049")]
    assert house.entries(debtor, "payment") == ([Decimal(80)] if is_paid else [])
    house.require_balanced(debtor)


@pytest.mark.parametrize("kind", ["hang_after", "cut_after", "status_after", "status", "cut", "hang"])
async def test_answers_that_do_not_come_are_asked_for_again_and_nothing_is_done_twice(database: str, kind: str) -> None:
    from tests.parts.invoiced import invoiced

    async with invoiced(database, call_timeout_s=0.3, retry_for_s=30) as house:
        debtor = await owing(house, card="pm_card_visa")
        await house.plan()
        more = {"status": 500} if kind.startswith("status") else {}
        await house.stripe.fault(kind, method="POST", path="/v1/invoice*", times=3, **more)
        await house.walk()
        await house.stripe.works_again()
        await house.walk()
        await require_one(house, debtor, is_paid=True)
        assert len(await house.charges()) == 1


async def test_a_storm_of_429_is_waited_for(house: Invoiced) -> None:
    debtors = [await owing(house, f"acme-{number}") for number in range(4)]
    await house.plan()
    await house.stripe.fault("status", status=429, times=6)
    walked = await house.walk()
    assert walked.away is None
    for debtor in debtors:
        await require_one(house, debtor)


async def test_stripe_is_down_for_a_day_and_the_job_says_so_until_it_is_up_again(database: str) -> None:
    from tests.parts.invoiced import invoiced

    async with invoiced(database, retry_for_s=0.2) as house:
        debtors = [await owing(house, f"acme-{number}", card="pm_card_visa") for number in range(3)]
        await house.stripe.fault("status", status=503, method="POST", path="/v1/invoices/*/finalize", times=None)
        for _ in range(2):
            with pytest.raises(JobFailed, match="503"):
                await job_turn(house)
        assert {each.problem for each in await house.invoices()} == {None}
        await house.stripe.control("clock", advance_s=DAY_S + 3600)
        await house.stripe.works_again()
        assert "walked" in await job_turn(house)
        for debtor in debtors:
            await require_one(house, debtor, is_paid=True)
        assert len(await house.charges()) == 3


async def test_a_failure_that_stripe_keeps_under_a_key_holds_up_one_invoice_and_only_for_a_turn(
    house: Invoiced,
) -> None:
    stuck, other = await owing(house, "stuck"), await owing(house, "other")
    await house.plan()
    await house.stripe.fault("status_after", status=500, method="POST", path="/v1/invoices", times=1)
    await house.walk()
    await house.walk()
    for debtor in (stuck, other):
        await require_one(house, debtor)


@pytest.mark.parametrize("is_forgotten", [False, True])
async def test_many_who_walk_the_same_invoices_at_once_issue_each_once(house: Invoiced, is_forgotten: bool) -> None:
    debtors = [await owing(house, f"acme-{number}", card="pm_card_visa") for number in range(3)]
    await asyncio.gather(*(house.plan() for _ in range(3)))
    if is_forgotten:
        await house.stripe.control("clock", advance_s=DAY_S + 3600)
    for _ in range(2):
        await asyncio.gather(*(house.walk() for _ in range(3)))
    for debtor in debtors:
        await require_one(house, debtor, is_paid=True)
    assert len(await house.charges()) == 3


async def test_who_is_at_an_invoice_is_left_alone_for_a_while(house: Invoiced) -> None:
    await owing(house)
    await house.plan()
    house.owner.execute("UPDATE invoice SET claimed_until = now() + interval '1 minute'")
    walked = await house.walk()
    assert (walked.invoices, walked.elsewhere_count, await house.at_stripe()) == ([], 1, [])


async def test_a_draft_that_somebody_changed_is_not_issued_and_somebody_is_told(house: Invoiced) -> None:
    debtor = await owing(house)
    await house.plan()
    await house.stripe.fault("status", status=400, method="POST", path="/v1/invoices/*/finalize", times=1)
    await house.walk()
    ours = await house.invoice()
    assert ours.state == "agreed"
    house.owner.execute("ALTER TABLE invoice DISABLE TRIGGER moves_forward")
    house.owner.execute("UPDATE invoice SET state = 'itemized'")
    house.owner.execute("ALTER TABLE invoice ENABLE TRIGGER moves_forward")
    params: Any = {"customer": ours.stripe_customer_id, "invoice": ours.at_stripe, "amount": 1, "currency": "usd"}
    await house.stripe.running.client.v1.invoice_items.create_async(params)
    for _ in range(2):
        with pytest.raises(InvoicesHeld, match="the sum of the lines is 8001, not 8000"):
            await job_turn(house)
    assert [each.status for each in await house.at_stripe()] == ["draft"]
    assert house.entries(debtor, "rounding") == []


async def test_what_somebody_issued_with_another_sum_is_not_booked(house: Invoiced) -> None:
    debtor = await owing(house)
    await house.plan()
    await house.stripe.fault("status", status=400, method="POST", path="/v1/invoices/*/finalize", times=1)
    await house.walk()
    ours = await house.invoice()
    client = house.stripe.running.client
    params: Any = {"customer": ours.stripe_customer_id, "invoice": ours.at_stripe, "amount": 1, "currency": "usd"}
    await client.v1.invoice_items.create_async(params)
    await client.v1.invoices.finalize_invoice_async(ours.at_stripe)
    with pytest.raises(InvoicesHeld, match="it was finalized at Stripe, and the sum of the lines is 8001, not 8000"):
        await job_turn(house)
    assert (house.entries(debtor, "rounding"), house.balance(debtor)) == ([], Decimal("-80.0049"))


async def test_what_stripe_refuses_is_held_until_it_is_mended_and_not_by_what_it_said_before(house: Invoiced) -> None:
    debtor = await owing(house, is_taxed=True, country=None)
    with pytest.raises(InvoicesHeld, match="location isn't recognized"):
        await job_turn(house)
    assert (await house.invoice()).state == "agreed"
    customer: Any = {"address": {"country": "DE"}}
    await house.stripe.running.client.v1.customers.update_async(await house.customer_at_stripe(debtor), customer)
    assert await job_turn(house) == "1 walked"
    await require_one(house, debtor)


async def test_one_that_is_held_up_holds_up_no_other_and_is_told_of_every_turn(house: Invoiced) -> None:
    held = await owing(house, "held", is_taxed=True, country=None)
    fine = await owing(house, "fine")
    with pytest.raises(InvoicesHeld, match=r"1 held up: inv_.* of held: Stripe refused"):
        await job_turn(house)
    await require_one(house, fine)
    tick = Tick(house.engine, await house.desk.now())
    metrics = InvoiceMetrics(CollectorRegistry())
    with pytest.raises(InvoicesHeld):  # not tried again so soon, but not forgotten either
        await turn(tick, house.walker(), Settings(), metrics)
    assert house.entries(held, "rounding") == []


async def test_switched_off_nothing_is_planned_and_what_was_planned_goes_on(house: Invoiced) -> None:
    await owing(house)
    off = {"invoices": {"automatic": False}}
    assert await job_turn(house, **off) == "nothing was due"
    await house.plan()
    assert await job_turn(house, **off) == "1 walked"


async def test_what_was_done_is_counted(house: Invoiced) -> None:
    await owing(house, "a")
    await owing(house, "b", charge="0.1")
    registry = CollectorRegistry()
    await turn(Tick(house.engine, await house.desk.now()), house.walker(), Settings(), InvoiceMetrics(registry))
    counts = {
        outcome: registry.get_sample_value("clearinghouse_invoices_total", {"outcome": outcome})
        for outcome in ("planned", "carried", "nothing_due", "issued", "held", "not_planned")
    }
    assert counts == {"planned": 1, "carried": 1, "nothing_due": 0, "issued": 1, "held": 0, "not_planned": 0}
