"""`clearinghouse statements pdf --due` beside invoices of Stripe: what one of the two asks for, the other does not."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from decimal import Decimal
from pathlib import Path

import pytest
from psycopg.errors import LockNotAvailable

from clearinghouse.instants import rfc3339
from settlement.invoices.planning import all_due, plan
from settlement.invoices.requests import shown_id
from settlement.invoices.store import Choice
from tests.parts.command_line import Answer
from tests.parts.invoiced import Debtor, Invoiced
from tests.settlement.invoices.command import Cli

Due = Callable[[int], Awaitable[Answer]]


@pytest.fixture
def cli(house: Invoiced, tmp_path: Path) -> Cli:
    return Cli(house, tmp_path)


async def closed(house: Invoiced, acme: Debtor, *charges: str) -> None:
    """A period with so much in it each."""
    for charge in charges:
        house.use(acme, charge)
        house.close(acme)


def asking(house: Invoiced, cli: Cli, tmp_path: Path) -> Due:
    """An invoice without Stripe for acme's period of that number, from 0."""

    async def due(number: int) -> Answer:
        query = "SELECT begins_at, ends_at FROM billing_period ORDER BY begins_at OFFSET %(number)s LIMIT 1"
        begin, end = house.value(query, number=number)
        return await cli.other(
            "statements", "pdf", "acme", "--from", rfc3339(begin), "--to", rfc3339(end), "--due",
            "-o", str(tmp_path / "due.pdf"), CLEARINGHOUSE_STATEMENTS__PAY_TO="IBAN GB33 BUKB 2020 1555 5555 55",
        )  # fmt: skip

    return due


async def test_what_an_invoice_of_stripe_asks_for_or_was_paid_is_not_asked_for_again(
    house: Invoiced, cli: Cli, tmp_path: Path
) -> None:
    acme, due = await house.gateway("acme"), asking(house, cli, tmp_path)
    await closed(house, acme, "13.12")
    assert (await due(0)).exit_code == 0, "nobody asks for it yet"
    await house.plan()
    planned = await house.invoice()
    refused = await due(0)
    assert f"invoice {shown_id(planned)} for 2026-08-01 to 2026-08-31 of Stripe is planned" in refused.err
    assert "will ask for 13.12 USD" in refused.err
    await house.walk()
    ours = await house.invoice()
    refused = await due(0)
    assert f"{ours.number} ({shown_id(ours)})" in refused.err
    assert "is open, and asks for 13.12 USD" in refused.err
    assert "`clearinghouse invoices void`" in refused.err
    assert (await cli("credit", shown_id(ours), "--amount", "2.50", "--reason", "an outage")).exit_code == 0
    await house.stripe.control(f"invoices/{ours.stripe_invoice_id}/pay", card="pm_card_visa")
    await house.hear(ours)
    assert "is paid: 10.62 USD were paid and 2.50 USD credited" in (await due(0)).err
    await closed(house, acme, "5")
    assert (await due(1)).exit_code == 0, "what was paid by its end is in the balance"
    await house.run()
    assert "is open, and asks for 5.00 USD" in (await due(1)).err
    newest, _ = await house.invoices()
    assert (await cli("void", shown_id(newest), "--reason", "by hand")).exit_code == 0
    assert (await due(1)).exit_code == 0, "what is void asks nobody"


async def test_who_is_asked_without_stripe_is_asked_by_statements_alone_and_by_stripe_for_what_is_left_then(
    house: Invoiced, cli: Cli, tmp_path: Path
) -> None:
    acme, due = await house.gateway("acme"), asking(house, cli, tmp_path)
    agreed = ("--way", "postpaid", "--credit-limit", "1000", "--from", "start")
    assert (await cli.other("customers", "terms", "acme", *agreed)).exit_code == 0
    await closed(house, acme, "80.0049")
    refused = await due(0)
    assert "invoices of Stripe ask acme for what it owes (send_invoice)" in refused.err
    assert "`clearinghouse customers set GATEWAY --collection manual`" in refused.err

    assert (await cli.other("customers", "set", "acme", "--collection", "manual")).exit_code == 0
    await house.run()
    assert (await due(0)).exit_code == 0
    ours = await house.invoice()
    assert (ours.state, ours.collection, ours.exact, ours.total_minor) == ("carried", "manual", Decimal("80.0049"), 0)
    assert await house.at_stripe() == []
    await house.enter(acme, "payment", "80")
    await closed(house, acme, "20")  # of which the job comes to hear when Stripe asks again
    assert (await cli.other("customers", "set", "acme", "--collection", "send_invoice")).exit_code == 0
    await house.run()
    assert (await house.at_stripe(), (await due(1)).exit_code) == ([], 0), "it was to be asked for without Stripe"

    await closed(house, acme, "5")
    await house.run()
    assert [each.total for each in await house.at_stripe()] == [2500], "what is left of all"
    assert "It asks for what was owed before, too." in (await due(1)).err
    house.require_balanced(acme)


async def test_what_a_later_invoice_of_stripe_carries_is_not_asked_for_again(
    house: Invoiced, cli: Cli, tmp_path: Path
) -> None:
    acme, due = await house.gateway("acme"), asking(house, cli, tmp_path)
    await closed(house, acme, "0.30")
    await house.run()
    assert ((await house.invoice()).state, (await due(0)).exit_code) == ("carried", 0)
    await closed(house, acme, "20")
    await house.run()
    refused = (await due(0)).err
    assert "for 2026-09-01 to 2026-09-30 of Stripe is open, and asks for 20.30 USD" in refused
    assert "It asks for what was owed before, too." in refused


async def test_what_is_being_planned_for_stripe_keeps_a_change_to_manual_waiting_and_is_not_asked_for_twice(
    house: Invoiced, cli: Cli, tmp_path: Path
) -> None:
    acme, due = await house.gateway("acme"), asking(house, cli, tmp_path)
    await closed(house, acme, "80")
    async with house.engine.begin() as planning:
        (period,) = await all_due(planning, Choice())
        assert await plan(planning, period, defaults=house.defaults) is not None
        with pytest.raises(LockNotAvailable):  # which whoever changes it waits for
            house.owner.execute("SELECT FROM customer FOR NO KEY UPDATE NOWAIT")
    assert (await cli.other("customers", "set", "acme", "--collection", "manual")).exit_code == 0
    assert "of Stripe is planned" in (await due(0)).err


async def test_part_of_a_period_that_stripe_will_ask_for_as_a_whole_is_not_asked_for_without_it(
    house: Invoiced, cli: Cli, tmp_path: Path
) -> None:
    acme = await house.gateway("acme")
    agreed = ("--way", "postpaid", "--credit-limit", "1000", "--from", "start")
    assert (await cli.other("customers", "terms", "acme", *agreed)).exit_code == 0
    assert (await cli.other("customers", "set", "acme", "--collection", "manual")).exit_code == 0
    begin = house.value("SELECT created_at FROM gateway")
    house.use(acme, "70")
    within = house.value("SELECT clock_timestamp()")
    house.owner.execute("SELECT seal_books(%s, %s, true)", [[acme.id], [within]])
    span = ("--from", rfc3339(begin), "--to", rfc3339(within))

    async def due() -> Answer:
        return await cli.other(
            "statements", "pdf", "acme", *span, "--due", "-o", str(tmp_path / "due.pdf"),
            CLEARINGHOUSE_STATEMENTS__PAY_TO="IBAN GB33 BUKB 2020 1555 5555 55",
        )  # fmt: skip

    assert (await due()).exit_code == 0
    assert (await cli.other("customers", "set", "acme", "--collection", "send_invoice")).exit_code == 0
    assert "invoices of Stripe ask acme for what it owes" in (await due()).err
    house.close(acme)
    assert "invoices of Stripe ask acme for what it owes" in (await due()).err
