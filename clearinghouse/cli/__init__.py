"""The command line. One module per subject; each adds its commands to `app` below.

Start-up must stay fast: modules of this package import the database, the chain and the service inside their commands,
never at the top.
"""

from __future__ import annotations

from typing import Annotated

import typer

from clearinghouse.cli import (
    books,
    chain,
    coverage,
    coverage_book,
    credit,
    gateways,
    keys,
    plans,
    prices,
    rates,
    rates_in_use,
    running,
    signer_events,
    usage,
    webhook_signers,
)
from clearinghouse.cli.demo import sign_demo
from clearinghouse.cli.doctor import doctor
from clearinghouse.cli.refusals import ExplainedGroup

_HELP = """Prepaid payment signing for Livepeer gateways: every ticket is paid for before it leaves.

Commands work on the embedded database in `--data-dir` (also while the service runs), or on the PostgreSQL that
CLEARINGHOUSE_DATABASE_URL names.

\b
A gateway with credit and a key, from nothing:
  clearinghouse gateway create acme
  clearinghouse credit grant acme 25 --reason "first top-up"
  clearinghouse key create acme
  clearinghouse balance acme

Every command explains itself with --help; those that answer and end do so in JSON with --json.
"""
#: Said where nothing is added to them.
_ALONE = """
These are the commands of the service alone: no worker, no Stripe, no billing. The console script `clearinghouse` has
all.
"""


def _show_version(is_asked: bool) -> None:
    if is_asked:
        from importlib.metadata import version

        typer.echo(version("livepeer-clearinghouse"))
        raise typer.Exit


def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Print the version and leave.")
    ] = False,
) -> None:
    """Replaced by _HELP; a callback is where options of the whole program live."""


coverage.app.command("verify")(coverage_book.verify)
coverage.app.command("rebuild")(coverage_book.rebuild)
rates.app.command("apply")(rates_in_use.apply)
rates.app.command("list")(rates_in_use.list_all)
rates.app.command("show")(rates_in_use.show)
rates.app.command("assign")(rates_in_use.assign)


def new_app(root: type[ExplainedGroup] = ExplainedGroup, *, more: str = "") -> typer.Typer:
    """All commands of this floor. The floor above makes one of its own and adds to it: that is the console script.

    `root` explains what commands end with, `more` is said of them all.
    """
    app = typer.Typer(
        name="clearinghouse",
        cls=root,
        help=_HELP + more,
        no_args_is_help=True,
        rich_markup_mode=None,
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    app.callback()(_root)

    # Running it.
    app.command("dev")(running.dev)
    app.command("serve")(running.serve)
    app.command("signer")(running.signer)
    app.command("migrate")(running.migrate)
    app.command("doctor")(doctor)
    app.command("sign-demo")(sign_demo)

    # Tenants and money.
    app.add_typer(gateways.app, name="gateway")
    app.add_typer(plans.app, name="plan")
    app.add_typer(keys.app, name="key")
    app.add_typer(webhook_signers.app, name="webhook-signer")
    app.add_typer(credit.app, name="credit")
    app.add_typer(prices.app, name="price")
    app.add_typer(rates.app, name="rates")
    app.add_typer(books.ledger_app, name="ledger")
    app.command("balance")(books.balance)
    app.command("issuances")(books.issuances)
    app.add_typer(usage.app, name="usage")

    # Deposit and reserve.
    coverage.app.command("verify")(coverage_book.verify)
    coverage.app.command("rebuild")(coverage_book.rebuild)
    app.add_typer(coverage.app, name="coverage")

    # What others say about it.
    app.add_typer(signer_events.reconcile_app, name="reconcile")
    app.add_typer(signer_events.events_app, name="signer-events")
    app.add_typer(chain.app, name="chain")
    return app


#: What `python -m clearinghouse.cli` is: enough to serve, and what tests and measurements of the service call.
app = new_app(more=_ALONE)


def main() -> None:
    """Of this floor alone. The console script is the `main` of the floor above."""
    app()
