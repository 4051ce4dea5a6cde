"""`clearinghouse balance`, `issuances` and `ledger verify`: reading the books."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Annotated, Any

import typer

from clearinghouse.cli.context import DataDir, in_transaction, settings_of, with_engine
from clearinghouse.cli.gateways import GatewayName, limits_of
from clearinghouse.cli.limits import print_limits
from clearinghouse.cli.output import AsJson, print_details, print_json, print_table

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncConnection

    from clearinghouse.issuances import Page
    from clearinghouse.ledger.verify import Report

_LEDGER_HELP = """The double-entry ledger behind every balance.

\b
Example: clearinghouse ledger verify
"""
_EXIT_NOT_CLEAN = 1

ledger_app = typer.Typer(no_args_is_help=True, help=_LEDGER_HELP)


def balance(gateway: GatewayName, data_dir: DataDir = None, as_json: AsJson = False) -> None:
    """Show what a gateway has and may still spend, and what it used of its limits.

    \b
    Example: clearinghouse balance acme --json
    """
    from clearinghouse.balance_bounds import bounds_of
    from clearinghouse.documents import balance_status_document
    from clearinghouse.identity import gateways, keys
    from clearinghouse.ledger import accounts

    settings = settings_of(data_dir)

    async def work(connection: AsyncConnection) -> tuple[dict[str, Any], dict[str, Any]]:
        found = await gateways.find(connection, gateway)
        standing = await accounts.standing(connection, found.id)
        bounds = await bounds_of(connection, found.id, standing.currency, settings.notices)
        expiring = await keys.expiring_keys(
            connection, found.id, within=timedelta(days=settings.notices.key_expiry_days)
        )
        return balance_status_document(standing, bounds, found, expiring), await limits_of(connection, found.id)

    document, limits = in_transaction(settings, work)
    if as_json:
        print_json(document | limits)
        return
    print_details([(name, str(value)) for name, value in document.items() if not isinstance(value, list)])
    for key in document["keys_expiring"]:
        typer.echo(f"key {key['public_id']} ({key['name']}) ends at {key['expires_at']}")
    for lot in document["credit_lots"]:
        typer.echo(f"{lot['remaining']} of {lot['amount']} {document['currency']} lapse at {lot['expires_at']}")
    typer.echo()
    print_limits(limits)


def issuances(
    gateway: GatewayName,
    *,
    limit: Annotated[int, typer.Option(help="How many at most, 1 to 1000.")] = 20,
    cursor: Annotated[str | None, typer.Option(metavar="CURSOR", help="Go on where a page ended.")] = None,
    session: Annotated[str | None, typer.Option(metavar="SESSION", help="Only this session's (ses_…).")] = None,
    data_dir: DataDir = None,
    as_json: AsJson = False,
) -> None:
    """List what was signed for a gateway and what it cost, newest first.

    \b
    Examples:
      clearinghouse issuances acme --limit 5
      clearinghouse issuances acme --json | jq -r '.items[].charge'
    """
    from clearinghouse import ids
    from clearinghouse.errors import InvalidRequest
    from clearinghouse.identity import gateways
    from clearinghouse.issuances import list_issuances, page_json

    try:
        session_id = ids.parse("ses", session) if session is not None else None
    except ValueError as error:
        raise InvalidRequest(f"--session: {error}") from error

    async def work(connection: AsyncConnection) -> Page:
        found = await gateways.find(connection, gateway)
        return await list_issuances(connection, found.id, limit=limit, cursor=cursor, session_id=session_id)

    page = page_json(in_transaction(settings_of(data_dir), work))
    if as_json:
        print_json(page)
        return
    columns = ("created_at", "id", "num_tickets", "ev_wei", "charge", "currency", "balance_after", "manifest_id", "app")
    rows = [[str(item[column]) for column in columns] for item in page["items"]]
    print_table(columns, rows, right=[2, 3, 4, 6], if_empty=f"Nothing was signed for {gateway}.")
    if page["next_cursor"]:
        typer.echo(f"\nThere are more: --cursor {page['next_cursor']}", err=True)


@ledger_app.command()
def verify(
    max_findings: Annotated[int, typer.Option(min=1, help="Violations described per claim; all are counted.")] = 100,
    data_dir: DataDir = None,
    as_json: AsJson = False,
) -> None:
    """Recompute every balance and every total from the postings and compare; exit status 1 if anything differs.

    Reads only, in one snapshot: the service may go on working. Large books take a while.

    \b
    Example: clearinghouse ledger verify --json
    """
    from clearinghouse.documents import report_document
    from clearinghouse.ledger import verify as verification

    report = with_engine(
        settings_of(data_dir), lambda engine: verification.verify(engine, findings_max_per_claim=max_findings)
    )
    if as_json:
        print_json(report_document(report))
    else:
        _print_report(report)
    if not report.is_clean:
        raise typer.Exit(_EXIT_NOT_CLEAN)


def _print_report(report: Report) -> None:
    rows = [[verdict.sentence, "ok" if not verdict.violations else f"{verdict.violations} WRONG"] for verdict in
            report.verdicts]  # fmt: skip
    print_table(("claim", "result"), rows, if_empty="")
    for finding in report.findings:
        typer.echo(f"{finding.claim}: {finding.subject}: {finding.detail}")
    looked_at = ", ".join(f"{count} {name.replace('_', ' ')}" for name, count in report.counts.items())
    typer.echo(f"\n{'The books are in order' if report.is_clean else 'THE BOOKS ARE NOT IN ORDER'}: {looked_at}.")
