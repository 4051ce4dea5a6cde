"""A period by corrected rates: one credit note, one invoice, and books that say so to the last digit."""

from __future__ import annotations

import asyncio
import csv
import io
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from clearinghouse.errors import InvalidRequest
from clearinghouse.invoices import get_invoice
from clearinghouse.issuances import Issuance, list_issuances
from clearinghouse.ledger.money import EXACT, exact_sum
from clearinghouse.ledger.verify import verify
from clearinghouse.rates.card import CardVersion, Floor, Rate, Tier
from clearinghouse.rates.quote import START, quote_call
from clearinghouse.rates.rules import StoredVersion
from clearinghouse.rates.units import BASE_PER_UNIT, Per
from clearinghouse.rates.usage import Cost, Usage
from settlement.exports.forms import Form
from settlement.exports.usage import open_writer
from settlement.invoices.requests import shown_id
from settlement.invoices.store import Invoice, lines_of
from settlement.rerating.plan import find_or_plan
from settlement.rerating.refusals import NotToBeRerated, RatedAlready
from tests.parts.books import ETH
from tests.parts.crashing import CrashingDesk, it_may_crash
from tests.parts.invoiced import DAY_S, Debtor
from tests.settlement.invoices.command import Cli
from tests.settlement.invoices.job import job_turn
from tests.settlement.invoices.owing import is_asked_without_stripe
from tests.settlement.rerating.sold import LONG_AGO, NS, Sold, per_second

WRONG = (("100", "0.50"), (None, "0.40"))  # 150 seconds are 70.00
RIGHT = (("100", "0.30"), (None, "0.20"))  # and should be 40.00


async def asked(sold: Sold, **details: Any) -> tuple[Debtor, StoredVersion]:
    """For 150 seconds of two applications, by the wrong tiers; and the correction."""
    acme = await owing(sold, await sold.apply(per_second(1, *WRONG)), **details)
    await sold.house.run()
    return acme, await sold.apply(per_second(2, *RIGHT))


async def owing(sold: Sold, wrong: StoredVersion, **details: Any) -> Debtor:
    acme = await sold.gateway("standard", **details)
    for number, seconds in enumerate((60, 50, 40)):
        sold.use(acme, wrong, seconds, app=f"app {number % 2}")
    sold.house.close(acme)
    return acme


async def of_period(sold: Sold, acme: Debtor) -> tuple[Invoice, Invoice]:
    """The one that was wrong, and the one in its place."""
    first, second = sorted((each for each in await sold.house.invoices() if each.gateway_id == acme.id),
                           key=lambda each: each.revision)  # fmt: skip
    return first, second


async def require_corrected(sold: Sold, acme: Debtor, *, is_paid: bool) -> None:
    """Exactly one credit note, one invoice in place of the other, and books that say so."""
    house = sold.house
    was, now = await of_period(sold, acme)
    notes = (await house.stripe.running.client.v1.credit_notes.list_async({"invoice": was.at_stripe})).data
    assert [(note.total, note.type) for note in notes] == [(7000, "post_payment" if is_paid else "pre_payment")]
    assert (was.total_minor, was.state, was.replaced_at is not None) == (7000, "paid", True)
    assert (now.total_minor, now.state, now.revision) == (4000, "paid" if is_paid else "open", 1)
    theirs = [one for one in await house.at_stripe() if one.customer == was.stripe_customer_id]
    assert sorted((one.total, one.status) for one in theirs) == [(4000, now.state), (7000, "paid")]
    assert was.number is not None
    assert was.number in now.memo
    assert house.balance(acme) == (0 if is_paid else -40)
    assert house.unbilled(acme) == 0
    house.require_balanced(acme)
    async with house.engine.connect() as connection:
        lines = await lines_of(connection, now.id)
    assert exact_sum(line.exact for line in lines) == now.exact == 40
    assert sum(line.amount_minor for line in lines) == 4000
    assert sorted(line.facts["rate_rule"] for line in lines) == ["standard@2#0", "standard@2#0"]
    assert sum(house.entries(acme, "adjustment")) == 30


@pytest.mark.parametrize("card", [None, "pm_card_visa"])
async def test_a_credit_note_takes_back_the_wrong_invoice_and_another_asks_in_its_place(
    sold: Sold, card: str | None
) -> None:
    acme, right = await asked(sold, card=card)
    done = await sold.rerate(acme, right)
    assert (done.state, done.difference, done.calls_count) == ("done", Decimal(-30), 3)
    await require_corrected(sold, acme, is_paid=card is not None)
    assert await sold.rerate(acme, right) == done, "the same again does nothing more"
    await asyncio.gather(*(sold.house.hear(each) for each in await sold.house.invoices()))
    await require_corrected(sold, acme, is_paid=card is not None)
    assert len(await sold.house.charges()) == (1 if card else 0), "what Stripe kept has paid the new one"
    await sold.require_clean()
    sold.use(acme, right, 10)
    sold.house.close(acme)
    with pytest.raises(DBAPIError, match="gives its place to another once"):
        async with sold.house.engine.begin() as connection:
            await connection.execute(text("UPDATE invoice SET replaced_at = now() WHERE state = 'paid'"))
    await sold.house.run()
    next_one = (await sold.house.invoices())[0]
    assert next_one.exact == 2, (
        "its month has come to 150 seconds already; nothing of the correction is asked for again"
    )
    await sold.require_clean()


async def test_another_asks_at_stripe_in_place_of_one_there_also_where_the_gateway_is_asked_without_it_by_now(
    sold: Sold,
) -> None:
    acme, right = await asked(sold)
    is_asked_without_stripe(sold.house, acme)
    await sold.rerate(acme, right)
    await require_corrected(sold, acme, is_paid=False)


async def test_a_dry_run_says_of_every_line_what_it_was_and_would_be_and_keeps_nothing(
    sold: Sold, tmp_path: Path
) -> None:
    acme, right = await asked(sold, name="acme")
    found, lines = await sold.tried(acme, right)
    assert (found.difference, found.calls_count) == (-30, 3)
    assert [(line.app, line.charged, line.charge) for line in lines] == [("app 0", 46, 26), ("app 1", 24, 14)]
    assert (
        sold.house.value("SELECT count(*) FROM rerating") == sold.house.value("SELECT count(*) FROM rerated_call") == 0
    )
    cli = Cli(sold.house, tmp_path)
    asked_for = (
        "rerate",
        "--gateway",
        "acme",
        "--period",
        "2026-08",
        "--as-of",
        "standard@2",
        "--reason",
        "wrong tiers",
    )
    shown = (await cli(*asked_for, "--dry-run", "--json")).json()
    assert (shown["difference"], shown["state"]) == ("-30", "would be planned")
    assert [line["difference"] for line in shown["lines"]] == ["-20", "-10"]
    done = (await cli(*asked_for, "--json")).json()
    assert (done["state"], done["difference"]) == ("done", "-30")
    assert "done" in (await cli(*asked_for)).out
    await require_shown(sold, acme, cli, shown["as_of"])
    await require_corrected(sold, acme, is_paid=False)


async def require_shown(sold: Sold, acme: Debtor, cli: Cli, as_of: str) -> None:
    """Both invoices show the re-rating, and the one that gave its place cannot be taken for one that was paid."""
    was, now = await of_period(sold, acme)
    for invoice, credited in ((was, "70.00"), (now, "0.00")):
        found = (await cli("show", shown_id(invoice), "--json")).json()
        assert [(each["as_of"], each["state"]) for each in found["reratings"]] == [(as_of, "done")]
        assert (found["replaced_at"] is not None, found["credited"]) == (invoice is was, credited)
        async with sold.house.engine.connect() as connection:
            theirs = await get_invoice(connection, acme.id, shown_id(invoice))
        assert (theirs["replaced_at"], theirs["credited"]) == (found["replaced_at"], credited)


@pytest.mark.parametrize("way", ["prepaid", "postpaid"])
async def test_where_nobody_was_asked_the_difference_is_an_entry_and_the_next_invoice_has_it(
    sold: Sold, way: str
) -> None:
    """Prepaid there is no next invoice; 0.40 is too little to be asked for, and is carried."""
    wrong = await sold.apply(per_second(1, (None, "0.04")))
    acme = await sold.gateway("standard")
    sold.use(acme, wrong, 10)
    sold.house.close(acme, way=way)
    await sold.house.run()
    right = await sold.apply(per_second(2, (None, "0.03")))
    for _ in range(2):
        done = await sold.rerate(acme, right)
        assert (done.invoice_id, done.difference) == (None, Decimal("-0.1"))
        assert sold.house.entries(acme, "adjustment") == [Decimal("0.1")]
        assert sold.house.balance(acme) == Decimal("-0.3")
    if way == "postpaid":
        sold.use(acme, right, 100)
        sold.house.close(acme)
        await sold.house.run()
        async with sold.house.engine.connect() as connection:
            lines = await lines_of(connection, (await sold.house.invoices())[0].id)
        asked_for = {line.kind: line.amount_minor for line in lines}
        assert asked_for == {"usage": 300, "carried": 40, "correction": -10}
        sold.house.require_balanced(acme)
    await sold.require_clean()


async def test_issuances_show_what_each_call_costs_anew_and_add_up_to_the_new_invoice(sold: Sold) -> None:
    acme, second = await asked(sold)
    sold.use(acme, second, 10)  # of the next period
    assert [each.rerated_charge for each in await calls(sold, acme)] == [None] * 4
    await find_or_plan(sold.house.desk, sold.order(acme, second), only_try=False)
    assert [each.rerated_charge for each in await calls(sold, acme)] == [None] * 4, "it is not done yet"
    await sold.rerate(acme, second)
    *anew, untouched = await calls(sold, acme)
    assert (untouched.rerated_charge, untouched.rerated_by) == (None, None)
    assert exact_sum(each.rerated_charge or Decimal(0) for each in anew) == 40
    assert exact_sum(each.charge for each in anew) == 70
    assert {each.rerated_by for each in anew} == {"standard@2"}
    third = await sold.apply(per_second(3, (None, "0.10")))
    await sold.rerate(acme, third, reason="and once more")
    newest = await calls(sold, acme)
    assert exact_sum(each.rerated_charge or Decimal(0) for each in newest) == 15
    assert {each.rerated_by for each in newest} == {"standard@3", None}
    file = io.BytesIO()
    with open_writer(Form.CSV, file) as writer:
        writer.write(newest)
    rows = list(csv.DictReader(io.StringIO(file.getvalue().decode(), newline="")))
    assert [row["rerated_charge"] for row in rows] == ["6", "5", "4", ""]


async def calls(sold: Sold, acme: Debtor) -> list[Issuance]:
    """Oldest first."""
    async with sold.house.admin.connect() as connection:
        return list((await list_issuances(connection, acme.id)).items)[::-1]


async def test_a_second_correction_starts_from_the_first_and_an_older_one_is_refused(sold: Sold) -> None:
    acme, second = await asked(sold)
    await sold.rerate(acme, second)
    sold.use(acme, second, 10)
    sold.house.close(acme)
    await sold.house.run()  # a later period, which was asked for by then, stays as it is
    third = await sold.apply(per_second(3, (None, "0.10")))
    done = await sold.rerate(acme, third, reason="and once more")
    assert (done.difference, sold.house.balance(acme), sold.house.unbilled(acme)) == (-25, -17, 0)
    assert [each.total_minor for each in await sold.house.invoices()] == [200, 1500, 4000, 7000]
    sold.house.require_balanced(acme)
    with pytest.raises(RatedAlready, match="standard@3 already"):
        await sold.rerate(acme, await sold.apply(per_second(2, *RIGHT)), reason="back again")
    await sold.require_clean()


async def test_a_period_rated_by_the_cards_that_it_was_charged_by_gives_no_difference(sold: Sold) -> None:
    """Two dollars a call: six without tiers, of the next two one below the tier's end and one beyond it."""
    tiers = (Tier(7 * BASE_PER_UNIT[Per.COST], Decimal("1.1")), Tier(None, Decimal("1.02")))
    plain = await sold.apply(
        CardVersion("standard", 1, "USD", LONG_AGO, (Rate(Per.COST, (Tier(None, Decimal("1.05")),)),))
    )
    acme = await sold.gateway("standard")
    for _ in range(3):
        sold.use(acme, plain, 0, ev_wei=10**15)
    tiered = await sold.apply(CardVersion("standard", 2, "USD", datetime.now(UTC), (Rate(Per.COST, tiers),)))
    sold.use(acme, tiered, 0, ev_wei=10**15)
    sold.house.close(acme, way="prepaid")
    assert sold.house.balance(acme) == -3 * Decimal("2.1") - Decimal("1.1") - Decimal("1.02")
    done = await sold.rerate(acme, tiered)
    assert (done.state, done.difference, done.calls_count, done.transfer_id) == ("done", 0, 4, None)
    await sold.require_clean()


async def test_a_version_that_calls_were_charged_after_is_refused_and_takes_no_price_back(sold: Sold) -> None:
    wrong = await sold.apply(per_second(1, *WRONG))
    acme = await sold.gateway("standard")
    sold.use(acme, wrong, 10)
    right = await sold.apply(per_second(2, *RIGHT))
    rates = (*per_second(3, (None, "5")).rates, *per_second(3, (None, "0.90"), application="app").rates)
    dearer = await sold.apply(CardVersion("standard", 3, "USD", datetime.now(UTC), rates))
    sold.use(acme, dearer, 10)
    sold.house.close(acme, way="prepaid")
    with pytest.raises(InvalidRequest, match="by standard@3, which was applied after standard@2: say --as-of"):
        await sold.rerate(acme, right)
    assert sold.house.value("SELECT count(*) FROM rerating") == 0
    done = await sold.rerate(acme, dearer)
    assert (done.difference, sold.house.balance(acme)) == (-2, -3 - 9)
    await sold.require_clean()


async def test_what_cannot_be_said_or_taken_back_is_refused_and_leaves_nothing(sold: Sold) -> None:
    acme, _ = await asked(sold)
    other = await sold.apply(per_second(1, *RIGHT, card="other"))
    with pytest.raises(InvalidRequest, match="no call of the period would be charged by other@1"):
        await sold.rerate(acme, other)
    per_request = CardVersion("standard", 3, "USD", LONG_AGO, (Rate(Per.REQUEST, (Tier(None, Decimal(1)),)),))
    with pytest.raises(NotToBeRerated, match="was sold per second, and nothing else was recorded"):
        await sold.rerate(acme, await sold.apply(per_request))
    assert sold.house.value("SELECT count(*) FROM rerating") == 0
    assert sold.house.value("SELECT count(*) FROM rerated_call") == 0
    assert sold.house.entries(acme, "adjustment") == []


async def test_a_credit_note_of_the_dashboard_keeps_a_re_rating_from_being_done(sold: Sold) -> None:
    acme, right = await asked(sold)
    was = await sold.house.invoice()
    line: Any = {"type": "custom_line_item", "description": "by hand", "quantity": 1, "unit_amount": 1000}

    async def by_hand() -> None:
        client = sold.house.stripe.running.client.v1
        await client.credit_notes.create_async({"invoice": was.at_stripe, "lines": [line]})

    await find_or_plan(sold.house.desk, sold.order(acme, right), only_try=False)
    assert sold.house.value("SELECT state FROM rerating") == "planned"
    await by_hand()
    for _ in range(2):
        with pytest.raises(NotToBeRerated):
            await sold.rerate(acme, right)
    assert sold.house.value("SELECT state FROM rerating") == "refused"
    await sold.house.hear(was)
    assert (sold.house.entries(acme, "adjustment"), sold.house.balance(acme)) == ([Decimal(10)], -60)
    await sold.require_clean()


#: Where a process may end on the way to the new invoice's draft. How that one goes on is told in tests of invoices.
POINTS = ("after the commit", "before CreditNoteService.create_async", "after CreditNoteService.create_async",
          "before InvoiceService.create_async")  # fmt: skip


@pytest.mark.slow
async def test_whoever_goes_on_a_day_after_a_crash_at_any_point_corrects_once(sold: Sold) -> None:
    wrong = await sold.apply(per_second(1, *WRONG))
    debtors = [await owing(sold, wrong, name=f"gateway-{number}") for number in range(16)]
    await sold.house.run()
    right = await sold.apply(per_second(2, *RIGHT))
    whole = CrashingDesk(sold.house.desk, 0)
    await sold.rerate(debtors[0], right, desk=whole)
    steps = whole.fuse.steps[: whole.fuse.steps.index("before InvoiceService.create_async") + 1]
    points = [at for at, name in enumerate(steps, 1) if name in POINTS]
    assert set(POINTS) == {steps[at - 1] for at in points}
    assert 6 < len(points) < len(debtors)
    for number, (dies_at, acme) in enumerate(zip(points, debtors[1:], strict=False)):
        desk = CrashingDesk(sold.house.desk, dies_at)
        with it_may_crash():
            await sold.rerate(acme, right, desk=desk)
        assert desk.fuse.has_blown
        await sold.house.stripe.control("clock", advance_s=DAY_S + 3600)  # Stripe has forgotten all keys
        if number % 2:
            await job_turn(sold.house)
        await sold.rerate(acme, right)
        await require_corrected(sold, acme, is_paid=False)
    await sold.require_clean()


CALLS_ONLY, INVOICES_ONLY = {"rerated_calls"}, {"rerated_invoices"}
CORRUPTIONS = (
    ("UPDATE rerated_call SET charge = charge + 1", {"rerated_charge", "rerated_sums"}),
    ("UPDATE rerated_call SET charged = charged + 1, charge = charge + 1", {"rerated_charge"}),
    ("UPDATE rerated_line SET charge = charge + 1", {"rerated_sums"}),
    ("DELETE FROM rerated_call WHERE charged = (SELECT min(charged) FROM rerated_call)", {"rerated_sums"}),
    ("UPDATE rerated_call SET volume_before = 1 WHERE volume_before = 0", CALLS_ONLY),
    ("UPDATE rerated_call SET lead_before = lead_before + 1", CALLS_ONLY),
    ("UPDATE rerated_call SET at_least_cost = false", CALLS_ONLY),
    ("UPDATE rerated_call SET quantity = quantity + 1000", {"rerated_calls", "rerated_charge"}),
    ("UPDATE rerated_call SET rate_rule = (SELECT id FROM rate_rule WHERE card = 'other')", CALLS_ONLY),
    ("UPDATE rerating SET as_of = 0", CALLS_ONLY),
    ("UPDATE rerating SET state = 'refused'", INVOICES_ONLY),
    ("UPDATE credit_note SET amount_minor = amount_minor - 1", INVOICES_ONLY),
    ("UPDATE credit_note SET state = 'planned', ended_at = NULL, stripe_note_id = NULL", INVOICES_ONLY),
    ("UPDATE invoice SET state = 'void', replaced_at = NULL WHERE replaced_at IS NOT NULL", INVOICES_ONLY),
    ("UPDATE invoice SET replaced_at = now() WHERE replaced_at IS NULL", INVOICES_ONLY),
    ("UPDATE entry_of_period SET effective_at = effective_at + interval '1 day'", INVOICES_ONLY),
    ("INSERT INTO entry_of_period SELECT id, now() FROM transfer WHERE kind = 'payment' LIMIT 1", INVOICES_ONLY),
)


async def test_what_was_changed_of_a_re_rating_afterwards_is_found(sold: Sold) -> None:
    await sold.apply(per_second(1, *RIGHT, card="other"))
    await sold.rerate(*await asked(sold, card="pm_card_visa"))
    await sold.require_clean()
    owner = sold.house.owner
    owner.execute("SET session_replication_role = replica")  # past all triggers, as nobody else can
    for corruption, claims in CORRUPTIONS:
        table = next(word for word in corruption.split() if word.islower())
        owner.execute(f"CREATE TEMP TABLE kept AS TABLE {table}".encode())
        assert owner.execute(corruption.encode()).rowcount > 0
        assert {finding.claim for finding in (await verify(sold.house.engine)).findings} == claims, corruption
        owner.execute(f"DELETE FROM {table}; INSERT INTO {table} TABLE kept; DROP TABLE kept".encode())
    await sold.require_clean()


TIERS = st.lists(st.integers(0, 400), min_size=1, max_size=3).map(
    lambda prices: [*((str(20 * (at + 1)), f"0.{price:03}") for at, price in enumerate(prices[:-1])),
                    (None, f"0.{prices[-1]:03}7")]
)  # fmt: skip
FLOORS = st.sampled_from([Floor.CALL, Floor.PERIOD])
CALLS = st.lists(st.tuples(st.integers(0, 50), st.integers(1, 10**16)), min_size=1, max_size=8)


@settings(
    max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture],
    phases=[Phase.explicit, Phase.reuse, Phase.generate],
)  # fmt: skip
@given(was=st.tuples(TIERS, FLOORS), now=st.tuples(TIERS, FLOORS), calls=CALLS)
async def test_what_was_charged_and_the_adjustment_are_what_should_have_been_charged_to_the_last_digit(
    sold: Sold, was: Any, now: Any, calls: Any
) -> None:
    name = f"card-{len(sold.versions)}"
    wrong = await sold.apply(per_second(1, *was[0], card=name, floor=was[1]))
    acme = await sold.gateway(name)
    for seconds, ev_wei in calls:
        sold.use(acme, wrong, seconds, ev_wei=ev_wei)
    sold.house.close(acme, way="prepaid")
    before = sold.house.balance(acme)
    right = await sold.apply(per_second(2, *now[0], card=name, floor=now[1]))
    position, should = START, []
    for seconds, ev_wei in calls:
        quote = quote_call(right.version, Usage("app", "", "", seconds * NS), Cost(ev_wei, ETH), before=position)
        position = quote.after
        should.append(quote.charge)
    done = await sold.rerate(acme, right)
    rows = sold.house.owner.execute(
        "SELECT issuance.charge, call.charge FROM issuance JOIN rerated_call AS call ON call.issuance_id = issuance.id"
        " WHERE gateway_id = %s ORDER BY issuance.created_at", [acme.id],
    ).fetchall()  # fmt: skip
    assert [anew for _, anew in rows] == should
    adjusted = exact_sum(sold.house.entries(acme, "adjustment"))
    assert EXACT.add(exact_sum(charge for charge, _ in rows), EXACT.minus(adjusted)) == exact_sum(should)
    assert EXACT.subtract(sold.house.balance(acme), before) == adjusted == EXACT.minus(done.difference)
    await sold.require_clean()
