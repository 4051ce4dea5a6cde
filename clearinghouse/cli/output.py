"""What commands print: aligned text for people, or JSON for scripts, alone on standard output."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Sequence
from typing import Annotated, Any, Final

import typer

_WIDTH_OUTSIDE_TERMINALS: Final = 100_000  # characters: more than any row

#: The option every command has.
AsJson = Annotated[bool, typer.Option("--json", help="Answer in JSON, for scripts.")]


def print_json(document: Any) -> None:
    """Indented, and in order of its keys' meaning rather than of the alphabet."""
    typer.echo(json.dumps(document, indent=2, ensure_ascii=False))


def print_details(details: Iterable[tuple[str, str]]) -> None:
    """One thing: a name and a value a line."""
    rows = list(details)
    width = max((len(name) for name, _ in rows), default=0)
    for name, value in rows:
        typer.echo(f"{name:<{width}}  {value}".rstrip())


def print_table(
    columns: Sequence[str], rows: Sequence[Sequence[str]], *, if_empty: str, right: Iterable[int] = ()
) -> None:
    """Many things, a line each; the columns with numbers in `right` are flush right.

    A terminal folds what is too wide. In a file or a pipe every row stays on one line, so that `grep` finds it whole.
    """
    if not rows:
        typer.echo(if_empty)
        return
    from rich.console import Console  # noqa: PLC0415 - takes longer to import than most commands need to run
    from rich.table import Table  # noqa: PLC0415
    from rich.text import Text  # noqa: PLC0415

    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    aligned_right = set(right)
    for index, column in enumerate(columns):
        table.add_column(column, justify="right" if index in aligned_right else "left", overflow="fold")
    for row in rows:
        table.add_row(*(Text(cell) for cell in row))  # Text: what others typed is no markup
    width = None if sys.stdout.isatty() else _WIDTH_OUTSIDE_TERMINALS
    Console(file=sys.stdout, highlight=False, width=width).print(table)
