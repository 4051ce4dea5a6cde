"""What is told of an alert: in words for people, in fields for machines.

[CRITICAL] Deposit of 0x7099…79C8 is 0.009 ETH, below 0.01 ETH
sender: 0x7099…79C8
deposit: 0.009 ETH
burn: 0.02 ETH a day
time left: 10 h 48 min usually, 6 h 10 min in one case of twenty
threshold: 0.01 ETH
since: 2026-11-21T14:26:00.000000Z
Advised top-up: 0.2 ETH to the deposit of 0x7099…79C8.
https://docs.example/alerts.md#deposit_critical
"""

from __future__ import annotations

from datetime import datetime
from typing import Final

from clearinghouse.ids import show
from clearinghouse.instants import rfc3339
from settlement.alerts.conditions import Condition
from settlement.alerts.state import Alert, Announcement, Said
from settlement.alerts.words import span
from settlement.delivery.message import Document, Message

_SAID: Final = {
    Said.FIRING: "", Said.REPEATED: "still ", Said.ESCALATED: "not acknowledged: ", Said.RESOLVED: "resolved: ",
}  # fmt: skip


def message_of(announcement: Announcement, *, now: datetime, runbook_url: str | None) -> Message:
    """`runbook_url` is where people read what each rule means; without it there is no link."""
    alert, said = announcement.alert, announcement.said
    condition = alert.condition
    link = f"{runbook_url}#{condition.rule}" if runbook_url is not None else None
    return Message(
        type=f"alert.{said}",
        dedup_key=show("alr", alert.id),
        level=condition.severity.value,
        is_end=said is Said.RESOLVED,
        group=condition.group,
        title=f"[{condition.severity.upper()}] {_SAID[said]}{condition.summary}",
        body="\n".join(_lines(alert, said, now, link)),
        said_at=now,
        document={**alert_document(alert), "said": said.value, "number": announcement.number, "link": link},
        link=link,
    )


def alert_document(alert: Alert) -> Document:
    """As JSON has it: in messages for machines, and in what `clearinghouse alerts list` prints."""
    condition = alert.condition
    return {
        "id": show("alr", alert.id),
        "fingerprint": condition.fingerprint,
        "state": alert.state.value,
        "since": rfc3339(alert.since),
        "fired_at": _instant(alert.fired_at),
        "resolved_at": _instant(alert.resolved_at),
        "acknowledged_at": _instant(alert.acknowledged_at),
        "acknowledged_by": alert.acknowledged_by,
        **condition_document(condition),
    }


def condition_document(condition: Condition) -> Document:
    return {
        "rule": condition.rule,
        "group": condition.group.value,
        "severity": condition.severity.value,
        "labels": dict(condition.labels),
        "summary": condition.summary,
        "facts": dict(condition.facts),
        "advice": condition.advice,
    }


def _lines(alert: Alert, said: Said, now: datetime, link: str | None) -> list[str]:
    condition = alert.condition
    lines = [f"{name}: {value}" for name, value in condition.facts]
    lines.append(f"since: {rfc3339(alert.since)}")
    if said is Said.RESOLVED:
        lines.append(f"It lasted {span(int((now - alert.since).total_seconds()))}.")
    elif condition.advice:
        lines.append(condition.advice)
    if said is Said.ESCALATED:
        lines.append(f"Nobody has acknowledged it: clearinghouse alerts ack {show('alr', alert.id)}")
    return [*lines, link] if link is not None else lines


def _instant(instant: datetime | None) -> str | None:
    return rfc3339(instant) if instant is not None else None
