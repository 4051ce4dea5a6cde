"""One evaluation: all alerts there are, all conditions there are now, and what follows. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from datetime import datetime
from typing import NamedTuple
from uuid import UUID

from settlement.alerts.conditions import Condition
from settlement.alerts.silences import Silence, is_silenced
from settlement.alerts.state import Alert, Announcement, Policy, State, began, step


class Round(NamedTuple):
    """`changed` are to be kept as they are now, `forgotten` to be forgotten: they were pending, and nobody was told."""

    changed: tuple[Alert, ...]
    forgotten: tuple[Alert, ...]
    announcements: tuple[Announcement, ...]


def evaluated(
    alerts: Sequence[Alert],
    conditions: Iterable[Condition],
    silences: Sequence[Silence],
    now: datetime,
    policy: Policy,
    *,
    new_id: Callable[[], UUID],
) -> Round:
    """`alerts` are all that are pending or firing, one for each fingerprint."""
    holding = {condition.fingerprint: condition for condition in conditions}
    known = {alert.fingerprint: alert for alert in alerts}
    assert len(known) == len(alerts), "one open alert for each fingerprint"
    begun = {
        fingerprint: began(condition, now, new_id())
        for fingerprint, condition in holding.items()
        if condition.holds and fingerprint not in known
    }
    before = {**known, **begun}
    firing = {name for name, alert in before.items() if _fires_then(alert, holding.get(name), now, policy)}
    changed, forgotten, announcements = [], [], []
    for fingerprint, alert in before.items():
        condition = holding.get(fingerprint)
        newest = condition if condition is not None and condition.holds else alert.condition
        is_hushed = newest.worse in firing or is_silenced(newest, silences, now)
        after = step(alert, condition, now, policy, is_hushed=is_hushed)
        if after.alert is None:
            forgotten.append(alert)
        elif after.alert != known.get(fingerprint):
            changed.append(after.alert)
        if after.announcement is not None:
            announcements.append(after.announcement)
    return Round(tuple(changed), tuple(forgotten), tuple(announcements))


def _fires_then(alert: Alert, condition: Condition | None, now: datetime, policy: Policy) -> bool:
    """Whether it fires when this round is over: then a lesser one is not told, not even in the same moment."""
    after = step(alert, condition, now, policy, is_hushed=True).alert
    return after is not None and after.state is State.FIRING
