"""Taking back what is not paid: at Stripe first, in the books then, and asked for again once, here or there."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest

from clearinghouse.errors import InvalidRequest, NotFound
from clearinghouse.ids import uuid7
from settlement.invoices.seen import seen
from settlement.invoices.store import Invoice
from settlement.invoices.void import InvoicePaid, NotByStripe, NotToBeVoid, reissue, void
from settlement.invoices.walk import WalkedElsewhere
from settlement.payments.operators import write_off
from settlement.stripe_link.desk import Desk
from tests.parts.crashing import CrashingDesk, it_may_crash
from tests.parts.invoiced import DAY_S, Debtor, Invoiced
from tests.settlement.invoices.owing import is_asked_without_stripe


async def owing(house: Invoiced, name: str = "acme", **gateway: Any) -> Debtor:
    debtor = await house.gateway(name, **gateway)
    house.use(debtor, "80.0049")
    house.close(debtor)
    return debtor


async def void_it(house: Invoiced, invoice: Invoice, desk: Desk | None = None) -> Invoice:
    return await void(house.walker(desk), invoice.id, reason="wrong address")


async def test_an_open_invoice_is_voided_at_stripe_and_in_the_books(house: Invoiced) -> None:
    acme = await owing(house)
    await house.run()
    done = await void_it(house, await house.invoice())
    assert (done.state, done.problem) == ("void", "wrong address")
    assert [each.status for each in await house.at_stripe()] == ["void"]
    assert house.balance(acme) == house.unbilled(acme) * -1 == Decimal("-80.0049")
    assert house.entries(acme, "rounding") == [Decimal("0.0049"), Decimal("-0.0049")]
    assert await void_it(house, done) == done, "again it changes nothing"
    assert await house.hear(done) == "nothing to do"


async def test_what_is_asked_for_without_stripe_by_now_is_void_and_not_issued_again(house: Invoiced) -> None:
    acme = await owing(house)
    await house.run()
    is_asked_without_stripe(house, acme)
    done = await void_it(house, await house.invoice())
    with pytest.raises(NotByStripe, match="acme is asked without Stripe"):
        await reissue(house.desk, done, defaults=house.defaults)
    assert [each.status for each in await house.at_stripe()] == ["void"]
    house.require_balanced(acme)


async def test_what_was_asked_for_without_stripe_meanwhile_is_not_issued_again_but_carried(house: Invoiced) -> None:
    acme = await owing(house)
    await house.run()
    done = await void_it(house, await house.invoice())
    is_asked_without_stripe(house, acme)
    await house.enter(acme, "payment", "80")
    house.owner.execute("UPDATE customer SET collection = 'send_invoice'")
    with pytest.raises(NotByStripe, match="acme was asked without Stripe"):
        await reissue(house.desk, done, defaults=house.defaults)
    house.use(acme, "5")
    house.close(acme)
    await house.run()
    assert [each.total for each in await house.at_stripe(status="open")] == [500]
    house.require_balanced(acme)


async def test_reissued_it_is_asked_for_with_the_customer_as_it_is_now_and_not_carried_as_well(house: Invoiced) -> None:
    acme = await owing(house)
    await house.run()
    done = await void_it(house, await house.invoice())
    house.owner.execute("UPDATE customer SET po_number = 'PO 7', version = version + 1")
    again = await reissue(house.desk, done, defaults=house.defaults)
    assert (again.revision, again.exact, again.po_number) == (1, done.exact, "PO 7")
    with pytest.raises(NotToBeVoid, match="asks for it already"):
        await reissue(house.desk, done, defaults=house.defaults)
    house.use(acme, "10")
    house.close(acme)
    await house.run()
    assert sorted((each.status, each.total) for each in await house.at_stripe()) == [
        ("open", 1000), ("open", 8000), ("void", 8000),
    ]  # fmt: skip
    house.require_balanced(acme)
    assert house.unbilled(acme) == 0


async def test_what_a_later_invoice_carries_already_is_not_reissued(house: Invoiced) -> None:
    acme = await owing(house)
    await house.run()
    done = await void_it(house, await house.invoice())
    house.use(acme, "10")
    house.close(acme)
    await house.run()
    with pytest.raises(NotToBeVoid, match="The invoice for the period from 2026-09-01 asks for it already"):
        await reissue(house.desk, done, defaults=house.defaults)
    newer, _ = await house.invoices()
    assert newer.exact == Decimal("90.0049")


async def test_what_is_paid_or_asks_for_nothing_is_not_voided(house: Invoiced) -> None:
    acme = await owing(house, card="pm_card_visa")
    await house.run()
    with pytest.raises(InvoicePaid):
        await void_it(house, await house.invoice())
    await house.enter(acme, "grant", "5")
    house.close(acme)
    await house.run()
    nothing, paid = await house.invoices()
    with pytest.raises(NotToBeVoid):
        await void_it(house, nothing)
    with pytest.raises(NotToBeVoid, match="is not void"):
        await reissue(house.desk, paid, defaults=house.defaults)
    with pytest.raises(NotFound):
        await void(house.walker(), uuid7(), reason="nobody knows it")


async def test_what_was_paid_before_anybody_here_heard_of_it_is_not_voided_but_booked(house: Invoiced) -> None:
    acme = await owing(house)
    await house.run()
    ours = await house.invoice()
    await house.stripe.running.client.v1.invoices.pay_async(ours.at_stripe, {"paid_out_of_band": True})
    with pytest.raises(InvoicePaid):
        await void_it(house, ours)
    await house.hear(ours)
    assert house.balance(acme) == 0


async def test_a_draft_that_is_gone_from_stripe_is_let_go_here_too(house: Invoiced) -> None:
    acme = await owing(house)
    await house.plan()
    await house.stripe.fault("status", status=400, method="POST", path="/v1/invoices/*/finalize", times=1)
    await house.walk()
    ours = await house.invoice()
    await house.stripe.running.client.v1.invoices.delete_async(ours.at_stripe)
    assert (await void_it(house, ours)).state == "void"
    assert house.unbilled(acme) == Decimal("80.0049")


async def test_a_draft_that_comes_after_its_invoice_is_void_is_not_left_at_stripe(house: Invoiced) -> None:
    acme = await owing(house)
    await house.plan()
    ours = await house.invoice()
    await void_it(house, ours)
    draft = await house.stripe.running.client.v1.invoices.create_async(
        {"customer": await house.customer_at_stripe(acme), "auto_advance": False}
    )
    with pytest.raises(WalkedElsewhere):
        await house.walker().drafted(ours, seen(draft))
    assert await house.at_stripe() == []


async def test_what_an_invoice_asks_for_is_written_off_when_it_is_void_and_is_no_credit_of_the_next(
    house: Invoiced,
) -> None:
    acme = await owing(house)
    await house.run()

    async def give_up(amount: str) -> None:
        async with house.admin.begin() as connection:
            await write_off(connection, acme.id, Decimal(amount), reason="insolvent", actor="ann", key="case-17")

    with pytest.raises(InvalidRequest, match="invoices void"):
        await give_up("80")
    await void_it(house, await house.invoice())
    await give_up("80.0049")
    house.use(acme, "10")
    house.close(acme)
    await house.run()
    newer, _ = await house.invoices()
    assert (newer.total_minor, house.balance(acme)) == (1000, -10)


@pytest.mark.slow
@pytest.mark.parametrize("key_is_forgotten", [False, True])
async def test_wherever_the_making_stopped_it_is_voided_and_nothing_is_left_at_stripe(
    house: Invoiced, key_is_forgotten: bool
) -> None:
    for dies_at in range(1, 100):
        debtor = await owing(house, f"acme-{dies_at}")
        await house.plan()
        desk = CrashingDesk(house.desk, dies_at)
        with it_may_crash():
            await house.walk(desk, in_flight_count=1)
        if key_is_forgotten:
            await house.stripe.control("clock", advance_s=DAY_S + 3600)
        (ours,) = [each for each in await house.invoices() if each.gateway_id == debtor.id]
        voiding = CrashingDesk(house.desk, dies_at)
        with it_may_crash():
            await void_it(house, ours, voiding)
        assert (await void_it(house, ours)).state == "void"
        theirs = [
            each.status for each in await house.at_stripe() if each.customer == await house.customer_at_stripe(debtor)
        ]
        assert theirs in ([], ["void"]), desk.fuse.steps[-1]
        assert (house.balance(debtor), house.unbilled(debtor)) == (Decimal("-80.0049"), Decimal("80.0049"))
        if len(desk.fuse.steps) < dies_at:
            break
    assert len(desk.fuse.steps) > 12


async def test_a_wire_after_the_end_is_credit_for_the_next_or_the_invoice_is_void(house: Invoiced) -> None:
    acme = await owing(house)
    is_asked_without_stripe(house, acme)
    await house.run()
    house.owner.execute("UPDATE customer SET collection = 'send_invoice'")
    house.use(acme, "5")
    house.close(acme)
    await house.enter(acme, "payment", "80")
    await house.run()
    newest, _ = await house.invoices()
    assert newest.total_minor == 8500, "as it was at the period's end"
    await void_it(house, newest)
    house.use(acme, "7")
    house.close(acme)
    await house.run()
    assert [each.total for each in await house.at_stripe(status="open")] == [1200]
    house.require_balanced(acme)
