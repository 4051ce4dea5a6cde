"""Limits of gateways and keys as operators set them and as gateways read them: allowed, used, when it begins anew.

What they mean and how they are judged is in clearinghouse/usage.py and migrations/sql/0001_limits.sql. Changes run in
the caller's transaction, in role clearinghouse_admin, and hold for the next commit; reads need only SELECT.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Final
from uuid import UUID

from sqlalchemy import text

from clearinghouse import ids
from clearinghouse.errors import InvalidRequest, NotFound
from clearinghouse.ledger.money import parse_amount
from clearinghouse.usage import MONTHLY, SESSIONS, Limit, begins_anew_at, unit_of

if TYPE_CHECKING:
    from sqlalchemy.engine import RowMapping
    from sqlalchemy.ext.asyncio import AsyncConnection

NONE: Final = "none"
_COUNT_MAX: Final = 10**15  # far above what anybody does in a day, far below the database's 2^63
_RATE_MAX: Final = 10**6
_WEI_MAX: Final = 10**30

#: The columns of a gateway's limits in `account`, by the limit's name.
_ACCOUNT_COLUMNS: Final = {
    "calls_per_day": "calls_day_max",
    "spend_per_day": "spend_day_max",
    "spend_per_month": "spend_month_max",
    "ev_open": "ev_open_max_wei",
    "sessions_open": "sessions_open_max",
    "sessions_open_per_orchestrator": "sessions_open_per_orchestrator_max",
}
_KEY_COLUMNS: Final = {name: _ACCOUNT_COLUMNS[name] for name in ("calls_per_day", "spend_per_day", "spend_per_month")}
_RATES: Final = ("requests_per_s", "burst_count")
GATEWAY_LIMITS: Final = (*_RATES, *_ACCOUNT_COLUMNS)
KEY_LIMITS: Final = (*_RATES, *_KEY_COLUMNS)

#: By a limit's name; None is no limit.
Changes = Mapping[str, Decimal | int | None]


@dataclass(frozen=True, slots=True)
class LimitUse:
    """One limit and how far it is used. Money in the account's currency; `allowed` is None where there is no limit."""

    limit: Limit
    allowed: Decimal | int | None
    used: Decimal | int
    unit: str
    #: When it begins anew; None for sessions, which close one by one.
    resets_at: datetime | None


@dataclass(frozen=True, slots=True)
class KeyLimits:
    """What one key may use, within what its gateway may. Its use is counted only while it has a limit."""

    key_id: UUID
    public_id: str
    requests_per_s: int | None
    burst_count: int | None
    limits: tuple[LimitUse, ...]


@dataclass(frozen=True, slots=True)
class GatewayLimits:
    """What a gateway may use and has used at one instant, and the same of its keys that have limits of their own.

    Of open sessions per orchestrator, those with the orchestrator that has the most.
    """

    gateway_id: UUID
    currency: str
    requests_per_s: int | None
    burst_count: int | None
    limits: tuple[LimitUse, ...]
    keys: tuple[KeyLimits, ...]


_GATEWAY_USAGE: Final = """
    SELECT *, (SELECT max(sessions) FROM open_sessions WHERE gateway_id = :id) AS sessions_open_orchestrator
      FROM gateway_usage WHERE gateway_id = :id
"""
_KEY_USAGE: Final = """
    SELECT key_usage.*, api_key.public_id FROM key_usage JOIN api_key ON api_key.id = key_usage.key_id
"""
_LIMITED_KEYS: Final = f"""
    {_KEY_USAGE} WHERE key_usage.gateway_id = :id
       AND (key_usage.has_limits OR key_usage.requests_per_s IS NOT NULL OR key_usage.burst_count IS NOT NULL)
     ORDER BY key_usage.key_id DESC
"""


async def gateway_limits(connection: AsyncConnection, gateway_id: UUID) -> GatewayLimits:
    """NotFound where there is no such gateway."""
    row = (await connection.execute(text(_GATEWAY_USAGE), {"id": gateway_id})).mappings().one_or_none()
    if row is None:
        raise NotFound(f"there is no gateway {ids.show('gw', gateway_id)}")
    keys = (await connection.execute(text(_LIMITED_KEYS), {"id": gateway_id})).mappings().all()
    used = {
        Limit.CALLS_PER_DAY: (row["calls_day_max"], row["calls_day"]),
        Limit.SPEND_PER_DAY: (row["spend_day_max"], row["spent_day"]),
        Limit.SPEND_PER_MONTH: (row["spend_month_max"], row["spent_month"]),
        Limit.EV_OPEN: (row["ev_open_max_wei"], row["ev_open_wei"]),
        Limit.SESSIONS_OPEN: (row["sessions_open_max"], row["sessions_open"]),
        Limit.SESSIONS_OPEN_PER_ORCHESTRATOR: (
            row["sessions_open_per_orchestrator_max"],
            row["sessions_open_orchestrator"],
        ),
    }
    return GatewayLimits(
        gateway_id=gateway_id,
        currency=row["currency"],
        requests_per_s=row["requests_per_s"],
        burst_count=row["burst_count"],
        limits=_uses(row, used),
        keys=tuple(_key_limits(key) for key in keys),
    )


async def key_limits(connection: AsyncConnection, key_id: UUID) -> KeyLimits:
    """Of a key that exists."""
    query = text(f"{_KEY_USAGE} WHERE key_usage.key_id = :id")
    return _key_limits((await connection.execute(query, {"id": key_id})).mappings().one())


async def set_gateway_limits(connection: AsyncConnection, gateway_id: UUID, changes: Changes) -> GatewayLimits:
    """Changes what is named. A limit below what is used already refuses everything until it begins anew."""
    _require_known(changes, GATEWAY_LIMITS)
    await _update(connection, "account", gateway_id, {_ACCOUNT_COLUMNS[name]: value for name, value in changes.items()
                                                      if name in _ACCOUNT_COLUMNS})  # fmt: skip
    await _update(connection, "gateway", gateway_id, {name: changes[name] for name in _RATES if name in changes})
    return await gateway_limits(connection, gateway_id)


async def set_key_limits(connection: AsyncConnection, key_id: UUID, changes: Changes) -> KeyLimits:
    """Changes what is named. What the key has used since the month began counts, also before it had a limit."""
    _require_known(changes, KEY_LIMITS)
    await _update(connection, "api_key", key_id, {name: changes[name] for name in _RATES if name in changes})
    if not _KEY_COLUMNS.keys().isdisjoint(changes):
        query = text("SELECT calls_day_max, spend_day_max, spend_month_max FROM key_limit WHERE key_id = :id")
        row = (await connection.execute(query, {"id": key_id})).mappings().one_or_none()
        old = dict(row) if row is not None else {}
        wanted = {column: changes.get(name, old.get(column)) for name, column in _KEY_COLUMNS.items()}
        call = text("SELECT set_key_limits(:id, :calls_day_max, :spend_day_max, :spend_month_max)")
        await connection.execute(call, {"id": key_id, **wanted})
    return await key_limits(connection, key_id)


async def give_same_limits(connection: AsyncConnection, old_key_id: UUID, new_key_id: UUID) -> None:
    """For a key in place of another. What the old one used is not the new one's; their gateway's counters have both."""
    old = await key_limits(connection, old_key_id)
    same: dict[str, Decimal | int | None] = {
        name: use.allowed for name, use in zip(_KEY_COLUMNS, old.limits, strict=True) if use.allowed is not None
    }
    same |= {name: rate for name in _RATES if (rate := getattr(old, name)) is not None}
    if same:
        await set_key_limits(connection, new_key_id, same)


def parse_limits(wanted: Mapping[str, str | None], *, currency: str) -> dict[str, Decimal | int | None]:
    """What was written, without what was not. "none" takes a limit away. InvalidRequest names the limit."""
    return {name: _parse(name, value, currency) for name, value in wanted.items() if value is not None}


def _parse(name: str, value: str, currency: str) -> Decimal | int | None:
    if value == NONE:
        return None
    if name in ("spend_per_day", "spend_per_month"):
        try:
            return parse_amount(value, currency=currency, may_be_zero=True)
        except InvalidRequest as error:
            raise InvalidRequest(f"{name}: {error.message}, or {NONE}") from None
    least, most = (1, _RATE_MAX) if name in _RATES else (0, _WEI_MAX if name == "ev_open" else _COUNT_MAX)
    if re.fullmatch(r"[0-9]{1,40}", value, re.ASCII) is None or not least <= int(value) <= most:
        raise InvalidRequest(f"{name}: a whole number from {least} to {most} is needed, or {NONE}, not {value[:64]!r}")
    return int(value)


def _require_known(changes: Changes, known: tuple[str, ...]) -> None:
    if not changes:
        raise InvalidRequest(f"name at least one limit: {', '.join(known)}")
    assert changes.keys() <= set(known), "names are checked where they are read"


async def _update(connection: AsyncConnection, table: str, row_id: UUID, columns: Mapping[str, Any]) -> None:
    if not columns:
        return
    assignments = ", ".join(f"{column} = :{column}" for column in columns)  # columns are named in this module only
    await connection.execute(text(f"UPDATE {table} SET {assignments} WHERE id = :id"), {"id": row_id, **columns})  # noqa: S608


def _key_limits(row: RowMapping) -> KeyLimits:
    used = {
        Limit.KEY_CALLS_PER_DAY: (row["calls_day_max"], row["calls_day"]),
        Limit.KEY_SPEND_PER_DAY: (row["spend_day_max"], row["spent_day"]),
        Limit.KEY_SPEND_PER_MONTH: (row["spend_month_max"], row["spent_month"]),
    }
    return KeyLimits(
        row["key_id"], row["public_id"], row["requests_per_s"], row["burst_count"], limits=_uses(row, used)
    )


def _uses(row: RowMapping, used: Mapping[Limit, tuple[Any, Any]]) -> tuple[LimitUse, ...]:
    return tuple(
        LimitUse(
            limit=limit,
            allowed=allowed,
            used=amount or 0,
            unit=unit_of(limit, row["currency"]),
            resets_at=None if limit in SESSIONS else begins_anew_at(row["day"], monthly=limit in MONTHLY),
        )
        for limit, (allowed, amount) in used.items()
    )
