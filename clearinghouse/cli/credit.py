"""`clearinghouse credit`: money in and out by hand."""

from __future__ import annotations

from decimal import Decimal
from typing import TYPE_CHECKING, Annotated, Any

import typer

from clearinghouse.cli.context import DataDir, actor, in_transaction, settings_of
from clearinghouse.cli.gateways import GatewayName
from clearinghouse.cli.keys import ExpiresAt, ExpiresIn, expiry_of
from clearinghouse.cli.output import AsJson, print_details, print_json

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from uuid import UUID

    from sqlalchemy.ext.asyncio import AsyncConnection

    from clearinghouse.ledger.transfers import Transfer

_HELP = """Credit: granted to a gateway, or taken back.

\b
Examples:
  clearinghouse credit grant acme 25 --reason "invoice 1042"
  clearinghouse credit grant acme 5 --reason "welcome credit" --expires-in 30d
  clearinghouse credit withdraw acme 10 --reason "refund of invoice 1042" --key refund-1042
"""

app = typer.Typer(no_args_is_help=True, help=_HELP)

_Amount = Annotated[str, typer.Argument(metavar="AMOUNT", help="In the gateway's currency, such as 12.50.")]
_Reason = Annotated[str, typer.Option(metavar="TEXT", help="Why; kept in the books.")]
_Key = Annotated[
    str | None,
    typer.Option(
        "--key", metavar="TEXT", help="Idempotency key: the same transfer with the same key is booked once, ever."
    ),
]


@app.command()
def grant(
    gateway: GatewayName,
    amount: _Amount,
    *,
    reason: _Reason,
    expires_in: ExpiresIn = None,
    expires_at: ExpiresAt = None,
    key: _Key = None,
    data_dir: DataDir = None,
    as_json: AsJson = False,
) -> None:
    """Give a gateway credit. Usage takes from what expires first; what is left at its expiry lapses.

    \b
    Example: clearinghouse credit grant acme 25 --reason "invoice 1042" --key invoice-1042
    """
    from clearinghouse.ledger import transfers

    expiry = expiry_of(expires_in, expires_at)

    async def book(connection: AsyncConnection, gateway_id: UUID, parsed: Decimal) -> Transfer:
        return await transfers.grant(
            connection, gateway_id, parsed, reason=reason, actor=actor(), key=key, expires_at=expiry
        )

    _run(gateway, amount, book, data_dir=data_dir, as_json=as_json)


@app.command()
def withdraw(
    gateway: GatewayName,
    amount: _Amount,
    *,
    reason: _Reason,
    key: _Key = None,
    data_dir: DataDir = None,
    as_json: AsJson = False,
) -> None:
    """Take credit back: what does not expire first, then what expires last.

    \b
    Example: clearinghouse credit withdraw acme 10 --reason "refund of invoice 1042" --key refund-1042
    """
    from clearinghouse.ledger import transfers

    async def book(connection: AsyncConnection, gateway_id: UUID, parsed: Decimal) -> Transfer:
        return await transfers.withdraw(connection, gateway_id, parsed, reason=reason, actor=actor(), key=key)

    _run(gateway, amount, book, data_dir=data_dir, as_json=as_json)


def _run(
    gateway: str,
    amount: str,
    book: Callable[[AsyncConnection, UUID, Decimal], Awaitable[Transfer]],
    *,
    data_dir: DataDir,
    as_json: bool,
) -> None:
    from clearinghouse.documents import transfer_document
    from clearinghouse.identity import gateways
    from clearinghouse.ledger import accounts
    from clearinghouse.ledger.money import parse_amount

    async def work(connection: AsyncConnection) -> dict[str, Any]:
        found = await gateways.find(connection, gateway)
        transfer = await book(connection, found.id, parse_amount(amount, currency=found.currency))
        return transfer_document(transfer, await accounts.standing(connection, found.id))

    document = in_transaction(settings_of(data_dir), work)
    if as_json:
        print_json(document)
        return
    if document["was_repeated"]:
        typer.echo("Booked before under this key; nothing was booked now.", err=True)
    shown = ("id", "kind", "amount", "currency", "reason", "created_at", "balance", "available")
    print_details([(name, document[name]) for name in shown])
