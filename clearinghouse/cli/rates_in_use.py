"""`clearinghouse rates apply|list|show|assign`: rate cards in the database, and whose calls are charged by which."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from clearinghouse.cli.context import DataDir, actor, in_transaction, settings_of, with_engine
from clearinghouse.cli.output import AsJson, print_details, print_json, print_table
from clearinghouse.cli.rates import CardFile, read_card
from clearinghouse.errors import InvalidRequest

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

    from clearinghouse.rates.rules import StoredVersion


def apply(
    file: CardFile,
    *,
    correction: Annotated[
        bool,
        typer.Option("--correction", help="It holds for a time that is past: calls charged then stay as they are."),
    ] = False,
    data_dir: DataDir = None,
    as_json: AsJson = False,
) -> None:
    """Add a version of a rate card. It holds from its effective_from on, and is never changed.

    Whose calls it charges, `rates assign` says; of a card that is assigned, the version that holds does at once.

    \b
    Example: clearinghouse rates apply standard-2.toml
    """
    from clearinghouse import rate_store

    card = read_card(file)

    async def work(connection: AsyncConnection) -> StoredVersion:
        return await rate_store.apply(connection, card, is_correction=correction, actor=actor())

    _print_versions([in_transaction(settings_of(data_dir), work)], as_json)


def list_all(data_dir: DataDir = None, as_json: AsJson = False) -> None:
    """List all versions of all rate cards, in the order in which they take effect.

    Example: clearinghouse rates list
    """
    from clearinghouse import rate_store

    _print_versions(list(in_transaction(settings_of(data_dir), rate_store.read_rules).stored), as_json)


def show(
    card: Annotated[str, typer.Argument(metavar="CARD", help="Name of the rate card.")],
    *,
    version: Annotated[int | None, typer.Option(min=1, help="Default: the newest that was applied.")] = None,
    data_dir: DataDir = None,
    as_json: AsJson = False,
) -> None:
    """Show a version of a rate card. With --json it is a document that `apply` and `check` read as well.

    Example: clearinghouse rates show standard --version 1
    """
    from clearinghouse import rate_store
    from clearinghouse.rates.document import document

    async def work(connection: AsyncConnection) -> StoredVersion:
        return await rate_store.version_of(connection, card, version)

    shown = document(in_transaction(settings_of(data_dir), work).version)
    if as_json:
        print_json(shown)
        return
    print_details([(name, str(value)) for name, value in shown.items() if name != "rates"])
    columns = ("application", "pipeline", "model", "per", "price", "floor", "minimum_charge")
    print_table(columns, [[_cell(rate, column) for column in columns] for rate in shown["rates"]], if_empty="")


def _cell(rate: dict[str, Any], column: str) -> str:
    """As the document has it; what it leaves out is what holds then."""
    if column == "price" and "tiers" in rate:
        return ", ".join(f"{_price(tier)} up to {tier.get('up_to', 'any')}" for tier in rate["tiers"])
    if column == "price":
        return _price(rate)
    return str(rate.get(column, {"floor": "period", "minimum_charge": "0"}.get(column, "*")))


def _price(rate: dict[str, Any]) -> str:
    return rate["price"] if "price" in rate else f"cost + {rate['markup_bps']} bps"


def assign(
    card: Annotated[
        str, typer.Argument(metavar="CARD", help="Name of the rate card; none: no card; inherit: a gateway's plan's.")
    ],
    *,
    gateway: Annotated[str | None, typer.Option(metavar="GATEWAY", help="Whose calls it charges.")] = None,
    plan: Annotated[str | None, typer.Option(metavar="PLAN", help="Whose gateways' calls it charges.")] = None,
    may_be_below_cost: Annotated[
        bool,
        typer.Option("--below-cost", help="With --plan: its gateways may be charged below cost, where a card says so."),
    ] = False,
    data_dir: DataDir = None,
    as_json: AsJson = False,
) -> None:
    """Put a gateway, or all gateways of a plan, on a rate card: it charges their next call, in place of their markup.

    \b
    Examples:
      clearinghouse rates assign standard --gateway acme
      clearinghouse rates assign partners --plan small --below-cost
      clearinghouse rates assign none --gateway acme
    """
    if (gateway is None) == (plan is None) or (may_be_below_cost and plan is None):
        raise InvalidRequest("name a gateway with --gateway, or a plan with --plan; --below-cost goes with a plan")
    document = (
        _assign_to_gateway(data_dir, gateway, card)
        if gateway is not None
        else _assign_to_plan(data_dir, plan or "", card, may_be_below_cost)
    )
    if as_json:
        print_json(document)
    else:
        print_details([(name, str(value)) for name, value in document.items()])


def _assign_to_gateway(data_dir: Path | None, gateway: str, card: str) -> dict[str, Any]:
    from clearinghouse import rate_store
    from clearinghouse.identity import gateways

    async def work(connection: AsyncConnection) -> dict[str, Any]:
        found = await gateways.find(connection, gateway)
        await rate_store.assign_to_gateway(connection, found, card, actor=actor())
        name, may_be_below_cost = await rate_store.card_of(connection, found.id)
        return {"gateway": found.name, "rate_card": name or rate_store.NONE, "below_cost": may_be_below_cost}

    return in_transaction(settings_of(data_dir), work)


def _assign_to_plan(data_dir: Path | None, plan: str, card: str, may_be_below_cost: bool) -> dict[str, Any]:
    from clearinghouse import rate_store
    from clearinghouse.identity import plans

    async def work(engine: AsyncEngine) -> dict[str, Any]:
        async with engine.begin() as connection:
            changed = await rate_store.assign_to_plan(
                connection, plan, card, may_be_below_cost=may_be_below_cost, actor=actor()
            )
        await plans.apply(engine, changed)
        return {"plan": plan, "rate_card": card, "below_cost": may_be_below_cost, "gateways": changed.gateways_count}

    return with_engine(settings_of(data_dir), work)


def _print_versions(versions: list[StoredVersion], as_json: bool) -> None:
    from clearinghouse.rates.rules import stored_summary

    rows = [stored_summary(each) for each in versions]
    if as_json:
        print_json({"items": rows})
        return
    columns = ("card", "version", "currency", "effective_from", "rates", "applied_at", "applied_by")
    cells = [[str(row[column]) for column in columns] for row in rows]
    print_table(columns, cells, if_empty="There are no rate cards.", right=(1, 4))
