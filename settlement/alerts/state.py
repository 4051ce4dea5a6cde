"""The life of one alert. Pure: what it was, what holds and what time it is, in; what it is now and what is said, out.

             condition holds            for `for_s`                        does not hold for KEEP_S
    (none) ───────────────▶ PENDING ───────────────▶ FIRING ──────────────────────────────────────▶ RESOLVED
                               │                       │  ▲ told: firing, repeated, escalated          told: resolved
                               └─does not hold─▶(none) └──┘

Whatever decides stands in the alert itself, and that is kept in the database: a restart neither forgets nor repeats.
Each announcement has a number within its alert, so that the database can refuse a second one.
What is not known changes nothing: an alert neither begins nor ends by it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Final, NamedTuple
from uuid import UUID

from settlement.alerts.conditions import Condition, Severity

#: A condition that is gone for a moment and back is still the same alert: nobody wants to hear of it twice.
KEEP_S: Final = 20


class State(StrEnum):
    PENDING = "pending"
    FIRING = "firing"
    RESOLVED = "resolved"


class Said(StrEnum):
    """What an announcement says."""

    FIRING = "firing"
    REPEATED = "repeated"
    ESCALATED = "escalated"
    RESOLVED = "resolved"


@dataclass(frozen=True, slots=True)
class Alert:
    """`condition` is the newest that was seen. `told` are the channels that know of it, and will hear of its end."""

    id: UUID
    condition: Condition
    state: State
    since: datetime
    last_held_at: datetime
    fired_at: datetime | None = None
    resolved_at: datetime | None = None
    said_count: int = 0
    first_said_at: datetime | None = None
    last_said_at: datetime | None = None
    acknowledged_at: datetime | None = None
    acknowledged_by: str = ""
    escalated_at: datetime | None = None
    told: frozenset[str] = frozenset()

    @property
    def fingerprint(self) -> str:
        return self.condition.fingerprint


class Announcement(NamedTuple):
    """Something to be told of an alert. `number` counts the announcements of one alert from 1."""

    alert: Alert
    said: Said
    number: int
    channels: frozenset[str]


class Policy(NamedTuple):
    """Who is told, and how often."""

    warning_channels: frozenset[str]
    critical_channels: frozenset[str]
    escalation_channels: frozenset[str]
    repeat: timedelta
    escalate_after: timedelta

    def channels_for(self, severity: Severity) -> frozenset[str]:
        return self.critical_channels if severity is Severity.CRITICAL else self.warning_channels


class Step(NamedTuple):
    """None for `alert`: there is none any more, and there is nothing to remember of it."""

    alert: Alert | None
    announcement: Announcement | None = None


def began(condition: Condition, now: datetime, new_id: UUID) -> Alert:
    """An alert about what holds and is not known yet."""
    since = min(now, condition.since) if condition.since is not None else now
    return Alert(new_id, condition, State.PENDING, since, now)


def step(before: Alert, condition: Condition | None, now: datetime, policy: Policy, *, is_hushed: bool) -> Step:
    """What becomes of an alert that is pending or firing. At most one thing is said in a step; the next one goes on.

    `condition` is what holds of its fingerprint now; None: it does not. `is_hushed`: silenced, or a worse one is told.
    """
    assert before.state is not State.RESOLVED, "what has ended does not begin again: a new alert does"
    if condition is None:
        return _without_condition(before, now)
    if condition.holds is None:
        return _spoken(before, now, policy, is_hushed=is_hushed)
    alert = replace(before, condition=condition, last_held_at=now)
    if condition.news != before.condition.news:
        alert = _told_to_nobody(alert)
    if alert.state is State.PENDING and now - alert.since >= timedelta(seconds=condition.for_s):
        alert = replace(alert, state=State.FIRING, fired_at=now)
    return _spoken(alert, now, policy, is_hushed=is_hushed)


def _told_to_nobody(alert: Alert) -> Alert:
    """As it was before it was first told; its number and whoever hears of its end stay."""
    return replace(
        alert, first_said_at=None, last_said_at=None, escalated_at=None, acknowledged_at=None, acknowledged_by=""
    )


def _without_condition(before: Alert, now: datetime) -> Step:
    if now - before.last_held_at < timedelta(seconds=KEEP_S):
        return Step(before)
    if before.state is State.PENDING:
        return Step(None)
    alert = replace(before, state=State.RESOLVED, resolved_at=now)
    # Who was told that it began is told that it ended, also where it was silenced since: an incident stays open else.
    return _saying(alert, Said.RESOLVED, now, alert.told) if alert.told else Step(alert)


def _spoken(alert: Alert, now: datetime, policy: Policy, *, is_hushed: bool) -> Step:
    """Says what is due of a firing alert."""
    if alert.state is not State.FIRING or is_hushed:
        return Step(alert)
    channels = policy.channels_for(alert.condition.severity)
    if alert.last_said_at is None:
        return _saying(alert, Said.FIRING, now, channels)
    if alert.acknowledged_at is not None:
        return Step(alert)
    if _is_to_be_escalated(alert, now, policy):
        return _saying(replace(alert, escalated_at=now), Said.ESCALATED, now, policy.escalation_channels)
    if now - alert.last_said_at >= policy.repeat:
        return _saying(alert, Said.REPEATED, now, channels | alert.told)
    return Step(alert)


def _is_to_be_escalated(alert: Alert, now: datetime, policy: Policy) -> bool:
    """Counted from when it was first told: nobody can acknowledge what is silenced."""
    assert alert.first_said_at is not None, "told before"
    if alert.condition.severity is not Severity.CRITICAL or alert.escalated_at is not None:
        return False
    return bool(policy.escalation_channels) and now - alert.first_said_at >= policy.escalate_after


def _saying(alert: Alert, said: Said, now: datetime, channels: frozenset[str]) -> Step:
    first_said_at = alert.first_said_at or now
    told, said_count = alert.told | channels, alert.said_count + 1
    alert = replace(alert, said_count=said_count, first_said_at=first_said_at, last_said_at=now, told=told)
    return Step(alert, Announcement(alert, said, alert.said_count, channels))
