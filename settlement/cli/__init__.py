"""The whole command line: the commands of the floor below, and what settlement adds to them.

Start-up must stay fast: modules of this package import the database, the scheduler and what else they work with inside
their commands, never at the top.
"""

from __future__ import annotations

import os

from clearinghouse.cli import new_app, signer_events, usage
from clearinghouse.cli.running import Above
from settlement.api import operators_routes
from settlement.cli import (
    alerts,
    customers,
    invoices,
    jobs,
    notices,
    payments,
    periods,
    reconciliation,
    statements,
    stripe_events,
    stripe_local,
    topup,
    treasury,
    usage_export,
    work,
)
from settlement.cli.refusals import SettlementGroup

app = new_app(SettlementGroup)

# Work beside the calls.
app.command("work")(work.work)
app.add_typer(jobs.app, name="jobs")
app.add_typer(topup.app, name="topup")
app.add_typer(treasury.app, name="treasury")

# Who pays, and how.
app.add_typer(customers.app, name="customers")
app.add_typer(invoices.app, name="invoices")
app.add_typer(invoices.app, name="invoice", hidden=True)  # the same, for those who think of one
app.add_typer(stripe_events.app, name="stripe")
app.add_typer(payments.app, name="payments")

# Who is told what.
app.add_typer(alerts.app, name="alerts")
app.add_typer(alerts.app, name="alert", hidden=True)  # the same, for those who think of one
app.add_typer(notices.app, name="notices")

# What gateways owe.
app.add_typer(periods.app, name="periods")

# What gateways had, used and have left.
app.add_typer(statements.app, name="statements")
usage.app.command("export")(usage_export.export)

# The books against everything else that tells of the money.
signer_events.reconcile_app.command("report")(reconciliation.report)

# For development.
app.command("stripe-local")(stripe_local.stripe_local)


def main() -> None:
    """The console script."""
    # What we start is another program at once, so gRPC has nothing to do about it; else it logs that each time.
    os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")
    app(obj=Above(beside=work.beside_dev, routes=operators_routes))
