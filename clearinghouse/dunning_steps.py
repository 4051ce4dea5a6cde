"""When each step of dunning comes: reminders, then no new sessions, then nothing is signed.

GET /v1/billing tells gateways by these, and dunning (settlement/dunning) acts by them: they never say different things.
Pure.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from clearinghouse.config_dunning import DunningSettings


#: In which an invoice is still to be paid. Who has not been sent one that is finalized finds it in GET /v1/billing, and
#: can pay it. What was given up as uncollectible is owed as before.
OPEN_STATES: Final = ("finalized", "open", "uncollectible")


@dataclass(frozen=True, slots=True)
class Policy:
    """In days after an invoice was due; reminders may come before it, with a minus."""

    reminder_days: tuple[int, ...]
    new_sessions_days: int
    signing_days: int

    def new_sessions_stop_at(self, due_at: datetime) -> datetime:
        """Of the longest overdue invoice: from then on no new session is signed for."""
        return _days_after(due_at, self.new_sessions_days)

    def signing_stops_at(self, due_at: datetime) -> datetime:
        """Of the longest overdue invoice: from then on nothing is signed."""
        return _days_after(due_at, self.signing_days)

    def reminder_day(self, due_at: datetime, now: datetime) -> int | None:
        """The newest reminder whose time has come, by its day; None before the first."""
        return max((day for day in self.reminder_days if now >= _days_after(due_at, day)), default=None)

    def next_reminder_at(self, due_at: datetime, now: datetime) -> datetime | None:
        """The first that is still to come; None after the last."""
        coming = (_days_after(due_at, day) for day in self.reminder_days)
        return min((at for at in coming if at > now), default=None)


def _days_after(due_at: datetime, days: int) -> datetime:
    """In days of 24 hours: over the end of summer time a day of the database session's zone has 25."""
    return due_at.astimezone(UTC) + timedelta(days=days)


def policy_of(settings: DunningSettings) -> Policy:
    return Policy(settings.reminder_days, settings.new_sessions_days, settings.signing_days)
