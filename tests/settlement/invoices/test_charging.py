"""Invoices that are charged by themselves: by the card that the gateway has saved, whichever it is by then."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from decimal import Decimal
from typing import Any

import pytest

from settlement.invoices.store import Invoice
from settlement.stripe_link.client import StripeLink
from tests.parts.crashing import CrashingDesk, it_may_crash
from tests.parts.invoiced import Debtor, Invoiced
from tests.parts.paying import till_of
from tests.settlement.invoices.job import job_turn

DECLINED = "pm_card_chargeCustomerFail"
NO_CARD = "`clearinghouse payments save-card acme`"


async def owing(house: Invoiced, *, card: str | None = None, name: str = "acme") -> Debtor:
    """50 USD, of a period that is closed."""
    debtor = await house.gateway(name, card=card, collection="charge_automatically")
    house.use(debtor, "50")
    house.close(debtor)
    return debtor


async def saved_at_the_page(house: Invoiced, debtor: Debtor, card: str = "pm_card_visa") -> None:
    """By `clearinghouse payments save-card`, at Stripe's page, and heard of by its event."""
    await till_of(house).save_card(debtor.id, card)


async def the_invoice(house: Invoiced, debtor: Debtor) -> Invoice:
    (one,) = [each for each in await house.invoices() if each.gateway_id == debtor.id]
    return one


async def require_charged_once(house: Invoiced, debtor: Debtor) -> None:
    ours = await the_invoice(house, debtor)
    assert (ours.state, ours.problem) == ("paid", None)
    assert [one.amount for one in await house.charges(customer=ours.stripe_customer_id)] == [5000]
    assert (house.entries(debtor, "payment"), house.balance(debtor)) == ([Decimal(50)], 0)


async def test_without_a_card_the_row_says_how_to_save_one_and_then_it_is_charged_at_the_next_turn(
    house: Invoiced,
) -> None:
    acme = await owing(house)
    await house.run()
    ours = await house.invoice()
    assert (ours.state, ours.problem) == ("open", f"no card is saved: {NO_CARD}")
    assert house.stripe.asked("POST", f"/v1/invoices/{ours.at_stripe}/pay") == 0
    assert (await house.run()).invoices == [], "nothing has changed"
    await saved_at_the_page(house, acme)
    customer = await house.stripe.running.client.v1.customers.retrieve_async(str(ours.stripe_customer_id))
    assert customer.invoice_settings is not None
    assert customer.invoice_settings.default_payment_method is None, "what is charged is named, whatever Stripe knows"
    assert await job_turn(house) == "1 walked"
    await require_charged_once(house, acme)


async def test_another_card_is_charged_at_once_for_what_the_first_was_declined_for(house: Invoiced) -> None:
    acme = await owing(house, card=DECLINED)
    await house.run()
    assert (await house.run()).invoices == [], "the same card has its day"
    await saved_at_the_page(house, acme)
    await asyncio.gather(house.run(), house.run())
    await require_charged_once(house, acme)


async def test_another_card_is_tried_as_often_as_the_first(house: Invoiced) -> None:
    acme = await owing(house, card=DECLINED)
    for attempts_count in (1, 2, 3, 4):
        await house.run()
        house.owner.execute("UPDATE invoice SET pay_next_at = now() WHERE pay_next_at IS NOT NULL")
        assert (await house.invoice()).pay_attempts_count == attempts_count
    assert (await house.run()).invoices == []
    await house.card(acme, DECLINED)
    await house.run()
    again = await house.invoice()
    assert (again.pay_attempts_count, again.pay_next_at is not None) == (1, True)


async def test_a_decline_that_is_heard_of_late_counts_for_no_other_card(house: Invoiced) -> None:
    acme = await owing(house, card=DECLINED)
    is_asked, goes_on = asyncio.Event(), asyncio.Event()

    class Slow(StripeLink):
        """Whoever charges by it hears of the answer after everybody else."""

        def __init__(self, link: StripeLink) -> None:
            self.__dict__.update(link.__dict__)

        async def call(self, function: Any, *args: Any, **asked: Any) -> Any:
            try:
                return await super().call(function, *args, **asked)
            finally:
                if function.__name__ == "pay_async":
                    is_asked.set()
                    await goes_on.wait()

    await house.plan()
    late = asyncio.create_task(house.walk(replace(house.desk, link=Slow(house.desk.link))))
    await is_asked.wait()
    await house.card(acme, DECLINED)
    await house.walk()
    before = await house.invoice()
    goes_on.set()
    await late
    after = await house.invoice()
    assert (before.pay_attempts_count, after.pay_attempts_count, after.pay_next_at) == (1, 1, before.pay_next_at)


async def test_a_card_that_was_taken_away_at_stripe_is_not_saved_here_any_more(house: Invoiced) -> None:
    acme = await owing(house, card="pm_card_visa")
    (method_id,) = house.value("SELECT array[payment_method_id] FROM saved_card")
    await house.stripe.running.client.v1.payment_methods.detach_async(method_id)  # and no event tells of it
    await house.run()
    assert (await house.invoice()).problem == f"the saved card was taken away at Stripe: {NO_CARD}"
    assert house.value("SELECT count(*) FROM saved_card") == 0
    await saved_at_the_page(house, acme)
    await house.run()
    await require_charged_once(house, acme)


@pytest.mark.slow
@pytest.mark.parametrize("changes", [False, True])
async def test_a_crash_anywhere_while_another_card_is_charged_and_perhaps_a_third_saved_charges_once(
    house: Invoiced, changes: bool
) -> None:
    for dies_at in range(1, 50):
        debtor = await owing(house, card=DECLINED, name=f"gateway-{dies_at}")
        await house.run()
        await house.card(debtor, "pm_card_visa")
        desk = CrashingDesk(house.desk, dies_at)
        with it_may_crash():
            await house.walk(desk, in_flight_count=1)
        if changes:
            await house.card(debtor, "pm_card_mastercard")
        await house.walk()
        await require_charged_once(house, debtor)
        if len(desk.fuse.steps) < dies_at:
            break
    assert {"before InvoiceService.pay_async", "after InvoiceService.pay_async"} <= set(desk.fuse.steps)
    assert desk.fuse.steps.count("after the commit") >= 4, "the claim, the card, the payment, the end"
