"""From a closed period to a paid invoice: what Stripe shows, and what the books say at every step."""

from __future__ import annotations

import asyncio
from decimal import Decimal
from functools import partial
from typing import Any

import pytest

from settlement.invoices.jobs import said_of
from settlement.invoices.planning import one_at_a_time
from settlement.invoices.run import Walked, plan_due
from settlement.invoices.store import Choice
from settlement.invoices.walk import PAY_AGAIN_AFTER
from tests.parts.invoiced import Debtor, Invoiced


async def owing(house: Invoiced, *charges: str, **gateway: Any) -> Debtor:
    """With a period that is closed."""
    acme = await house.gateway("acme", **gateway)
    for charge in charges:
        house.use(acme, charge)
    house.close(acme)
    return acme


async def test_a_period_becomes_one_invoice_that_is_sent_and_the_books_follow(house: Invoiced) -> None:
    acme = await house.gateway("acme", po_number="PO 4711", net_days=30)
    for charge in ("3.3349", "3.3349", "3.3349", "1.5"):
        house.use(acme, charge, app=charge)
        house.use(acme, charge, app=charge)
    first_day = house.close(acme)
    walked = await house.run()
    assert (walked.held, walked.away, walked.left_count) == ([], None, 0)
    (theirs,) = await house.at_stripe()
    ours = await house.invoice()
    assert (ours.state, ours.stripe_invoice_id, ours.number) == ("open", theirs.id, theirs.number)
    assert (theirs.status, theirs.total, theirs.auto_advance, theirs.currency) == ("open", 2301, False, "usd")
    assert (theirs.collection_method, theirs.due_date) == ("send_invoice", int(ours.due_at.timestamp()))  # type: ignore[union-attr]
    assert [(field.name, field.value) for field in theirs.custom_fields or []] == [("PO number", "PO 4711")]
    assert theirs.description == f"Usage, {first_day} to 2026-08-31"
    assert [(line.description, line.amount) for line in theirs.lines.data] == [
        ("live-video-to-video, streamdiffusion (3.3349): 6 calls, 6 tickets, EV 0.0100047 ETH at 2000 USD per ETH on "
         "average", 2001),
        ("live-video-to-video, streamdiffusion (1.5): 2 calls, 2 tickets, EV 0.0015 ETH at 2000 USD per ETH on average",
         300),
    ]  # fmt: skip
    usage = [line for line in theirs.lines.data if (line.metadata or {})["kind"] == "usage"]
    facts = [dict(line.metadata.to_dict()) for line in usage]  # type: ignore[union-attr]
    assert {"exact": "20.0094", "ev_wei": "10004700000000000"}.items() <= facts[0].items()
    assert [(one["average_rate"], one["average_rate_per"]) for one in facts] == [("2000", "ETH")] * 2
    assert house.balance(acme) == Decimal("-23.01")
    house.require_balanced(acme)
    assert (await house.stripe.running.client.v1.events.list_async({"type": "invoice.sent"})).data != []


async def test_a_card_is_charged_once_and_the_payment_is_in_the_books(house: Invoiced) -> None:
    acme = await owing(house, "12.345", card="pm_card_visa")
    await house.run()
    ours = await house.invoice()
    assert (ours.state, ours.booked_minor, ours.remaining_minor) == ("paid", 1235, 0)
    assert [charge.amount for charge in await house.charges()] == [1235]
    assert house.entries(acme, "payment") == [Decimal("12.35")]
    assert house.entries(acme, "rounding") == [Decimal("-0.005")]
    assert house.balance(acme) == 0
    assert await house.hear(ours) == "nothing to do"


async def test_a_declined_card_is_tried_again_on_later_days_and_then_no_more(house: Invoiced) -> None:
    acme = await owing(house, "50", card="pm_card_chargeCustomerFail")
    for tried in range(1, len(PAY_AGAIN_AFTER) + 2):
        walked = await house.run()
        assert walked.held == [], "it was issued: that is its customer's affair"
        ours = await house.invoice()
        assert (ours.state, ours.pay_attempts_count) == ("open", tried)
        assert ours.problem is not None
        assert ours.problem.startswith("the payment was declined: ")
        assert (await house.run()).invoices == [], "not before its time"
        house.owner.execute("UPDATE invoice SET pay_next_at = now() - interval '1 s' WHERE pay_next_at IS NOT NULL")
    assert ours.pay_next_at is None
    assert house.entries(acme, "payment") == []
    house.require_balanced(acme)


async def test_what_is_paid_is_booked_once_however_often_it_is_heard(house: Invoiced) -> None:
    acme = await owing(house, "80")
    await house.run()
    ours = await house.invoice()
    await house.stripe.control(f"invoices/{ours.stripe_invoice_id}/pay", card="pm_card_visa")
    await asyncio.gather(*(house.hear(ours) for _ in range(10)))
    assert house.entries(acme, "payment") == [Decimal(80)]
    assert ((await house.invoice()).state, house.balance(acme)) == ("paid", 0)


async def test_what_was_paid_outside_of_stripe_is_booked_once_stripe_is_told(house: Invoiced) -> None:
    acme = await owing(house, "80")
    await house.run()
    ours = await house.invoice()
    await house.stripe.running.client.v1.invoices.pay_async(ours.at_stripe, {"paid_out_of_band": True})
    await house.hear(ours)
    ours = await house.invoice()
    assert (ours.state, ours.off_stripe_minor, house.balance(acme)) == ("paid", 8000, 0)
    reason = house.value("SELECT reason FROM transfer WHERE kind = 'payment'")
    assert reason == f"invoice {ours.number} was paid outside of Stripe, as Stripe was told"


async def test_credit_at_stripe_that_pays_a_part_is_booked_with_the_payment_and_not_before(house: Invoiced) -> None:
    acme = await owing(house, "80")
    customer_id = await house.customer_at_stripe(acme)
    wanted: Any = {"amount": -3000, "currency": "usd"}
    await house.stripe.running.client.v1.customers.balance_transactions.create_async(customer_id, wanted)
    await house.run()
    ours = await house.invoice()
    assert (ours.state, ours.total_minor, ours.remaining_minor, ours.booked_minor) == ("open", 8000, 5000, 0)
    await house.stripe.control(f"invoices/{ours.stripe_invoice_id}/pay", card="pm_card_visa")
    await house.hear(ours)
    assert house.entries(acme, "payment") == [Decimal(80)]
    assert house.balance(acme) == 0


async def test_given_up_and_paid_after_all(house: Invoiced) -> None:
    acme = await owing(house, "80.001")
    await house.run()
    ours = await house.invoice()
    invoices = house.stripe.running.client.v1.invoices
    await invoices.mark_uncollectible_async(ours.at_stripe)
    await house.hear(ours)
    assert ((await house.invoice()).state, house.balance(acme)) == ("uncollectible", -80)
    house.require_balanced(acme)
    await invoices.pay_async(ours.at_stripe, {"paid_out_of_band": True})
    await house.hear(ours)
    assert ((await house.invoice()).state, house.balance(acme)) == ("paid", 0)


async def test_what_is_voided_at_stripe_is_owed_again_and_carried_to_the_next_invoice(house: Invoiced) -> None:
    acme = await owing(house, "80.0049")
    await house.run()
    ours = await house.invoice()
    await house.stripe.running.client.v1.invoices.void_invoice_async(ours.at_stripe)
    await house.hear(ours)
    assert ((await house.invoice()).state, house.balance(acme)) == ("void", Decimal("-80.0049"))
    house.use(acme, "10")
    house.close(acme)
    await house.run()
    newer, _ = await house.invoices()
    assert (newer.state, newer.exact, newer.total_minor) == ("open", Decimal("90.0049"), 9000)
    house.require_balanced(acme)


async def test_credit_is_used_first_and_what_is_too_little_waits_for_the_next_period(house: Invoiced) -> None:
    acme = await house.gateway("acme")
    await house.enter(acme, "grant", "5")
    await house.enter(acme, "payment", "3")
    house.use(acme, "8.2")
    house.close(acme)
    await house.run()
    small = await house.invoice()
    assert (small.state, small.exact, small.total_minor) == ("carried", Decimal("0.2"), 0)
    house.use(acme, "10")
    await house.enter(acme, "refund", "-1")
    house.close(acme)
    await house.run()
    (theirs,) = await house.at_stripe()
    assert [(line.description, line.amount) for line in theirs.lines.data][1:] == [
        ("Payments that were returned", 100), ("Carried from earlier periods", 20),
    ]  # fmt: skip
    assert theirs.total == 1120
    house.require_balanced(acme)
    await house.enter(acme, "grant", "100")
    house.close(acme)
    await house.run()
    assert [each.state for each in await house.invoices()] == ["nothing_due", "open", "carried"]
    assert house.unbilled(acme) == -100


async def test_a_period_is_asked_for_while_the_invoice_before_is_still_not_issued_and_nothing_twice(
    house: Invoiced,
) -> None:
    acme = await owing(house, "80.0049")
    await house.plan()
    house.use(acme, "10.001")
    house.close(acme)
    await house.plan()
    await house.enter(acme, "payment", "1")
    assert [each.exact for each in await house.invoices()] == [Decimal("10.001"), Decimal("80.0049")]
    await house.walk()
    house.require_balanced(acme)
    assert sorted(each.total for each in await house.at_stripe()) == [1000, 8000]


@pytest.mark.parametrize(
    ("currency", "charge", "total_minor"), [("JPY", "1234.5", 1235), ("KWD", "1.2345", 1230), ("ISK", "99.5", 10_000)]
)
async def test_currencies_of_other_minor_units(house: Invoiced, currency: str, charge: str, total_minor: int) -> None:
    acme = await owing(house, charge, currency=currency)
    await house.run()
    (theirs,) = await house.at_stripe()
    assert (theirs.currency, theirs.total, theirs.status) == (currency.lower(), total_minor, "open")
    house.require_balanced(acme)
    await house.stripe.running.client.v1.invoices.pay_async(theirs.id, {"paid_out_of_band": True})
    await house.hear(await house.invoice())
    assert house.balance(acme) == 0


async def test_nobody_to_ask_keeps_that_gateway_waiting_and_no_other(house: Invoiced) -> None:
    stray = await house.gateway("stray", pays=False)
    house.use(stray, "10")
    house.close(stray)
    await owing(house, "20")
    planned = await house.plan()
    assert planned.problems == ["stray, 2026-08-01: stray owes for the period from 2026-08-01, and has no customer"]
    assert [each.gateway_name for each in planned.invoices] == ["acme"]
    assert (await house.plan()).invoices == []


async def test_ways_that_pay_in_advance_get_no_invoice(house: Invoiced) -> None:
    acme = await house.gateway("acme")
    for way in ("prepaid", "automatic", "free"):
        house.use(acme, "10")
        house.close(acme, way=way)
    assert (await house.plan()).invoices == []
    house.use(acme, "1")
    house.close(acme, way="postpaid")
    await house.run()
    assert (await house.invoice()).total_minor == 3100, "what was used before and never paid is owed all the same"


async def test_run_again_it_changes_nothing(house: Invoiced) -> None:
    await owing(house, "80", "0.005", card="pm_card_visa")
    await house.run()
    before = (await house.invoices(), len(house.stripe.local.requests), house.value("SELECT count(*) FROM transfer"))
    for _ in range(3):
        await house.run()
    after = (await house.invoices(), len(house.stripe.local.requests), house.value("SELECT count(*) FROM transfer"))
    assert after == before


async def test_taxes_are_on_top_of_the_total_and_not_in_the_books(house: Invoiced) -> None:
    house.stripe.local.house.tax_percent_by_country["DE"] = "19"
    acme = await owing(house, "80.0049", is_taxed=True, country="DE")
    await house.run()
    ours = await house.invoice()
    assert (ours.total_minor, ours.tax_minor, ours.remaining_minor) == (8000, 1520, 9520)
    assert house.balance(acme) == -80
    await house.stripe.control(f"invoices/{ours.stripe_invoice_id}/pay", card="pm_card_visa")
    await house.hear(ours)
    assert [charge.amount for charge in await house.charges()] == [9520]
    assert (house.entries(acme, "payment"), house.balance(acme)) == ([Decimal(80)], 0)


async def test_a_gateway_that_is_rated_anew_keeps_no_other_waiting_and_is_planned_at_the_next_turn(
    house: Invoiced,
) -> None:
    debtors = [await house.gateway(name) for name in ("first", "second")]
    for debtor in debtors:
        house.use(debtor, "10")
        house.close(debtor)
    async with house.engine.begin() as elsewhere:
        await one_at_a_time(elsewhere, debtors[0].id)
        planned = await asyncio.wait_for(house.plan(), timeout=5)
    assert ([each.gateway_name for each in planned.invoices], planned.busy) == (["second"], ["first"])
    assert said_of(planned, Walked()) == "1 planned, 1 gateways planned for elsewhere"
    again = await house.plan()
    assert ([each.gateway_name for each in again.invoices], again.busy) == (["first"], [])


async def test_planning_ends_in_time_between_two_gateways_and_the_next_goes_on_from_there(house: Invoiced) -> None:
    for name in ("first", "second", "third"):
        debtor = await house.gateway(name)
        for _ in range(2):
            house.use(debtor, "10")
            house.close(debtor)
    told: list[tuple[int, int]] = []
    due = partial(plan_due, house.engine, Choice(), defaults=house.defaults)
    await due(only_try=True, looked=lambda *looked: told.append(looked))
    assert told == [(2, 6), (4, 6), (6, 6)], "how far it is, for whoever waits"
    planned = [await due(within_s=0) for _ in range(4)]
    assert [[each.gateway_name for each in some.invoices] for some in planned] == [
        ["first"] * 2, ["second"] * 2, ["third"] * 2, [],
    ]  # fmt: skip
    assert [some.left_count for some in planned] == [4, 2, 0, 0]
