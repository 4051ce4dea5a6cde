"""Debits at Stripe's page: done at once, paid or refused by the bank later. Credit is there only when it paid."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator
from dataclasses import replace
from decimal import Decimal

import pytest

from clearinghouse.config_payments import PageMethod, PaymentSettings
from settlement.payments.asking import Asking
from tests.parts.paying import RETURN_URL, Till, paying

ALL: tuple[PageMethod, ...] = ("card", "us_bank_account", "sepa_debit", "bacs_debit")
BANK_ANSWERS_S = 181


def taking(till: Till, *methods: PageMethod) -> Till:
    """The same till, whose pages take these."""
    settings = PaymentSettings(return_url=RETURN_URL, checkout_methods=methods)
    return replace(till, asking=Asking(till.desk, till.asking.customers, settings))


@pytest.fixture
async def late(database: str) -> AsyncIterator[Till]:
    async with paying(database) as till:
        yield taking(till, *ALL)


async def session_types(till: Till, payment_id: object) -> list[str]:
    (row,) = till.rows("SELECT stripe_session_id FROM payment WHERE id = %s", payment_id)
    session = await till.sdk.v1.checkout.sessions.retrieve_async(row["stripe_session_id"])
    return list(session.allowed_payment_method_types or ())


@pytest.mark.parametrize(
    ("currency", "account"),
    [("USD", "pm_usBankAccount_success"), ("EUR", "pm_success_de"), ("GBP", "pm_bacsDebit_success")],
)
async def test_a_debit_is_credited_when_the_bank_has_paid_and_not_before(
    late: Till, currency: str, account: str
) -> None:
    gateway = await late.new_gateway(currency=currency)
    payment_id = await late.asked_at_stripe(gateway, "checkout", "25")
    await late.pay_page(payment_id, account)
    told = [event.type for event in await late.news()]
    assert "checkout.session.completed" in told
    await late.hear(repeat=2, shuffle=random.Random(1))
    waiting = late.payment(payment_id)
    assert (waiting["state"], "has not answered yet" in waiting["said"]) == ("processing", True)
    assert (late.entries(gateway), waiting["ended_at"]) == ([], None)
    await late.stripe.control("clock", advance_s=BANK_ANSWERS_S)
    assert "checkout.session.async_payment_succeeded" in [event.type for event in await late.news()]
    await late.hear(repeat=3, shuffle=random.Random(2))
    paid = late.payment(payment_id)
    assert (paid["state"], paid["said"]) == ("succeeded", "")
    assert late.entries(gateway) == [("payment", Decimal(25))]
    assert late.parked == []


async def test_what_the_bank_refuses_ends_with_its_reason_and_the_gateway_is_told(late: Till) -> None:
    gateway = await late.new_gateway()
    payment_id = await late.asked_at_stripe(gateway, "checkout", "25")
    await late.pay_page(payment_id, "pm_usBankAccount_insufficientFunds")
    await late.hear()
    await late.stripe.control("clock", advance_s=BANK_ANSWERS_S)
    assert "checkout.session.async_payment_failed" in [event.type for event in await late.news()]
    await late.hear(repeat=3, shuffle=random.Random(3))
    ended = late.payment(payment_id)
    assert (ended["state"], ended["failure"]) == ("failed", "insufficient_funds")
    assert "had not enough funds" in ended["said"]
    assert late.entries(gateway) == []
    notices = late.rows("SELECT type, data->>'failure' AS failure FROM notice WHERE gateway_id = %s", gateway)
    assert [(one["type"], one["failure"]) for one in notices] == [("topup.failed", "insufficient_funds")]
    assert late.parked == []


@pytest.mark.parametrize(
    ("account", "state"), [("pm_usBankAccount_success", "succeeded"), ("pm_usBankAccount_noAccount", "failed")]
)
async def test_events_that_are_lost_are_made_up_for_by_the_sweep(late: Till, account: str, state: str) -> None:
    gateway = await late.new_gateway()
    payment_id = await late.asked_at_stripe(gateway, "checkout", "25")
    await late.pay_page(payment_id, account)
    late.heard |= {event.id for event in await late.news()}
    await late.sweep()
    assert late.payment(payment_id)["state"] == "processing"
    await late.stripe.control("clock", advance_s=BANK_ANSWERS_S)
    late.heard |= {event.id for event in await late.news()}
    await late.sweep()
    assert late.payment(payment_id)["state"] == state
    assert late.entries(gateway) == ([("payment", Decimal(25))] if state == "succeeded" else [])


async def test_a_card_that_is_declined_leaves_the_page_open(late: Till) -> None:
    gateway = await late.new_gateway()
    payment_id = await late.asked_at_stripe(gateway, "checkout", "25")
    session_id = late.payment(payment_id)["stripe_session_id"]
    page = f"{late.stripe.base_url}/_pay/checkout/{session_id}"
    assert (await late.stripe.running.http.post(page, data={"card": "pm_card_chargeDeclined"})).status_code == 402
    await late.hear()
    assert late.payment(payment_id)["state"] == "open"
    await late.pay_page(payment_id)
    await late.hear()
    assert late.payment(payment_id)["state"] == "succeeded"


async def test_a_page_takes_what_is_set_and_fits_the_currency(till: Till) -> None:
    dollars, euros = await till.new_gateway(), await till.new_gateway(currency="EUR")
    by_default = await till.asked_at_stripe(dollars, "checkout", "25")
    assert await session_types(till, by_default) == ["card"]
    wide, left = taking(till, *ALL), taking(till, "automatic")
    assert await session_types(wide, await wide.asked_at_stripe(dollars, "checkout", "25")) == [
        "card", "us_bank_account",
    ]  # fmt: skip
    assert await session_types(wide, await wide.asked_at_stripe(euros, "checkout", "25")) == ["card", "sepa_debit"]
    assert "sepa_debit" in await session_types(left, await left.asked_at_stripe(euros, "checkout", "25"))
    narrow = taking(till, "sepa_debit")
    refused = narrow.payment(await narrow.asked_at_stripe(dollars, "checkout", "25"))
    assert (refused["failure"], "in USD" in refused["said"]) == ("not_set_up", True)


async def test_what_pays_by_debit_is_not_saved_and_a_card_is(late: Till) -> None:
    gateway = await late.new_gateway()
    by_debit = await late.asked_at_stripe(gateway, "checkout", "25", saves_card=True)
    await late.pay_page(by_debit, "pm_usBankAccount_success")
    await late.stripe.control("clock", advance_s=BANK_ANSWERS_S)
    await late.hear()
    assert (late.payment(by_debit)["state"], late.rows("SELECT * FROM saved_card")) == ("succeeded", [])
    by_card = await late.asked_at_stripe(gateway, "checkout", "25", saves_card=True)
    await late.pay_page(by_card)
    await late.hear()
    assert [card["brand"] for card in late.rows("SELECT brand FROM saved_card")] == ["visa"]
