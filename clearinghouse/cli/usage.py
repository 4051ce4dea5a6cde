"""`clearinghouse usage`: what gateways used, added up."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from clearinghouse.cli.context import DataDir, in_transaction, settings_of, with_engine
from clearinghouse.cli.gateways import GatewayName
from clearinghouse.cli.output import AsJson, print_json, print_table

if TYPE_CHECKING:
    from datetime import datetime

    from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

    from clearinghouse.usage_rollups import RolledUp

_HELP = """Usage, added up by day, application, pipeline, model and job type.

\b
Examples:
  clearinghouse usage show acme
  clearinghouse usage show acme --days 90 --by app,pipeline --json
"""

app = typer.Typer(no_args_is_help=True, help=_HELP)


@app.command()
def show(
    gateway: GatewayName,
    *,
    days: Annotated[
        int | None, typer.Option(metavar="COUNT", help="How many days, up to --to.", show_default="30")
    ] = None,
    first: Annotated[str | None, typer.Option("--from", metavar="DAY", help="The first day: 2026-04-07.")] = None,
    last: Annotated[
        str | None, typer.Option("--to", metavar="DAY", help="The last day, included.", show_default="today")
    ] = None,
    by: Annotated[
        str, typer.Option(metavar="NAMES", help="One or more of day, app, pipeline, model, job_type, with commas.")
    ] = "day,app",
    time_zone: Annotated[
        str | None,
        typer.Option(metavar="ZONE", help="Whose days: Europe/Berlin.", show_default="that of the gateway's bills"),
    ] = None,
    data_dir: DataDir = None,
    as_json: AsJson = False,
) -> None:
    """Show what a gateway used and was charged, up to this moment.

    \b
    Examples:
      clearinghouse usage show acme --days 7
      clearinghouse usage show acme --from 2026-03-01 --to 2026-03-31 --by app,pipeline,model --time-zone Europe/Berlin
    """
    from clearinghouse.database.connect import database_now
    from clearinghouse.identity import gateways
    from clearinghouse.usage_query import question, time_zone_of, usage_document, usage_of

    async def work(connection: AsyncConnection) -> dict[str, Any]:
        found = await gateways.find(connection, gateway)
        zone = time_zone if time_zone is not None else await time_zone_of(connection, found.id)
        asked = question(
            now=await database_now(connection), time_zone=zone, first=first, last=last, days_count=days,
            by=by.split(","),
        )  # fmt: skip
        return usage_document(found.id, await usage_of(connection, found.id, asked))

    document = in_transaction(settings_of(data_dir), work)
    if as_json:
        print_json(document)
    else:
        _print(document, gateway)


@app.command()
def rebuild(data_dir: DataDir = None, as_json: AsJson = False) -> None:
    """Make every sum what the issuances come to, and say how many were wrong; then add what was not added yet.

    The worker keeps the sums up to date by itself. The service may go on working: this reads every issuance, in short
    transactions, and rests as long as it works.

    \b
    Example: clearinghouse usage rebuild
    """
    import sys

    from clearinghouse import usage_rollups
    from clearinghouse.instants import rfc3339

    async def work(engine: AsyncEngine) -> tuple[int, RolledUp]:
        progress = _show_how_far if sys.stderr.isatty() else None
        return await usage_rollups.rebuild(engine.begin, progress=progress)

    wrong, rolled_up = with_engine(settings_of(data_dir), work)
    if as_json:
        until = rfc3339(rolled_up.until)
        print_json({"mended": wrong, "added_issuances": rolled_up.issuances, "rolled_up_until": until})
        return
    typer.echo("All sums were right." if not wrong else f"Mended: {wrong} sums were wrong.")
    typer.echo(f"Rolled up until {rfc3339(rolled_up.until)}, {rolled_up.issuances} issuances more than before.")
    if rolled_up.waits:
        typer.echo("Transactions of before are still under way: the worker adds what came since.")


def _show_how_far(reached: datetime, end: datetime) -> None:
    """One line on a terminal that is written over, and gone at the end."""
    line = f"added up until {reached:%Y-%m-%d %H:%M} of {end:%Y-%m-%d %H:%M} UTC" if reached < end else ""
    typer.echo(f"\r\x1b[K{line}", nl=False, err=True)


def _print(document: dict[str, Any], gateway: str) -> None:
    columns = (*document["by"], "issuances", "tickets", "ev_wei", "fee_wei", "charge", "currency")
    items = [[str(item[column]) for column in columns] for item in document["items"]]
    named = len(document["by"])
    for total in document["totals"]:
        items.append(["total", *[""] * (named - 1), *(str(total[column]) for column in columns[named:])])
    days = f"from {document['from']} to {document['to']} ({document['time_zone']})"
    print_table(columns, items, right=range(named, named + 5), if_empty=f"Nothing was signed for {gateway} {days}.")
    if items:
        typer.echo(f"\n{days[0].upper()}{days[1:]}, up to this moment.")
