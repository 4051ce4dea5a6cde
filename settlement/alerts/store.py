"""Alerts and silences in the database. Every function works in the caller's transaction."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final
from uuid import UUID

from sqlalchemy import text

from clearinghouse import ids
from clearinghouse.errors import InvalidRequest, NotFound
from settlement.alerts.conditions import Condition, Group, Severity
from settlement.alerts.messages import condition_document
from settlement.alerts.silences import Silence
from settlement.alerts.state import Alert, State
from settlement.delivery.outbox import put_back

if TYPE_CHECKING:
    from sqlalchemy.engine import RowMapping
    from sqlalchemy.ext.asyncio import AsyncConnection

LISTED_MAX: Final = 200
_COLUMNS: Final = (
    "id", "fingerprint", "rule", "severity", "state", "condition", "since", "last_held_at", "fired_at", "resolved_at",
    "said_count", "first_said_at", "last_said_at", "acknowledged_at", "acknowledged_by", "escalated_at", "told",
)  # fmt: skip
_INSERT: Final = f"""
    INSERT INTO alert ({", ".join(_COLUMNS)})
    VALUES ({", ".join("CAST(:condition AS jsonb)" if name == "condition" else f":{name}" for name in _COLUMNS)})
        ON CONFLICT (id) DO UPDATE SET {", ".join(f"{name} = excluded.{name}" for name in _COLUMNS if name != "id")}
"""  # noqa: S608 - the columns are named above


async def take_turn(connection: AsyncConnection, now: datetime) -> bool:
    """Whether this transaction evaluates: one at a time does, and none with what it saw before the newest one."""
    took = text("UPDATE alert_evaluation SET evaluated_at = :now WHERE evaluated_at < :now")
    return (await connection.execute(took, {"now": now})).rowcount == 1


async def open_alerts(connection: AsyncConnection) -> list[Alert]:
    """All that are pending or firing. Their rows are locked: who acknowledges waits for the evaluation."""
    query = text("SELECT * FROM alert WHERE state <> 'resolved' ORDER BY since, id FOR UPDATE")
    return [_alert(row) for row in (await connection.execute(query)).mappings()]


async def keep(connection: AsyncConnection, alerts: Iterable[Alert]) -> None:
    for alert in alerts:
        await connection.execute(text(_INSERT), _row(alert))


async def forget(connection: AsyncConnection, alerts: Sequence[Alert]) -> None:
    """What was pending and is no more."""
    if alerts:
        gone = text("DELETE FROM alert WHERE id = ANY (:ids) AND state = 'pending'")
        await connection.execute(gone, {"ids": [alert.id for alert in alerts]})


async def listed(connection: AsyncConnection, *, with_resolved: bool) -> list[Alert]:
    """Those that are open, the newest first; and what once was, up to LISTED_MAX in all."""
    condition = "" if with_resolved else "WHERE state <> 'resolved'"
    query = f"SELECT * FROM alert {condition} ORDER BY (state = 'resolved'), since DESC, id LIMIT {LISTED_MAX}"  # noqa: S608
    return [_alert(row) for row in (await connection.execute(text(query))).mappings()]


async def acknowledge(connection: AsyncConnection, alert: str, *, actor: str, now: datetime) -> Alert:
    """Somebody looks after it: it is not repeated and not escalated. The first who says so stands.

    `alert` is an id (`alr_…`) or a fingerprint. NotFound where no such alert is open.
    """
    column, value = _naming(alert)
    update = text(
        f"""UPDATE alert SET acknowledged_at = coalesce(acknowledged_at, :now),
                   acknowledged_by = CASE WHEN acknowledged_at IS NULL THEN :actor ELSE acknowledged_by END
             WHERE {column} = :value AND state <> 'resolved' RETURNING *"""  # noqa: S608
    )
    rows = (await connection.execute(update, {"value": value, "actor": actor, "now": now})).mappings().all()
    if not rows:
        raise NotFound(f"there is no open alert {alert[:64]}: see `clearinghouse alerts list`")
    return _alert(rows[0])


def _naming(alert: str) -> tuple[str, object]:
    if not alert.startswith("alr_"):
        return "fingerprint", alert
    try:
        return "id", ids.parse("alr", alert)
    except ValueError as error:
        raise InvalidRequest(f"{alert[:64]!r} is {error}") from error


async def replay_dead(connection: AsyncConnection, *, channel: str | None, now: datetime) -> int:
    """Sends again what a channel, or any, was given up for. How many messages that are. In role clearinghouse_admin.

    Not what was overtaken: a beginning whose end has arrived would open an incident that nothing closes.
    """
    dead = text("""
        SELECT id FROM delivery WHERE kind = 'alert' AND state = 'dead'
           AND (CAST(:channel AS text) IS NULL OR channel = :channel)
           AND NOT EXISTS (SELECT FROM delivery AS later
                            WHERE later.subject = delivery.subject AND later.channel = delivery.channel
                              AND later.position > delivery.position AND later.state = 'delivered')""")
    found = (await connection.execute(dead, {"channel": channel})).scalars()
    return await put_back(connection, list(found), now=now)


# --- silences ---------------------------------------------------------------------------------------------------------


async def silences(connection: AsyncConnection, now: datetime) -> list[Silence]:
    """Those that are not over, in the order in which they end."""
    query = text("SELECT * FROM silence WHERE ends_at > :now ORDER BY ends_at, id")
    return [_silence(row) for row in (await connection.execute(query, {"now": now})).mappings()]


async def silence(
    connection: AsyncConnection,
    matches: Mapping[str, str],
    *,
    now: datetime,
    ends_at: datetime,
    reason: str,
    actor: str,
) -> Silence:
    """From now on. InvalidRequest where it matches everything, or is over before it begins."""
    if not matches:
        raise InvalidRequest("say what is to be silent, such as rule=deposit_low: a silence never covers everything")
    if ends_at <= now:
        raise InvalidRequest("a silence ends after it begins")
    made = Silence(ids.uuid7(), matches, now, ends_at, reason, actor)
    insert = """INSERT INTO silence (id, matches, starts_at, ends_at, reason, actor)
                VALUES (:id, CAST(:matches AS jsonb), :starts_at, :ends_at, :reason, :actor)"""
    parameters = {"id": made.id, "matches": json.dumps(dict(matches)), "starts_at": now, "ends_at": ends_at}
    await connection.execute(text(insert), {**parameters, "reason": reason, "actor": actor})
    return made


async def end_silence(connection: AsyncConnection, silence_id: str, *, now: datetime) -> Silence:
    """Now. NotFound where there is none that is not over."""
    try:
        wanted = ids.parse("sil", silence_id)
    except ValueError as error:
        raise InvalidRequest(f"{silence_id[:64]!r} is {error}") from error
    update = text(
        "UPDATE silence SET ends_at = greatest(starts_at, :now) WHERE id = :id AND ends_at > :now RETURNING *"
    )
    row = (await connection.execute(update, {"id": wanted, "now": now})).mappings().one_or_none()
    if row is None:
        raise NotFound(f"there is no silence {silence_id} that is not over")
    return _silence(row)


# --- rows -------------------------------------------------------------------------------------------------------------


def _row(alert: Alert) -> dict[str, Any]:
    condition = alert.condition
    kept = {**condition_document(condition), "facts": [list(fact) for fact in condition.facts]}
    kept |= {"for_s": condition.for_s, "worse": condition.worse, "news": condition.news}
    return {
        "id": alert.id, "fingerprint": condition.fingerprint, "rule": condition.rule,
        "severity": condition.severity.value, "state": alert.state.value, "condition": json.dumps(kept),
        "since": alert.since, "last_held_at": alert.last_held_at, "fired_at": alert.fired_at,
        "resolved_at": alert.resolved_at, "said_count": alert.said_count, "first_said_at": alert.first_said_at,
        "last_said_at": alert.last_said_at, "acknowledged_at": alert.acknowledged_at,
        "acknowledged_by": alert.acknowledged_by, "escalated_at": alert.escalated_at, "told": sorted(alert.told),
    }  # fmt: skip


def _alert(row: RowMapping) -> Alert:
    return Alert(
        id=row["id"], condition=_condition(row["condition"]), state=State(row["state"]), since=row["since"],
        last_held_at=row["last_held_at"], fired_at=row["fired_at"], resolved_at=row["resolved_at"],
        said_count=row["said_count"], first_said_at=row["first_said_at"], last_said_at=row["last_said_at"],
        acknowledged_at=row["acknowledged_at"], acknowledged_by=row["acknowledged_by"],
        escalated_at=row["escalated_at"], told=frozenset(row["told"]),
    )  # fmt: skip


def _condition(kept: dict[str, Any]) -> Condition:
    return Condition(
        rule=kept["rule"], group=Group(kept["group"]), severity=Severity(kept["severity"]), summary=kept["summary"],
        labels=tuple(sorted(kept["labels"].items())), facts=tuple((name, value) for name, value in kept["facts"]),
        advice=kept["advice"], for_s=kept["for_s"], worse=kept["worse"], news=kept["news"],
    )  # fmt: skip


def _silence(row: RowMapping) -> Silence:
    return Silence(UUID(str(row["id"])), row["matches"], row["starts_at"], row["ends_at"], row["reason"], row["actor"])
