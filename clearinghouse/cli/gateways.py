"""`clearinghouse gateway`: the tenants."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from clearinghouse.cli.context import DataDir, in_transaction, settings_of
from clearinghouse.cli.limits import Wanted, gateway_limit_options, print_limits
from clearinghouse.cli.output import AsJson, print_details, print_json, print_table

if TYPE_CHECKING:
    from uuid import UUID

    from sqlalchemy.ext.asyncio import AsyncConnection

    from clearinghouse.identity.gateways import Gateway

_HELP = """Gateways: the tenants whose tickets are signed and paid for.

\b
Examples:
  clearinghouse gateway create acme --currency EUR --markup-bps 250
  clearinghouse gateway suspend acme --reason "chargeback of 12 May"
  clearinghouse gateway set-limit acme 50
  clearinghouse gateway set-plan acme small
  clearinghouse gateway set-limits acme --spend-day 25 --calls-day none
"""

app = typer.Typer(no_args_is_help=True, help=_HELP)

GatewayName = Annotated[str, typer.Argument(metavar="GATEWAY", help="Name or id (gw_…) of the gateway.")]
_Markup = Annotated[
    int | None, typer.Option("--markup-bps", metavar="BPS", help="Markup in basis points: 250 is 2.5 %.")
]
_MinimumCharge = Annotated[
    str | None, typer.Option("--minimum-charge", metavar="AMOUNT", help="Least charge per call, in its currency.")
]


@app.command()
def create(
    name: Annotated[str, typer.Argument(metavar="NAME", help="A new name: letters, digits, '.', '_' and '-'.")],
    *,
    currency: Annotated[str, typer.Option(metavar="CODE", help="Of its account; it cannot be changed later.")] = "USD",
    markup_bps: _Markup = None,
    minimum_charge: _MinimumCharge = None,
    credit_limit: Annotated[str, typer.Option(metavar="AMOUNT", help="How far the balance may go below zero.")] = "0",
    plan: Annotated[str, typer.Option(metavar="PLAN", help="Whose limits it has.")] = "default",
    data_dir: DataDir = None,
    as_json: AsJson = False,
) -> None:
    """Create a gateway with an empty account.

    \b
    Example: clearinghouse gateway create acme --currency USD --markup-bps 250 --credit-limit 100
    """
    from clearinghouse.identity import gateways
    from clearinghouse.ledger.money import parse_amount, parse_currency

    parse_currency(currency)
    smallest = parse_amount(minimum_charge or "0", currency=currency, may_be_zero=True)
    limit = parse_amount(credit_limit, currency=currency, may_be_zero=True)

    async def work(connection: AsyncConnection) -> dict[str, Any]:
        gateway = await gateways.create(
            connection,
            name,
            currency=currency,
            markup_bps=markup_bps or 0,
            minimum_charge=smallest,
            credit_limit=limit,
            plan=plan,
        )
        return await _document(connection, gateway)

    _print(in_transaction(settings_of(data_dir), work), as_json)


@app.command("list")
def list_all(data_dir: DataDir = None, as_json: AsJson = False) -> None:
    """List all gateways.

    Example: clearinghouse gateway list --json
    """
    from clearinghouse.documents import gateway_document
    from clearinghouse.identity import gateways

    documents = [gateway_document(found) for found in in_transaction(settings_of(data_dir), gateways.list_gateways)]
    if as_json:
        print_json({"items": documents})
        return
    columns = ("name", "gateway_id", "status", "plan", "currency", "markup_bps", "created_at")
    rows = [[str(document[column]) for column in columns] for document in documents]
    print_table(columns, rows, right=[5], if_empty="There are no gateways: clearinghouse gateway create NAME")


@app.command()
def show(gateway: GatewayName, data_dir: DataDir = None, as_json: AsJson = False) -> None:
    """Show a gateway, its price, its standing, and what it used of its limits.

    Example: clearinghouse gateway show acme
    """

    async def work(connection: AsyncConnection) -> dict[str, Any]:
        found = await _find(connection, gateway)
        limits = await limits_of(connection, found.id)
        return await _document(connection, found) | limits

    _print(in_transaction(settings_of(data_dir), work), as_json)


@app.command()
def suspend(
    gateway: GatewayName,
    reason: Annotated[str, typer.Option(metavar="TEXT", help="Why; the gateway's operator will ask.")],
    data_dir: DataDir = None,
    as_json: AsJson = False,
) -> None:
    """Sign nothing more for a gateway, until it is resumed.

    \b
    Example: clearinghouse gateway suspend acme --reason "chargeback of 12 May"
    """
    from clearinghouse.identity import gateways

    async def work(connection: AsyncConnection) -> dict[str, Any]:
        found = await _find(connection, gateway)
        return await _document(connection, await gateways.suspend(connection, found.id, reason=reason))

    _print(in_transaction(settings_of(data_dir), work), as_json)


@app.command()
def resume(gateway: GatewayName, data_dir: DataDir = None, as_json: AsJson = False) -> None:
    """Lift a gateway's suspension.

    Example: clearinghouse gateway resume acme
    """
    from clearinghouse.identity import gateways

    async def work(connection: AsyncConnection) -> dict[str, Any]:
        found = await _find(connection, gateway)
        return await _document(connection, await gateways.resume(connection, found.id))

    _print(in_transaction(settings_of(data_dir), work), as_json)


@app.command("set-limit")
def set_limit(
    gateway: GatewayName,
    limit: Annotated[str, typer.Argument(metavar="AMOUNT", help="How far the balance may go below zero; 0 for none.")],
    data_dir: DataDir = None,
    as_json: AsJson = False,
) -> None:
    """Set the credit limit of a gateway.

    \b
    Example: clearinghouse gateway set-limit acme 50
    """
    from clearinghouse.ledger import accounts
    from clearinghouse.ledger.money import parse_amount

    async def work(connection: AsyncConnection) -> dict[str, Any]:
        found = await _find(connection, gateway)
        amount = parse_amount(limit, currency=found.currency, may_be_zero=True)
        await accounts.set_limit(connection, found.id, amount)
        return await _document(connection, found)

    _print(in_transaction(settings_of(data_dir), work), as_json)


@app.command("set-pricing")
def set_pricing(
    gateway: GatewayName,
    markup_bps: _Markup = None,
    minimum_charge: _MinimumCharge = None,
    data_dir: DataDir = None,
    as_json: AsJson = False,
) -> None:
    """Change a gateway's markup, minimum charge, or both, for calls from now on.

    \b
    Example: clearinghouse gateway set-pricing acme --markup-bps 300 --minimum-charge 0.0001
    """
    from clearinghouse.identity import gateways
    from clearinghouse.ledger.money import parse_amount

    async def work(connection: AsyncConnection) -> dict[str, Any]:
        found = await _find(connection, gateway)
        smallest = (
            None if minimum_charge is None else parse_amount(minimum_charge, currency=found.currency, may_be_zero=True)
        )
        changed = await gateways.set_pricing(connection, found.id, markup_bps=markup_bps, minimum_charge=smallest)
        return await _document(connection, changed)

    _print(in_transaction(settings_of(data_dir), work), as_json)


@app.command("set-plan")
def set_plan(
    gateway: GatewayName,
    plan: Annotated[str, typer.Argument(metavar="PLAN", help="Name of the plan.")],
    data_dir: DataDir = None,
    as_json: AsJson = False,
) -> None:
    """Put a gateway on a plan: its limits hold for the next call, but for those set for the gateway itself.

    \b
    Example: clearinghouse gateway set-plan acme small
    """
    from clearinghouse.identity import gateways

    async def work(connection: AsyncConnection) -> dict[str, Any]:
        found = await gateways.set_plan(connection, await _find(connection, gateway), plan)
        return await limits_of(connection, found.id)

    _print_limits(in_transaction(settings_of(data_dir), work), as_json)


@app.command("set-limits")
@gateway_limit_options
def set_limits(
    gateway: GatewayName,
    *,
    wanted: Wanted,
    data_dir: DataDir = None,
    as_json: AsJson = False,
) -> None:
    """Set limits of a gateway, in place of its plan's; those not named stay. They hold for the next call.

    `none` is no limit whatever the plan says, `inherit` what the plan says. Of a price, the lower ceiling holds.

    \b
    Examples:
      clearinghouse gateway set-limits acme --spend-day 25 --spend-month 500 --calls-day none
      clearinghouse gateway set-limits acme --spend-day inherit --price-live 8000000000
      clearinghouse gateway set-limits acme --sessions-open 200 --sessions-open-per-orchestrator 50
    """
    from clearinghouse.documents import limits_document
    from clearinghouse.identity import limits

    async def work(connection: AsyncConnection) -> dict[str, Any]:
        found = await _find(connection, gateway)
        changes = limits.parse_own_limits(wanted, currency=found.currency)
        return limits_document(await limits.set_gateway_limits(connection, found.id, changes))

    _print_limits(in_transaction(settings_of(data_dir), work), as_json)


async def limits_of(connection: AsyncConnection, gateway_id: UUID) -> dict[str, Any]:
    """The gateway's limits and its keys', as GET /v1/limits shows them."""
    from clearinghouse.documents import limits_document
    from clearinghouse.identity import limits

    return limits_document(await limits.gateway_limits(connection, gateway_id))


async def _find(connection: AsyncConnection, gateway: str) -> Gateway:
    from clearinghouse.identity import gateways

    return await gateways.find(connection, gateway)


async def _document(connection: AsyncConnection, gateway: Gateway) -> dict[str, Any]:
    from clearinghouse.documents import balance_document, fees_document, gateway_document
    from clearinghouse.ledger import accounts

    standing = await accounts.standing(connection, gateway.id)
    return gateway_document(gateway) | balance_document(standing) | fees_document(standing)


def _print_limits(document: dict[str, Any], as_json: bool) -> None:
    if as_json:
        print_json(document)
    else:
        print_limits(document)


def _print(document: dict[str, Any], as_json: bool) -> None:
    if as_json:
        print_json(document)
        return
    shown = {name: value for name, value in document.items() if value not in ("", None) and type(value) is not list}
    print_details([(name, str(value)) for name, value in shown.items()])
    if "limits" in document:
        typer.echo()
        print_limits(document)
