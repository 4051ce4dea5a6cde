"""Customers as they are kept: found, described, changed. Reads need only SELECT, changes role clearinghouse_admin."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final
from uuid import UUID

from psycopg.errors import UniqueViolation
from sqlalchemy import text
from sqlalchemy.exc import IntegrityError

from clearinghouse.errors import Conflict, InvalidRequest, NotFound
from clearinghouse.ids import show
from settlement.customers.details import MANUAL, Customer, parse_details, require_consistent

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncConnection


class NoCustomer(NotFound):
    """Nobody has said who pays for the gateway."""

    what_next = (
        "Say who pays for it, by name and email: `clearinghouse customers set GATEWAY --name … --email …`, or over "
        "HTTP PUT /v1/admin/gateways/{gateway}/customer."
    )


_SELECT: Final = "SELECT customer.*, account.currency FROM customer JOIN account ON account.id = customer.gateway_id "


async def find_customer(connection: AsyncConnection, gateway_id: UUID) -> Customer:
    """NoCustomer where there is none."""
    query = text(_SELECT + "WHERE customer.gateway_id = :gateway_id")
    row = (await connection.execute(query, {"gateway_id": gateway_id})).mappings().one_or_none()
    if row is None:
        raise NoCustomer(f"there is no customer of gateway {show('gw', gateway_id)} yet")
    return Customer(**row)


async def is_manual(connection: AsyncConnection, gateway_id: UUID) -> bool:
    """Whether what the gateway owes is asked for without Stripe. Without a customer it is not."""
    query = text("SELECT collection FROM customer WHERE gateway_id = :gateway_id")
    collection = (await connection.execute(query, {"gateway_id": gateway_id})).scalar_one_or_none()
    return bool(collection == MANUAL)


async def list_customers(connection: AsyncConnection) -> list[Customer]:
    """All of them, in the order of their names."""
    result = await connection.execute(text(_SELECT + "ORDER BY customer.name, customer.gateway_id"))
    return [Customer(**row) for row in result.mappings()]


async def set_details(
    connection: AsyncConnection, gateway_id: UUID, given: Mapping[str, object], *, actor: str
) -> Customer:
    """Changes what is `given`, which is as `parse_details` takes it, and leaves the rest as it is.

    A new customer needs name and email. InvalidRequest says all that is wrong; the caller's transaction ends with it.
    """
    parsed = parse_details(given)
    if not parsed:
        raise InvalidRequest("say what is to change")
    values: dict[str, Any] = {**parsed, "changed_by": actor}
    assignments = ", ".join(f"{column} = :{column}" for column in values)  # columns are named in details.py only
    update = f"UPDATE customer SET {assignments} WHERE gateway_id = :gateway_id"  # noqa: S608
    if (await connection.execute(text(update), {**values, "gateway_id": gateway_id})).rowcount == 0:
        await _insert(connection, {**values, "gateway_id": gateway_id})
    customer = await find_customer(connection, gateway_id)
    require_consistent(customer)
    return customer


async def _insert(connection: AsyncConnection, values: dict[str, Any]) -> None:
    if not {"name", "email"} <= values.keys():
        raise InvalidRequest("a new customer needs at least a name and an e-mail address")
    columns = ", ".join(values)
    insert = f"INSERT INTO customer ({columns}) VALUES (:{', :'.join(values)})"  # noqa: S608 (columns, as above)
    try:
        await connection.execute(text(insert), values)
    except IntegrityError as error:
        if isinstance(error.orig, UniqueViolation):
            raise Conflict("somebody else described this customer just now: look, then say it again") from error
        raise
