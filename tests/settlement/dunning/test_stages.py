"""What an unpaid invoice leads to, to the microsecond of each day."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from uuid import uuid4
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from clearinghouse.config_dunning import DunningSettings
from clearinghouse.dunning_steps import Policy
from settlement.customers.holds import Hold
from settlement.dunning.stages import OpenInvoice, hold_for

DUE = datetime(2026, 11, 15, tzinfo=UTC)
POLICY = Policy(reminder_days=(-3, 1, 7), new_sessions_days=14, signing_days=30)
INSTANT = timedelta(microseconds=1)


def invoice(due_at: datetime = DUE, number: str = "A-1") -> OpenInvoice:
    return OpenInvoice(uuid4(), number, "12.00 USD", due_at)


@pytest.mark.parametrize(
    ("day", "before", "hold"), [(14, Hold.NONE, Hold.NEW_SESSIONS), (30, Hold.NEW_SESSIONS, Hold.SIGNING)]
)
def test_each_step_begins_on_its_day_and_not_an_instant_earlier(day: int, before: Hold, hold: Hold) -> None:
    begins_at = DUE + timedelta(days=day)
    assert hold_for([invoice()], begins_at - INSTANT, POLICY).hold is before
    assert hold_for([invoice()], begins_at, POLICY).hold is hold


def test_a_day_has_24_hours_in_whatever_zone_the_database_speaks() -> None:
    due_at = datetime(2026, 10, 20, 12, tzinfo=UTC)
    shown = due_at.astimezone(ZoneInfo("Europe/Berlin"))  # whose summer time ends on the 25th
    assert POLICY.new_sessions_stop_at(shown) == POLICY.new_sessions_stop_at(due_at)
    assert POLICY.signing_stops_at(shown) == POLICY.signing_stops_at(due_at)
    assert POLICY.next_reminder_at(shown, due_at + timedelta(days=2)) == due_at + timedelta(days=7)
    assert POLICY.reminder_day(shown, due_at + timedelta(days=7)) == 7


def test_the_longest_overdue_invoice_decides_and_its_payment_leaves_what_the_next_one_comes_to() -> None:
    older, newer = invoice(), invoice(DUE + timedelta(days=20), "A-2")
    now = DUE + timedelta(days=35)
    assert hold_for([newer, older], now, POLICY) == (Hold.SIGNING, older)
    assert hold_for([newer], now, POLICY) == (Hold.NEW_SESSIONS, newer)
    assert hold_for([], now, POLICY) == (Hold.NONE, None)


@pytest.mark.parametrize(("after_days", "expected"), [(-4, None), (-3, -3), (0, -3), (1, 1), (6, 1), (7, 7), (400, 7)])
def test_of_the_reminders_whose_day_has_come_the_newest_counts(after_days: int, expected: int | None) -> None:
    assert POLICY.reminder_day(DUE, DUE + timedelta(days=after_days)) == expected


def test_without_days_nobody_is_reminded() -> None:
    assert Policy((), 14, 30).reminder_day(DUE, DUE + timedelta(days=99)) is None


@given(ages=st.lists(st.integers(-40, 80), max_size=6), earlier=st.integers(0, 100), later=st.integers(0, 100))
def test_a_hold_never_eases_by_waiting_nor_by_one_more_invoice(ages: list[int], earlier: int, later: int) -> None:
    invoices = [invoice(DUE - timedelta(days=age)) for age in ages]
    steps = list(Hold)
    now = DUE + timedelta(days=earlier)
    found = steps.index(hold_for(invoices, now, POLICY).hold)
    assert found <= steps.index(hold_for(invoices, now + timedelta(days=later), POLICY).hold)
    assert all(steps.index(hold_for(invoices[:n], now, POLICY).hold) <= found for n in range(len(invoices)))


@pytest.mark.parametrize(
    "settings", [{"new_sessions_days": 10, "signing_days": 9}, {"reminder_days": (1, 1)}, {"reminder_days": (400,)}]
)
def test_days_that_make_no_sense_are_refused(settings: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        DunningSettings.model_validate(settings)
