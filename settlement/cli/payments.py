"""`clearinghouse payments`: what gateways pay, what came by other ways, what goes back."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from clearinghouse.cli.context import DataDir, actor, in_transaction, settings_of, with_engine
from clearinghouse.cli.gateways import GatewayName
from clearinghouse.cli.output import AsJson, print_details, print_json, print_table

if TYPE_CHECKING:
    from pathlib import Path
    from uuid import UUID

    from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

    from clearinghouse.payments import Method

_HELP = """Payments: credit that gateways buy, through Stripe or otherwise, and money that goes back.

What Stripe has to do `clearinghouse work` asks it for: one has to run. `clearinghouse topup` is another thing: it moves
ETH into the escrow. docs/payments.md.

\b
Examples:
  clearinghouse payments checkout acme 250 --save-card
  clearinghouse payments charge acme 250
  clearinghouse payments list --state open
  clearinghouse payments disputes
  clearinghouse payments receipt acme 5000 --by wire --reference "DE89-2026-114"
  clearinghouse payments approve pay_01930c3a5b7c7e8f9a0b1c2d3e4f5a6b
  clearinghouse payments refund pay_01930c3a5b7c7e8f9a0b1c2d3e4f5a6b --reason "ordered twice"
"""

app = typer.Typer(no_args_is_help=True, help=_HELP)

_Amount = Annotated[str, typer.Argument(metavar="AMOUNT", help="In the gateway's currency, such as 250 or 12.50.")]
_PaymentId = Annotated[str, typer.Argument(metavar="PAYMENT", help="Its id: pay_…")]
_Reason = Annotated[str, typer.Option(metavar="TEXT", help="Why; kept in the books.")]
_Key = Annotated[
    str | None, typer.Option("--key", metavar="TEXT", help="Idempotency key: the same again under it is done once.")
]
_ANSWER_WITHIN_S = 10.0


@app.command()
def checkout(
    gateway: GatewayName,
    amount: _Amount,
    *,
    save_card: Annotated[bool, typer.Option("--save-card", help="Save the card for later charges.")] = False,
    key: _Key = None,
    data_dir: DataDir = None,
    as_json: AsJson = False,
) -> None:
    """Get a link to Stripe's page where the gateway pays so much. It is valid for a day.

    \b
    Example: clearinghouse payments checkout acme 250 --save-card
    """
    _ask(gateway, "checkout", amount, key=key, data_dir=data_dir, as_json=as_json, saves_card=save_card)


@app.command("save-card")
def save_card(gateway: GatewayName, *, data_dir: DataDir = None, as_json: AsJson = False) -> None:
    """Get a link to Stripe's page where the gateway saves a card, in place of the one before.

    \b
    Example: clearinghouse payments save-card acme
    """
    _ask(gateway, "setup", None, data_dir=data_dir, as_json=as_json)


@app.command()
def charge(
    gateway: GatewayName, amount: _Amount, *, key: _Key = None, data_dir: DataDir = None, as_json: AsJson = False
) -> None:
    """Charge the card that the gateway has saved, now.

    \b
    Example: clearinghouse payments charge acme 250 --key order-1042
    """
    _ask(gateway, "card", amount, key=key, data_dir=data_dir, as_json=as_json)


@app.command()
def transfer(
    gateway: GatewayName, amount: _Amount, *, key: _Key = None, data_dir: DataDir = None, as_json: AsJson = False
) -> None:
    """Get instructions for a bank transfer of the gateway's. Whatever comes is credited when it comes.

    \b
    Example: clearinghouse payments transfer acme 5000
    """
    _ask(gateway, "bank_transfer", amount, key=key, data_dir=data_dir, as_json=as_json)


@app.command("list")
def list_all(
    gateway: Annotated[str | None, typer.Argument(metavar="[GATEWAY]", help="Only of this one.")] = None,
    *,
    state: Annotated[str | None, typer.Option(metavar="STATE", help="Only those: open, succeeded, failed, …")] = None,
    limit: Annotated[int, typer.Option(metavar="COUNT", help="At most so many.")] = 50,
    data_dir: DataDir = None,
    as_json: AsJson = False,
) -> None:
    """The newest payments first. Receipts that wait to be approved are "requested".

    \b
    Example: clearinghouse payments list acme --state open
    """
    from clearinghouse.identity import gateways
    from settlement.payments.looking import listed

    async def work(connection: AsyncConnection) -> list[dict[str, Any]]:
        found = await gateways.find(connection, gateway) if gateway is not None else None
        return await listed(connection, gateway_id=found.id if found is not None else None, state=state, limit=limit)

    items = in_transaction(settings_of(data_dir), work)
    if as_json:
        print_json({"items": items})
        return
    columns = ("created_at", "id", "gateway", "method", "state", "amount", "currency", "said")
    rows = [[str(item[name] if item[name] is not None else "") for name in columns] for item in items]
    print_table(columns, rows, if_empty="No payments.", right=(5,))


@app.command()
def show(payment: _PaymentId, *, data_dir: DataDir = None, as_json: AsJson = False) -> None:
    """A payment, what went back of it, and all that happened to it.

    \b
    Example: clearinghouse payments show pay_01930c3a5b7c7e8f9a0b1c2d3e4f5a6b
    """
    _show(payment, data_dir, as_json)


@app.command()
def receipt(
    gateway: GatewayName,
    amount: _Amount,
    *,
    by: Annotated[str, typer.Option(metavar="WAY", help="How it came: wire or stablecoin.")],
    reference: Annotated[str, typer.Option(metavar="TEXT", help="What the bank or the chain knows it by; once only.")],
    reason: Annotated[str, typer.Option(metavar="TEXT", help="What else there is to say of it.")] = "",
    data_dir: DataDir = None,
    as_json: AsJson = False,
) -> None:
    """Enter money that came by another way than Stripe. Another person has to approve it before it is credit.

    \b
    Example: clearinghouse payments receipt acme 5000 --by wire --reference "DE89-2026-114"
    """
    from clearinghouse.errors import InvalidRequest
    from clearinghouse.identity import gateways
    from clearinghouse.ledger.money import parse_amount
    from settlement.payments.looking import detailed
    from settlement.payments.operators import RECEIPT_METHODS, enter_receipt

    async def work(connection: AsyncConnection) -> dict[str, Any]:
        found = await gateways.find(connection, gateway)
        for method in RECEIPT_METHODS:
            if method == by:
                parsed = parse_amount(amount, currency=found.currency)
                entered = await enter_receipt(
                    connection, found.id, method, parsed, reference=reference, reason=reason, actor=actor()
                )
                return await detailed(connection, entered)
        raise InvalidRequest(f"--by is one of {', '.join(RECEIPT_METHODS)}, not {by}")

    _print(in_transaction(settings_of(data_dir), work), as_json)


@app.command()
def approve(
    payment: _PaymentId,
    *,
    reason: Annotated[str, typer.Option(metavar="TEXT", help="What was looked at.")] = "",
    data_dir: DataDir = None,
    as_json: AsJson = False,
) -> None:
    """Approve a receipt that somebody else entered: it is credit from now on.

    \b
    Example: clearinghouse payments approve pay_01930c3a5b7c7e8f9a0b1c2d3e4f5a6b --reason "seen on the statement"
    """
    _decide(payment, approves=True, reason=reason, data_dir=data_dir, as_json=as_json)


@app.command()
def refuse(payment: _PaymentId, *, reason: _Reason, data_dir: DataDir = None, as_json: AsJson = False) -> None:
    """Refuse a receipt that somebody else entered: it never was, and its reference can be entered again.

    \b
    Example: clearinghouse payments refuse pay_01930c3a5b7c7e8f9a0b1c2d3e4f5a6b --reason "not on the statement"
    """
    _decide(payment, approves=False, reason=reason, data_dir=data_dir, as_json=as_json)


@app.command()
def refund(
    payment: _PaymentId,
    amount: Annotated[str | None, typer.Argument(metavar="[AMOUNT]", help="All that is left, if not given.")] = None,
    *,
    reason: _Reason,
    key: _Key = None,
    data_dir: DataDir = None,
    as_json: AsJson = False,
) -> None:
    """Send a payment back through Stripe. It leaves the account once Stripe has it, even below the limit.

    \b
    Example: clearinghouse payments refund pay_01930c3a5b7c7e8f9a0b1c2d3e4f5a6b 12.50 --reason "ordered twice"
    """
    from decimal import Decimal

    from clearinghouse.ledger.money import parse_amount
    from clearinghouse.payments import parse_payment_id
    from settlement.payments.looking import detailed
    from settlement.payments.operators import refund

    async def work(connection: AsyncConnection) -> dict[str, Any]:
        payment_id = parse_payment_id(payment)
        found = await detailed(connection, payment_id)
        wanted: Decimal | None = parse_amount(amount, currency=found["currency"]) if amount is not None else None
        await refund(connection, payment_id, wanted, reason=reason, actor=actor(), key=key)
        return await detailed(connection, payment_id)

    _print(in_transaction(settings_of(data_dir), work), as_json)


@app.command("write-off")
def write_off(
    gateway: GatewayName,
    amount: _Amount,
    *,
    reason: _Reason,
    key: Annotated[str, typer.Option("--key", metavar="TEXT", help="Of this debt: it is written off under it once.")],
    data_dir: DataDir = None,
    as_json: AsJson = False,
) -> None:
    """Give up what a gateway owes, or a part of it.

    \b
    Example: clearinghouse payments write-off acme 31.20 --reason "insolvent" --key case-17
    """
    from clearinghouse.documents import transfer_document
    from clearinghouse.identity import gateways
    from clearinghouse.ledger import accounts
    from clearinghouse.ledger.money import parse_amount
    from settlement.payments.operators import write_off

    async def work(connection: AsyncConnection) -> dict[str, Any]:
        found = await gateways.find(connection, gateway)
        parsed = parse_amount(amount, currency=found.currency)
        booked = await write_off(connection, found.id, parsed, reason=reason, actor=actor(), key=key)
        return transfer_document(booked, await accounts.standing(connection, found.id))

    _print(in_transaction(settings_of(data_dir), work), as_json)


@app.command("disputes")
def list_disputes(
    *,
    everything: Annotated[bool, typer.Option("--all", help="Also those that have ended.")] = False,
    data_dir: DataDir = None,
    as_json: AsJson = False,
) -> None:
    """Money that banks have taken back or ask about, the most urgent first. Answer at Stripe, before it is due.

    \b
    Example: clearinghouse payments disputes
    """
    from settlement.payments.looking import disputes

    async def work(connection: AsyncConnection) -> list[dict[str, Any]]:
        return await disputes(connection, all_of_them=everything)

    items = in_transaction(settings_of(data_dir), work)
    if as_json:
        print_json({"items": items})
        return
    columns = ("due_by", "id", "gateway", "amount", "currency", "status", "reason")
    rows = [[str(item[name] if item[name] is not None else "") for name in columns] for item in items]
    print_table(columns, rows, if_empty="No disputes.", right=(3,))


@app.command("forgive-disputes")
def forgive_disputes(
    gateway: GatewayName, *, reason: _Reason, data_dir: DataDir = None, as_json: AsJson = False
) -> None:
    """Sign for a gateway again although its bank has taken money back. What was taken stays taken.

    \b
    Example: clearinghouse payments forgive-disputes acme --reason "paid by wire instead"
    """
    from clearinghouse.identity import gateways
    from clearinghouse.ids import show as show_id
    from settlement.payments.operators import forgive_disputes

    async def work(connection: AsyncConnection) -> dict[str, Any]:
        found = await gateways.find(connection, gateway)
        count = await forgive_disputes(connection, found.id, reason=reason, actor=actor())
        return {"gateway_id": show_id("gw", found.id), "forgiven_count": count}

    _print(in_transaction(settings_of(data_dir), work), as_json)


# --- what they share --------------------------------------------------------------------------------------------------


def _ask(
    gateway: str,
    method: Method,
    amount: str | None,
    *,
    data_dir: Path | None,
    as_json: bool,
    key: str | None = None,
    saves_card: bool = False,
) -> None:
    from clearinghouse import payments
    from clearinghouse.identity import gateways
    from clearinghouse.ledger.money import parse_amount

    async def work(engine: AsyncEngine) -> payments.PaymentStanding:
        async with engine.begin() as connection:
            found = await gateways.find(connection, gateway)
            parsed = parse_amount(amount, currency=found.currency) if amount is not None else None
            payment_id = await payments.request(
                connection, found.id, method, parsed, saves_card=saves_card, key=key, actor=actor()
            )
        return await payments.answered(engine, found.id, payment_id, within_s=_ANSWER_WITHIN_S)

    answer = with_engine(settings_of(data_dir), work)
    if not answer.is_answered:
        typer.echo("Nobody has answered yet: is `clearinghouse work` running? `payments show` tells later.", err=True)
    _print(payments.payment_document(answer), as_json)


def _decide(payment: str, *, approves: bool, reason: str, data_dir: Path | None, as_json: bool) -> None:
    from clearinghouse.payments import parse_payment_id
    from settlement.payments.looking import detailed
    from settlement.payments.operators import decide_receipt

    async def work(connection: AsyncConnection) -> dict[str, Any]:
        payment_id: UUID = parse_payment_id(payment)
        await decide_receipt(connection, payment_id, approves=approves, reason=reason, actor=actor())
        return await detailed(connection, payment_id)

    _print(in_transaction(settings_of(data_dir), work), as_json)


def _show(payment: str, data_dir: Path | None, as_json: bool) -> None:
    from clearinghouse.payments import parse_payment_id
    from settlement.payments.looking import detailed

    async def work(connection: AsyncConnection) -> dict[str, Any]:
        return await detailed(connection, parse_payment_id(payment))

    _print(in_transaction(settings_of(data_dir), work), as_json)


def _print(document: dict[str, Any], as_json: bool) -> None:
    if as_json:
        print_json(document)
        return
    plain = [(name, str(value)) for name, value in document.items() if value and not isinstance(value, dict | list)]
    print_details(plain)
    for name in ("instructions", "stripe"):
        print_details([(f"{name}.{key}", str(value)) for key, value in (document.get(name) or {}).items()])
    for event in document.get("events", []):
        facts = ", ".join(f"{key} {value}" for key, value in event["facts"].items())
        typer.echo(f"{event['at']}  {event['kind']:<12}  {event['actor']}  {facts}".rstrip())
