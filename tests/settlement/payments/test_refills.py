"""Automatic top-ups: below the threshold up to the target, one charge at a time, never above the caps."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from settlement.currencies import currency
from settlement.payments.refill_rules import Charge, RefillFacts, Wait, due, pause_after
from settlement.payments.refills import refill
from settlement.schedule import Tick
from tests.parts.paying import Till, states

NOON = datetime(2026, 11, 21, 12, tzinfo=UTC)
DAY = timedelta(days=1)


def facts(**changes: Any) -> RefillFacts:
    usual: dict[str, Any] = {
        "currency": currency("USD"), "balance": Decimal(4), "to": Decimal(50), "cooldown": timedelta(minutes=10),
        "day_max": Decimal(100), "month_max": Decimal(500), "day_spent": Decimal(0), "month_spent": Decimal(0),
        "last_at": None, "failures_count": 0, "has_card": True, "card_refused": None, "is_under_way": False,
    }  # fmt: skip
    return RefillFacts(**{**usual, **changes})


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, Charge(Decimal("46.00"))),
        ({"balance": Decimal("4.001")}, Charge(Decimal("46.00"))),
        ({"balance": Decimal("3.999")}, Charge(Decimal("46.01"))),
        ({"balance": Decimal(-20)}, Charge(Decimal("70.00"))),
        ({"currency": currency("JPY"), "balance": Decimal("3.2"), "to": Decimal(500), "day_max": Decimal(900)},
         Charge(Decimal(497))),
        ({"day_spent": Decimal(70)}, Charge(Decimal("30.00"))),
        ({"month_spent": Decimal("490.555")}, Charge(Decimal("9.44"))),
        ({"day_spent": Decimal("99.60")}, Wait("cap", is_told=True)),
        ({"month_spent": Decimal(600)}, Wait("cap", is_told=True)),
        ({"is_under_way": True, "has_card": False}, Wait("under_way")),
        ({"has_card": False}, Wait("no_card", is_told=True)),
        ({"card_refused": "expired_card"}, Wait("card_refused")),
        ({"last_at": NOON - timedelta(minutes=9)}, Wait("pause")),
        ({"last_at": NOON - timedelta(minutes=10)}, Charge(Decimal("46.00"))),
        ({"last_at": NOON - timedelta(minutes=39), "failures_count": 2}, Wait("pause")),
        ({"last_at": NOON - timedelta(minutes=40), "failures_count": 2}, Charge(Decimal("46.00"))),
    ],
    ids=str,
)  # fmt: skip
def test_what_is_charged_and_when(changes: dict[str, Any], expected: Charge | Wait) -> None:
    assert due(facts(**changes), NOON) == expected


def test_the_pause_after_failures_grows_to_a_day_and_is_never_shorter_than_the_cooldown() -> None:
    assert pause_after(facts(failures_count=50)) == DAY
    assert pause_after(facts(failures_count=50, cooldown=3 * DAY)) == 3 * DAY


@given(
    balance=st.decimals(-50, 9, places=6), to=st.decimals(10, 90, places=2), day_spent=st.decimals(0, 120, places=2),
    month_spent=st.decimals(0, 600, places=2),
)  # fmt: skip
def test_a_charge_can_be_paid_and_keeps_to_the_caps(
    balance: Decimal, to: Decimal, day_spent: Decimal, month_spent: Decimal
) -> None:
    decided = due(facts(balance=balance, to=to, day_spent=day_spent, month_spent=month_spent), NOON)
    if isinstance(decided, Charge):
        assert decided.amount >= Decimal("0.50")
        assert decided.amount == decided.amount.quantize(Decimal("0.01"))
        assert day_spent + decided.amount <= 100
        assert month_spent + decided.amount <= 500
        assert balance + decided.amount < to + Decimal("0.01")


# --- with a database and Stripe ---------------------------------------------------------------------------------------


async def automatic(till: Till, *, credit: Decimal = Decimal(4), **terms: Any) -> UUID:
    """A gateway that is topped up below 5, up to 50."""
    gateway = await till.new_gateway(credit=credit)
    usual = {"below": 5, "to": 50, "cooldown_s": 600, "day_max": 100, "month_max": 500, **terms}
    till.rows(
        "INSERT INTO billing_terms (gateway_id, begins_at, way, refill_below, refill_to, refill_cooldown_s, "
        "refill_day_max, refill_month_max) VALUES (%s, '2020-01-01', 'automatic', %s, %s, %s, %s, %s) RETURNING 1",
        gateway, *usual.values(),
    )  # fmt: skip
    return gateway


async def looked(till: Till, *, later: timedelta = timedelta(0)) -> str:
    """One turn of the job, and the clerk's work after it."""
    said = await refill(Tick(till.engine_of_work(), await till.desk.now() + later))
    await till.work()
    return said


def spend(till: Till, gateway: UUID, amount: int) -> None:
    till.rows("SELECT withdraw_credit(gen_random_uuid(), %s, %s, NULL, 'spent', 'test')", gateway, amount)


def told(till: Till) -> list[str]:
    return [row["type"] for row in till.rows("SELECT type FROM notice ORDER BY number")]


async def test_a_low_balance_is_topped_up_once_and_again_only_after_the_cooldown(till: Till) -> None:
    gateway = await automatic(till)
    await till.save_card(gateway)
    await looked(till)
    await looked(till)
    await till.hear()
    assert till.balance(gateway) == 50
    spend(till, gateway, 48)
    assert await looked(till) == "0 charges planned for 1 low balances"
    await looked(till, later=timedelta(minutes=11))
    assert till.balance(gateway) == 50
    assert [charge.amount for charge in await till.charges()] == [4800, 4600]


async def test_a_balance_that_is_enough_is_left_alone_and_so_is_who_is_not_served(till: Till) -> None:
    await automatic(till, credit=Decimal(5))
    suspended, held = await automatic(till), await automatic(till)
    till.rows("UPDATE gateway SET status = 'suspended' WHERE id = %s RETURNING 1", suspended)
    till.rows("SELECT set_billing_hold(%s, 'signing', 'disputed', 'dispute')", held)
    assert await looked(till) == "no balance is low"


async def test_while_a_charge_is_under_way_there_is_no_second_whoever_looks(till: Till) -> None:
    gateway = await automatic(till)
    await till.save_card(gateway)
    for _ in range(3):
        await refill(Tick(till.engine_of_work(), await till.desk.now() + DAY))
    assert states(till.payments(gateway)[1:]) == ["requested"]
    await till.work()
    assert len(await till.charges()) == 1


async def test_the_caps_of_a_day_and_a_month_hold_and_the_gateway_hears_of_it_once(till: Till) -> None:
    gateway = await automatic(till, cooldown_s=60, day_max=60, month_max=60)
    await till.save_card(gateway)
    for _ in range(4):
        await looked(till, later=timedelta(minutes=5))
        if till.balance(gateway) > 4:
            spend(till, gateway, int(till.balance(gateway)) - 4)
    assert sum(charge.amount for charge in await till.charges()) == 6000
    assert told(till) == ["topup.waiting"]


async def test_a_charge_that_fails_waits_and_tells_and_a_card_that_only_its_holder_can_mend_rests(till: Till) -> None:
    gateway = await automatic(till)
    customer_id = till.rows("SELECT stripe_customer_id FROM customer")[0]["stripe_customer_id"]
    card = await till.sdk.v1.payment_methods.attach_async("pm_card_authenticationRequired", {"customer": customer_id})
    till.rows("INSERT INTO saved_card VALUES (%s, %s, 'visa', '3184', 12, 2030) RETURNING 1", gateway, card.id)
    await looked(till)
    await till.hear()
    (failed,) = till.payments(gateway)
    assert (failed["state"], failed["failure"]) == ("failed", "authentication_required")
    assert told(till) == ["topup.failed"]
    await looked(till, later=DAY)
    assert len(till.payments(gateway)) == 1
    await till.save_card(gateway)
    await looked(till, later=DAY)
    assert till.balance(gateway) == 50


async def test_a_declined_charge_is_tried_again_with_ever_longer_pauses(till: Till) -> None:
    gateway = await automatic(till)
    customer_id = till.rows("SELECT stripe_customer_id FROM customer")[0]["stripe_customer_id"]
    card = await till.sdk.v1.payment_methods.attach_async("pm_card_chargeCustomerFail", {"customer": customer_id})
    till.rows("INSERT INTO saved_card VALUES (%s, %s, 'visa', '0341', 12, 2030) RETURNING 1", gateway, card.id)
    await looked(till)
    await looked(till, later=timedelta(minutes=19))
    assert states(till.payments(gateway)) == ["failed"]
    await looked(till, later=timedelta(minutes=21))
    await looked(till, later=timedelta(minutes=39))
    assert states(till.payments(gateway)) == ["failed", "failed"]
    assert told(till) == ["topup.failed", "topup.failed"]


async def test_without_a_card_the_gateway_is_told_and_nothing_is_charged(till: Till) -> None:
    gateway = await automatic(till)
    await looked(till)
    await looked(till, later=timedelta(minutes=1))
    assert (till.payments(gateway), told(till)) == ([], ["topup.waiting"])
