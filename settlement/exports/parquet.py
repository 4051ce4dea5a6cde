"""Usage as Parquet, by Apache Arrow. Needs the extra `parquet`.

Exact decimals are texts here too: they have up to 74 digits, and most readers of Parquet know 38. To sum them, cast
them: `sum(charge::decimal(38, 18))` is off by less than 10^-18 a row.

The bytes name the version of Arrow; another version may give others.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from clearinghouse.issuances import issuance_json
from settlement.exports.closing import Closing
from settlement.exports.columns import COLUMNS, NULLABLE, Kind

if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import BinaryIO

    from clearinghouse.issuances import Issuance

#: So many, whatever the batches are: a file's bytes do not tell how its rows came. Some tens of megabytes in memory.
ROWS_PER_GROUP: Final = 16_384
_WEI_DIGITS_MAX: Final = 38
_TEXTS: Final = frozenset({Kind.TEXT, Kind.NAME, Kind.DIGITS})


class NoArrow(RuntimeError):
    """pyarrow is not installed."""


class ParquetWriter(Closing):
    """Rows are held until a group is full. Abandoned, the file lacks its end, so that no reader takes it for whole."""

    def __init__(self, file: BinaryIO) -> None:
        try:
            import pyarrow  # noqa: PLC0415 - an extra
            from pyarrow import parquet  # noqa: PLC0415 - an extra
        except ImportError as error:
            raise NoArrow("Parquet needs the extra `parquet`: pip install 'livepeer-clearinghouse[parquet]'") from error
        self.rows = 0
        self._arrow = pyarrow
        self._sink = _Sink(file)
        self._schema = _schema(pyarrow)
        self._held: list[list[Any]] = []
        self._writer = parquet.ParquetWriter(self._sink, self._schema, version="2.6", compression="zstd")

    def write(self, issuances: Iterable[Issuance]) -> None:
        """OverflowError for wei beyond 38 digits: a trillion times all the ether there is."""
        for issuance in issuances:
            self._held.append(_values(issuance))
            self.rows += 1
            if len(self._held) == ROWS_PER_GROUP:
                self._write_group()

    def close(self) -> None:
        if self._held:
            self._write_group()
        self._writer.close()
        self._sink.flush()

    def abandon(self) -> None:
        """Arrow writes the end of a file even where its writer is only forgotten."""
        self._sink.is_abandoned = True
        self._writer.close()

    def _write_group(self) -> None:
        columns = [
            self._arrow.array(values, field.type)
            for values, field in zip(zip(*self._held, strict=True), self._schema, strict=True)
        ]
        self._writer.write_table(self._arrow.Table.from_arrays(columns, schema=self._schema), ROWS_PER_GROUP)
        self._held = []


class _Sink:
    """The caller's file, of which Arrow neither asks where it stands nor closes it."""

    closed: Final = False

    def __init__(self, file: BinaryIO) -> None:
        self.is_abandoned = False
        self._file = file

    def write(self, data: bytes) -> int:
        return len(data) if self.is_abandoned else self._file.write(data)

    def flush(self) -> None:
        if not self.is_abandoned:
            self._file.flush()

    def close(self) -> None:
        """Not ours to do."""


def _schema(arrow: Any) -> Any:
    types = {
        Kind.TEXT: arrow.string(),
        Kind.NAME: arrow.string(),
        Kind.DIGITS: arrow.string(),
        Kind.COUNT: arrow.int64(),
        Kind.WEI: arrow.decimal128(_WEI_DIGITS_MAX, 0),
        Kind.INSTANT: arrow.timestamp("us", tz="UTC"),
    }
    return arrow.schema([arrow.field(name, types[kind], nullable=name in NULLABLE) for name, kind in COLUMNS.items()])


def _values(issuance: Issuance) -> list[Any]:
    texts = issuance_json(issuance)
    return [texts[name] if kind in _TEXTS else _within(name, getattr(issuance, name)) for name, kind in COLUMNS.items()]


def _within(name: str, value: Any) -> Any:
    if COLUMNS[name] is Kind.WEI and abs(value) >= 10**_WEI_DIGITS_MAX:
        raise OverflowError(f"{name} {value} has more than {_WEI_DIGITS_MAX} digits")
    return value
