"""`clearinghouse customers`: who pays for a gateway, and how."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from clearinghouse.cli.context import ConfigFile, DataDir, actor, in_transaction, settings_of
from clearinghouse.cli.gateways import GatewayName
from clearinghouse.cli.output import AsJson, print_details, print_json, print_table
from settlement.cli import customer_terms

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncConnection

_HELP = """Customers: who pays for a gateway, and how, and where invoices go.

What is set here is what Stripe is told, by `clearinghouse work` or when the customer next pays.

\b
Examples:
  clearinghouse customers set acme --name "Acme GmbH" --email billing@acme.example --country DE
  clearinghouse customers set acme --tax-id eu_vat:DE123456789 --net-days 30 --po-number PO-7731
  clearinghouse customers show acme
  clearinghouse customers terms acme --way postpaid --credit-limit 500
"""

app = typer.Typer(no_args_is_help=True, help=_HELP)
app.command("terms")(customer_terms.terms)
app.command("cancel-terms")(customer_terms.cancel_terms)
app.command("end-free")(customer_terms.end_free)


@app.command("set")
def set_customer(
    gateway: GatewayName,
    *,
    name: Annotated[str | None, typer.Option(metavar="TEXT", help="As it stands on invoices.")] = None,
    email: Annotated[str | None, typer.Option(metavar="ADDRESS", help="Where invoices and reminders go.")] = None,
    line1: Annotated[str | None, typer.Option(metavar="TEXT", help="Street and number.")] = None,
    line2: Annotated[str | None, typer.Option(metavar="TEXT", help="What else the address has.")] = None,
    city: Annotated[str | None, typer.Option(metavar="TEXT", help="Of the address.")] = None,
    postal_code: Annotated[str | None, typer.Option(metavar="TEXT", help="Of the address, as written there.")] = None,
    state: Annotated[str | None, typer.Option(metavar="TEXT", help="State, county, province or region.")] = None,
    country: Annotated[str | None, typer.Option(metavar="CODE", help="ISO 3166: DE.")] = None,
    tax_id: Annotated[
        str | None, typer.Option(metavar="TYPE:NUMBER", help="As Stripe names types: eu_vat:DE123456789.")
    ] = None,
    is_taxed: Annotated[
        bool | None, typer.Option("--taxed/--not-taxed", help="Whether Stripe Tax is asked for its invoices' tax.")
    ] = None,
    locale: Annotated[str | None, typer.Option(metavar="CODE", help="Language of invoices: en, de, pt-BR.")] = None,
    po_number: Annotated[str | None, typer.Option(metavar="TEXT", help="Purchase order, printed on invoices.")] = None,
    collection: Annotated[
        str | None,
        typer.Option(metavar="HOW", help="Of invoices: send_invoice, charge_automatically, or manual: without Stripe."),
    ] = None,
    net_days: Annotated[int | None, typer.Option(metavar="DAYS", help="From an invoice until it is due.")] = None,
    data_dir: DataDir = None,
    as_json: AsJson = False,
) -> None:
    """Say who pays for a gateway, or change what is named; the rest stays. "" takes away what may be missing.

    A new customer needs --name and --email. If anything is wrong, all of that is said and nothing is changed.

    \b
    Examples:
      clearinghouse customers set acme --name "Acme GmbH" --email billing@acme.example --country DE
      clearinghouse customers set acme --collection charge_automatically --po-number ""
      clearinghouse customers set acme --collection manual
    """
    given = {
        "name": name, "email": email, "line1": line1, "line2": line2, "city": city, "postal_code": postal_code,
        "state": state, "country": country, "tax_id": tax_id, "is_taxed": is_taxed, "locale": locale,
        "po_number": po_number, "collection": collection, "net_days": net_days,
    }  # fmt: skip
    _change(gateway, {key: value for key, value in given.items() if value is not None}, data_dir, as_json)


@app.command("remove-tax-id")
def remove_tax_id(gateway: GatewayName, data_dir: DataDir = None, as_json: AsJson = False) -> None:
    """Take a customer's tax id away; what was invoiced keeps it.

    Example: clearinghouse customers remove-tax-id acme
    """
    _change(gateway, {"tax_id": ""}, data_dir, as_json)


@app.command()
def show(gateway: GatewayName, *, config: ConfigFile = None, data_dir: DataDir = None, as_json: AsJson = False) -> None:
    """Show who pays for a gateway, whether Stripe has been told, how it is billed and what it owes.

    Example: clearinghouse customers show acme
    """

    async def work(connection: AsyncConnection) -> dict[str, Any]:
        from clearinghouse.billing import billing_document
        from clearinghouse.dunning_steps import policy_of
        from clearinghouse.identity import gateways
        from settlement.customers.documents import customer_document
        from settlement.customers.store import NoCustomer, find_customer

        found = await gateways.find(connection, gateway)
        try:
            customer = customer_document(await find_customer(connection, found.id))
        except NoCustomer:
            customer = None
        billing = await billing_document(connection, found.id, policy_of(settings.dunning))
        return {"customer": customer, "billing": billing}

    settings = settings_of(data_dir, config=config)
    document = in_transaction(settings, work)
    if as_json:
        print_json(document)
        return
    if document["customer"] is None:
        typer.echo("Nobody has said who pays: clearinghouse customers set GATEWAY --name … --email …")
    else:
        _print(document["customer"], False)
    typer.echo()
    _print_billing(document["billing"])


@app.command("list")
def list_all(data_dir: DataDir = None, as_json: AsJson = False) -> None:
    """List all customers. What Stripe refuses of one is shown with it.

    Example: clearinghouse customers list --json
    """

    async def work(connection: AsyncConnection) -> list[dict[str, Any]]:
        from settlement.customers.documents import customer_document
        from settlement.customers.store import list_customers

        return [customer_document(customer) for customer in await list_customers(connection)]

    documents = in_transaction(settings_of(data_dir), work)
    if as_json:
        print_json({"items": documents})
        return
    columns = ("name", "gateway_id", "email", "country", "currency", "collection", "stripe")
    rows = [
        [str(document[column] or "") for column in columns[:3]]
        + [document["address"]["country"] or "", document["currency"], document["collection"], _stripe(document)]
        for document in documents
    ]
    print_table(
        columns, rows, if_empty="There are no customers: clearinghouse customers set GATEWAY --name … --email …"
    )


def _change(gateway: str, given: dict[str, object], data_dir: DataDir, as_json: bool) -> None:
    async def work(connection: AsyncConnection) -> dict[str, Any]:
        from clearinghouse.identity import gateways
        from settlement.customers.documents import customer_document
        from settlement.customers.store import set_details

        found = await gateways.find(connection, gateway)
        return customer_document(await set_details(connection, found.id, given, actor=actor()))

    _print(in_transaction(settings_of(data_dir), work), as_json)


def _print(document: dict[str, Any], as_json: bool) -> None:
    if as_json:
        print_json(document)
        return
    address = [(name, document["address"][name] or "") for name in document["address"]]
    plain = ("tax_id", "is_taxed", "currency", "locale", "po_number", "collection", "net_days", "changed_at")
    details = [("gateway_id", document["gateway_id"]), ("name", document["name"]), ("email", document["email"])]
    details += address + [(name, str("" if document[name] is None else document[name])) for name in plain]
    print_details([*details, ("changed_by", document["changed_by"]), ("stripe", _stripe(document))])


def _print_billing(billing: dict[str, Any]) -> None:
    period, coming, currency = billing["period"], billing["next_change"], billing["currency"]
    details = [
        ("billed", customer_terms.sentence(billing["terms"])),
        ("period", f"{period['first_day']} to {period['last_day']}" if period else "not reckoned yet"),
        ("then", customer_terms.sentence(coming) if coming else "the same"),
        ("balance", f"{billing['balance']} {currency}"),
        ("available", f"{billing['available']} {currency}, with the credit limit"),
        ("hold", f"{billing['hold']} {billing['hold_reason']}"),
    ]
    for invoice in billing["open_invoices"]:
        reminded = f", reminded {', '.join(invoice['reminded_at'])}" if invoice["reminded_at"] else ""
        what = f"{invoice['amount_due']} {currency}, due {invoice['due_at']}{reminded}"
        details.append((f"owes {invoice['number']}", what))
    if (dunning := billing["dunning"])["number"] is not None:
        unless = f"unless {dunning['number']} is paid"
        details.append(("no new sessions", f"from {dunning['new_sessions_stop_at']}, {unless}"))
        details.append(("nothing signed", f"from {dunning['signing_stops_at']}, {unless}"))
    print_details(details)


def _stripe(document: dict[str, Any]) -> str:
    stripe = document["stripe"]
    if stripe["refusal"] is not None:
        return f"refused: {stripe['refusal']}"
    if stripe["customer_id"] is None:
        return "not told yet"
    return f"{stripe['customer_id']}{'' if stripe['is_in_step'] else ', to be told what changed'}"
