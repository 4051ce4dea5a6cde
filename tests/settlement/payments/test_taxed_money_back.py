"""Refunds and disputes of taxed invoices: what was tax never came into the books, and does not leave them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any
from uuid import UUID

import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from clearinghouse.ids import uuid7
from settlement.invoices.handler import heard_of_credit_note
from settlement.stripe_link.desk import Park
from settlement.stripe_link.handlers import HANDLERS
from tests.parts.invoiced import Debtor, Invoiced, invoiced


@pytest.fixture
async def house(database: str) -> AsyncIterator[Invoiced]:
    async with invoiced(database) as made:
        made.stripe.local.house.tax_percent_by_country["DE"] = "19"
        yield made


async def paid(house: Invoiced, charge: str = "80") -> Debtor:
    """80.00 and 15.20 of tax, by a card."""
    acme = await house.gateway("acme", card="pm_card_visa", is_taxed=True, country="DE")
    house.use(acme, charge)
    house.close(acme)
    await house.run()
    assert (await house.invoice()).state == "paid"
    return acme


async def refunded(house: Invoiced, *minor: int) -> None:
    """At Stripe, one after the other, and each is heard of twice."""
    (charge,) = await house.charges()
    for amount in minor:
        made = await house.stripe.running.client.v1.refunds.create_async({"charge": charge.id, "amount": amount})
        for _ in range(2):
            await HANDLERS["refund"](house.desk, made.id)


async def test_a_charge_of_an_invoice_that_brought_no_money_is_heard_of_and_not_parked(house: Invoiced) -> None:
    acme = await house.gateway("acme", card="pm_card_chargeCustomerFail")
    house.use(acme, "80")
    house.close(acme)
    await house.run()
    (declined,) = (await house.stripe.running.client.v1.charges.list_async()).data
    said = await HANDLERS["charge"](house.desk, declined.id)
    assert said == f"{declined.id} is failed: not of a payment of ours"


async def test_a_refund_takes_no_tax_and_parts_of_it_sum_up_to_what_was_booked(house: Invoiced) -> None:
    acme = await paid(house)
    await refunded(house, 3333, 3333, 1)
    assert house.entries(acme, "refund") == [Decimal("-28.01"), Decimal("-28.01"), Decimal("-0.01")]
    await refunded(house, 9520 - 6667)
    assert sum(house.entries(acme, "refund")) == -sum(house.entries(acme, "payment")) == -80
    assert (house.balance(acme), house.unbilled(acme)) == (-80, 80)


async def test_a_dispute_takes_no_tax_and_gives_back_what_it_took(house: Invoiced) -> None:
    acme = await paid(house)
    await refunded(house, 1000)
    (charge,) = await house.charges()
    await house.stripe.control(f"charges/{charge.id}/dispute")
    client = house.stripe.running.client.v1
    (dispute,) = (await client.disputes.list_async()).data
    await HANDLERS["dispute"](house.desk, dispute.id)
    assert house.entries(acme, "dispute") == [Decimal("-71.60")]
    assert house.balance(acme) == -80
    evidence: Any = {"evidence": {"uncategorized_text": "winning_evidence"}, "submit": True}
    await client.disputes.update_async(dispute.id, evidence)
    await HANDLERS["dispute"](house.desk, dispute.id)
    assert house.entries(acme, "dispute_won") == [Decimal("71.60")]
    assert house.balance(acme) == Decimal("-8.40")


async def test_a_refund_that_is_heard_of_before_its_payment_waits_for_it(house: Invoiced) -> None:
    acme = await house.gateway("acme", is_taxed=True, country="DE")
    house.use(acme, "80")
    house.close(acme)
    await house.run()
    await house.stripe.control(f"invoices/{(await house.invoice()).stripe_invoice_id}/pay", card="pm_card_visa")
    await refunded(house, 9520)
    assert (house.entries(acme, "payment"), house.entries(acme, "refund")) == ([Decimal(80)], [Decimal(-80)])


async def test_one_that_was_edited_and_paid_is_credit_and_the_difference_is_owed(house: Invoiced) -> None:
    """Between our last look at the draft and its being finalized."""
    acme = await house.gateway("acme", is_taxed=True, country="DE")
    house.use(acme, "80.0049")
    house.close(acme)
    await house.stripe.fault("status", status=400, method="POST", path="/v1/invoices/*/finalize", times=1)
    await house.run()
    ours, client = await house.invoice(), house.stripe.running.client.v1
    discount: Any = {"customer": ours.stripe_customer_id, "invoice": ours.at_stripe, "amount": -2000, "currency": "usd"}
    await client.invoice_items.create_async(discount)
    await client.invoices.finalize_invoice_async(ours.at_stripe)
    await house.stripe.control(f"invoices/{ours.stripe_invoice_id}/pay", card="pm_card_visa")
    await house.walk()
    assert (await house.invoice()).problem is not None
    with pytest.raises(Park, match=r"60 USD without tax, where inv_[0-9a-f]+ asked for 80 USD"):
        await house.hear(ours)
    assert await house.hear(ours) == "nothing to do"
    assert ((await house.invoice()).state, house.entries(acme, "payment")) == ("void", [Decimal(60)])
    assert house.balance(acme) == -house.unbilled(acme) == Decimal("-20.0049")
    await refunded(house, 3570)
    found = await client.invoices.retrieve_async(ours.at_stripe)
    line: Any = {"type": "invoice_line_item", "invoice_line_item": found.lines.data[0].id, "amount": 1000}
    for way in ("refund_amount", "credit_amount"):
        asked: Any = {"invoice": ours.at_stripe, "lines": [line], way: 1190}
        made = await client.credit_notes.create_async(asked)
        for _ in range(2):
            await heard_of_credit_note(house.desk, made.id)
    for refund in (await client.refunds.list_async()).data:
        await HANDLERS["refund"](house.desk, refund.id)
    assert house.entries(acme, "adjustment") == [Decimal(10), Decimal(10)], "what was credited is not asked for again"
    assert sorted(house.entries(acme, "refund")) == [Decimal(-30), Decimal(-10), Decimal(-10)]
    assert house.balance(acme) == -house.unbilled(acme) == Decimal("-50.0049")


@pytest.mark.parametrize("note_first", [True, False])
async def test_what_a_credit_note_refunds_leaves_the_account_as_it_was(house: Invoiced, note_first: bool) -> None:
    acme = await paid(house, "80.07")
    ours, client = await house.invoice(), house.stripe.running.client.v1
    found = await client.invoices.retrieve_async(ours.at_stripe)
    line: Any = {"type": "invoice_line_item", "invoice_line_item": found.lines.data[0].id, "amount": 1003}
    made = await client.credit_notes.create_async({"invoice": ours.at_stripe, "lines": [line], "refund_amount": 1194})
    (refund,) = (await client.refunds.list_async()).data
    if note_first:
        await heard_of_credit_note(house.desk, made.id)
    await HANDLERS["refund"](house.desk, refund.id)
    await heard_of_credit_note(house.desk, made.id)
    assert house.entries(acme, "adjustment") == [Decimal("10.03")]
    assert house.entries(acme, "refund") == [Decimal("-10.03")]
    assert house.balance(acme) == 0


# --- the rule itself, in the database ---------------------------------------------------------------------------------

Books = psycopg.Connection[tuple[Any, ...]]


@pytest.fixture
def books(database: str) -> Iterator[Books]:
    with psycopg.connect(database, autocommit=True) as connection:
        yield connection


@dataclass
class GoingBack:
    """An invoice of `gross` and `net` minor units that was paid, and what of it is `gone`, by a name."""

    books: Books
    gross: int
    net: int
    gateway: UUID = field(default_factory=uuid7)
    invoice: UUID = field(default_factory=uuid7)
    gone: dict[str, tuple[str, int]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Only what refunds and disputes look at: as if the payment had been booked by others."""
        names = {"id": self.gateway, "name": f"g-{self.gateway.hex}"}
        self.books.execute("INSERT INTO gateway (id, name) VALUES (%(id)s, %(name)s)", names)
        account = "INSERT INTO account (id, gateway_id, name, currency) VALUES (%(id)s, %(id)s, %(name)s, 'USD')"
        self.books.execute(account, names)
        self.books.execute(
            """INSERT INTO invoice (id, gateway_id, kind, begins_at, ends_at, first_day, next_day, currency, decimals,
                                    exact, total_minor, state)
               VALUES (%s, %s, 'usage', '2026-08-01', '2026-09-01', '2026-08-01', '2026-09-01', 'USD', 2, 1, 100,
                       'planned')""",
            [self.invoice, self.gateway],
        )

    @property
    def gone_minor(self) -> int:
        return sum(amount for _, amount in self.gone.values())

    @property
    def taken_minor(self) -> int:
        ((balance,),) = self.books.execute("SELECT balance * 100 FROM account WHERE id = %s", [self.gateway])
        return -int(balance)

    def goes(self, kind: str, amount: int) -> str:
        name = f"{kind}-{uuid7().hex}"
        self.gone[name] = (kind, amount)
        self._told(name, kind, amount, is_gone=True)
        return name

    def comes_back(self, name: str) -> None:
        kind, amount = self.gone.pop(name)
        self._told(name, kind, amount, is_gone=False)

    def _told(self, name: str, kind: str, amount: int, *, is_gone: bool) -> None:
        """Of what is `noted` a credit note has rounded the tax down."""
        common = [name, self.gateway, Decimal(amount) / 100]
        paid = [self.invoice, self.gross, self.net]
        if kind == "dispute":
            query = """SELECT note_dispute(%s, %s, NULL, 'ch', %s, 'USD', %s, 'fraudulent', NULL, gen_random_uuid(),
                                           gen_random_uuid(), 'test', %s, %s, %s)"""
            self.books.execute(query, [*common, "needs_response" if is_gone else "won", *paid])
            return
        noted = -(-amount * self.net // self.gross) if kind == "noted" else None
        query = """SELECT note_refund(gen_random_uuid(), %s, %s, NULL, %s, 'USD', %s, false, 'r', gen_random_uuid(),
                                      'test', %s, %s, %s, %s)"""
        self.books.execute(query, [*common, "succeeded" if is_gone else "failed", *paid, noted])


#: How much of what is left goes (in thousandths, at least a unit), by what, and when it comes back, if it does.
KINDS = st.sampled_from(["refund", "dispute", "noted"])
STEPS = st.lists(st.tuples(st.integers(1, 1000), KINDS, st.sampled_from(["never", "now", "later"])), max_size=8)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(net=st.integers(1, 10**7), tax=st.integers(0, 10**7), steps=STEPS)
def test_however_much_goes_back_and_returns_all_of_it_is_all_that_was_booked(
    books: Books, net: int, tax: int, steps: list[tuple[int, str, str]]
) -> None:
    back = GoingBack(books, net + tax, net)
    later = []
    for thousandths, kind, returns in steps:
        left = back.gross - back.gone_minor
        if not left:
            break
        amount, before = max(1, left * thousandths // 1000), back.taken_minor
        name = back.goes(kind, amount)
        assert 0 <= back.taken_minor - before <= amount
        assert back.gone_minor < back.gross or back.taken_minor == net
        if returns == "now":
            back.comes_back(name)
        elif returns == "later":
            later.append(name)
    for name in later:
        back.comes_back(name)
    if all(kind != "noted" for _, kind, _ in steps):
        assert back.taken_minor == (2 * back.gone_minor * net + back.gross) // (2 * back.gross)
    if rest := back.gross - back.gone_minor:
        back.goes("refund", rest)
    assert back.taken_minor == net
