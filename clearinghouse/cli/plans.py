"""`clearinghouse plan`: limits and price ceilings that many gateways share."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from clearinghouse.cli.context import DataDir, actor, in_transaction, settings_of, with_engine
from clearinghouse.cli.limits import Wanted, gateway_limit_options
from clearinghouse.cli.output import AsJson, print_details, print_json, print_table

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

    from clearinghouse.identity.plans import Plan

_HELP = """Plans: limits and price ceilings that many gateways share.

Every gateway is on one plan, and begins on `default`. What is set for a gateway itself (gateway set-limits) stands in
place of what its plan says; of two ceilings on a price the lower one holds.

\b
Examples:
  clearinghouse plan create small --calls-day 10000 --spend-day 5 --currency USD --price-live 8000000000
  clearinghouse plan set small --spend-day 10
  clearinghouse gateway set-plan acme small
"""

app = typer.Typer(no_args_is_help=True, help=_HELP)

_PlanName = Annotated[str, typer.Argument(metavar="PLAN", help="Name of the plan.")]
_Currency = Annotated[
    str | None,
    typer.Option(metavar="CODE", help="Of the limits on spend; the plan is then for gateways of this currency alone."),
]


@app.command()
@gateway_limit_options
def create(
    plan: Annotated[str, typer.Argument(metavar="NAME", help="A new name: letters, digits, '.', '_' and '-'.")],
    *,
    currency: _Currency = None,
    wanted: Wanted,
    data_dir: DataDir = None,
    as_json: AsJson = False,
) -> None:
    """Create a plan. It has the limits that are named and no others.

    \b
    Example: clearinghouse plan create small --calls-day 10000 --spend-day 5 --currency USD
    """
    from clearinghouse.documents import plan_document
    from clearinghouse.identity import plans

    async def work(connection: AsyncConnection) -> dict[str, Any]:
        return plan_document(await plans.create(connection, plan, wanted, currency=currency, actor=actor()))

    _print(in_transaction(settings_of(data_dir), work), as_json)


@app.command("set")
@gateway_limit_options
def change(
    plan: _PlanName,
    *,
    currency: _Currency = None,
    wanted: Wanted,
    data_dir: DataDir = None,
    as_json: AsJson = False,
) -> None:
    """Change limits of a plan; those not named stay. All gateways on it have it for their next call.

    \b
    Example: clearinghouse plan set small --spend-day 10 --price-live none
    """
    from clearinghouse.documents import plan_document
    from clearinghouse.identity import plans

    async def work(engine: AsyncEngine) -> dict[str, Any]:
        async with engine.begin() as connection:
            changed = await plans.change(connection, plan, wanted, currency=currency, actor=actor())
        await plans.apply(engine, changed, progress=lambda applied_count: _say_how_far(changed, applied_count))
        async with engine.connect() as connection:
            return plan_document(await plans.find(connection, plan))

    _print(with_engine(settings_of(data_dir), work), as_json)


@app.command()
def show(plan: _PlanName, data_dir: DataDir = None, as_json: AsJson = False) -> None:
    """Show a plan, and how many gateways are on it.

    Example: clearinghouse plan show small
    """
    from clearinghouse.documents import plan_document
    from clearinghouse.identity import plans

    async def work(connection: AsyncConnection) -> dict[str, Any]:
        return plan_document(await plans.find(connection, plan))

    _print(in_transaction(settings_of(data_dir), work), as_json)


@app.command("list")
def list_all(data_dir: DataDir = None, as_json: AsJson = False) -> None:
    """List all plans.

    Example: clearinghouse plan list --json
    """
    from clearinghouse.documents import plan_document
    from clearinghouse.identity import plans

    documents = [plan_document(found) for found in in_transaction(settings_of(data_dir), plans.list_plans)]
    if as_json:
        print_json({"items": documents})
        return
    rows = [[doc["name"], str(doc["gateways_count"]), doc["currency"] or "", _limits_of(doc)] for doc in documents]
    print_table(("name", "gateways", "currency", "limits"), rows, right=[1], if_empty="There are no plans.")


@app.command()
def delete(plan: _PlanName, data_dir: DataDir = None, as_json: AsJson = False) -> None:
    """Delete a plan that no gateway is on. The plan `default` stays.

    Example: clearinghouse plan delete small
    """
    from clearinghouse.identity import plans

    async def work(connection: AsyncConnection) -> None:
        await plans.delete(connection, plan)

    in_transaction(settings_of(data_dir), work)
    if as_json:
        print_json({"name": plan})
    else:
        typer.echo(f"The plan {plan} is deleted.")


def _say_how_far(plan: Plan, applied_count: int) -> None:
    if plan.gateways_count > applied_count:
        typer.echo(f"{applied_count} of {plan.gateways_count} gateways have it …", err=True)


def _limits_of(document: dict[str, Any]) -> str:
    return ", ".join(f"{name} {value}" for name, value in document["limits"].items() if value is not None) or "none"


def _print(document: dict[str, Any], as_json: bool) -> None:
    if as_json:
        print_json(document)
        return
    details = {name: value for name, value in document.items() if name != "limits" and value not in ("", None)}
    details |= {name: value for name, value in document["limits"].items() if value is not None}
    print_details([(name, str(value)) for name, value in details.items()])
