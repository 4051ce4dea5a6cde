"""`clearinghouse statements`: a gateway's account over a period, on the screen, on paper and as a table."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from clearinghouse.cli.context import BadConfiguration, ConfigFile, DataDir, in_transaction, settings_of, with_engine
from clearinghouse.cli.gateways import GatewayName
from clearinghouse.cli.output import AsJson, print_details, print_json, print_table, replacing
from clearinghouse.errors import Conflict
from settlement.cli.spans import From, PeriodName, To, chooser

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

    from clearinghouse.config import Settings
    from settlement.statements.books import Account
    from settlement.statements.statement import Statement

_HELP = """Statements: what a gateway had, what came and went, what it used, and what is left.

They are made from the books: opening + movements - usage = closing to the last digit, or there is no statement. The
same period gives the same bytes whenever it is asked for. docs/statements.md has more.

\b
Examples:
  clearinghouse statements show acme
  clearinghouse statements pdf acme --period 2026-10 -o acme-2026-10.pdf
  clearinghouse statements csv acme --from 2026-10-01 --to 2026-10-14 -o acme.csv
"""

app = typer.Typer(no_args_is_help=True, help=_HELP)

_Output = Annotated[
    Path, typer.Option("--output", "-o", metavar="FILE", help="Where to. It takes this name once it is complete.")
]


class NotFinal(Conflict):
    """The statement would be another one later."""

    what_next = "Wait until the period has ended; `clearinghouse statements show` has what there is so far."


@app.command()
def show(
    gateway: GatewayName,
    *,
    period: PeriodName = None,
    begin: From = None,
    end: To = None,
    config: ConfigFile = None,
    data_dir: DataDir = None,
    as_json: AsJson = False,
) -> None:
    """Show a statement, every digit. One that has not ended shows what there is so far, and says so.

    \b
    Examples:
      clearinghouse statements show acme --period current
      clearinghouse statements show acme --period 2026-10 --json
    """
    from settlement.statements.document import statement_document

    account = _account(settings_of(data_dir, config=config), gateway, period, begin, end)
    if as_json:
        print_json(statement_document(account))
    else:
        _print(account)


@app.command()
def pdf(
    gateway: GatewayName,
    *,
    output: _Output,
    period: PeriodName = None,
    begin: From = None,
    end: To = None,
    due: Annotated[
        bool,
        typer.Option(
            "--due", help="As an invoice, without Stripe: with what is owed at its end, until when, and to whom."
        ),
    ] = False,
    config: ConfigFile = None,
    data_dir: DataDir = None,
) -> None:
    """Write a statement as PDF/A, for people and archives. Its numbers are rounded once, and still add up.

    \b
    Examples:
      clearinghouse statements pdf acme --period 2026-10 -o acme-2026-10.pdf
      clearinghouse statements pdf acme --period 2026-10 --due -o invoice-acme-2026-10.pdf
    """
    from settlement.statements.pdf import Typesetter

    settings = settings_of(data_dir, config=config)
    pay_to = _pay_to(settings) if due else None
    statement = _final(settings, gateway, period, begin, end)
    if pay_to is not None:
        statement = _demanded(settings, gateway, statement, pay_to)
    made = Typesetter(settings.statements.font_folders).pdf(statement)
    with replacing(output) as file:
        file.write(made.content)
    if made.missing:
        typer.echo(
            f"No font has {' '.join(made.missing)}: printed by number. statements.font_folders adds fonts.", err=True
        )


@app.command()
def csv(
    gateway: GatewayName,
    *,
    output: _Output,
    period: PeriodName = None,
    begin: From = None,
    end: To = None,
    config: ConfigFile = None,
    data_dir: DataDir = None,
) -> None:
    """Write a statement as CSV, for programs and spreadsheets: every digit, and the rows add up to the last.

    \b
    Example: clearinghouse statements csv acme --period 2026-10 -o acme-2026-10.csv
    """
    from settlement.statements.table import statement_csv

    content = statement_csv(_final(settings_of(data_dir, config=config), gateway, period, begin, end))
    with replacing(output) as file:
        file.write(content)


def _final(settings: Settings, gateway: str, period: str | None, begin: str | None, end: str | None) -> Statement:
    account = _account(settings, gateway, period, begin, end)
    if not account.is_final:
        raise NotFinal(f"{account.statement.number} is not complete: usage may still be added to it")
    return account.statement


def _account(settings: Settings, gateway: str, period: str | None, begin: str | None, end: str | None) -> Account:
    from clearinghouse.identity import gateways
    from settlement.statements.books import statement_of
    from settlement.statements.statement import Party

    choose = chooser(period, begin, end)
    issuer = Party(settings.statements.issuer_name, _lines(settings.statements.issuer_address))

    async def work(engine: AsyncEngine) -> Account:
        async with engine.connect() as connection:
            found = await gateways.find(connection, gateway)
        return await statement_of(engine, found.id, choose, issuer=issuer)

    return with_engine(settings, work)


def _pay_to(settings: Settings) -> tuple[str, ...]:
    """BadConfiguration where there is nothing: who gets such an invoice could not pay it."""
    pay_to = _lines(settings.statements.pay_to)
    if not pay_to:
        raise BadConfiguration(
            "statements.pay_to is not set: an invoice has to say where it is paid, such as a bank and its IBAN"
        )
    return pay_to


def _demanded(settings: Settings, gateway: str, statement: Statement, pay_to: tuple[str, ...]) -> Statement:
    from clearinghouse.identity import gateways
    from settlement.statements.demand import demanded

    async def work(connection: AsyncConnection) -> Statement:
        found = await gateways.find(connection, gateway)
        return await demanded(connection, found.id, statement, pay_to=pay_to)

    return in_transaction(settings, work)


def _lines(text: str) -> tuple[str, ...]:
    return tuple(filter(None, map(str.strip, text.splitlines())))


def _print(account: Account) -> None:
    from settlement.statements.document import statement_document

    shown = statement_document(account)
    names = ("number", "begins_at", "ends_at", "time_zone", "currency", "opening", "usage", "closing")
    print_details([(name, shown[name]) for name in names])
    if not account.is_final:
        typer.echo("It is not complete: what is used and paid until its end comes still.", err=True)
    typer.echo()
    columns = ("at", "kind", "amount", "reference", "description")
    print_table(
        columns, [[row[name] for name in columns] for row in shown["movements"]], right=[2], if_empty="Nothing moved."
    )
    typer.echo()
    used = ("app", "pipeline", "model", "quantity", "unit", "calls", "ev_wei", "amount")
    rows = [[str(row[name]) for name in used] for row in shown["lines"]]
    print_table(used, rows, right=[3, 5, 6, 7], if_empty="Nothing was used.")
