"""Subscriptions: the fee in advance by an invoice of its own, what is not included in arrears, and nothing twice."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest

from settlement.invoices.preview import preview
from settlement.invoices.store import Invoice
from settlement.invoices.void import NotToBeVoid, reissue, void
from tests.parts.invoiced import Debtor, Invoiced


async def subscribed(house: Invoiced, fee: str = "49.999", included: str = "100", **gateway: str) -> Debtor:
    """From now on; its period is booked as the calendar and the account's terms do it."""
    acme = await house.gateway("acme", **gateway)
    house.owner.execute(
        "INSERT INTO billing_terms (gateway_id, begins_at, way, fee, included, credit_limit) "
        "VALUES (%s, clock_timestamp(), 'subscription', %s, %s, 1000000)", [acme.id, fee, included],
    )  # fmt: skip
    begin_period(house, acme)
    return acme


def begin_period(house: Invoiced, acme: Debtor, *, lasts_s: float = 3600) -> None:
    begins_at = datetime.now(UTC)
    values = [
        acme.id,
        begins_at,
        begins_at + timedelta(seconds=lasts_s),
        begins_at.date(),
        begins_at.date() + timedelta(31),
    ]
    assert house.owner.execute("SELECT plan_subscription_period(%s, %s, %s, %s, %s)", values).fetchone() == (True,)
    house.owner.execute("SELECT apply_due_terms(%s)", [acme.id])


def kinds(invoices: list[Invoice]) -> list[tuple[str, str, int]]:
    return sorted((each.kind, each.state, each.total_minor) for each in invoices)


async def test_without_stripe_neither_the_fee_nor_usage_is_asked_for_there_and_a_later_invoice_carries_both(
    house: Invoiced,
) -> None:
    acme = await subscribed(house, collection="manual")
    house.use(acme, "130.5")
    house.close(acme, way="subscription")
    for _ in range(2):
        await house.run()
    assert kinds(await house.invoices()) == [("subscription", "carried", 0), ("usage", "carried", 0)]
    assert (await house.at_stripe(), house.unbilled(acme)) == ([], Decimal("80.499"))
    house.owner.execute("UPDATE customer SET collection = 'send_invoice'")
    house.use(acme, "10")
    house.close(acme)
    await house.run()
    assert [each.total for each in await house.at_stripe()] == [9050]
    house.require_balanced(acme)


async def test_the_fee_is_asked_for_in_advance_once_and_usage_beyond_what_is_included_afterwards(
    house: Invoiced,
) -> None:
    acme = await subscribed(house, card="pm_card_visa")
    for _ in range(2):
        await house.run()
    assert kinds(await house.invoices()) == [("subscription", "paid", 5000)]
    assert house.entries(acme, "payment") == [Decimal(50)]
    house.use(acme, "130.5")
    house.close(acme, way="subscription")
    for _ in range(2):
        await house.run()
    assert kinds(await house.invoices()) == [("subscription", "paid", 5000), ("usage", "paid", 3050)]
    assert sorted(charge.amount for charge in await house.charges()) == [3050, 5000]
    assert (house.balance(acme), house.unbilled(acme)) == (0, 0)


async def test_usage_that_is_planned_before_the_fee_leaves_the_fee_to_its_own_invoice(house: Invoiced) -> None:
    acme = await subscribed(house)
    house.use(acme, "130.5")
    house.close(acme, way="subscription")
    await house.run()
    assert kinds(await house.invoices()) == [("subscription", "open", 5000), ("usage", "open", 3050)]
    house.require_balanced(acme)


async def test_what_is_included_ends_with_its_period_and_pays_for_nothing_of_the_next(house: Invoiced) -> None:
    acme = await house.gateway("acme")
    await house.enter(acme, "refund", "-7")
    house.owner.execute(
        "INSERT INTO billing_terms (gateway_id, begins_at, way, fee, included, credit_limit) "
        "VALUES (%s, clock_timestamp(), 'subscription', 0, 100, 1000000)", [acme.id],
    )  # fmt: skip
    begin_period(house, acme, lasts_s=0.5)
    house.use(acme, "40")
    while house.value("SELECT clock_timestamp() < max(ends_at) FROM subscription_period"):
        pass
    house.close(acme, way="subscription")
    await house.run()
    assert kinds(await house.invoices()) == [("usage", "open", 700)]
    assert house.entries(acme, "expiry") == [-60]
    house.require_balanced(acme)


async def test_a_fee_too_small_to_ask_for_is_carried_to_the_next_invoice(house: Invoiced) -> None:
    acme = await subscribed(house, fee="0.3", included="0")
    await house.run()
    house.use(acme, "10")
    house.close(acme, way="subscription")
    await house.run()
    assert kinds(await house.invoices()) == [("subscription", "carried", 0), ("usage", "open", 1030)]
    house.require_balanced(acme)


async def test_a_void_fee_is_reissued_or_carried_and_never_both(house: Invoiced) -> None:
    acme = await subscribed(house)
    await house.run()
    done = await void(house.walker(), (await house.invoice()).id, reason="wrong address")
    assert house.unbilled(acme) == Decimal("49.999") - 100
    again = await reissue(house.desk, done, defaults=house.defaults)
    assert (again.revision, again.total_minor, house.unbilled(acme)) == (1, 5000, -100)
    await house.walk()
    await void(house.walker(), again.id, reason="wrong again")
    house.use(acme, "130")
    house.close(acme, way="subscription")
    await house.run()
    assert kinds(await house.invoices())[-1] == ("usage", "open", 8000)
    with pytest.raises(NotToBeVoid, match="asks for it already"):
        await reissue(house.desk, done, defaults=house.defaults)
    house.require_balanced(acme)


async def test_the_period_that_runs_can_be_looked_at_and_nothing_is_written(house: Invoiced) -> None:
    acme = await house.gateway("acme")
    house.use(acme, "12.3449")
    await house.enter(acme, "grant", "2")
    async with house.admin.connect() as connection:
        seen = await preview(connection, acme.id, await house.desk.now() + timedelta(milliseconds=1))
    assert [(line.kind, line.amount_minor) for line in seen.owed.lines] == [("usage", 1234), ("credit", -200)]
    assert (seen.owed.exact, seen.owed.total_minor) == (Decimal("10.3449"), 1034)
    assert await house.invoices() == []
