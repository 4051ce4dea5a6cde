"""`clearinghouse price`: what an ETH costs and why, and the price that an operator sets in place of every source."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer

from clearinghouse.cli.context import BadConfiguration, DataDir, actor, in_transaction, settings_of, with_engine
from clearinghouse.cli.output import AsJson, print_details, print_json, print_table
from clearinghouse.errors import InvalidRequest

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

    from clearinghouse.price_watch import PriceWatch
    from clearinghouse.prices import Override

_HELP = """What an ETH costs. Alone it shows the prices in use, where they come from and why.

`set` puts a price of your own in place of every source, for a time: within two seconds in every process, without a
restart. It ends by itself.

\b
Examples:
  clearinghouse price
  clearinghouse price set USD 3120.50 --until 12h --reason "the feed stands still"
  clearinghouse price clear USD
"""

app = typer.Typer(invoke_without_command=True, help=_HELP)

_Currency = Annotated[str, typer.Argument(metavar="CURRENCY", help="USD, EUR …")]


@app.callback()
def show(context: typer.Context, data_dir: DataDir = None, as_json: AsJson = False) -> None:
    """Replaced by _HELP. Asks the sources once, as a service with the same settings would."""
    if context.invoked_subcommand is None:
        _show(data_dir, as_json)


@app.command("set")
def set_price(
    currency: _Currency,
    price: Annotated[str, typer.Argument(metavar="PRICE", help="Of one ETH, such as 3120.50.")],
    *,
    until: Annotated[
        str, typer.Option(metavar="WHEN", help="When it ends: 30m, 12h, 2d, or 2027-01-31T00:00:00Z; within 7 days.")
    ],
    reason: Annotated[str, typer.Option(metavar="TEXT", help="Why; kept with who set it.")] = "",
    data_dir: DataDir = None,
    as_json: AsJson = False,
) -> None:
    """Set the price of one ETH by hand, until a time. It stands above feeds, checks and declared prices.

    \b
    Example: clearinghouse price set USD 3120.50 --until 12h --reason "the feed stands still"
    """
    from clearinghouse.documents import override_document
    from clearinghouse.price_store import set_override

    end = _instant(until)

    async def work(connection: AsyncConnection) -> Override:
        return await set_override(connection, currency, price, until=end, reason=reason, actor=actor())

    document = override_document(in_transaction(settings_of(data_dir), work))
    if as_json:
        print_json(document)
    else:
        print_details([(name, value) for name, value in document.items() if value])


@app.command()
def clear(
    currency: _Currency,
    reason: Annotated[str, typer.Option(metavar="TEXT", help="Why; kept with who did it.")] = "",
    data_dir: DataDir = None,
    as_json: AsJson = False,
) -> None:
    """End a price that was set by hand: its source holds again.

    Example: clearinghouse price clear USD
    """
    from clearinghouse.price_store import clear_override

    async def work(connection: AsyncConnection) -> None:
        await clear_override(connection, currency, reason=reason, actor=actor())

    in_transaction(settings_of(data_dir), work)
    if as_json:
        print_json({"currency": currency})
    else:
        typer.echo(f"The price in {currency} is its source's again.")


def _show(data_dir: Any, as_json: bool) -> None:
    from clearinghouse.config import missing_for_prices
    from clearinghouse.documents import prices_document
    from clearinghouse.price_watch import prices_of

    settings = settings_of(data_dir)
    if missing := missing_for_prices(settings):
        raise BadConfiguration("\n".join(missing))

    async def look(engine: AsyncEngine) -> PriceWatch:
        async with prices_of(settings, engine) as watch:
            await watch.look()
            return watch

    document = prices_document(with_engine(settings, look), settings.price)
    if as_json:
        print_json(document)
        return
    rows = [
        [each["currency"], each["price"] or "none", each["source"] or "", each["observed_at"] or "", _why(each)]
        for each in document["items"]
    ]
    print_table(("currency", "price", "source", "observed at", "why"), rows, right=[1], if_empty="There are no prices.")


def _why(price: dict[str, Any]) -> str:
    if (override := price["override"]) is not None:
        because = f": {override['reason']}" if override["reason"] else ""
        return f"set by {override['actor']} until {override['until']}{because}"
    if price["missing"] is not None:
        return str(price["missing"])
    opinion = price["second_opinion"]
    told = [f"{price['age_s']} s since it was confirmed"] if price["age_s"] is not None else []
    if opinion is not None:
        verdict = "agrees" if opinion["agrees"] else "disagrees"
        told.append(f"the second opinion {verdict}, {opinion['difference_bps']} basis points away")
    if price["second_opinion_missing"] is not None:
        told.append(f"no second opinion: {price['second_opinion_missing']}")
    return "; ".join(told)


def _instant(when: str) -> datetime:
    from clearinghouse.instants import parse_rfc3339, parse_span

    try:
        return datetime.now(UTC) + parse_span(when)
    except InvalidRequest:
        pass
    try:
        return parse_rfc3339(when)
    except InvalidRequest:
        raise InvalidRequest(f"an end is written 30m, 12h, 2d or 2027-01-31T00:00:00Z, not {when[:64]!r}") from None
