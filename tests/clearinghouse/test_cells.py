"""CSV that any reader reads and no spreadsheet runs."""

from __future__ import annotations

import csv
import io

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clearinghouse.cells import csv_rows, text_cell, text_of

texts = st.text(st.characters(codec="utf-8"))


@given(texts)
def test_a_text_can_be_read_back(text: str) -> None:
    assert text_of(text_cell(text)) == text


@pytest.mark.parametrize(
    "text", ["=1+1", "+1", "-1", "@SUM(A1)", "\t=1", "\r=1", "\n=1", " =1", "＝1", "\u00a0=1", "'=1", "\t1"]
)
def test_no_cell_begins_as_a_formula(text: str) -> None:
    assert text_cell(text) == "'" + text


@pytest.mark.parametrize("text", ["", "a=1", "acme-app", "1", "é", '"=1"'])
def test_other_texts_are_left_alone(text: str) -> None:
    assert text_cell(text) == text


@given(st.lists(st.lists(texts, min_size=2, max_size=5), max_size=5))
def test_rows_are_read_back_by_a_strict_reader(rows: list[list[str]]) -> None:
    written = csv_rows(rows)
    assert list(csv.reader(io.StringIO(written.decode("utf-8"), newline=""), strict=True)) == rows
    assert written.endswith(b"\r\n") or not rows


def test_quotes_commas_and_line_ends_are_quoted_as_rfc_4180_has_it() -> None:
    assert csv_rows([['a"b', "c,d", "e\nf", "g\rh", "i j"]]) == b'"a""b","c,d","e\nf","g\rh",i j\r\n'
