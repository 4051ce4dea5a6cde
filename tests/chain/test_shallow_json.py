"""What is nested too deeply is refused by us, whatever the interpreter would let through."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chain import shallow_json
from chain.shallow_json import NESTING_MAX, TooDeep

WITH_A_RAISED_BOUND = """
import sys
from chain import shallow_json
sys.setrecursionlimit(1_000_000)
for opening in ("[", '{"a":', '[{"a":'):
    try:
        shallow_json.loads(opening * 200_000)
    except shallow_json.TooDeep:
        print("refused")
"""


def test_a_process_whose_bound_was_raised_survives_a_deep_document() -> None:
    command = [sys.executable, "-c", WITH_A_RAISED_BOUND]
    done = subprocess.run(command, capture_output=True, check=False, text=True, timeout=60)
    assert (done.returncode, done.stdout.split()) == (0, ["refused"] * 3), done.stderr


@pytest.mark.parametrize("brackets", ["[]", "{}"])
def test_the_deepest_document_that_is_read(brackets: str) -> None:
    opening, closing = ("[", "]") if brackets == "[]" else ('{"a":', "}")
    deepest = opening * NESTING_MAX + "1" + closing * NESTING_MAX
    assert shallow_json.loads(deepest.encode()) == shallow_json.loads(deepest)
    with pytest.raises(TooDeep):
        shallow_json.loads(opening + deepest + closing)


def test_brackets_of_both_kinds_are_counted_together() -> None:
    deepest = '{"a":[' * (NESTING_MAX // 2) + "]}" * (NESTING_MAX // 2)
    shallow_json.loads(deepest)
    with pytest.raises(TooDeep):
        shallow_json.loads(f"[{deepest}]")


def test_brackets_in_a_string_and_documents_side_by_side_are_not_deep() -> None:
    text = '["' + "[{" * 1000 + '\\"[", ' + ", ".join(["[{}]"] * 1000) + "]"
    assert len(shallow_json.loads(text)) == 1001


@given(st.text(alphabet='[]{}"\\,:1a', max_size=400))
def test_what_is_no_json_is_a_value_error(text: str) -> None:
    try:
        shallow_json.loads(text)
    except ValueError:
        return


@given(
    st.sampled_from(["", " ", "\n", "\ufeff", "\u2028"]),
    st.one_of(st.text(alphabet='[]{}",:1a ', max_size=12), st.sampled_from(['{"a":[1]}', "[]", "7", "null", "NaN"])),
    st.sampled_from(["", "\n", " \r\n\t", "\n\n", "\n}", "x", "\x0b", "\u2028"]),
)
def test_the_shorter_way_gives_the_same_document_and_the_same_reason(before: str, text: str, behind: str) -> None:
    decoder = json.JSONDecoder()

    def outcome(document: Any) -> Any:
        try:
            return repr(document())
        except json.JSONDecodeError as error:
            return (error.msg, error.pos, error.doc)

    whole = before + text + behind
    assert outcome(lambda: shallow_json.decoded(whole, decoder)) == outcome(lambda: decoder.decode(whole))
