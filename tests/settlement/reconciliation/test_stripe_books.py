"""The books against Stripe, and against themselves: zero where all is well, and what was planted by name and amount."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from dataclasses import dataclass, field, replace
from decimal import Decimal
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from pydantic import SecretStr

from settlement.payments.operators import refund
from settlement.reconciliation.documents import all_shown
from settlement.stripe_link.handlers import HANDLERS
from settlement.stripe_local.keys import ApiKeys, Right
from tests.parts.invoiced import Debtor, Invoiced, invoiced
from tests.parts.paying import Till, till_of
from tests.parts.stripe import LinkedStripe
from tests.settlement.invoices.command import Cli
from tests.settlement.reconciliation.parts import compared, differences, report_of, section

#: What a key needs that can do nothing but this: docs/reconciliation.md.
READS: dict[str, Right] = dict.fromkeys(
    (
        "invoices",
        "invoice_payments",
        "credit_notes",
        "charges",
        "refunds",
        "disputes",
        "balance_transactions",
        "payouts",
    ),
    "read",
)
LESS = {name: right for name, right in READS.items() if name != "balance_transactions"}
READS_ALL, READS_NO_BALANCE = "rk_test_that_reads_all_of_it", "rk_test_that_reads_no_balance"


@dataclass
class House(Invoiced):
    """That sells credit, too."""

    heard: set[str] = field(default_factory=set)

    @property
    def till(self) -> Till:
        return till_of(self)

    @property
    def v1(self) -> Any:
        """What others do at Stripe."""
        return self.stripe.running.client.v1

    async def hear_all(self) -> None:
        """What has happened at Stripe since the last time, each object once."""
        told = await self.news(self.heard)
        self.heard |= {event.id for event in told}
        about = {event.data.object.to_dict()["id"]: event.data.object.to_dict()["object"] for event in reversed(told)}
        for object_id, kind in about.items():
            if kind in HANDLERS:
                await HANDLERS[kind](self.desk, object_id)

    async def owing(self, name: str, charge: str, **how: Any) -> Debtor:
        debtor = await self.gateway(name, is_taxed=True, country="DE", **how)
        self.use(debtor, charge)
        self.close(debtor)
        return debtor

    async def topped_up(self, debtor: Debtor, amount: str) -> UUID:
        payment_id = await self.till.asked_at_stripe(debtor.id, "checkout", amount)
        await self.till.pay_page(payment_id)
        await self.hear_all()
        return payment_id


@pytest.fixture
async def house(database: str) -> AsyncIterator[House]:
    async with invoiced(database, keys=ApiKeys(restricted={READS_ALL: READS, READS_NO_BALANCE: LESS})) as made:
        made.stripe.local.house.tax_percent_by_country["DE"] = "19"
        yield House(**{name: getattr(made, name) for name in ("conninfo", "owner", "admin", "engine", "stripe")})


async def busy(house: House) -> Debtor:
    """Two invoices that are paid, one of them with a credit note and the other disputed, and one that is open; a top-up
    with a refund; nothing that anybody would have to explain.
    """
    acme = await house.owing("acme", "80.0049", card="pm_card_visa")
    other = await house.owing("other", "50", card="pm_card_visa")
    await house.owing("late", "20")
    await house.run()
    payment_id = await house.topped_up(acme, "40")
    async with house.admin.begin() as connection:
        await refund(connection, payment_id, Decimal(15), reason="a mistake", actor="cli:ann")
    await house.till.work()
    paid = {one.gateway_id: one for one in await house.invoices()}
    (disputed,) = await house.charges(customer=paid[other.id].stripe_customer_id)
    await house.stripe.control(f"charges/{disputed.id}/dispute")
    lines = (await house.v1.invoices.retrieve_async(paid[acme.id].at_stripe)).lines.data
    line: Any = {"type": "invoice_line_item", "invoice_line_item": lines[0].id, "amount": 1000}
    given_back: Any = {"invoice": paid[acme.id].at_stripe, "lines": [line], "refund_amount": 1190}
    await house.v1.credit_notes.create_async(given_back)
    await house.hear_all()
    return acme


async def test_busy_books_have_no_difference_until_something_is_done_behind_our_back(house: House) -> None:
    acme = await busy(house)
    asked_count = house.stripe.asked("GET", "/v1/invoice_payments")
    report = await report_of(house.admin, by_key(house, READS_ALL))
    assert house.stripe.asked("GET", "/v1/invoice_payments") == asked_count + 1  # by a list, and not for every charge
    assert differences(report) == set()
    stripe = compared(section(report, "stripe"))
    assert stripe["invoices at Stripe, but for drafts"] == (3, ["178.5 USD"])
    assert stripe["invoices of the books among them, with tax"] == (3, ["178.5 USD"])
    assert stripe["paid of them in the books, without tax"] == (2, ["130 USD"])
    assert stripe["credit notes at Stripe that are not void, without tax"] == (1, ["10 USD"])
    assert stripe["charges at Stripe"] == (3, ["194.7 USD"])
    assert stripe["top-ups in the books among them"] == (1, ["40 USD"])
    assert stripe["refunds in the books among them"] == stripe["refunds at Stripe"] == (2, ["26.9 USD"])
    assert stripe["disputes in the books among them"] == stripe["disputes at Stripe"] == (1, ["59.5 USD"])
    assert stripe["movements at Stripe of type charge"] == (3, ["194.7 USD"])
    assert stripe["fees kept by Stripe of movements of type adjustment"] == (1, ["-15 USD"])
    assert compared(section(report, "ledger_issuances"))["issuances of the period"] == (3, ["150.0049 USD"])
    assert [one.name for one in report.sections if not one.is_compared] == ["signer_events", "redemptions", "deposit"]
    assert all(one.is_compared or one.not_compared for one in report.sections)

    less = section(await report_of(house.admin, by_key(house, READS_NO_BALANCE)), "stripe")
    assert [why.partition(":")[0] for why in less.not_compared] == ["fees and payouts"]
    assert compared(less)["charges at Stripe"] == (3, ["194.7 USD"])
    await behind_our_back(house, acme)


def by_key(house: House, key: str) -> LinkedStripe:
    settings = house.stripe.settings.model_copy(update={"api_key": SecretStr(key)})
    return replace(house.stripe, settings=settings)


async def behind_our_back(house: House, acme: Debtor) -> None:
    """What is done at Stripe, and nobody hears of, is found by name and amount."""
    (open_,) = [one for one in await house.invoices() if one.state == "open"]
    await house.v1.invoices.void_invoice_async(open_.at_stripe)
    customer_id = await house.customer_at_stripe(acme)
    asked: Any = {"customer": customer_id, "amount": 777, "currency": "usd", "confirm": True,
                  "payment_method": "pm_card_visa", "off_session": True}  # fmt: skip
    made = await house.v1.payment_intents.create_async(asked)
    asked["amount"] = 555
    twice = await house.v1.payment_intents.create_async(asked)
    await house.v1.refunds.create_async({"charge": twice.latest_charge})  # all of it: nobody misses it
    report = await report_of(house.admin, house.stripe)
    assert differences(report) == {
        ("invoice_status_differs", "23.8", "USD"), ("charge_unknown_to_books", "7.77", "USD"),
    }  # fmt: skip
    charge, invoice = sorted(section(report, "stripe").differences, key=lambda one: one.name)
    assert (charge.subject, charge.link) == (
        made.latest_charge,
        f"{house.stripe.base_url}/v1/charges/{made.latest_charge}",
    )
    assert invoice.link == f"clearinghouse invoices show {invoice.subject}"
    (topup,) = [one for one in await house.till.charges() if one.amount == 4000]
    await house.v1.refunds.create_async({"charge": topup.id, "amount": 100})
    assert ("refund_unknown_to_books", "-1", "USD") in differences(await report_of(house.admin, house.stripe))


async def test_what_stripe_does_not_know_is_found(house: House) -> None:
    """As after books were brought over from another account, or written by somebody else."""
    acme = await house.owing("acme", "20")
    await house.run()
    payment_id = await house.topped_up(acme, "40")
    house.owner.execute("SET session_replication_role = replica")
    house.owner.execute("UPDATE payment SET stripe_intent_id = 'pi_other' WHERE id = %s", [payment_id])
    house.owner.execute("UPDATE invoice SET stripe_invoice_id = 'in_other' WHERE state = 'open'")
    house.owner.execute("SET session_replication_role = origin")
    await house.enter(acme, "payment", "3")
    found = differences(await report_of(house.admin, house.stripe))
    assert found == {
        ("payment_unknown_to_stripe", "-40", "USD"), ("charge_unknown_to_books", "40", "USD"),
        ("invoice_unknown_to_stripe", "-23.8", "USD"), ("invoice_unknown_to_books", "23.8", "USD"),
        ("entry_without_record", "-40", "USD"), ("entry_without_record", "-3", "USD"),
    }  # fmt: skip


async def test_what_is_not_described_is_counted_and_summed(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("settlement.reconciliation.report.DESCRIBED_MAX_COUNT", 1)
    for name in ("acme", "other", "third"):
        house.use(await house.gateway(name), "2")
    house.owner.execute("ALTER TABLE issuance DISABLE TRIGGER append_only")
    house.owner.execute("UPDATE issuance SET charge = charge + 0.000000000001")
    ledger = section(await report_of(house.admin), "ledger_issuances")
    assert [one.name for one in ledger.differences].count("balance") == 1
    assert {one.name: (one.count, all_shown(one.sums)) for one in ledger.totals}["balance"] == (
        3, "0.000000000003 USD",
    )  # fmt: skip


async def test_an_altered_issuance_is_found_with_the_exact_amount(house: House) -> None:
    acme = await house.gateway("acme")
    house.use(acme, "2")
    house.owner.execute("ALTER TABLE issuance DISABLE TRIGGER append_only")
    house.owner.execute("UPDATE issuance SET charge = charge + 0.000000000001")
    report = await report_of(house.admin)
    assert differences(report) == {
        ("balance", "0.000000000001", "USD"), ("usage_total", "-0.000000000001", "USD"),
        ("zero_sum", "0.000000000001", "USD"),
    }  # fmt: skip
    assert section(report, "stripe").not_compared == ["no key of Stripe's is set (stripe.api_key_file)"]


async def test_a_payout_is_what_was_charged_less_fees_or_it_is_a_difference(house: House) -> None:
    acme = await house.gateway("acme")
    await house.topped_up(acme, "40")
    local, desk = house.stripe.local, house.stripe.local.desk()
    for moved in desk.changes.each("balance_transaction"):
        desk.get("balance_transaction", moved["id"])["available_on"] = desk.now_s
    local.write(desk)
    await house.stripe.control("clock", advance_s=1)  # it is paid out
    report = await report_of(house.admin, by_key(house, READS_ALL))
    assert compared(section(report, "stripe"))["parts of payouts, after fees, of type charge"] == (1, ["38.54 USD"])
    assert differences(report) == set()

    (payout,) = (await house.v1.payouts.list_async()).data
    desk = local.desk()
    desk.get("payout", payout.id)["amount"] += 100
    local.write(desk)
    assert differences(await report_of(house.admin, by_key(house, READS_ALL))) == {("payout_parts_differ", "1", "USD")}

    await house.stripe.control(f"payouts/{payout.id}/fail")
    failed = await report_of(house.admin, by_key(house, READS_ALL))
    assert differences(failed) == {("payout_failed", "-39.54", "USD")}
    (one,) = section(failed, "stripe").differences
    assert (one.subject, one.detail) == (payout.id, "The bank account has been closed.")

    desk = local.desk()
    desk.get("payout", payout.id).update(status="paid", automatic=False, reconciliation_status="not_applicable")
    local.write(desk)
    by_hand = await report_of(house.admin, by_key(house, READS_ALL))
    assert differences(by_hand) == set()
    assert "1 payouts: Stripe does not say what they are made of, or not yet" in section(by_hand, "stripe").not_compared


async def test_the_command_says_all_of_it_and_how_it_ended(house: House, tmp_path: Path) -> None:
    cli = Cli(house, tmp_path)
    today = ("--from", "2020-01-01", "--to", "2100-01-01")
    acme = await house.gateway("acme")
    await house.topped_up(acme, "40")
    await house.stripe.control("clock", advance_s=3 * 86_400)  # it is paid out
    answer = await cli.other("reconcile", "report", *today, "--json")
    assert answer.exit_code == 3  # neither signers nor chain were compared
    clean = json.loads(answer.out)
    assert clean["differences_count"] == 0
    (paid_out,) = [one for one in clean["sections"][1]["compared"] if one["what"] == "payouts that are paid"]
    assert (paid_out["count"], paid_out["sums"]) == (1, [{"minor": "3854", "currency": "USD"}])
    await house.enter(acme, "payment", "3")
    answer = await cli.other("reconcile", "report", *today, "--json")
    assert answer.exit_code == 1
    assert '"minor": "-300",\n            "currency": "USD"' in answer.out
    shown = await cli.other("reconcile", "report", *today)
    assert "entry_without_record" in shown.out
    assert "not compared: no chain is configured" in shown.out
    assert "reading what Stripe has …" in shown.err
    assert (await cli.other("reconcile", "report", "--month", "2026-13")).exit_code == 1
    denied = await cli.other("reconcile", "report", *today, CLEARINGHOUSE_STRIPE__API_URL="http://127.0.0.1:9",
                             CLEARINGHOUSE_STRIPE__RETRY_FOR_S="1")  # fmt: skip
    assert "Ledger ↔ Stripe: NOT COMPARED" in denied.out


async def test_where_no_temporary_tables_may_be_made_it_says_so(house: House) -> None:
    house.owner.execute(
        "DO $$ BEGIN EXECUTE format('REVOKE TEMPORARY ON DATABASE %I FROM PUBLIC', current_database()); END $$"
    )
    (why,) = section(await report_of(house.admin, house.stripe), "stripe").not_compared
    assert "GRANT TEMPORARY ON DATABASE" in why
