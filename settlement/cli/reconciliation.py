"""`clearinghouse reconcile report`: the books against Stripe, the signers and the chain, over a period."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import typer

from clearinghouse.cli.context import DataDir, with_engine
from clearinghouse.cli.output import AsJson, print_json, print_table
from settlement.cli.spans import Month, To, UtcFrom
from settlement.cli.stripe_of_dev import settings_with_stripe

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncEngine

    from settlement.reconciliation.report import Report, Section

_EXIT_DIFFERS: Final = 1
_EXIT_NOT_COMPARED: Final = 3


def report(
    month: Month = None,
    begin: UtcFrom = None,
    end: To = None,
    data_dir: DataDir = None,
    as_json: AsJson = False,
) -> None:
    """Compare the books of a period with everything else that tells of the money.

    Five sections, each with what was compared: ledger and issuances; ledger and Stripe (invoices, credit notes,
    payments, refunds, disputes, fees, payouts); issuances and signer events; issuances and redemptions on the chain;
    movements of the deposit and records of treasury. Every difference has a name, an amount and a way to look at it.
    What cannot be compared is said, and is no difference. Reads only; a month with many charges takes a while.

    \b
    Exit status:
      0  nothing differs, and something was compared in every section
      1  something differs, or the command failed
      3  nothing differs, and nothing was compared in a whole section, such as where no chain is configured

    \b
    Examples:
      clearinghouse reconcile report
      clearinghouse reconcile report --month 2026-10 --json
      clearinghouse reconcile report --from 2026-10-01 --to 2026-10-15
    """
    from datetime import UTC, datetime

    from clearinghouse.config import LogSettings
    from clearinghouse.log import configure_logging
    from settlement.reconciliation.documents import report_document
    from settlement.reconciliation.months import chosen
    from settlement.reconciliation.run import reconciled

    period = chosen(month, begin, end, now=datetime.now(UTC))
    settings = settings_with_stripe(data_dir)
    configure_logging(LogSettings(format="console", level="warning"))

    async def work(engine: AsyncEngine) -> Report:
        return await reconciled(engine, settings, period, tell=lambda said: typer.echo(f"{said} …", err=True))

    found = with_engine(settings, work)
    if as_json:
        print_json(report_document(found))
    else:
        _print(found)
    if found.differences_count:
        raise typer.Exit(_EXIT_DIFFERS)
    if not all(section.is_compared for section in found.sections):
        raise typer.Exit(_EXIT_NOT_COMPARED)


def _print(found: Report) -> None:
    begins_at, ends_at = found.period
    typer.echo(f"From {begins_at:%Y-%m-%d %H:%M:%S} until {ends_at:%Y-%m-%d %H:%M:%S} UTC")
    typer.echo(f"Books as they were at {found.taken_at:%Y-%m-%d %H:%M:%S} UTC")
    for section in found.sections:
        _print_section(section)
    count = found.differences_count
    typer.echo(f"\n{count or 'No'} difference{'s' if count != 1 else ''} in what was compared.")
    if partly := [section.title for section in found.sections if section.not_compared]:
        typer.echo(f"NOT COMPARED, in whole or in part: {'; '.join(partly)}.")


def _print_section(section: Section) -> None:
    from settlement.reconciliation.documents import all_shown, shown

    typer.echo(f"\n{section.title}: {_verdict(section)}")
    for why in section.not_compared:
        typer.echo(f"not compared: {why}")
    if section.is_compared:
        rows = [[one.what, str(one.count), all_shown(one.sums)] for one in section.compared]
        print_table(("compared", "count", "sum"), rows, right=[1], if_empty="")
    for total in section.totals:
        typer.echo(f"{total.count} x {total.name}: {all_shown(total.sums) or 'of no known amount'}")
    differences = [
        [one.name, one.subject, shown(one.amount), one.detail, one.link] for one in section.differences
    ]  # fmt: skip
    if differences:
        print_table(("difference", "of", "amount", "what", "look at it"), differences, right=[2], if_empty="")


def _verdict(section: Section) -> str:
    if not section.is_compared:
        return "NOT COMPARED"
    count = section.differences_count
    return f"{count} DIFFERENCE{'S' if count != 1 else ''}" if count else "no difference"
