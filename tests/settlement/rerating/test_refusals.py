"""What is not rated anew: said before anything is done, with a next step that corrects nothing twice."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from clearinghouse.cli.refusals import explain
from clearinghouse.errors import Conflict
from clearinghouse.ledger.transfers import grant
from clearinghouse.rates.rules import StoredVersion
from settlement.alerts.observe import observe
from settlement.invoices.crediting import Wanted, credit
from settlement.invoices.jobs import InvoicesHeld
from settlement.invoices.requests import shown_id
from settlement.invoices.void import reissue, void
from settlement.rerating.plan import find_or_plan
from settlement.rerating.refusals import NotToBeRerated, ReratingBusy, ReratingHeld
from settlement.stripe_local.customer_actions import pay_invoice
from tests.parts.crashing import CrashingDesk, it_may_crash, until
from tests.parts.invoiced import Debtor, invoiced
from tests.settlement.invoices.command import Cli
from tests.settlement.invoices.job import job_turn
from tests.settlement.invoices.owing import is_asked_without_stripe, pays_in_advance
from tests.settlement.rerating.sold import Sold, per_second
from tests.settlement.rerating.subscribed import close_subscription, subscribed
from tests.settlement.rerating.test_rerating import RIGHT, WRONG, asked, of_period, owing, require_corrected

BY_HAND, LATER = "Correct it by hand", "the same command again later"
_Case = Callable[[Sold], Awaitable[tuple[Debtor, StoredVersion]]]


async def paid_in_part(sold: Sold) -> tuple[Debtor, StoredVersion]:
    acme, right = await asked(sold)
    sold.house.owner.execute("UPDATE invoice SET booked_minor = 1000")  # as after a transfer of less
    return acme, right


async def being_paid(sold: Sold) -> tuple[Debtor, StoredVersion]:
    sold.house.takes_debits()
    acme, right = await asked(sold)
    was = await sold.house.invoice()
    await sold.house.stripe.control(f"invoices/{was.at_stripe}/pay", card="pm_usBankAccount_success")
    return acme, right


async def uncollectible(sold: Sold) -> tuple[Debtor, StoredVersion]:
    acme, right = await asked(sold)
    was = await sold.house.invoice()
    await sold.house.stripe.running.client.v1.invoices.mark_uncollectible_async(was.at_stripe)
    await sold.house.hear(was)
    return acme, right


async def in_the_making(sold: Sold) -> tuple[Debtor, StoredVersion]:
    wrong = await sold.apply(per_second(1, *WRONG))
    acme = await sold.gateway("standard")
    sold.use(acme, wrong, 60)
    sold.house.close(acme)
    await sold.house.plan()
    return acme, await sold.apply(per_second(2, *RIGHT))


async def free(sold: Sold) -> tuple[Debtor, StoredVersion]:
    wrong = await sold.apply(per_second(1, *WRONG))
    acme = await sold.gateway("standard")
    sold.use(acme, wrong, 60)
    sold.house.close(acme, way="free")
    return acme, await sold.apply(per_second(2, *RIGHT))


async def granted_beside_a_subscription(sold: Sold) -> tuple[Debtor, StoredVersion]:
    wrong = await sold.apply(per_second(1, *WRONG))
    acme = await subscribed(sold, "50")
    async with sold.house.admin.begin() as connection:
        ends_at = datetime.now(UTC) + timedelta(days=1)
        await grant(connection, acme.id, Decimal(5), reason="a test", actor="test", expires_at=ends_at)
    sold.use(acme, wrong, 60)
    close_subscription(sold, acme)
    return acme, await sold.apply(per_second(2, *RIGHT))


async def credited_in_part(sold: Sold) -> tuple[Debtor, StoredVersion]:
    acme, right = await asked(sold)
    await credit(sold.house.desk, (await sold.house.invoice()).id, Wanted(500, "an outage", "test"))
    return acme, right


async def given_back_in_part(sold: Sold) -> tuple[Debtor, StoredVersion]:
    acme, right = await asked(sold, card="pm_card_visa")
    await credit(sold.house.desk, (await sold.house.invoice()).id, Wanted(500, "an outage", "test", "refund"))
    return acme, right


async def under_way(sold: Sold) -> tuple[Debtor, StoredVersion]:
    acme, right = await asked(sold)
    await find_or_plan(sold.house.desk, sold.order(acme, right), only_try=False)
    return acme, await sold.apply(per_second(3, *RIGHT))


async def in_advance_by_now(sold: Sold) -> tuple[Debtor, StoredVersion]:
    """What Stripe kept for it would pay nothing."""
    acme, right = await asked(sold, card="pm_card_visa")
    pays_in_advance(sold.house, acme)
    return acme, right


async def without_stripe_by_now(sold: Sold) -> tuple[Debtor, StoredVersion]:
    acme, right = await asked(sold, card="pm_card_visa")
    is_asked_without_stripe(sold.house, acme)
    return acme, right


async def taxed_otherwise_by_its_lines(sold: Sold) -> tuple[Debtor, StoredVersion]:
    """100.03, 100.03 and credit of 100.02 have a tax of 20.02; 100.04 of the first lines have 20.01."""
    sold.house.stripe.local.house.tax_percent_by_country["DE"] = "20"
    wrong = await sold.apply(per_second(1, (None, "0.01")))
    acme = await sold.gateway("standard", is_taxed=True, country="DE")
    for number in range(2):
        sold.use(acme, wrong, 10_003, app=f"app {number}")
    await sold.house.enter(acme, "grant", "100.02")
    sold.house.close(acme)
    await sold.house.run()
    return acme, await sold.apply(per_second(2, (None, "0.02")))


@pytest.mark.parametrize(
    ("case", "words", "next_step"),
    [
        (paid_in_part, "paid in part", LATER),
        (being_paid, "is processing", LATER),
        (uncollectible, "is uncollectible", BY_HAND),
        (in_the_making, "in the making", LATER),
        (free, "the way free", BY_HAND),
        (granted_beside_a_subscription, "Other credit that ends may have paid", BY_HAND),
        (credited_in_part, "something was credited", BY_HAND),
        (given_back_in_part, "65.00 USD left", BY_HAND),
        (under_way, "not done yet", LATER),
        (in_advance_by_now, "way is prepaid by now", BY_HAND),
        (without_stripe_by_now, "collection is manual by now", BY_HAND),
        (taxed_otherwise_by_its_lines, "come to 120.05 USD with tax, where the invoice has 120.06 USD", BY_HAND),
    ],
)
async def test_it_is_refused_before_anything_is_done(sold: Sold, case: _Case, words: str, next_step: str) -> None:
    acme, right = await case(sold)

    def kept() -> Any:
        return sold.house.value("SELECT (SELECT count(*) FROM rerating), (SELECT count(*) FROM credit_note),"
                                " (SELECT count(*) FROM transfer WHERE kind = 'adjustment')")  # fmt: skip

    before = kept()
    for only_try in (True, False):
        with pytest.raises(Conflict) as refused:
            await find_or_plan(sold.house.desk, sold.order(acme, right), only_try=only_try)
        assert words in explain(refused.value)
        assert next_step in explain(refused.value)
    assert kept() == before


async def test_an_invoice_that_is_being_paid_is_taken_back_once_the_bank_has_answered(sold: Sold) -> None:
    """Also where the payment began after the re-rating was planned."""
    sold.house.takes_debits()
    acme, right = await asked(sold)
    await find_or_plan(sold.house.desk, sold.order(acme, right), only_try=False)
    was = await sold.house.invoice()
    await sold.house.stripe.control(f"invoices/{was.at_stripe}/pay", card="pm_usBankAccount_success")
    with pytest.raises(ReratingBusy, match="is being paid"):
        await sold.rerate(acme, right)
    assert sold.house.value("SELECT count(*) FROM credit_note") == 0
    await sold.house.stripe.control("clock", advance_s=181)
    await sold.house.hear(was)
    await sold.rerate(acme, right)
    await require_corrected(sold, acme, is_paid=True)


@pytest.mark.parametrize(
    ("account", "by_job"), [("pm_usBankAccount_success", True), ("pm_usBankAccount_noAccount", False)]
)
async def test_one_that_goes_on_while_its_invoice_is_being_paid_waits_for_the_bank(
    sold: Sold, account: str, by_job: bool
) -> None:
    """Its credit note was planned before the payment began."""
    sold.house.takes_debits()
    acme, right = await asked(sold)
    was = await sold.house.invoice()
    desk = CrashingDesk(sold.house.desk, 0)
    until(desk, "before CreditNoteService.create_async")
    with it_may_crash():
        await sold.rerate(acme, right, desk=desk)
    await sold.house.stripe.control(f"invoices/{was.at_stripe}/pay", card=account)

    async def goes_on() -> None:
        if by_job:
            assert "1 begun and waiting" in await job_turn(sold.house)
            raise ReratingBusy("is being paid, as the job says")
        await sold.rerate(acme, right)

    with pytest.raises(ReratingBusy, match="is being paid"):
        await goes_on()
    states = "SELECT (SELECT array_agg(state) FROM credit_note), (SELECT array_agg(state) FROM rerating)"
    assert sold.house.owner.execute(states).fetchone() == (["planned"], ["planned"])
    await sold.house.stripe.control("clock", advance_s=181)
    await (job_turn(sold.house) if by_job else sold.rerate(acme, right))
    await require_corrected(sold, acme, is_paid=account.endswith("success"))
    await sold.require_clean()


@pytest.mark.parametrize("account", ["pm_usBankAccount_success", "pm_usBankAccount_noAccount"])
async def test_a_payment_that_begins_as_the_credit_note_is_asked_for_is_waited_for(sold: Sold, account: str) -> None:
    """Stripe's refusal is an old one, once the bank has answered."""
    sold.house.takes_debits()
    acme, right = await asked(sold)
    was = await sold.house.invoice()
    desk, local = CrashingDesk(sold.house.desk, 0), sold.house.stripe.local

    def step(name: str) -> None:
        if name == "before CreditNoteService.create_async":
            customer = local.desk()
            pay_invoice(customer, str(was.at_stripe), account)
            local.write(customer)

    desk.fuse.step = step  # type: ignore[method-assign]
    with pytest.raises(ReratingBusy, match="is being paid"):
        await sold.rerate(acme, right, desk=desk)
    await sold.house.stripe.control("clock", advance_s=181)
    await sold.rerate(acme, right)
    await require_corrected(sold, acme, is_paid=account.endswith("success"))


@pytest.mark.parametrize("has_note", [True, False])
async def test_nothing_is_kept_at_stripe_for_one_that_pays_in_advance_where_its_invoice_is_paid_meanwhile(
    sold: Sold, has_note: bool
) -> None:
    """As where it was paid before the re-rating was planned; with, and without a note over an open invoice begun."""
    acme, right = await asked(sold)
    was = await sold.house.invoice()
    pays_in_advance(sold.house, acme)
    if has_note:
        until(desk := CrashingDesk(sold.house.desk, 0), "before CreditNoteService.create_async")
        with it_may_crash():
            await sold.rerate(acme, right, desk=desk)
    else:
        await find_or_plan(sold.house.desk, sold.order(acme, right), only_try=False)
    await sold.house.stripe.control(f"invoices/{was.at_stripe}/pay", card="pm_card_visa")
    with pytest.raises(InvoicesHeld, match=r"way is prepaid by now.*--to refund"):
        await job_turn(sold.house)
    states = "SELECT (SELECT array_agg(state) FROM credit_note), (SELECT array_agg(state) FROM rerating)"
    assert sold.house.owner.execute(states).fetchone() == (["refused"] if has_note else None, ["refused"])
    assert (await sold.house.stripe.running.client.v1.credit_notes.list_async()).data == []
    assert "nothing was due" in await job_turn(sold.house)
    async with sold.house.engine.connect() as connection:
        told = (await observe(connection, await sold.house.desk.now())).corrections_refused
    assert told is not None
    assert (told.count, told.newest[:4]) == (1, "rrt_"), "its note is no other correction"


async def test_what_a_later_invoice_carries_is_not_asked_for_by_a_new_one_as_well(sold: Sold) -> None:
    acme, right = await asked(sold)
    first = await sold.house.invoice()
    sold.use(acme, right, 100)
    sold.house.close(acme)
    await sold.house.run()
    third = await sold.apply(per_second(3, (None, "0.10")))
    await find_or_plan(sold.house.desk, sold.order(acme, third, "2026-09"), only_try=False)
    gone = await void(sold.house.walker(), first.id, reason="wrong address")
    with pytest.raises(ReratingHeld, match=r"70 .*is owed beside"):
        await sold.rerate(acme, third, period="2026-09")
    await sold.house.walker().walk((await reissue(sold.house.desk, gone, defaults=sold.house.defaults)).id)
    done = await sold.rerate(acme, third, period="2026-09")
    assert (done.state, done.difference) == ("done", -10)
    assert sorted(each.total_minor for each in await sold.house.invoices() if each.state == "open") == [1000, 7000]
    sold.house.require_balanced(acme)
    await sold.require_clean()


async def test_what_is_owed_again_beside_the_period_is_told_at_once(sold: Sold) -> None:
    acme, right = await asked(sold)
    first = await sold.house.invoice()
    sold.use(acme, right, 100)
    sold.house.close(acme)
    await sold.house.run()
    await void(sold.house.walker(), first.id, reason="wrong address")
    sold.use(acme, right, 100)
    sold.house.close(acme)
    await sold.house.run()
    third = await sold.apply(per_second(3, (None, "0.10")))
    with pytest.raises(NotToBeRerated, match=r"70 .*is owed beside"):
        await sold.rerate(acme, third, period="2026-09")
    assert sold.house.value("SELECT count(*) FROM credit_note") == 0


async def test_one_that_somebody_refused_meanwhile_makes_no_credit_note(sold: Sold, tmp_path: Path) -> None:
    acme, right = await asked(sold)
    await find_or_plan(sold.house.desk, sold.order(acme, right), only_try=False)
    desk = CrashingDesk(sold.house.desk, 0)

    def step(name: str) -> None:
        if name == "after CreditNoteService.preview_async":
            sold.house.owner.execute("UPDATE rerating SET state = 'refused', problem = 'declined', ended_at = now()")

    desk.fuse.step = step  # type: ignore[method-assign]
    with pytest.raises(ReratingBusy):
        await sold.rerate(acme, right, desk=desk)
    assert sold.house.value("SELECT count(*) FROM credit_note") == 0
    shown = await Cli(sold.house, tmp_path)("show", shown_id(await sold.house.invoice()))
    assert "refused: declined" in shown.out
    assert (await sold.rerate(acme, right)).state == "done", "asked for anew"
    await require_corrected(sold, acme, is_paid=False)


async def test_several_who_ask_for_the_same_at_once_correct_once(sold: Sold) -> None:
    acme, right = await asked(sold)
    told = await asyncio.gather(*(sold.rerate(acme, right) for _ in range(3)), return_exceptions=True)
    assert {type(each) for each in told if isinstance(each, BaseException)} <= {ReratingBusy, ReratingHeld}
    assert (await sold.rerate(acme, right)).state == "done"
    await require_corrected(sold, acme, is_paid=False)
    await sold.require_clean()


async def test_one_that_does_not_go_on_is_named_and_keeps_no_other_from_it(database: str) -> None:
    async with invoiced(database, retry_for_s=0.2) as house:
        sold = Sold(house)
        wrong = await sold.apply(per_second(1, *WRONG))
        held, other = [await owing(sold, wrong, name=f"acme-{number}") for number in range(2)]
        await house.run()
        right = await sold.apply(per_second(2, *RIGHT))
        for debtor in (held, other):
            await find_or_plan(house.desk, sold.order(debtor, right), only_try=False)
        (was,) = [each for each in await house.invoices() if each.gateway_id == held.id]
        await house.stripe.fault("status", status=500, path=f"/v1/invoices/{was.at_stripe}*", times=None)
        with pytest.raises(InvoicesHeld, match=r"1 held up: re-rating rrt_\w+ of acme-0, 2026-08-01, inv_"):
            await job_turn(house)
        await require_corrected(sold, other, is_paid=False)
        await house.stripe.works_again()
        await job_turn(house)
        await require_corrected(sold, held, is_paid=False)
        assert [each.replaced_at is not None for each in await of_period(sold, held)] == [True, False]
