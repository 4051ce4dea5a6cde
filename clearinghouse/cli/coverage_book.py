"""`clearinghouse coverage verify` and `rebuild`: whether the book of open tickets is right, and how it becomes so."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import typer

from clearinghouse.cli.context import DataDir, settings_of, with_engine
from clearinghouse.cli.output import AsJson, print_json, print_table

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncEngine

    from clearinghouse.exposure_book import Kind

_EXIT_DIFFERS = 1


def verify(data_dir: DataDir = None, as_json: AsJson = False) -> None:
    """Compare the book of open tickets with every issuance and redemption it is made of; exit status 1 if it differs.

    Reads only, in one snapshot: the service may go on working. Numbers are what the book lacks; below zero, what it has
    too much.

    \b
    Example: clearinghouse coverage verify --json
    """
    from clearinghouse import exposure_book

    async def work(engine: AsyncEngine) -> list[Kind]:
        async with engine.begin() as connection:
            return await exposure_book.difference(connection)

    lacking = with_engine(settings_of(data_dir), work)
    if as_json:
        print_json({"is_right": not lacking, "lacking": [_document(kind) for kind in lacking]})
    else:
        _print(lacking)
    if lacking:
        raise typer.Exit(_EXIT_DIFFERS)


def rebuild(data_dir: DataDir = None, as_json: AsJson = False) -> None:
    """Make the book of open tickets what the issuances and redemptions come to, and say how much was wrong.

    The service may go on working, and nobody is refused meanwhile.

    \b
    Example: clearinghouse coverage rebuild
    """
    from clearinghouse import exposure_book

    mended = with_engine(settings_of(data_dir), exposure_book.mend)
    if as_json:
        print_json({"mended": mended})
    else:
        typer.echo(
            "The book was right." if not mended else f"Mended: {mended} kinds of tickets were wrong in the book."
        )


def _print(lacking: list[Kind]) -> None:
    documents = [_document(kind) for kind in lacking]
    columns = ("gateway", "sender", "creation_round", "recipient", "face_value_wei", "issued_hour", "num_tickets")
    rows = [["" if document[name] is None else str(document[name]) for name in columns] for document in documents]
    print_table(columns, rows, right=[4, 6], if_empty="The book of open tickets is right.")
    if lacking:
        typer.echo("\nTHE BOOK IS NOT RIGHT: `clearinghouse coverage rebuild` mends it.")


def _document(kind: Kind) -> dict[str, Any]:
    """Amounts as decimal strings, as everywhere."""
    from clearinghouse.ids import show
    from clearinghouse.instants import rfc3339

    return {
        "gateway": show("gw", kind.gateway_id),
        "sender": f"0x{kind.sender.hex()}",
        "creation_round": kind.creation_round,
        "recipient": None if kind.recipient is None else f"0x{kind.recipient.hex()}",
        "face_value_wei": _text(kind.face_value_wei),
        "win_prob": _text(kind.win_prob),
        "issued_hour": rfc3339(kind.issued_hour),
        "num_tickets": kind.num_tickets,
        "ev_numerator": str(kind.ev_numerator),
    }


def _text(number: int | None) -> str | None:
    return None if number is None else str(number)
