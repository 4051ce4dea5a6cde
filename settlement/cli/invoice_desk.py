"""What commands about invoices share: the worker's role, the way to Stripe, how invoices and periods are named."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer

from clearinghouse.cli.context import BadConfiguration, database, database_explained
from clearinghouse.errors import InvalidRequest

if TYPE_CHECKING:
    from uuid import UUID

    from sqlalchemy.ext.asyncio import AsyncEngine

    from clearinghouse.config import Settings
    from settlement.invoices.walk import Walker

InvoiceId = Annotated[str, typer.Argument(metavar="ID", help="inv_…, as `clearinghouse invoices list` has it.")]
_Result = TypeVar("_Result")


def as_worker(settings: Settings, work: Callable[[AsyncEngine], Awaitable[_Result]]) -> _Result:
    """In the role of what issues invoices by itself, which an operator's has no rights of."""
    import asyncio

    from clearinghouse.config import LogSettings
    from clearinghouse.database.connect import WORK_ROLE, async_engine, in_role
    from clearinghouse.log import configure_logging
    from settlement.stripe_link.desk import POOL_SIZE, POOL_WAIT_S

    async def within(conninfo: str) -> _Result:
        own = in_role(conninfo, WORK_ROLE, application_name="clearinghouse-cli")
        engine = async_engine(own, pool_size=POOL_SIZE, pool_wait_s=POOL_WAIT_S)
        try:
            return await work(engine)
        finally:
            await engine.dispose()

    configure_logging(LogSettings(format="console", level="warning"))
    with database_explained(), database(settings) as conninfo:
        return asyncio.run(within(conninfo))


@asynccontextmanager
async def walker(settings: Settings, engine: AsyncEngine) -> AsyncIterator[Walker]:
    """Raises BadConfiguration without an account at Stripe."""
    from settlement.customers.stripe_copy import ensure_customer
    from settlement.invoices.walk import Walker
    from settlement.stripe_link.client import stripe_link
    from settlement.stripe_link.desk import Desk

    if settings.stripe.api_key is None:
        raise BadConfiguration("stripe.api_key_file is not set: invoices are made through an account at Stripe")
    async with stripe_link(settings.stripe) as link:
        yield Walker(Desk(link, engine), ensure_customer)


def require_period(period: str) -> None:
    """Named by how its first day begins: 2026, 2026-10, 2026-10-05. Raises InvalidRequest for any other."""
    import re
    from datetime import date

    if re.fullmatch(r"[0-9]{4}(-[0-9]{2}(-[0-9]{2})?)?", period) is None:
        raise InvalidRequest(
            f"a period is named by the beginning of its first day, such as 2026-10, not {period[:64]!r}"
        )
    try:
        date.fromisoformat((period + "-01-01")[:10])
    except ValueError:
        raise InvalidRequest(f"{period} is not in the calendar") from None


def invoice_id(text: str) -> UUID:
    from clearinghouse.ids import parse

    try:
        return parse("inv", text)
    except ValueError as error:
        raise InvalidRequest(f"{text[:64]!r} is {error}") from error
