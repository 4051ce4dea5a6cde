"""Plans: limits and price ceilings that many gateways share, and their way to the gateways.

Every function but `apply` and `apply_left_over` runs in the caller's transaction, in role clearinghouse_admin. Changing
a plan touches the plan alone; the copies that calls read are written by `apply`, gateway by gateway.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Final
from uuid import UUID

from psycopg.errors import LockNotAvailable, UniqueViolation
from sqlalchemy import text
from sqlalchemy.exc import IntegrityError, OperationalError

from clearinghouse.errors import AccountBusy, Conflict, InvalidRequest, NotFound
from clearinghouse.identity.limits import GATEWAY_LIMITS, NONE, SPEND_LIMITS, parse_limits
from clearinghouse.identity.names import NAME_CHARS_MAX, check_name, may_be_name
from clearinghouse.ledger.money import parse_currency

if TYPE_CHECKING:
    from sqlalchemy.engine import RowMapping
    from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

#: The plan of every gateway that is put on no other.
DEFAULT_PLAN: Final = "default"
#: Gateways whose accounts are held together while a change comes to them: some tens of milliseconds.
APPLIED_AT_ONCE_COUNT: Final = 50
#: For an account that somebody else holds; then the rest is left to `apply_left_over`.
LOCK_TIMEOUT_MS: Final = 5000
#: A change that did not come to its end within this time is taken up by whoever finds it.
APPLIED_WITHIN_S: Final = 30


@dataclass(frozen=True, slots=True)
class Plan:
    """`limits` has every limit by its name; None is no limit. `currency` is that of the limits on spend."""

    name: str
    currency: str | None
    limits: Mapping[str, Decimal | None]
    gateways_count: int
    #: Whether the last change has come to all its gateways.
    is_applied: bool
    version: int
    changed_at: datetime
    changed_by: str


_SELECT: Final = """
    SELECT name, currency, version, applied_version >= version AS is_applied, changed_at, changed_by,
           (SELECT count(*) FROM gateway WHERE gateway.plan = plan.name) AS gateways_count,
           (SELECT coalesce(jsonb_object_agg(plan_limit.name, value::text), '{}')
              FROM plan_limit WHERE plan_limit.plan = plan.name) AS limits
      FROM plan
"""


async def list_plans(connection: AsyncConnection) -> list[Plan]:
    """All plans, in the order of their names."""
    return [_plan(row) for row in (await connection.execute(text(_SELECT + "ORDER BY name"))).mappings()]


async def find(connection: AsyncConnection, name: str) -> Plan:
    """NotFound if there is none."""
    if not may_be_name(name):
        raise _not_found(name)
    row = (await connection.execute(text(_SELECT + "WHERE name = :name"), {"name": name})).mappings().one_or_none()
    if row is None:
        raise _not_found(name)
    return _plan(row)


async def create(
    connection: AsyncConnection, name: str, wanted: Mapping[str, str | None], *, currency: str | None, actor: str
) -> Plan:
    """A new plan, which no gateway is on yet. `wanted` is by limit, as written; without it there is no limit.

    Conflict if the name is taken, InvalidRequest names the limit that is wrong.
    """
    check_name(name, whose="plan")
    insert = text("INSERT INTO plan (name, changed_by) VALUES (:name, :actor)")
    try:
        async with connection.begin_nested():
            await connection.execute(insert, {"name": name, "actor": actor})
    except IntegrityError as error:
        if isinstance(error.orig, UniqueViolation):
            raise Conflict(f"there is a plan named {name} already") from error
        raise
    return await _write(connection, await find(connection, name), wanted, currency)


async def change(
    connection: AsyncConnection, name: str, wanted: Mapping[str, str | None], *, currency: str | None, actor: str
) -> Plan:
    """Changes what is named; "none" takes a limit, or the currency, away. `apply` then brings it to the gateways.

    NotFound, Conflict where gateways of another currency are on the plan, InvalidRequest names what is wrong.
    """
    if currency is None and not any(value is not None for value in wanted.values()):
        raise InvalidRequest(f"name at least one of currency, {', '.join(GATEWAY_LIMITS)}")
    if not may_be_name(name):
        raise _not_found(name)
    # Who puts a gateway on the plan, or gives it a limit of its own, waits for this transaction or comes before it.
    update = text(
        """UPDATE plan SET version = version + 1, changed_at = now(), changed_by = :actor WHERE name = :name"""
    )
    await connection.execute(update, {"name": name, "actor": actor})
    return await _write(connection, await find(connection, name), wanted, currency)


async def put(
    connection: AsyncConnection, name: str, wanted: Mapping[str, str | None], *, currency: str | None, actor: str
) -> Plan:
    """The plan of this name, made where there is none, with what is named changed."""
    check_name(name, whose="plan")
    query = text("SELECT EXISTS (SELECT FROM plan WHERE name = :name)")
    exists = (await connection.execute(query, {"name": name})).scalar_one()
    return await (change if exists else create)(connection, name, wanted, currency=currency, actor=actor)


async def delete(connection: AsyncConnection, name: str) -> None:
    """Conflict while gateways are on it, and for the plan that every gateway begins on."""
    if name == DEFAULT_PLAN:
        raise Conflict(f"the plan {DEFAULT_PLAN} stays: gateways begin on it")
    if not may_be_name(name):
        raise _not_found(name)
    await connection.execute(text("SELECT FROM plan WHERE name = :name FOR UPDATE"), {"name": name})
    plan = await find(connection, name)
    if plan.gateways_count:
        raise Conflict(f"{plan.gateways_count} gateways are on the plan {name}: put them on another first")
    await connection.execute(text("DELETE FROM plan WHERE name = :name"), {"name": name})


async def require_plan_for(connection: AsyncConnection, name: str, *, currency: str, whose: str) -> None:
    """That an account in `currency` may be on the plan, until the transaction ends. NotFound or Conflict."""
    if not may_be_name(name):
        raise _not_found(name)
    query = text(
        """SELECT currency, rate_card, (SELECT currency FROM rate_card WHERE card = plan.rate_card LIMIT 1) AS sold_in
             FROM plan WHERE name = :name FOR SHARE"""
    )
    row = (await connection.execute(query, {"name": name})).one_or_none()
    if row is None:
        raise _not_found(name)
    if row.currency not in (None, currency):
        raise Conflict(f"the plan {name} limits spend in {row.currency}, and the account of {whose} is in {currency}")
    if row.sold_in not in (None, currency):
        raise Conflict(
            f"the plan {name} charges by the rate card {row.rate_card}, which is in {row.sold_in}, and the account of "
            f"{whose} is in {currency}"
        )


async def apply(engine: AsyncEngine, plan: Plan, *, progress: Callable[[int], None] = lambda _: None) -> None:
    """Brings the plan as it is now to its gateways, some at a time; `progress` hears how many have it.

    Each transaction holds the accounts of those few, in the order of their ids. What has it has it for the next call;
    where this is cut off, `apply_left_over` ends it. AccountBusy where somebody holds an account for too long.
    """
    query = text("SELECT o_last, o_count FROM apply_plan(:name, :version, :after, :at_most)")
    applied_count, after = 0, UUID(int=0)
    while True:
        parameters = {"name": plan.name, "version": plan.version, "after": after, "at_most": APPLIED_AT_ONCE_COUNT}
        try:
            async with engine.begin() as connection:
                await connection.execute(text(f"SET LOCAL lock_timeout = {LOCK_TIMEOUT_MS}"))
                done = (await connection.execute(query, parameters)).one()
        except OperationalError as error:
            if not isinstance(error.orig, LockNotAvailable):
                raise
            raise AccountBusy(
                f"The plan {plan.name} is changed, and {applied_count} of its gateways have it so. Somebody else holds "
                "the account of the next one: it and the others follow by themselves.",
                retry_after_s=APPLIED_WITHIN_S,
            ) from error
        if not done.o_count:
            return
        applied_count, after = applied_count + done.o_count, done.o_last
        progress(applied_count)


async def apply_left_over(engine: AsyncEngine) -> int:
    """Ends what was cut off before it had come to all gateways of a plan. Returns how many plans that were."""
    query = text(_SELECT + "WHERE applied_version < version AND changed_at < now() - make_interval(secs => :within_s)")
    async with engine.connect() as connection:
        rows = (await connection.execute(query, {"within_s": APPLIED_WITHIN_S})).mappings().all()
    for row in rows:
        await apply(engine, _plan(row))
    return len(rows)


async def _write(
    connection: AsyncConnection, plan: Plan, wanted: Mapping[str, str | None], new_currency: str | None
) -> Plan:
    currency = plan.currency if new_currency is None else None if new_currency == NONE else parse_currency(new_currency)
    named = [name for name in SPEND_LIMITS if wanted.get(name) not in (None, NONE)]
    if named and currency is None:
        raise InvalidRequest(f"{named[0]}: say in which currency; the plan is then for gateways of that currency")
    changes = parse_limits(wanted, currency=currency or "")
    limits = {**plan.limits, **changes}
    kept = [name for name in SPEND_LIMITS if limits[name] is not None]
    if kept and currency is None:
        raise InvalidRequest(f"currency: the plan limits {kept[0]}, which has to be in one")
    if currency != plan.currency:
        await _require_gateways_in(connection, plan.name, currency)
        update = text("UPDATE plan SET currency = :currency WHERE name = :name")
        await connection.execute(update, {"name": plan.name, "currency": currency})
    for limit, value in changes.items():
        statement = _REMOVE if value is None else _SET
        values = {} if value is None else {"value": value}
        await connection.execute(text(statement), {"plan": plan.name, "limit": limit, **values})
    return await find(connection, plan.name)


_REMOVE: Final = "DELETE FROM plan_limit WHERE plan = :plan AND name = :limit"
_SET: Final = """
    INSERT INTO plan_limit (plan, name, value) VALUES (:plan, :limit, :value)
        ON CONFLICT (plan, name) DO UPDATE SET value = excluded.value
"""


async def _require_gateways_in(connection: AsyncConnection, plan: str, currency: str | None) -> None:
    """Conflict where the account of a gateway on the plan is in another currency."""
    query = """SELECT gateway.name, account.currency FROM gateway JOIN account ON account.id = gateway.id
                WHERE gateway.plan = :plan AND account.currency <> :currency ORDER BY gateway.name LIMIT 1"""
    other = (await connection.execute(text(query), {"plan": plan, "currency": currency})).one_or_none()
    if other is not None:
        raise Conflict(
            f"the gateway {other.name} is on the plan {plan}, and its account is in {other.currency}: put it on "
            f"another before this one limits spend in {currency}"
        )


def _not_found(name: str) -> NotFound:
    return NotFound(f"there is no plan {name[:NAME_CHARS_MAX]}")


def _plan(row: RowMapping) -> Plan:
    values: dict[str, Any] = dict(row)
    stored = values.pop("limits")
    limits = {name: Decimal(stored[name]) if name in stored else None for name in GATEWAY_LIMITS}
    return Plan(**values, limits=limits)
