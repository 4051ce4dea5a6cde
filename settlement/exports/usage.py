"""The one way to write an export, whatever its form.

with open_writer(Form.CSV, file) as writer:
    async for batch in …:
        writer.write(batch)
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol, Self

from settlement.exports.forms import Form
from settlement.exports.texts import CsvWriter, JsonLinesWriter

if TYPE_CHECKING:
    from collections.abc import Iterable
    from types import TracebackType
    from typing import BinaryIO

    from clearinghouse.issuances import Issuance


class UsageWriter(Protocol):
    """Holds a bounded number of rows, whatever is written. Left by an error, it writes nothing more."""

    rows: int

    def write(self, issuances: Iterable[Issuance]) -> None:
        """In the order in which they come. May be called any number of times."""

    def close(self) -> None:
        """Writes what is still held; the file stays open, and its owner's."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


def open_writer(form: Form, file: BinaryIO) -> UsageWriter:
    """Writes to `file` from where it stands; never seeks. Raises NoArrow for Parquet without the extra `parquet`."""
    match form:
        case Form.CSV:
            return CsvWriter(file)
        case Form.JSON_LINES:
            return JsonLinesWriter(file)
        case Form.PARQUET:
            from settlement.exports.parquet import ParquetWriter  # noqa: PLC0415 - so that only this needs pyarrow

            return ParquetWriter(file)
