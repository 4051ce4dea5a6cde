"""How far an unpaid invoice has come, by the days since it was due. Pure.

    issued ── reminders ──▶ due ── reminders ──▶ no new sessions ──▶ nothing is signed
                                                          payment of what is overdue ends all of it at once

What was already missed is not caught up: after a week without a worker a gateway hears the newest reminder, not three.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import NamedTuple
from uuid import UUID

from clearinghouse.dunning_steps import Policy
from settlement.customers.holds import Hold


@dataclass(frozen=True, slots=True)
class OpenInvoice:
    """An invoice that was issued and is neither paid nor given up. `amount` is what is left to pay, for people."""

    id: UUID
    number: str
    amount: str
    due_at: datetime
    url: str | None = None


class Held(NamedTuple):
    """`invoice` is the one that the hold is for: the longest overdue."""

    hold: Hold
    invoice: OpenInvoice | None


def hold_for(invoices: Iterable[OpenInvoice], now: datetime, policy: Policy) -> Held:
    """What all open invoices of a gateway together come to."""
    oldest = min(invoices, key=lambda invoice: (invoice.due_at, invoice.number), default=None)
    if oldest is None or now < policy.new_sessions_stop_at(oldest.due_at):
        return Held(Hold.NONE, None)
    if now < policy.signing_stops_at(oldest.due_at):
        return Held(Hold.NEW_SESSIONS, oldest)
    return Held(Hold.SIGNING, oldest)
