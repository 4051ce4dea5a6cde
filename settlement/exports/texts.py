"""Usage as CSV and as JSON lines: row by row, nothing held back but the batch that is being written."""

from __future__ import annotations

import json
from itertools import islice
from typing import TYPE_CHECKING, Any, Final

from clearinghouse.cells import csv_rows, text_cell
from clearinghouse.issuances import issuance_json
from settlement.exports.closing import Closing
from settlement.exports.columns import COLUMNS, Kind

if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import BinaryIO

    from clearinghouse.issuances import Issuance

#: Encoded and written together. Some hundred kilobytes.
_ROWS_AT_ONCE: Final = 1000
_TEXTS: Final = frozenset(name for name, kind in COLUMNS.items() if kind is Kind.TEXT)


class _RowByRow(Closing):
    def __init__(self, file: BinaryIO) -> None:
        self.rows = 0
        self._file = file

    def write(self, issuances: Iterable[Issuance]) -> None:
        left = iter(issuances)
        while batch := [issuance_json(issuance) for issuance in islice(left, _ROWS_AT_ONCE)]:
            self._file.write(self._encoded(batch))
            self.rows += len(batch)

    def close(self) -> None:
        self._file.flush()

    def abandon(self) -> None:
        """The file has no end to leave off: what was written is whole rows, and too few of them."""

    def _encoded(self, batch: list[dict[str, Any]]) -> bytes:
        raise NotImplementedError


class CsvWriter(_RowByRow):
    """A header row, then a row each; cells as clearinghouse/cells.py has them. Empty: the webhook is not shown it."""

    def __init__(self, file: BinaryIO) -> None:
        super().__init__(file)
        file.write(csv_rows([COLUMNS]))

    def _encoded(self, batch: list[dict[str, Any]]) -> bytes:
        return csv_rows([_cell(name, row[name]) for name in COLUMNS] for row in batch)


class JsonLinesWriter(_RowByRow):
    """An item of GET /v1/issuances on each line. ASCII: other characters are escaped, as some readers take U+2028 and
    its like for the end of a line."""

    def _encoded(self, batch: list[dict[str, Any]]) -> bytes:
        return "".join(json.dumps(row, separators=(",", ":")) + "\n" for row in batch).encode("ascii")


def _cell(name: str, value: Any) -> str:
    if value is None:
        return ""
    return text_cell(value) if name in _TEXTS else str(value)
