"""Gateways, the tenants of the clearinghouse: made, found, priced, suspended and resumed.

Every function runs in the caller's transaction, in role clearinghouse_admin.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Final, Literal
from uuid import UUID

from psycopg.errors import UniqueViolation
from sqlalchemy import text
from sqlalchemy.exc import IntegrityError

from clearinghouse import ids
from clearinghouse.errors import Conflict, InvalidRequest, NotFound
from clearinghouse.identity import plans
from clearinghouse.identity.names import NAME_CHARS_MAX, check_name
from clearinghouse.identity.plans import DEFAULT_PLAN
from clearinghouse.ledger.money import parse_currency
from clearinghouse.ledger.transfers import check_reason

if TYPE_CHECKING:
    from sqlalchemy.engine import RowMapping
    from sqlalchemy.ext.asyncio import AsyncConnection

DEFAULT_CURRENCY: Final = "USD"
MARKUP_BPS_MAX: Final = 1_000_000  # a hundred times the cost; a larger one is a mistyped one

GatewayStatus = Literal["active", "suspended"]


@dataclass(frozen=True, slots=True)
class Gateway:
    """A tenant and its price. `minimum_charge` is per call, in `currency`; 100 `markup_bps` are one percent.

    Where it is on a `rate_card`, its own or its plan's, that charges its calls in place of these two.
    """

    id: UUID
    name: str
    status: GatewayStatus
    status_reason: str
    currency: str
    markup_bps: int
    minimum_charge: Decimal
    rate_card: str | None
    plan: str
    created_at: datetime


_SELECT: Final = """
    SELECT gateway.id, gateway.name, status, status_reason, currency, markup_bps, minimum_charge, rate_card, plan,
           gateway.created_at
      FROM gateway JOIN account ON account.gateway_id = gateway.id
"""


async def create(
    connection: AsyncConnection,
    name: str,
    *,
    currency: str = DEFAULT_CURRENCY,
    markup_bps: int = 0,
    minimum_charge: Decimal = Decimal(0),
    credit_limit: Decimal = Decimal(0),
    plan: str = DEFAULT_PLAN,
) -> Gateway:
    """A gateway and its account, which keeps its currency for ever, with the limits of `plan`.

    Conflict if the name is taken or the plan is for another currency, NotFound without such a plan.
    """
    check_name(name, whose="gateway", id_prefix="gw_")
    parse_currency(currency)
    _check_markup(markup_bps)
    _check_not_negative("a minimum charge", minimum_charge)
    _check_not_negative("a credit limit", credit_limit)
    await plans.require_plan_for(connection, plan, currency=currency, whose=name)
    gateway_id = ids.uuid7()
    insert = """INSERT INTO gateway (id, name, markup_bps, minimum_charge, plan)
                VALUES (:id, :name, :markup_bps, :minimum_charge, :plan)"""
    pricing = {"markup_bps": markup_bps, "minimum_charge": minimum_charge}
    try:
        await connection.execute(text(insert), {"id": gateway_id, "name": name, "plan": plan, **pricing})
    except IntegrityError as error:
        if isinstance(error.orig, UniqueViolation):
            raise Conflict(f"there is a gateway named {name} already") from error
        raise
    await connection.execute(text("SELECT open_system_accounts(:currency)"), {"currency": currency})
    # Named by its id: a gateway may be called "revenue", and the system's account of that name is another one.
    account = """INSERT INTO account (id, gateway_id, name, currency, credit_limit)
                 VALUES (:id, :id, :name, :currency, :credit_limit)"""
    parameters = {"id": gateway_id, "name": ids.show("gw", gateway_id), "currency": currency}
    await connection.execute(text(account), {**parameters, "credit_limit": credit_limit})
    return await _by_id(connection, gateway_id)


async def list_gateways(connection: AsyncConnection) -> list[Gateway]:
    """All gateways, in the order of their names."""
    result = await connection.execute(text(_SELECT + "ORDER BY gateway.name"))
    return [_gateway(row) for row in result.mappings()]


async def find(connection: AsyncConnection, gateway: str) -> Gateway:
    """By id (`gw_…`) or name. NotFound if there is none."""
    if not gateway.startswith("gw_"):
        return await _one(connection, "WHERE gateway.name = :value", gateway, shown=gateway)
    try:
        gateway_id = ids.parse("gw", gateway)
    except ValueError as error:
        raise InvalidRequest(f"{gateway[:64]!r} is {error}") from error
    return await _by_id(connection, gateway_id)


async def suspend(connection: AsyncConnection, gateway_id: UUID, *, reason: str) -> Gateway:
    """From now on nothing is signed for the gateway, until `resume`. A new reason replaces the old one."""
    check_reason(reason)
    return await _update(connection, gateway_id, status="suspended", status_reason=reason)


async def set_plan(connection: AsyncConnection, gateway: Gateway, plan: str) -> Gateway:
    """From the next call on it has the limits of `plan`, save those of its own. NotFound, or Conflict by currency."""
    await plans.require_plan_for(connection, plan, currency=gateway.currency, whose=gateway.name)
    await connection.execute(text("SELECT put_on_plan(:id, :plan)"), {"id": gateway.id, "plan": plan})
    return await _by_id(connection, gateway.id)


async def resume(connection: AsyncConnection, gateway_id: UUID) -> Gateway:
    """Lift a suspension; nothing happens where there is none."""
    return await _update(connection, gateway_id, status="active", status_reason="")


async def set_pricing(
    connection: AsyncConnection,
    gateway_id: UUID,
    *,
    markup_bps: int | None = None,
    minimum_charge: Decimal | None = None,
) -> Gateway:
    """Change what is given. Holds for calls from now on; what was charged keeps its own price and markup."""
    changes: dict[str, object] = {}
    if markup_bps is not None:
        _check_markup(markup_bps)
        changes["markup_bps"] = markup_bps
    if minimum_charge is not None:
        _check_not_negative("a minimum charge", minimum_charge)
        changes["minimum_charge"] = minimum_charge
    if not changes:
        raise InvalidRequest("name a markup, a minimum charge, or both")
    return await _update(connection, gateway_id, **changes)


def _check_markup(markup_bps: int) -> None:
    if not 0 <= markup_bps <= MARKUP_BPS_MAX:
        raise InvalidRequest(f"a markup is 0 to {MARKUP_BPS_MAX} basis points (100 are one percent), not {markup_bps}")


def _check_not_negative(what: str, amount: Decimal) -> None:
    if amount < 0:
        raise InvalidRequest(f"{what} cannot be negative")


async def _update(connection: AsyncConnection, gateway_id: UUID, **changes: object) -> Gateway:
    assignments = ", ".join(f"{column} = :{column}" for column in changes)  # columns are named in this module only
    query = f"UPDATE gateway SET {assignments} WHERE id = :id"  # noqa: S608
    await connection.execute(text(query), {"id": gateway_id, **changes})
    return await _by_id(connection, gateway_id)


async def _by_id(connection: AsyncConnection, gateway_id: UUID) -> Gateway:
    return await _one(connection, "WHERE gateway.id = :value", gateway_id, shown=ids.show("gw", gateway_id))


async def _one(connection: AsyncConnection, condition: str, value: Any, *, shown: str) -> Gateway:
    row = (await connection.execute(text(_SELECT + condition), {"value": value})).mappings().one_or_none()
    if row is None:
        raise NotFound(f"there is no gateway {shown[:NAME_CHARS_MAX]}")
    return _gateway(row)


def _gateway(row: RowMapping) -> Gateway:
    return Gateway(**row)
