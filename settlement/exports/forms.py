"""Which forms an export can have."""

from __future__ import annotations

from enum import StrEnum


class Form(StrEnum):
    """Also the ending of a file's name."""

    CSV = "csv"
    JSON_LINES = "jsonl"
    PARQUET = "parquet"
