"""`clearinghouse invoices credit`: less to pay, or something given back."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from clearinghouse.cli.context import ConfigFile, DataDir, actor
from clearinghouse.cli.output import AsJson, print_details, print_json
from clearinghouse.errors import InvalidRequest, NotFound
from settlement.cli.invoice_desk import InvoiceId, as_worker, invoice_id, walker
from settlement.cli.stripe_of_dev import settings_with_stripe

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncEngine

    from settlement.invoices.note_store import NewNote
    from settlement.invoices.store import Invoice

_WAYS = ("credit", "refund", "outside")


def credit(
    id_: InvoiceId,
    *,
    amount: Annotated[str, typer.Option("--amount", metavar="AMOUNT", help="Without tax, such as 12.50; or: all.")],
    reason: Annotated[str, typer.Option("--reason", metavar="TEXT", help="Why; the note says so, and is known by it.")],
    to: Annotated[
        str | None,
        typer.Option(
            "--to",
            metavar="WAY",
            help="Of a paid one: credit (for the next invoice), refund (to the card), outside (you pay it out).",
        ),
    ] = None,
    line: Annotated[int | None, typer.Option("--line", metavar="N", min=1, help="Of this line alone.")] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show what it would be, with tax; nothing is kept.")
    ] = False,
    config: ConfigFile = None,
    data_dir: DataDir = None,
    as_json: AsJson = False,
) -> None:
    """Make a credit note at Stripe, with its part of the tax: an open invoice then leaves less to pay, of a paid one
    something is given back. The same command again makes no second one: a further note needs another reason.

    What was never asked for, as with gateways that pay in advance, is corrected by `clearinghouse credit grant`.

    \b
    Examples:
      clearinghouse invoices credit inv_0190c0ffee0123456789abcdef012345 --amount 12.50 --reason "an outage" --dry-run
      clearinghouse invoices credit inv_0190c0ffee0123456789abcdef012345 --amount all --to refund --reason "asked twice"
    """  # fmt: skip
    settings, wanted_id = settings_with_stripe(data_dir, config=config), invoice_id(id_)
    if to is not None and to not in _WAYS:
        raise InvalidRequest(f"--to is credit, refund or outside, not {to[:64]!r}")

    async def work(engine: AsyncEngine) -> tuple[Invoice, NewNote]:
        from settlement.invoices.crediting import Wanted, preview
        from settlement.invoices.crediting import credit as make
        from settlement.invoices.store import find

        async with engine.connect() as connection:
            invoice = await find(connection, wanted_id)
        if invoice is None:
            raise NotFound(f"There is no invoice {id_}.")
        wanted = Wanted(_minor(amount, invoice), reason, actor(), to, line)  # type: ignore[arg-type] # one of _WAYS
        async with walker(settings, engine) as walking:
            return invoice, await (preview if dry_run else make)(walking.desk, wanted_id, wanted)

    invoice, note = as_worker(settings, work)
    document = {"invoice": id_, **_document(note, invoice)}
    if as_json:
        print_json(document)
    else:
        print_details([(name.replace("_", " "), str(value)) for name, value in document.items() if value is not None])


def _minor(amount: str, invoice: Invoice) -> int | None:
    from clearinghouse.ledger.money import parse_amount
    from settlement.payments.amounts import exact_minor

    if amount == "all":
        return None
    return exact_minor(parse_amount(amount, currency=invoice.currency), invoice.currency)


def _document(note: NewNote, invoice: Invoice) -> dict[str, Any]:
    from settlement.invoices.documents import note_document

    return note_document(note, invoice)
