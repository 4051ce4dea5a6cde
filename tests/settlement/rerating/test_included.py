"""A subscription's period by corrected rates: what is included pays the same amount as ever, and no more."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any, Final, NamedTuple

import pytest

from clearinghouse.ledger.transfers import grant
from clearinghouse.ledger.verify import verify
from clearinghouse.rates.card import CardVersion
from settlement.invoices.store import lines_of
from tests.parts.invoiced import Debtor
from tests.settlement.invoices.test_subscriptions import begin_period
from tests.settlement.rerating.sold import Sold, per_second
from tests.settlement.rerating.subscribed import begin_subscription, close_subscription, past_all_triggers, subscribed

SECONDS: Final = 100


def at_price(version: int, price: str) -> CardVersion:
    """Of a second."""
    return per_second(version, (None, price))


async def used(sold: Sold, included: str, price: str, **gateway: Any) -> Debtor:
    """A hundred seconds, closed and asked for where that is more than is included."""
    wrong = await sold.apply(at_price(1, price))
    acme = await subscribed(sold, included, **gateway)
    sold.use(acme, wrong, SECONDS)
    close_subscription(sold, acme)
    await sold.house.run()
    return acme


async def charged(sold: Sold, acme: Debtor) -> Decimal:
    """Its card, less what Stripe keeps for it."""
    customer_id = await sold.house.customer_at_stripe(acme)
    customer = await sold.house.stripe.running.client.v1.customers.retrieve_async(customer_id)
    charges = await sold.house.charges()
    return Decimal(sum(charge.amount for charge in charges) + customer.balance) / 100


class Case(NamedTuple):
    included: str
    was: str
    now: str
    #: By what is included.
    paid_besides: str


CASES: Final = {
    "in it, before and after": Case("100", "0.40", "0.30", "-10"),
    "in it, and more": Case("50", "0.30", "0.45", "15"),
    "beyond it, before and after": Case("50", "0.70", "0.60", "0"),
    "beyond it, and more": Case("50", "0.70", "0.90", "0"),
    "back into it": Case("50", "0.70", "0.30", "-20"),
    "out of it": Case("50", "0.30", "0.70", "20"),
    "nothing included": Case("0", "0.70", "0.30", "0"),
}


@pytest.mark.parametrize("card", [None, "pm_card_visa"])
@pytest.mark.parametrize("case", CASES)
async def test_what_is_owed_is_what_is_not_included_at_the_corrected_price(
    sold: Sold, card: str | None, case: str
) -> None:
    included, was, now, paid_besides = CASES[case]
    acme = await used(sold, included, was, card=card)
    right = await sold.apply(at_price(2, now))
    tried, _ = await sold.tried(acme, right)
    done = await sold.rerate(acme, right)
    difference = SECONDS * (Decimal(now) - Decimal(was))
    assert (done.state, done.difference, done.included) == ("done", difference, Decimal(paid_besides))
    assert (tried.difference, tried.included) == (done.difference, done.included)
    assert await sold.rerate(acme, right) == done, "the same again does nothing more"
    sold.house.require_balanced(acme)
    should_pay = max(SECONDS * Decimal(now) - Decimal(included), Decimal(0))
    assert await charged(sold, acme) - sold.house.balance(acme) == should_pay
    await sold.require_clean()


async def test_the_new_invoice_shows_as_much_credit_as_it_has_usage_for(sold: Sold) -> None:
    acme = await used(sold, "50", "0.70")
    await sold.rerate(acme, await sold.apply(at_price(2, "0.55")))
    was, now = sorted(await sold.house.invoices(), key=lambda each: each.revision)
    assert (was.total_minor, now.total_minor, now.state) == (2000, 500, "open")
    async with sold.house.engine.connect() as connection:
        lines = await lines_of(connection, now.id)
    assert {line.kind: line.exact for line in lines} == {"usage": 55, "credit": -50}


async def test_a_second_correction_starts_from_the_first_and_the_next_period_has_all_that_it_includes(
    sold: Sold,
) -> None:
    acme = await used(sold, "50", "0.70")
    await sold.rerate(acme, await sold.apply(at_price(2, "0.30")))
    assert (sold.house.balance(acme), sold.house.unbilled(acme)) == (0, 0)
    third = await sold.apply(at_price(3, "0.65"))
    done = await sold.rerate(acme, third, reason="and once more")
    assert (done.difference, done.included) == (35, 20)
    assert (sold.house.balance(acme), sold.house.unbilled(acme)) == (-15, 15)
    begin_period(sold.house, acme)
    sold.use(acme, third, SECONDS)
    close_subscription(sold, acme)
    await sold.house.run()
    assert (await sold.house.invoices())[0].total_minor == 1500 + 6500 - 5000
    sold.house.require_balanced(acme)
    await sold.require_clean()


async def test_credit_that_ends_later_pays_nothing_of_what_is_included(sold: Sold) -> None:
    """An invoice that asks for something else gives way to one with the same total."""
    wrong = await sold.apply(at_price(1, "0.30"))
    acme = await subscribed(sold, "50")
    await sold.house.enter(acme, "refund", "-7")
    sold.use(acme, wrong, SECONDS)
    close_subscription(sold, acme)
    await sold.house.run()
    async with sold.house.admin.begin() as connection:
        ends_at = datetime.now(UTC) + timedelta(days=1)
        await grant(connection, acme.id, Decimal(100), reason="a test", actor="test", expires_at=ends_at)
    begin_period(sold.house, acme)
    query = """SELECT balance, (SELECT array_agg(trim_scale(remaining) ORDER BY rank) FROM credit_lot
                                 WHERE account_id = account.id AND remaining > 0) FROM account WHERE id = %(id)s"""
    before = sold.house.value(query, id=acme.id)
    assert before[1] == [93, 50]  # what paid for the refund is spent
    done = await sold.rerate(acme, await sold.apply(at_price(2, "0.45")))
    assert (done.difference, done.included, done.state) == (15, 15, "done")
    assert sold.house.value(query, id=acme.id) == before
    await sold.require_clean()


async def test_a_grant_that_was_used_up_in_an_earlier_period_is_in_the_way_of_none(sold: Sold) -> None:
    wrong = await sold.apply(at_price(1, "0.70"))
    acme = await sold.gateway("standard")
    sold.house.close(acme)
    async with sold.house.admin.begin() as connection:
        ends_at = datetime.now(UTC) + timedelta(days=300)
        await grant(connection, acme.id, Decimal(5), reason="a test", actor="test", expires_at=ends_at)
    sold.house.close(acme)
    sold.use(acme, wrong, 10)  # 7.00
    sold.house.close(acme)
    begin_subscription(sold, acme, "50")
    sold.use(acme, wrong, SECONDS)
    close_subscription(sold, acme)
    done = await sold.rerate(acme, await sold.apply(at_price(2, "0.30")), period="2026-11")
    assert (done.difference, done.included) == (-40, -20)
    await sold.require_clean()


CORRUPTIONS: Final = (
    "UPDATE rerating SET included = included + 1",
    "UPDATE credit_lot SET expires_at = expires_at + interval '1 day' WHERE rank = 1",
    "UPDATE transfer SET amount = amount + 1 WHERE id = (SELECT included_id FROM rerating)",
    "UPDATE entry_of_period SET effective_at = effective_at + interval '1 day' "
    "WHERE transfer_id = (SELECT included_id FROM rerating)",
)


async def test_what_was_changed_of_it_afterwards_is_found(sold: Sold) -> None:
    acme = await used(sold, "50", "0.70")
    await sold.rerate(acme, await sold.apply(at_price(2, "0.30")))
    await sold.require_clean()
    for corruption in CORRUPTIONS:
        with past_all_triggers(sold) as owner:
            assert owner.execute(corruption.encode()).rowcount == 1
        found = {finding.claim for finding in (await verify(sold.house.engine)).findings}
        assert found & {"rerated_sums", "rerated_included", "rerated_invoices"}, corruption
        with past_all_triggers(sold) as owner:
            owner.execute(corruption.replace("+", "-", 1).encode())
    await sold.require_clean()
