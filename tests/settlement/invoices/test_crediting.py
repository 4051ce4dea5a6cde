"""Credit notes that we make: one at Stripe and one in the books, whatever happens on the way."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

import psycopg
import pytest

from settlement.invoices.crediting import Wanted, credit, finish
from settlement.invoices.jobs import InvoicesHeld
from settlement.invoices.not_credited import BeingPaid, NoteRefused, NotToBeCredited
from settlement.invoices.note_store import Gives, notes_of, notes_under_way
from settlement.invoices.store import Invoice
from settlement.stripe_link.desk import Desk
from settlement.stripe_link.handlers import HANDLERS
from tests.parts.crashing import CrashingDesk, it_may_crash, until
from tests.parts.invoiced import DAY_S, Debtor, Invoiced
from tests.settlement.invoices.command import Cli
from tests.settlement.invoices.job import job_turn
from tests.settlement.invoices.owing import is_asked_without_stripe, pays_in_advance


async def issued(house: Invoiced, **gateway: Any) -> Debtor:
    """One that was asked for 100.25 and 3.33, and for what rounding makes of both."""
    acme = await house.gateway("acme", **gateway)
    for number, charge in enumerate(("100.2549", "3.3349")):
        house.use(acme, charge, app=f"app {number}")
    house.close(acme)
    await house.run()
    return acme


async def give(
    house: Invoiced, amount_minor: int | None, *, reason: str = "an outage", desk: Desk | None = None, **more: Any
) -> None:
    ours = await house.invoice()
    note = await credit(desk or house.desk, ours.id, Wanted(amount_minor, reason, "test", **more))
    assert note.state == "issued"


async def theirs(house: Invoiced) -> list[Any]:
    """Stripe's; the newest first."""
    return list((await house.stripe.running.client.v1.credit_notes.list_async({"limit": 100})).data)


async def test_an_open_invoice_leaves_less_to_pay_and_the_same_again_makes_no_second_note(house: Invoiced) -> None:
    acme = await issued(house)
    await asyncio.gather(*(give(house, 3000) for _ in range(3)), return_exceptions=True)
    for _ in range(2):
        await give(house, 3000)
    ours = await house.invoice()
    assert [(each.total, each.type, each.memo) for each in await theirs(house)] == [(3000, "pre_payment", "an outage")]
    assert (ours.credited_minor, ours.remaining_minor, house.entries(acme, "adjustment")) == (3000, 7359, [Decimal(30)])
    with pytest.raises(NotToBeCredited, match="another amount"):
        await give(house, 2000)
    await give(house, None, reason="and the rest")
    assert ((await house.invoice()).state, house.balance(acme), house.unbilled(acme)) == ("paid", 0, 0)
    with pytest.raises(NotToBeCredited, match=r" 0\.00 USD left to be credited"):
        await give(house, 1, reason="more")


@pytest.mark.parametrize("gives", ["credit", "outside", "refund"])
async def test_what_is_given_back_of_a_paid_invoice_is_not_owed_again(house: Invoiced, gives: Gives) -> None:
    acme = await issued(house, card="pm_card_visa")
    await give(house, 3000, gives=gives)
    for refund in (await house.stripe.running.client.v1.refunds.list_async()).data:
        await HANDLERS["refund"](house.desk, refund.id)
    assert (house.entries(acme, "adjustment"), house.entries(acme, "refund")) == ([Decimal(30)], [Decimal(-30)])
    assert (house.balance(acme), house.unbilled(acme)) == (0, 0)


async def test_the_tax_of_what_is_credited_goes_with_it_line_by_line(house: Invoiced) -> None:
    house.stripe.local.house.tax_percent_by_country["DE"] = "19"
    await issued(house, card="pm_card_visa", is_taxed=True, country="DE")
    await give(house, 333, position=2)
    await give(house, 5000, reason="the other", position=1)
    assert [(each.subtotal, each.total) for each in await theirs(house)] == [(5000, 5950), (333, 396)]
    with pytest.raises(Exception, match="more than what is left"):
        await give(house, 1, reason="again", position=2)
    await give(house, None, reason="all of it")
    paid = (await house.at_stripe())[0]
    assert sum(each.total for each in await theirs(house)) == paid.total, "tax and all"


async def test_notes_made_in_the_dashboard_meanwhile_are_reckoned_with(house: Invoiced) -> None:
    acme = await issued(house)
    ours = await house.invoice()
    line: Any = {"type": "custom_line_item", "description": "by hand", "quantity": 1, "unit_amount": 10_000}
    await house.stripe.running.client.v1.credit_notes.create_async({"invoice": ours.at_stripe, "lines": [line]})
    with pytest.raises(NotToBeCredited, match=r" 3\.59 USD left to be credited"):
        await give(house, 1000)
    await give(house, None)
    assert house.entries(acme, "adjustment") == [Decimal(100), Decimal("3.59")]
    house.require_balanced(acme)


async def begun(house: Invoiced, amount_minor: int, **more: Any) -> Invoice:
    """Its invoice: a note that leaves less to pay of it is planned, and not made."""
    until(desk := CrashingDesk(house.desk, 0), "before CreditNoteService.create_async")
    with it_may_crash():
        await give(house, amount_minor, desk=desk, **more)
    return await house.invoice()


async def notes_on(house: Invoiced, ours: Invoice) -> list[tuple[str, str]]:
    async with house.engine.connect() as connection:
        return [(each.state, each.gives) for each in await notes_of(connection, ours.id)]


async def test_a_note_that_stripe_refuses_meanwhile_leaves_nothing_behind_and_may_be_asked_for_anew(
    house: Invoiced,
) -> None:
    acme = await issued(house)
    ours = await begun(house, 3000)
    api = house.stripe.running.client.v1
    elsewhere = await api.credit_notes.create_async({"invoice": ours.at_stripe, "amount": 10_000})
    await house.stripe.control(f"invoices/{ours.at_stripe}/pay", card="pm_card_visa")
    for _ in range(2):  # the second one asks anew
        with pytest.raises((NoteRefused, NotToBeCredited)):
            await give(house, 3000)
    assert [each.id for each in await theirs(house)] == [elsewhere.id]
    assert house.entries(acme, "adjustment") == [Decimal(100)]
    assert await notes_on(house, ours) == [("refused", "less_due")]
    await give(house, 300)
    assert await notes_on(house, ours) == [("refused", "less_due"), ("issued", "credit")]


async def test_what_a_bank_pays_meanwhile_is_given_back_once_by_the_job_whenever_it_dies(house: Invoiced) -> None:
    house.takes_debits()
    acme = await issued(house)
    ours = await begun(house, 3000)
    await house.stripe.control(f"invoices/{ours.at_stripe}/pay", card="pm_usBankAccount_success")
    with pytest.raises(BeingPaid, match="is being paid"):
        await give(house, 3000)
    await house.stripe.control("clock", advance_s=181)
    for dies_at in ("before CreditNoteService.preview_async", "before CreditNoteService.create_async"):
        until(desk := CrashingDesk(house.desk, 0), dies_at)
        with it_may_crash():
            async with house.engine.connect() as connection:
                (planned,) = await notes_under_way(connection)
            await finish(desk, planned.id)
    await asyncio.gather(*(job_turn(house) for _ in range(2)))
    assert await notes_on(house, ours) == [("refused", "less_due"), ("issued", "credit")]
    assert [(each.total, each.type) for each in await theirs(house)] == [(3000, "post_payment")]
    assert (house.entries(acme, "adjustment"), house.entries(acme, "refund")) == ([Decimal(30)], [Decimal(-30)])


async def test_the_job_says_what_it_gives_back_of_what_was_paid_meanwhile(house: Invoiced) -> None:
    await issued(house)
    ours = await begun(house, 3000)
    await house.stripe.control(f"invoices/{ours.at_stripe}/pay", card="pm_card_visa")
    assert "since it was paid meanwhile: credit note crn_" in await job_turn(house)
    assert await job_turn(house) == "nothing was due"


@pytest.mark.parametrize(
    ("happens", "why"),
    [(pays_in_advance, "way is prepaid by now"), (is_asked_without_stripe, "collection is manual by now")],
)
async def test_where_no_invoice_would_use_it_somebody_has_to_say_how_it_is_given_back(
    house: Invoiced, happens: Callable[[Invoiced, Debtor], None], why: str
) -> None:
    acme = await issued(house)
    ours = await begun(house, 3000)
    happens(house, acme)
    with pytest.raises(NotToBeCredited, match="is not paid"):
        await give(house, 3000, gives="refund")
    await house.stripe.control(f"invoices/{ours.at_stripe}/pay", card="pm_card_visa")
    for _ in range(2):
        with pytest.raises(InvoicesHeld, match=rf"{why}.*`--to`"):
            await job_turn(house)
    await give(house, 3000, gives="refund")
    assert await notes_on(house, ours) == [("refused", "less_due"), ("issued", "refund")]
    assert await job_turn(house) == "nothing was due"


async def test_whoever_goes_on_a_day_after_a_crash_at_any_point_makes_one_note(house: Invoiced) -> None:
    acme = await issued(house)
    for dies_at in range(1, 100):
        desk = CrashingDesk(house.desk, dies_at)
        with it_may_crash():
            await give(house, 100, reason=f"at {dies_at}", desk=desk)
        await house.stripe.control("clock", advance_s=DAY_S + 3600)  # Stripe has forgotten the key
        await give(house, 100, reason=f"at {dies_at}")
        assert len(await theirs(house)) == len(house.entries(acme, "adjustment")) == dies_at, desk.fuse.steps[-1]
        if not desk.fuse.has_blown:
            break
    assert {"before CreditNoteService.create_async", "after CreditNoteService.create_async"} <= set(desk.fuse.steps)
    assert desk.fuse.steps.count("after the commit") >= 3, "the row, the books, the row again"
    house.require_balanced(acme)


async def test_the_job_finishes_what_somebody_began(house: Invoiced) -> None:
    acme = await issued(house)
    until(desk := CrashingDesk(house.desk, 0), "before CreditNoteService.create_async")
    with it_may_crash():
        await give(house, 3000, desk=desk)
    async with house.engine.connect() as connection:
        assert len(await notes_under_way(connection)) == 1
    await job_turn(house)
    async with house.engine.connect() as connection:
        assert await notes_under_way(connection) == []
    assert house.entries(acme, "adjustment") == [Decimal(30)]


async def test_two_who_finish_one_at_once_make_one(house: Invoiced) -> None:
    await issued(house)
    until(desk := CrashingDesk(house.desk, 0), "before CreditNoteService.create_async")
    with it_may_crash():
        await give(house, 3000, desk=desk)
    async with house.engine.connect() as connection:
        (begun,) = await notes_under_way(connection)
    for change in ("amount_minor = 1", "lines = '[]'", "reason = 'another'", "gives = 'credit'"):
        with pytest.raises(psycopg.errors.InsufficientPrivilege, match="stays so"):
            house.owner.execute(f"UPDATE credit_note SET {change}".encode())
    notes = await asyncio.gather(*(finish(house.desk, begun.id) for _ in range(4)))
    assert {each.state for each in notes} == {"issued"}
    assert len(await theirs(house)) == 1


async def test_commands_show_credit_notes_and_say_what_to_do_where_none_is_possible(
    house: Invoiced, tmp_path: Path
) -> None:
    cli = Cli(house, tmp_path)
    await issued(house)
    ours = (await cli("list", "--json")).json()["items"][0]["id"]
    asked = ("credit", ours, "--amount", "30", "--reason", "an outage")
    shown = (await cli(*asked, "--dry-run", "--json")).json()
    assert (shown["gives"], shown["amount"], shown["total"], await theirs(house)) == ("less_due", "30.00", "30.00", [])
    made = (await cli(*asked, "--json")).json()
    assert (made["state"], made["number"]) == ("issued", (await theirs(house))[0].number)
    assert (await cli("show", ours, "--json")).json()["credit_notes"][0]["number"] == made["number"]
    assert f"credit note {made['number']}: 30.00, less_due, issued: an outage" in (await cli("show", ours)).out
    refused = await cli("credit", ours, "--amount", "1", "--reason", "another", "--to", "refund")
    assert "is not paid: a credit note leaves less to pay" in refused.err
    assert "--to is credit, refund or outside" in (await cli(*asked, "--to", "nobody")).err
    await cli("void", ours, "--reason", "wrong")
    assert "`clearinghouse credit grant`" in (await cli("credit", ours, "--amount", "1", "--reason", "so")).err
