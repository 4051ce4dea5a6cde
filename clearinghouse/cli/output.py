"""What commands print: aligned text for people, or JSON for scripts, alone on standard output."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import Annotated, Any, BinaryIO, Final, cast

import typer

_WIDTH_OUTSIDE_TERMINALS: Final = 100_000  # characters: more than any row

#: The option every command has.
AsJson = Annotated[bool, typer.Option("--json", help="Answer in JSON, for scripts.")]


def print_json(document: Any) -> None:
    """Indented, and in order of its keys' meaning rather than of the alphabet."""
    typer.echo(json.dumps(document, indent=2, ensure_ascii=False))


def write_file(file: Path, content: bytes) -> None:
    """What a command draws, into a file that its user named. Raises BadParameter where it cannot be written."""
    try:
        file.write_bytes(content)
    except OSError as error:
        raise typer.BadParameter(f"{file} cannot be written: {error.strerror or error}") from error


@contextmanager
def replacing(file: Path) -> Iterator[BinaryIO]:
    """A file beside it, which takes its name once the block has ended well and all of it is on the disk.

    So whoever finds `file` finds all of it, and one that was there stays until then. A link keeps leading there. Raises
    BadParameter where it cannot be written, and for what is no file: root would put one in the place of /dev/null.
    """
    try:
        target = file.resolve()
        if target.exists() and not target.is_file():
            raise typer.BadParameter(f"{file} cannot be written: it is there, and is not a file")
        with NamedTemporaryFile(dir=target.parent, prefix=f".{target.name}.", delete=False) as beside:
            part = Path(beside.name)
            try:
                yield cast(BinaryIO, beside)
                beside.flush()
                os.fsync(beside.fileno())
                part.chmod(0o666 & ~_umask())
                part.replace(target)
            except BaseException:
                part.unlink(missing_ok=True)
                raise
    except OSError as error:
        raise typer.BadParameter(f"{file} cannot be written: {error.strerror or error}") from error


def _umask() -> int:
    """Only to be had by setting it."""
    mask = os.umask(0o077)
    os.umask(mask)
    return mask


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
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    aligned_right = set(right)
    for index, column in enumerate(columns):
        table.add_column(column, justify="right" if index in aligned_right else "left", overflow="fold")
    for row in rows:
        table.add_row(*(Text(cell) for cell in row))  # Text: what others typed is no markup
    width = None if sys.stdout.isatty() else _WIDTH_OUTSIDE_TERMINALS
    Console(file=sys.stdout, highlight=False, width=width).print(table)
