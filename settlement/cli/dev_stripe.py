"""The local Stripe of `clearinghouse dev --stripe-local`: test mode, in the same process, its journal in the data
directory, its events to the service. Commands on the same data directory find it (stripe_of_dev.py)."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import typer

from clearinghouse.cli.context import BadConfiguration

if TYPE_CHECKING:
    from clearinghouse.config import Settings


@asynccontextmanager
async def stripe_beside_dev(settings: Settings, conninfo: str, taxes: Sequence[str] = ()) -> AsyncIterator[None]:
    """While the block lasts. Everybody has a customer there, so that everybody can pay. `taxes` as `stripe-local` has.

    Raises BadConfiguration, also where its port is taken.
    """
    from settlement.cli.stripe_local import endpoints, house_of
    from settlement.cli.stripe_of_dev import journal_locked, url_told
    from settlement.stripe_local.frame import LocalStripe
    from settlement.stripe_local.handlers import HANDLERS
    from settlement.stripe_local.server import BANNER, stripe_served
    from settlement.stripe_local.store import Store

    at, house = urlsplit(settings.stripe.api_url), house_of(taxes)
    async with AsyncExitStack() as stack:
        journal = stack.enter_context(journal_locked(settings.data_dir))
        stripe = LocalStripe(HANDLERS, store=Store(journal), house=house)
        serving = stripe_served(stripe, host=at.hostname or "127.0.0.1", port=at.port or 0)
        try:
            base_url = await stack.enter_async_context(serving)
        except OSError as error:
            raise BadConfiguration(f"the local Stripe cannot listen at {settings.stripe.api_url}: {error}") from error
        endpoints(stripe, [f"http://{settings.listen.host}:{settings.listen.http_port}/webhooks/stripe"])
        await _give_customers(conninfo)
        stack.enter_context(url_told(settings.data_dir, base_url))
        typer.echo(f"{BANNER} It listens at {base_url}.", err=True)
        yield


async def _give_customers(conninfo: str) -> None:
    from sqlalchemy import text

    from clearinghouse.database.connect import ADMIN_ROLE, async_engine, in_role
    from settlement.customers.store import set_details

    engine = async_engine(in_role(conninfo, ADMIN_ROLE, application_name="clearinghouse-dev"), pool_size=1)
    try:
        async with engine.begin() as connection:
            query = text("SELECT id, name FROM gateway WHERE NOT EXISTS "
                         "(SELECT FROM customer WHERE gateway_id = gateway.id)")  # fmt: skip
            for gateway_id, name in (await connection.execute(query)).all():
                details = {"name": name, "email": "billing@gateway.example"}
                await set_details(connection, gateway_id, details, actor="clearinghouse dev")
    finally:
        await engine.dispose()
