"""What a gateway is told, and what it is spared: once for each change, in words that name the numbers."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clearinghouse.balance_bounds import BalanceBounds, BalanceStatus
from settlement.notices.due import Due, GatewayNow, Invoice, Key, due
from settlement.notices.messages import notice_message
from tests.settlement.alerts.scenes import NOW

BOUNDS = BalanceBounds(Decimal(10), Decimal("0.01"))
GATEWAY = GatewayNow("gw_1", "acme", "USD", Decimal(50), BOUNDS, is_suspended=False, suspension_reason="")
EXPIRY = timedelta(days=7)


class Told:
    """Remembers as the database does."""

    def __init__(self) -> None:
        self.states: dict[str, str] = {}

    def of(self, gateway: GatewayNow, after: timedelta = timedelta(0)) -> list[str]:
        found = list(due(gateway, self.states, NOW + after, key_expiry=EXPIRY))
        self.states |= {one.subject: one.state for one in found}
        return [one.type for one in found if one.type is not None]


def having(available: str) -> GatewayNow:
    return replace(GATEWAY, available=Decimal(available))


def test_a_balance_that_falls_and_is_topped_up_is_told_step_by_step_once_each() -> None:
    told = Told()
    assert [told.of(having(amount)) for amount in ("50", "9.99", "5", "0.009", "0", "50", "60")] == [
        [], ["balance.low"], [], ["balance.depleted"], [], ["balance.recovered"], [],
    ]  # fmt: skip


def test_a_balance_that_swings_about_its_bound_is_told_of_once() -> None:
    told = Told()
    assert told.of(having("9.9")) == ["balance.low"]
    assert [told.of(having(amount)) for amount in ("10.5", "9.9", "10.9", "9.9")] == [[], [], [], []]
    assert told.of(having("11")) == ["balance.recovered"]


def test_a_little_more_than_nothing_is_no_recovery_and_nothing_again_is_told_again() -> None:
    told = Told()
    assert told.of(having("0")) == ["balance.depleted"]
    assert told.of(having("5")) == []
    assert told.of(having("0")) == ["balance.depleted"]


def test_a_new_gateway_is_told_nothing_unless_it_has_little() -> None:
    assert Told().of(GATEWAY) == []
    assert Told().of(having("0")) == ["balance.depleted"]


def test_a_suspension_and_its_end_are_told_with_the_reason() -> None:
    told = Told()
    suspended = replace(GATEWAY, is_suspended=True, suspension_reason="unpaid")
    assert [told.of(each) for each in (GATEWAY, suspended, suspended, GATEWAY, GATEWAY)] == [
        [], ["gateway.suspended"], [], ["gateway.resumed"], [],
    ]  # fmt: skip
    (one,) = (each for each in due(suspended, {"balance": "ok"}, NOW, key_expiry=EXPIRY))
    assert one.data == {"reason": "unpaid"}


def test_a_key_is_told_of_a_week_and_a_day_before_its_end_and_anew_when_that_is_moved() -> None:
    told, key = Told(), Key("key_1", "4f0c", "ci", NOW + timedelta(days=10))
    gateway = replace(GATEWAY, keys=(key,))
    days = [day for day in range(12) if told.of(gateway, timedelta(days=day, minutes=1))]
    assert days == [3, 9]
    moved = replace(GATEWAY, keys=(replace(key, expires_at=NOW + timedelta(days=20)),))
    assert told.of(moved, timedelta(days=14)) == ["key.expiring"]


INVOICE = Invoice("inv_1", "LC-7", "12.50", "USD", NOW, "https://pay.example/7", is_open=True, is_paid=False)


def with_invoice(**changed: object) -> GatewayNow:
    return replace(GATEWAY, invoices=(replace(INVOICE, **changed),))  # type: ignore[arg-type] # as the fields are


def test_an_invoice_is_told_of_then_reminded_of_step_by_step_then_thanked_for() -> None:
    told, paid = Told(), {"is_open": False, "is_paid": True}
    steps = [{}, {}, {"reminder_day": -3}, {"reminder_day": -3}, {"reminder_day": 7}, paid, paid]
    assert [told.of(with_invoice(**step)) for step in steps] == [
        ["invoice.issued"], [], ["invoice.reminder"], [], ["invoice.reminder"], ["invoice.paid"], [],
    ]  # fmt: skip


def test_an_invoice_that_is_already_overdue_when_it_is_first_told_of_is_no_reminder() -> None:
    told = Told()
    assert told.of(with_invoice(reminder_day=7)) == ["invoice.issued"]
    assert told.of(with_invoice(reminder_day=7)) == []


def test_an_invoice_that_is_withdrawn_is_not_thanked_for() -> None:
    told = Told()
    assert told.of(with_invoice()) == ["invoice.issued"]
    assert told.of(with_invoice(is_open=False)) == []


def test_each_step_of_a_hold_and_its_end_are_told() -> None:
    told = Told()
    holds = ["none", "new_sessions", "new_sessions", "signing", "none", "none"]
    assert [told.of(replace(GATEWAY, hold=hold, hold_reason="Pay LC-7.")) for hold in holds] == [
        [], ["billing.held"], [], ["billing.held"], ["billing.released"], [],
    ]  # fmt: skip


@given(st.lists(st.decimals(0, 20, places=2), max_size=30))
def test_what_was_told_last_is_never_wrong_by_more_than_the_swing(amounts: list[Decimal]) -> None:
    told, last = Told(), "balance.recovered"
    for amount in amounts:
        last = [last, *told.of(replace(GATEWAY, available=amount))][-1]
        status = BOUNDS.status(amount)
        if status is BalanceStatus.DEPLETED:
            assert last == "balance.depleted"
        elif status is BalanceStatus.LOW:
            assert last != "balance.recovered"
        elif amount >= 11:
            assert last == "balance.recovered"


@pytest.mark.parametrize(
    ("available", "status"),
    [("-1", "depleted"), ("0", "depleted"), ("0.0099", "depleted"), ("0.01", "low"), ("9.99", "low"), ("10", "ok")],
)
def test_a_status_is_by_its_bounds_and_what_is_at_a_bound_is_not_below_it(available: str, status: str) -> None:
    assert BOUNDS.status(Decimal(available)) == status


INVOICE_DATA = {
    "invoice": "LC-7", "amount": "12.50", "currency": "USD", "due_at": "2026-11-30T00:00:00Z",
    "url": "https://pay.example/7",
}  # fmt: skip


@pytest.mark.parametrize(
    ("one", "title", "words"),
    [
        (
            {"type": "balance.low", "data": {"available": "9.5", "currency": "USD", "low_balance": "10"}},
            "acme: the balance is low", ("9.5 USD", "10 USD", "top up"),
        ),
        (
            {"type": "balance.depleted", "data": {"available": "0", "currency": "USD"}},
            "acme: the balance is used up", ("0 USD", "402"),
        ),
        (
            {"type": "key.expiring", "data": {"public_id": "4f0c", "name": "ci", "expires_at": "2026-11-28T14:00:00Z"}},
            "acme: an API key ends on 2026-11-28", ("4f0c", "ci", "2026-11-28T14:00:00Z", "rotated"),
        ),
        ({"type": "gateway.suspended", "data": {"reason": "unpaid"}}, "acme is suspended", ("unpaid",)),
        (
            {"type": "billing.held", "data": {"hold": "new_sessions", "reason": "Pay LC-7."}},
            "acme: no new sessions", ("open go on", "Pay LC-7."),
        ),
        (
            {"type": "billing.held", "data": {"hold": "signing", "reason": "Pay LC-7."}},
            "acme: nothing is signed", ("LC-7",),
        ),
        ({"type": "billing.released", "data": {}}, "acme: signing goes on", ("settled",)),
        (
            {"type": "invoice.reminder", "data": INVOICE_DATA}, "acme: invoice LC-7 is not paid",
            ("12.50 USD", "2026-11-30", "https://pay.example/7"),
        ),
        (
            {"type": "invoice.issued", "data": INVOICE_DATA | {"url": None}},
            "acme: invoice LC-7", ("due on 2026-11-30",),
        ),
        ({"type": "invoice.paid", "data": INVOICE_DATA}, "acme: invoice LC-7 is paid", ("12.50 USD",)),
    ],
)  # fmt: skip
def test_a_notice_names_the_gateway_and_the_numbers(one: dict[str, Any], title: str, words: tuple[str, ...]) -> None:
    message = notice_message(GATEWAY, Due(subject="x", state="x", **one), number=3, now=NOW)
    assert message.title == title
    assert all(word in message.body for word in words)
    assert message.document == {"gateway_id": "gw_1", "gateway": "acme", "number": 3, **one["data"]}
