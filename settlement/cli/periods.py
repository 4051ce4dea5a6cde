"""`clearinghouse periods`: billing periods that were closed, the one that goes on, and closing what is over."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from clearinghouse.cli.context import DataDir, database, database_explained, in_transaction, settings_of
from clearinghouse.cli.output import AsJson, print_details, print_json, print_table

if TYPE_CHECKING:
    from datetime import date

    from sqlalchemy.ext.asyncio import AsyncConnection

    from settlement.closing.books import PeriodBooks

_HELP = """Billing periods of gateways: what was used in them, what came in and went out, and what was left. The worker
closes each within a minute of its end, once and for all; invoices and statements stand on them.

\b
Examples:
  clearinghouse periods list acme
  clearinghouse periods show acme 2026-11-01
  clearinghouse periods preview acme
  clearinghouse periods close --dry-run
"""
_EXIT_FAILED = 1

app = typer.Typer(no_args_is_help=True, help=_HELP)

GatewayName = Annotated[str, typer.Argument(metavar="GATEWAY", help="Name or id (gw_…).")]


@app.command("list")
def list_periods(
    gateway: Annotated[
        str | None, typer.Argument(metavar="[GATEWAY]", help="Name or id (gw_…); all of them without it.")
    ] = None,
    *,
    limit: Annotated[int, typer.Option(min=1, max=1000, help="So many at most, the newest.")] = 100,
    data_dir: DataDir = None,
    as_json: AsJson = False,
) -> None:
    """Show the periods that were closed, those that ended last first.

    \b
    Example: clearinghouse periods list acme
    """
    from clearinghouse.identity import gateways
    from settlement.closing.books import closed_periods

    async def work(connection: AsyncConnection) -> list[PeriodBooks]:
        gateway_id = (await gateways.find(connection, gateway)).id if gateway is not None else None
        return await closed_periods(connection, gateway_id, limit=limit)

    _print_many(in_transaction(settings_of(data_dir), work), as_json, if_empty="No period was closed yet.")


@app.command()
def show(
    gateway: GatewayName,
    period: Annotated[
        str | None, typer.Argument(metavar="[PERIOD]", help="The day it begins, 2026-11-01; the newest without it.")
    ] = None,
    *,
    data_dir: DataDir = None,
    as_json: AsJson = False,
) -> None:
    """Show a closed period and what its usage was for.

    \b
    Example: clearinghouse periods show acme 2026-11-01
    """
    from clearinghouse.identity import gateways
    from settlement.closing.books import closed_period

    first_day = _day(period) if period is not None else None

    async def work(connection: AsyncConnection) -> PeriodBooks:
        found = await gateways.find(connection, gateway)
        return await closed_period(connection, found.id, first_day=first_day)

    _print_one(in_transaction(settings_of(data_dir), work), as_json)


@app.command()
def preview(gateway: GatewayName, *, data_dir: DataDir = None, as_json: AsJson = False) -> None:
    """Show the period that goes on, until now: what it would be closed with.

    \b
    Example: clearinghouse periods preview acme
    """
    from clearinghouse.database.connect import database_now
    from clearinghouse.identity import gateways
    from settlement.closing.books import preview

    async def work(connection: AsyncConnection) -> PeriodBooks:
        found = await gateways.find(connection, gateway)
        return await preview(connection, found.id, await database_now(connection))

    _print_one(in_transaction(settings_of(data_dir), work), as_json)


@app.command()
def close(
    *,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only show what would be closed; nothing stays.")] = False,
    data_dir: DataDir = None,
    as_json: AsJson = False,
) -> None:
    """Close all periods that are over, now, as the worker does every minute; exit status 1 where books do not add up.

    \b
    Example: clearinghouse periods close --dry-run
    """
    import asyncio

    from settlement.closing.by_hand import close_now

    with database_explained(), database(settings_of(data_dir)) as conninfo:
        done = asyncio.run(close_now(conninfo, is_dry_run=dry_run))
    would = "would be closed" if dry_run else "closed"
    if as_json:
        print_json({"dry_run": dry_run, "items": _documents(done.closed), "problems": done.problems})
    else:
        _print_many(done.closed, as_json, if_empty="Nothing is over that is not closed.")
        typer.echo(f"\n{len(done.closed)} periods {would}.")
        for problem in done.problems:
            typer.echo(problem, err=True)
    if done.problems:
        raise typer.Exit(_EXIT_FAILED)


def _day(text: str) -> date:
    from datetime import date

    from clearinghouse.errors import InvalidRequest

    try:
        return date.fromisoformat(text)
    except ValueError as error:
        raise InvalidRequest(
            f"a period is called by the day it begins, such as 2026-11-01, not {text[:64]!r}"
        ) from error


def _documents(found: list[PeriodBooks]) -> list[dict[str, Any]]:
    from settlement.closing.documents import period_document

    return [period_document(each, has_lines=False) for each in found]


def _print_many(found: list[PeriodBooks], as_json: bool, *, if_empty: str) -> None:
    documents = _documents(found)
    if as_json:
        print_json({"items": documents})
        return
    columns = ("gateway", "period", "ends", "way", "opening", "movements", "usage", "closing", "currency", "calls")
    rows = [
        [each["gateway_id"], each["period"], each["ends_at"], each["way"], each["opening"], _movements(each),
         each["usage"], each["closing"], each["currency"], str(each["calls_count"])] for each in documents
    ]  # fmt: skip
    print_table(columns, rows, right=[4, 6, 7, 9], if_empty=if_empty)


def _print_one(books: PeriodBooks, as_json: bool) -> None:
    from settlement.closing.documents import period_document

    document = period_document(books, has_lines=True)
    if as_json:
        print_json(document)
        return
    names = ("gateway_id", "period", "begins_at", "ends_at", "time_zone", "way", "currency", "opening")
    print_details(
        [
            *((name.replace("_", " "), document[name]) for name in names),
            *document["movements"].items(),
            ("usage", document["usage"]),
            ("closing", document["closing"]),
            ("calls", str(document["calls_count"])),
            ("closed", document["closed_at"] or "not yet"),
        ]
    )
    columns = (
        "app",
        "pipeline",
        "model",
        "priced by",
        "quantity",
        "calls",
        "tickets",
        "expected value (wei)",
        "charge",
    )
    rows = [
        [line["app"], line["pipeline"], line["model"], _priced_by(line), _quantity(line), str(line["calls_count"]),
         str(line["tickets_count"]), line["ev_wei"], line["charge"]] for line in document["lines"]
    ]  # fmt: skip
    typer.echo()
    print_table(columns, rows, right=range(4, 9), if_empty="Nothing was used.")


def _movements(document: dict[str, Any]) -> str:
    return ", ".join(f"{kind} {amount}" for kind, amount in document["movements"].items())


def _priced_by(line: dict[str, Any]) -> str:
    return str(line["rate_rule"] or f"cost + {line['markup_bps']} bps")


def _quantity(line: dict[str, Any]) -> str:
    return f"{line['quantity']} {line['unit']}" if line["quantity"] is not None else ""
