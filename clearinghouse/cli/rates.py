"""`clearinghouse rates`: rate cards are checked and tried out in files, applied, and given to gateways and plans."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from clearinghouse.cli.context import DataDir, in_transaction, settings_of
from clearinghouse.cli.output import AsJson, print_details, print_json, print_table
from clearinghouse.cli.quantities import amount_wei, number
from clearinghouse.errors import InvalidRequest

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncConnection

    from clearinghouse.rate_quotes import Standing
    from clearinghouse.rates.card import CardVersion
    from clearinghouse.rates.quote import Quote
    from clearinghouse.rates.usage import Usage

_HELP = """Rate cards: what gateways pay by application, pipeline and model. docs/rates.md explains how one is written.

\b
Examples:
  clearinghouse rates check standard.toml
  clearinghouse rates quote standard.toml --pipeline live-video-to-video --seconds 5 --ev 2000gwei --eth-price 3120.50
  clearinghouse rates apply standard.toml
  clearinghouse rates assign standard --gateway acme
  clearinghouse rates quote --gateway acme --seconds 5 --ev 2000gwei --eth-price 3120.50
"""
_FILE_BYTES_MAX: Final = 16 * 2**20

app = typer.Typer(no_args_is_help=True, help=_HELP)

CardFile = Annotated[
    Path, typer.Argument(metavar="FILE", help="A rate card as TOML, or as JSON where it ends in .json.")
]


@app.command()
def check(
    files: Annotated[list[Path], typer.Argument(metavar="FILE...", help="Rate cards: TOML, or JSON in .json.")],
    as_json: AsJson = False,
) -> None:
    """Read rate cards and tell every mistake, with its line and field. Also whether versions of a card go together.

    \b
    Example: clearinghouse rates check standard-1.toml standard-2.toml
    """
    from clearinghouse.rates.book import CardConflict, RateBook
    from clearinghouse.rates.document import digest, summary

    cards = [read_card(file) for file in files]
    try:
        RateBook(cards)
    except CardConflict as conflict:
        raise InvalidRequest(str(conflict)) from None
    if as_json:
        print_json({"items": [{**summary(card), "sha256": digest(card).hex()} for card in cards]})
    else:
        rows = [[str(value) for value in summary(card).values()] for card in cards]
        print_table(list(summary(cards[0])), rows, if_empty="", right=(1, 4))


QuotedFile = Annotated[
    Path | None, typer.Argument(metavar="FILE", help="A rate card as TOML, or JSON in .json. Needed without --gateway.")
]
QuotedGateway = Annotated[
    str | None, typer.Option(metavar="GATEWAY", help="As this one, by its own card where no file is named.")
]
QuotedAt = Annotated[
    str | None, typer.Option(metavar="WHEN", help="With --gateway: at this time, 2027-01-31T00:00:00Z. Default: now.")
]
Before = Annotated[
    str | None,
    typer.Option(
        metavar="NUMBER", help="Units used before in the month, as its tiers count them. Default: 0, or the gateway's."
    ),
]
EthPriceGiven = Annotated[
    str | None, typer.Option(metavar="PRICE", help="Of one ETH, in the card's currency. Needed with --ev.")
]
BelowCost = Annotated[bool, typer.Option("--plan-allows-below-cost", help="As for gateways whose plan does.")]


@app.command()
def quote(
    file: QuotedFile = None,
    *,
    gateway: QuotedGateway = None,
    at: QuotedAt = None,
    application: Annotated[str, typer.Option(help="Of the call.")] = "",
    pipeline: Annotated[str, typer.Option(help="Of the call.")] = "",
    model: Annotated[str, typer.Option(help="Of the call.")] = "",
    seconds: Annotated[str | None, typer.Option(metavar="NUMBER", help="How long the call was.")] = None,
    pixels: Annotated[int | None, typer.Option(min=0, help="Pixels it was billed for.")] = None,
    requests: Annotated[int, typer.Option(min=0, help="Requests it was.")] = 1,
    ev: Annotated[str, typer.Option(metavar="AMOUNT", help="What its tickets are worth: 2000gwei, 0.001eth.")] = "0",
    eth_price: EthPriceGiven = None,
    after: Before = None,
    plan_allows_below_cost: BelowCost = False,
    data_dir: DataDir = None,
    as_json: AsJson = False,
) -> None:
    """Show what a call would be charged, and from what that follows: by a rate card in a file, or as a gateway.

    \b
    Examples:
      clearinghouse rates quote standard.toml --model m-1 --requests 3 --ev 2000gwei --eth-price 3120.50
      clearinghouse rates quote --gateway acme --at 2026-12-24T00:00:00Z --seconds 5
      clearinghouse rates quote standard-2.toml --gateway acme --seconds 5
    """
    from clearinghouse.rate_quotes import cost_of, nanoseconds, quoted
    from clearinghouse.rates.card import RateUnknown
    from clearinghouse.rates.usage import Usage

    with _option("--seconds"):
        duration_ns = nanoseconds(None if seconds is None else number(seconds))
    usage = Usage(application, pipeline, model, duration_ns=duration_ns, pixels=pixels, requests=requests)
    try:
        card, standing = _card_for(file, gateway, usage, at=at, below_cost=plan_allows_below_cost, data_dir=data_dir)
        with _option("--eth-price"):
            cost = cost_of(card, amount_wei(ev), eth_price)
        with _option("--after"):
            found = quoted(card, standing, usage, cost, None if after is None else number(after))
    except RateUnknown as unknown:
        raise InvalidRequest(str(unknown)) from None
    if as_json:
        print_json(found.explanation())
    else:
        print_details(_details(found))


def _card_for(
    file: Path | None, gateway: str | None, usage: Usage, *, at: str | None, below_cost: bool, data_dir: Path | None
) -> tuple[CardVersion, Standing]:
    """That of the file, or the gateway's. Raises RateUnknown, and InvalidRequest where neither is named."""
    from clearinghouse.identity import gateways
    from clearinghouse.instants import parse_rfc3339
    from clearinghouse.rate_quotes import Standing, standing_of

    if gateway is None and (file is None or at is not None):
        raise InvalidRequest(
            "name a rate card's file, or a gateway to quote for with --gateway; --at goes with the latter"
        )
    card = read_card(file) if file is not None else None
    if gateway is None:
        assert card is not None, "there is a file without a gateway"
        return card, Standing(below_cost)
    name, instant = gateway, datetime.now(UTC) if at is None else parse_rfc3339(at)

    async def work(connection: AsyncConnection) -> tuple[CardVersion, Standing]:
        found = await gateways.find(connection, name)
        return await standing_of(connection, found, card, usage, instant)

    chosen, standing = in_transaction(settings_of(data_dir), work)
    return chosen, standing._replace(may_be_below_cost=standing.may_be_below_cost or below_cost)


@contextmanager
def _option(name: str) -> Iterator[None]:
    """What is wrong with its value is told by its name."""
    try:
        yield
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint=name) from None


def read_card(file: Path) -> CardVersion:
    """Raises InvalidRequest with every mistake, each on a line with the file's name."""
    from clearinghouse.rates.document import CardInvalid, read_json, read_toml

    try:
        if file.stat().st_size > _FILE_BYTES_MAX:
            raise InvalidRequest(f"{file} is longer than {_FILE_BYTES_MAX} bytes: that is no rate card")
        text = file.read_text(encoding="utf-8")
    except OSError as error:
        raise InvalidRequest(f"{file} cannot be read: {error.strerror or error}") from None
    except UnicodeDecodeError:
        raise InvalidRequest(f"{file} is not UTF-8") from None
    try:
        return read_json(text) if file.suffix == ".json" else read_toml(text)
    except CardInvalid as invalid:
        raise InvalidRequest("\n".join(f"{file}, {problem}" for problem in invalid.problems)) from None


def _details(quote: Quote) -> list[tuple[str, str]]:
    """In the order in which one follows from the other."""
    from clearinghouse.rates.units import show_fraction

    shown, currency = quote.explanation(), quote.currency
    parts = [
        ("", f"{show_fraction(part.quantity)} at {part.price} = {show_fraction(part.amount)}") for part in quote.parts
    ]
    amounts = [
        ("by usage", "usage_amount"), ("minimum charge", "minimum_charge"), ("rated", "rated"), ("cost", "cost"),
        ("by the floor", "by_floor"), ("charge", "charge"), ("margin", "margin"),
    ]  # fmt: skip
    return [
        ("rate card", f"{quote.card}, version {quote.version}"),
        ("rate", str(shown["rate"])),
        ("quantity", f"{shown['quantity']} (after {shown['quantity_before']})"),
        *parts,
        ("floor", quote.floor.value),
        *((name, f"{shown[key]} {currency}") for name, key in amounts),
    ]
