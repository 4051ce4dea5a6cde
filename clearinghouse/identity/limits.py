"""Limits of gateways and keys as operators set them and as gateways read them: allowed, used, when it begins anew.

A gateway has the limits of its plan (clearinghouse/identity/plans.py), and in their place those that are set for it
here. What they mean and how they are judged is in clearinghouse/usage.py, clearinghouse/policy.py and migrations/sql.
Changes run in the caller's transaction, in role clearinghouse_admin, and hold for the next commit; reads need only
SELECT.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from enum import Enum
from typing import TYPE_CHECKING, Any, Final
from uuid import UUID

from sqlalchemy import text

from clearinghouse import ids
from clearinghouse.errors import InvalidRequest, NotFound
from clearinghouse.ledger.money import parse_amount
from clearinghouse.policy import CEILINGS, UNIT_NAMES
from clearinghouse.usage import MONTHLY, SESSIONS, Limit, begins_anew_at, unit_of

if TYPE_CHECKING:
    from sqlalchemy.engine import RowMapping
    from sqlalchemy.ext.asyncio import AsyncConnection


class Inherited(Enum):
    """What a gateway's limit is set to when its plan is to decide again."""

    INHERIT = "inherit"


NONE: Final = "none"
INHERIT: Final = Inherited.INHERIT
_COUNT_MAX: Final = 10**15  # far above what anybody does in a day, far below the database's 2^63
_RATE_MAX: Final = 10**6
_WEI_MAX: Final = 10**30
_PRICE: Final = re.compile(r"[0-9]{1,30}(\.[0-9]{1,18})?", re.ASCII)

SPEND_LIMITS: Final = ("spend_per_day", "spend_per_month")
_RATES: Final = ("requests_per_s", "burst_count")
_KEY_COLUMNS: Final = {
    "calls_per_day": "calls_day_max",
    "spend_per_day": "spend_day_max",
    "spend_per_month": "spend_month_max",
    "ev_open": "ev_open_max_wei",
    "sessions_open": "sessions_open_max",
}
GATEWAY_LIMITS: Final = (*_RATES, *_KEY_COLUMNS, "sessions_open_per_orchestrator", *CEILINGS)
KEY_LIMITS: Final = (*_RATES, *_KEY_COLUMNS)

#: By a limit's name; None is no limit.
Changes = Mapping[str, Decimal | int | None]
OwnChanges = Mapping[str, Decimal | int | Inherited | None]


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
class CeilingInForce:
    """The highest price of one job type, in wei per `unit`; None where neither the plan nor the gateway has one."""

    name: str
    max_wei_per_unit: Decimal | None
    unit: str
    #: Whether it is the gateway's own, and lower than its plan's.
    is_own: bool


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
    plan: str
    #: Names of what is set for the gateway itself; all the rest is its plan's.
    own_limits: tuple[str, ...]
    requests_per_s: int | None
    burst_count: int | None
    limits: tuple[LimitUse, ...]
    ceilings: tuple[CeilingInForce, ...]
    keys: tuple[KeyLimits, ...]


_GATEWAY_USAGE: Final = """
    SELECT usage.*, gateway.plan, gateway.own_ceilings, price_live_max, price_lv2v_max, price_fixed_max,
           price_untyped_max,
           ARRAY(SELECT name FROM gateway_override WHERE gateway_override.gateway_id = :id ORDER BY name) AS own_limits,
           (SELECT max(sessions) FROM open_sessions WHERE gateway_id = :id) AS sessions_open_orchestrator
      FROM gateway_usage AS usage JOIN gateway ON gateway.id = usage.gateway_id WHERE usage.gateway_id = :id
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
        plan=row["plan"],
        own_limits=tuple(row["own_limits"]),
        requests_per_s=row["requests_per_s"],
        burst_count=row["burst_count"],
        limits=_uses(row, used),
        ceilings=tuple(_ceilings(row)),
        keys=tuple(_key_limits(key) for key in keys),
    )


async def key_limits(connection: AsyncConnection, key_id: UUID) -> KeyLimits:
    """Of a key that exists."""
    query = text(f"{_KEY_USAGE} WHERE key_usage.key_id = :id")
    return _key_limits((await connection.execute(query, {"id": key_id})).mappings().one())


async def set_gateway_limits(connection: AsyncConnection, gateway_id: UUID, changes: OwnChanges) -> GatewayLimits:
    """Changes what is named, in place of what the plan says; INHERIT lets the plan decide again.

    A limit below what is used already refuses everything until it begins anew. Of a price, the lower ceiling holds.
    """
    _require_known(changes, GATEWAY_LIMITS)
    for name, value in changes.items():
        if value is INHERIT:
            await connection.execute(text(_INHERIT), {"id": gateway_id, "name": name})
        else:
            await connection.execute(text(_OVERRIDE), {"id": gateway_id, "name": name, "value": value})
    await connection.execute(text("SELECT refresh_limits(:id)"), {"id": gateway_id})
    return await gateway_limits(connection, gateway_id)


_INHERIT: Final = "DELETE FROM gateway_override WHERE gateway_id = :id AND name = :name"
_OVERRIDE: Final = """
    INSERT INTO gateway_override (gateway_id, name, value) VALUES (:id, :name, :value)
        ON CONFLICT (gateway_id, name) DO UPDATE SET value = excluded.value
"""


async def set_key_limits(connection: AsyncConnection, key_id: UUID, changes: Changes) -> KeyLimits:
    """Changes what is named. What the key has used counts, also before it had a limit: since the month began, the
    expected value that is open, and the sessions that it has open."""
    _require_known(changes, KEY_LIMITS)
    await _set_rates(connection, key_id, {name: changes[name] for name in _RATES if name in changes})
    if not _KEY_COLUMNS.keys().isdisjoint(changes):
        query = text("SELECT * FROM key_limit WHERE key_id = :id")
        row = (await connection.execute(query, {"id": key_id})).mappings().one_or_none()
        old = dict(row) if row is not None else {}
        wanted = {column: changes.get(name, old.get(column)) for name, column in _KEY_COLUMNS.items()}
        await connection.execute(_SET_KEY_LIMITS, {"id": key_id, **wanted})
    return await key_limits(connection, key_id)


_SET_KEY_LIMITS: Final = text(
    "SELECT set_key_limits(:id, :calls_day_max, :spend_day_max, :spend_month_max, :ev_open_max_wei, :sessions_open_max)"
)


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
    return {name: _parse(name, value, currency, NONE) for name, value in wanted.items() if value is not None}


def parse_own_limits(wanted: Mapping[str, str | None], *, currency: str) -> dict[str, Decimal | int | Inherited | None]:
    """The same of a gateway: "none" is no limit whatever its plan says, "inherit" what its plan says."""
    words = f"{NONE} or {INHERIT.value}"
    return {
        name: INHERIT if value == INHERIT.value else _parse(name, value, currency, words)
        for name, value in wanted.items()
        if value is not None
    }


def _parse(name: str, value: str, currency: str, words: str) -> Decimal | int | None:
    if value == NONE:
        return None
    if name in SPEND_LIMITS:
        try:
            return parse_amount(value, currency=currency, may_be_zero=True)
        except InvalidRequest as error:
            raise InvalidRequest(f"{name}: {error.message}, or {words}") from None
    if name in CEILINGS:
        return _parse_price(name, value, words)
    least, most = (1, _RATE_MAX) if name in _RATES else (0, _WEI_MAX if name == "ev_open" else _COUNT_MAX)
    if re.fullmatch(r"[0-9]{1,40}", value, re.ASCII) is None or not least <= int(value) <= most:
        raise InvalidRequest(f"{name}: a whole number from {least} to {most} is needed, or {words}, not {value[:64]!r}")
    return int(value)


def _parse_price(name: str, value: str, words: str) -> Decimal:
    if _PRICE.fullmatch(value) is None or not Decimal(value):
        raise InvalidRequest(
            f"{name}: wei per {UNIT_NAMES[CEILINGS[name]]} are needed, a decimal number above 0 with at most 18 "
            f"decimals, or {words}, not {value[:64]!r}"
        )
    return Decimal(value)


def _require_known(changes: OwnChanges, known: tuple[str, ...]) -> None:
    if not changes:
        raise InvalidRequest(f"name at least one limit: {', '.join(known)}")
    assert changes.keys() <= set(known), "names are checked where they are read"


async def _set_rates(connection: AsyncConnection, key_id: UUID, rates: Mapping[str, Any]) -> None:
    if not rates:
        return
    assignments = ", ".join(f"{column} = :{column}" for column in rates)  # columns are named in this module only
    await connection.execute(text(f"UPDATE api_key SET {assignments} WHERE id = :id"), {"id": key_id, **rates})  # noqa: S608


def _ceilings(row: RowMapping) -> Iterable[CeilingInForce]:
    for name, job_type in CEILINGS.items():
        unit = f"wei per {UNIT_NAMES[job_type]}"
        yield CeilingInForce(name, row[f"{name}_max"], unit, is_own=name in row["own_ceilings"])


def _key_limits(row: RowMapping) -> KeyLimits:
    used = {
        Limit.KEY_CALLS_PER_DAY: (row["calls_day_max"], row["calls_day"]),
        Limit.KEY_SPEND_PER_DAY: (row["spend_day_max"], row["spent_day"]),
        Limit.KEY_SPEND_PER_MONTH: (row["spend_month_max"], row["spent_month"]),
        Limit.KEY_EV_OPEN: (row["ev_open_max_wei"], row["ev_open_wei"]),
        Limit.KEY_SESSIONS_OPEN: (row["sessions_open_max"], row["sessions_open"]),
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
