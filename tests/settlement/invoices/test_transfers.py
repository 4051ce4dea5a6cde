"""Invoices that are paid by bank transfer: booked once, and what is more than they ask for becomes credit."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest

from clearinghouse.config_dunning import DunningSettings
from clearinghouse.config_invoices import InvoiceMethod, InvoiceSettings
from clearinghouse.config_payments import PaymentSettings
from settlement.dunning.holds import Dunning
from settlement.invoices.defaults import InvoiceDefaults
from settlement.schedule import Tick
from settlement.stripe_link.client import StripeLink
from tests.parts.crashing import CrashingDesk, it_may_crash
from tests.parts.invoiced import DAY_S, Debtor, Invoiced
from tests.parts.paying import Till, till_of

MOVEMENT = "customer_cash_balance_transaction"
_APPLIES = "PaymentIntentService.apply_customer_balance_async"


@pytest.fixture
def till(house: Invoiced) -> Till:
    """What acts upon Stripe's events, and takes payments on."""
    return till_of(house)


async def issued(house: Invoiced, charge: str = "5.44", *, name: str = "acme", **gateway: Any) -> Debtor:
    debtor = await house.gateway(name, **gateway)
    house.use(debtor, charge)
    house.close(debtor)
    await house.run()
    return debtor


async def heard(till: Till) -> list[str]:
    """Of all that has happened, and of what came of that."""
    said: list[str] = []
    while news := await till.hear():
        said += news
        await till.work()
    return said


def later(house: Invoiced, stripe_id: str, seconds: int) -> None:
    """So much time has passed for an invoice at Stripe."""
    desk = house.stripe.local.desk()
    invoice = desk.get("invoice", stripe_id)
    if invoice["due_date"] is not None:
        invoice["due_date"] -= seconds
    invoice["status_transitions"]["finalized_at"] -= seconds
    house.stripe.local.write(desk)


async def test_a_transfer_pays_the_open_invoice_lifts_what_was_held_and_the_rest_is_credit(
    house: Invoiced, till: Till
) -> None:
    acme = await issued(house, currency="EUR")
    (theirs,) = await house.at_stripe()
    assert theirs.payment_settings.payment_method_types == ["card", "customer_balance"]
    options = theirs.payment_settings.payment_method_options
    assert options is not None
    assert options.customer_balance is not None
    assert options.customer_balance.to_dict()["bank_transfer"]["eu_bank_transfer"] == {"country": "DE"}
    dunning, month_later = Dunning(DunningSettings()), await house.desk.now() + timedelta(days=45)
    await dunning.tick(Tick(house.engine, month_later))
    assert till.hold(acme.id) == "signing"
    await till.transferred(acme.id, 54_400, "eur")
    await heard(till)
    ours = await house.invoice()
    assert (ours.state, ours.booked_minor) == ("paid", 544)
    assert house.entries(acme, "payment") == [Decimal("5.44"), Decimal("538.56")]
    assert house.balance(acme) == Decimal("538.56")
    await dunning.tick(Tick(house.engine, month_later))
    assert (till.hold(acme.id), till.parked) == ("none", [])
    await till.sweep()
    assert len(house.entries(acme, "payment")) == 2


async def test_a_transfer_pays_what_was_given_up_as_uncollectible_and_lifts_what_was_held(
    house: Invoiced, till: Till
) -> None:
    acme = await issued(house)
    dunning, month_later = Dunning(DunningSettings()), await house.desk.now() + timedelta(days=45)
    await dunning.tick(Tick(house.engine, month_later))
    await till.sdk.v1.invoices.mark_uncollectible_async((await house.invoice()).at_stripe)
    await heard(till)
    assert ((await house.invoice()).state, till.hold(acme.id)) == ("uncollectible", "signing")
    await till.transferred(acme.id, 600)
    await heard(till)
    await dunning.tick(Tick(house.engine, month_later))
    assert ((await house.invoice()).state, till.hold(acme.id), till.parked) == ("paid", "none", [])
    assert house.entries(acme, "payment") == [Decimal("5.44"), Decimal("0.56")]


async def test_too_little_waits_for_the_rest_and_pays_nothing_in_part(house: Invoiced, till: Till) -> None:
    acme = await issued(house)
    await till.transferred(acme.id, 300)
    assert "what is left in the cash balance waits for open invoices" in await heard(till)
    assert ((await house.invoice()).state, house.entries(acme, "payment")) == ("open", [])
    await till.transferred(acme.id, 244)
    await heard(till)
    assert ((await house.invoice()).state, house.entries(acme, "payment")) == ("paid", [Decimal("5.44")])
    assert (house.balance(acme), till.payments(acme.id), till.parked) == (0, [], [])


async def test_what_is_in_the_cash_balance_pays_an_invoice_as_it_is_issued(house: Invoiced, till: Till) -> None:
    acme = await house.gateway("acme")
    await house.customer_at_stripe(acme)
    house.use(acme, "5.44")
    house.close(acme)
    await till.transferred(acme.id, 600)
    await house.run()
    await heard(till)
    assert (await house.invoice()).state == "paid"
    assert house.entries(acme, "payment") == [Decimal("5.44"), Decimal("0.56")]


async def test_a_transfer_and_a_top_up_that_was_announced_each_have_their_own(house: Invoiced, till: Till) -> None:
    acme = await issued(house)
    payment_id = await till.asked_at_stripe(acme.id, "bank_transfer", "50")
    await till.transferred(acme.id, 5000)
    await heard(till)
    assert ((await house.invoice()).state, till.payment(payment_id)["state"]) == ("open", "succeeded")
    await till.transferred(acme.id, 544)
    await heard(till)
    assert house.entries(acme, "payment") == [Decimal(50), Decimal("5.44")]
    assert (await house.invoice()).state == "paid"


@pytest.mark.slow
async def test_what_stripe_leaves_alone_after_a_month_is_paid_by_us_and_once_wherever_somebody_crashes(
    house: Invoiced, till: Till
) -> None:
    steps, at = list[str](), [1000]  # at none, and then at each that changes something
    for dies_at in at:
        debtor = await issued(house, name=f"gateway-{dies_at}")
        (ours, *_) = [one for one in await house.invoices() if one.gateway_id == debtor.id]
        later(house, ours.at_stripe, 45 * DAY_S)
        await heard(till)
        await till.transferred(debtor.id, 600)
        (moved,) = [event for event in await till.news() if event.type == f"{MOVEMENT}.created"]
        desk = CrashingDesk(house.desk, dies_at)
        with it_may_crash():
            await replace(till, desk=desk).handled(moved)
        await heard(till)
        assert house.entries(debtor, "payment") == [Decimal("5.44"), Decimal("0.56")]
        assert (house.balance(debtor), till.parked) == (Decimal("0.56"), [])
        if not steps:
            steps = desk.fuse.steps
            at += [number for number, step in enumerate(steps, 1) if step.endswith(("commit", _APPLIES))]
    assert {f"before {_APPLIES}", f"after {_APPLIES}", "after the commit"} <= set(steps)


async def test_money_for_an_invoice_that_takes_no_transfer_is_for_a_person_to_apply(
    house: Invoiced, till: Till
) -> None:
    acme = await issued(house, card="pm_card_chargeCustomerFail")
    await till.transferred(acme.id, 600)
    await heard(till)
    assert till.parked == [], "it may be charged at this moment"
    ours = await house.invoice()
    later(house, ours.at_stripe, 2 * 3600)
    await till.sweep()
    assert till.parked == [
        f"6 USD is in the cash balance, and {ours.number} takes no bank transfer: charge it from there in Stripe's "
        "dashboard (Charge customer, Cash balance), or void it"
    ]
    await house.card(acme, "pm_card_visa")
    await house.run()
    await heard(till)
    await till.sweep()
    await till.work()
    await heard(till)
    assert house.entries(acme, "payment") == [Decimal("5.44"), Decimal(6)]


async def test_what_is_paid_while_it_is_looked_at_is_nothing_for_a_person(house: Invoiced, till: Till) -> None:
    acme = await issued(house)
    ours, api = await house.invoice(), house.desk.link.client.v1
    later(house, ours.at_stripe, 45 * DAY_S)
    await heard(till)

    class Paying(StripeLink):
        """Somebody else pays, after the open invoices were listed."""

        def __init__(self, link: StripeLink) -> None:
            self.__dict__.update(link.__dict__)

        async def call(self, function: Any, *args: Any, **asked: Any) -> Any:
            if function.__qualname__ == "InvoicePaymentService.list_async":
                (one,) = (await api.invoice_payments.list_async({"invoice": ours.at_stripe})).data
                await api.payment_intents.apply_customer_balance_async(str(one.payment.payment_intent))
            return await super().call(function, *args, **asked)

    await till.transferred(acme.id, 600)
    (moved,) = [event for event in await till.news() if event.type == f"{MOVEMENT}.created"]
    await replace(till, desk=replace(house.desk, link=Paying(house.desk.link))).handled(moved)
    await heard(till)
    assert (till.parked, house.entries(acme, "payment")) == ([], [Decimal("5.44"), Decimal("0.56")])


async def test_what_people_apply_by_hand_is_left_to_them(house: Invoiced, till: Till) -> None:
    acme = await issued(house)
    ours = await house.invoice()
    later(house, ours.at_stripe, 45 * DAY_S)
    balance: Any = {"settings": {"reconciliation_mode": "manual"}}
    await till.sdk.v1.customers.cash_balance.update_async(str(ours.stripe_customer_id), balance)
    await till.transferred(acme.id, 600)
    assert "what is left in the cash balance waits for open invoices" in await heard(till)
    assert ((await house.invoice()).state, till.parked) == ("open", [])


EURO: Mapping[str, Any] = {
    "customer_balance": {
        "funding_type": "bank_transfer",
        "bank_transfer": {"type": "eu_bank_transfer", "eu_bank_transfer": {"country": "DE"}},
    }
}


@pytest.mark.parametrize(
    ("methods", "currency", "named"),
    [
        (("card", "bank_transfer"), "EUR", {"payment_method_types": ["card", "customer_balance"],
                                            "payment_method_options": EURO}),
        (("card", "bank_transfer"), "CHF", {"payment_method_types": ["card"]}),
        (("card", "sepa_debit"), "USD", {"payment_method_types": ["card"]}),
        (("bank_transfer",), "CHF", None),
        (("automatic",), "EUR", None),
    ],
)  # fmt: skip
def test_an_invoice_takes_what_is_set_where_it_fits_the_currency(
    methods: tuple[InvoiceMethod, ...], currency: str, named: dict[str, Any] | None
) -> None:
    ours = InvoiceDefaults(InvoiceSettings(payment_methods=methods))
    assert ours.payment_settings("send_invoice", currency) == named
    assert ours.payment_settings("charge_automatically", currency) is None


def test_an_account_that_takes_no_transfers_in_a_currency_asks_for_none() -> None:
    ours = InvoiceDefaults(payments=PaymentSettings(transfer_currencies=("EUR",)))
    assert ours.payment_settings("send_invoice", "USD") == {"payment_method_types": ["card"]}
