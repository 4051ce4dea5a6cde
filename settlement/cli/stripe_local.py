"""`clearinghouse stripe-local`: a Stripe of one's own, for development."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from clearinghouse.cli.context import BadConfiguration

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Sequence

    from settlement.stripe_local.desk import House
    from settlement.stripe_local.frame import LocalStripe

_TAX_HELP = "Stripe Tax: a percentage by country, such as DE=19. May be given more than once."


def stripe_local(
    host: Annotated[str, typer.Option("--host", help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[
        int, typer.Option("--port", min=0, max=65_535, help="Port to listen on; 0 takes a free one.")
    ] = 12111,
    journal: Annotated[
        Path | None,
        typer.Option("--journal", help="File that keeps everything for the next start.", show_default="in memory only"),
    ] = None,
    webhooks: Annotated[
        list[str] | None,
        typer.Option("--webhook", help="URL that events are delivered to. May be given more than once."),
    ] = None,
    taxes: Annotated[list[str] | None, typer.Option("--tax", help=_TAX_HELP)] = None,
) -> None:
    """Serve a local Stripe in test mode until Ctrl-C: no money moves, and no card is charged.

    It is for development: the official SDK talks to it, and events come signed. docs/stripe-local.md says what it does,
    what it does not, and how to make it fail.

    \b
      clearinghouse stripe-local --webhook http://127.0.0.1:8080/webhooks/stripe
      clearinghouse stripe-local --port 0 --journal stripe.jsonl --tax DE=19
    """
    from clearinghouse.process import run
    from settlement.stripe_local.errors import StripeError
    from settlement.stripe_local.frame import LocalStripe
    from settlement.stripe_local.handlers import HANDLERS
    from settlement.stripe_local.store import Store

    house = house_of(taxes or ())
    try:
        stripe = LocalStripe(HANDLERS, store=Store(journal), house=house)
        endpoints(stripe, webhooks or [])
        run(partial(_main, stripe, host, port))
    except StripeError as error:
        raise BadConfiguration(f"--webhook: {error}") from error
    except OSError as error:
        raise BadConfiguration(f"cannot listen on {host}:{port}, or open the journal: {error}") from error


async def _main(stripe: LocalStripe, host: str, port: int, stop: asyncio.Event) -> None:
    from settlement.stripe_local.description import API_VERSION
    from settlement.stripe_local.keys import DEFAULT_KEY, DEFAULT_WEBHOOK_SECRET
    from settlement.stripe_local.server import BANNER, stripe_served

    async with stripe_served(stripe, host=host, port=port) as base_url:
        typer.echo(BANNER)
        typer.echo(f"API address      {base_url}")
        typer.echo(f"API key          {DEFAULT_KEY}")
        typer.echo(f"webhook secret   {DEFAULT_WEBHOOK_SECRET}")
        typer.echo(f"API version      {API_VERSION}, requests checked against Stripe's {stripe.description.version}")
        await stop.wait()


def endpoints(stripe: LocalStripe, urls: list[str]) -> None:
    """The endpoints that were asked for, unless the journal has them already."""
    from settlement.stripe_local.events import new_endpoint
    from settlement.stripe_local.keys import DEFAULT_WEBHOOK_SECRET

    desk = stripe.desk()
    known = {one["url"] for one in desk.changes.each("webhook_endpoint")}
    for url in urls:
        if url not in known:
            new_endpoint(desk, url, ["*"], [DEFAULT_WEBHOOK_SECRET])
    stripe.write(desk)


def house_of(taxes: Sequence[str]) -> House:
    """How the account is set up. Raises BadConfiguration for a tax that is none."""
    from settlement.stripe_local.desk import House

    return House(tax_percent_by_country=dict(map(_tax, taxes)))


def _tax(given: str) -> tuple[str, str]:
    from decimal import Decimal, InvalidOperation

    country, _, percent = given.partition("=")
    try:
        is_percentage = 0 <= Decimal(percent) <= 100
    except InvalidOperation:
        is_percentage = False
    if len(country) != 2 or not is_percentage:
        raise BadConfiguration(f"--tax {given}: a country and its percentage are needed, such as DE=19")
    return country.upper(), percent
