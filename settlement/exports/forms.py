"""Which forms an export can have."""

from __future__ import annotations

from enum import StrEnum
from typing import Final

from clearinghouse import cells


class Form(StrEnum):
    """Also the ending of a file's name."""

    CSV = "csv"
    JSON_LINES = "jsonl"
    PARQUET = "parquet"


MEDIA_TYPES: Final = {
    Form.CSV: cells.MEDIA_TYPE,
    Form.JSON_LINES: "application/jsonl",
    Form.PARQUET: "application/vnd.apache.parquet",
}
