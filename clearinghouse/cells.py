"""Tables for spreadsheets: CSV as RFC 4180 has it, in UTF-8, that opens without running anything.

A text that a spreadsheet could take for a formula gets an apostrophe before it, and so does one that begins with an
apostrophe: to have the text back, take one leading apostrophe away. Numbers are never touched, -3.5 stays -3.5.
"""

from __future__ import annotations

import csv
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable

MEDIA_TYPE: Final = "text/csv; charset=utf-8; header=present"

#: What spreadsheets begin a formula with, also full-width, and the apostrophe that says there is none.
_FORMULA: Final = tuple("=+-@\uff1d\uff0b\uff0d\uff20'")


def text_cell(text: str) -> str:
    """Also a formula behind blanks gets its apostrophe: some readers take the blanks away first."""
    return f"'{text}" if text.startswith(("\t", "\r", "\n")) or text.lstrip().startswith(_FORMULA) else text


def text_of(cell: str) -> str:
    """The reverse of `text_cell`."""
    return cell.removeprefix("'")


def csv_rows(rows: Iterable[Iterable[str]]) -> bytes:
    """Each row ends with CRLF. Cells with quotes, commas or line ends are quoted."""
    lines: list[str] = []
    csv.writer(_Lines(lines), lineterminator="\r\n").writerows(rows)
    return "".join(lines).encode("utf-8")


class _Lines:
    """What csv.writer needs of a file."""

    def __init__(self, lines: list[str]) -> None:
        self.write = lines.append
