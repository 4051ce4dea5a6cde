"""docs/security.md keeps its word: every known abuse has a line, and what the line names exists."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

import clearinghouse.api.http
import clearinghouse.signing
from clearinghouse.config_sources import all_settings
from clearinghouse.errors import Refusal
from clearinghouse.policy import Rule
from clearinghouse.request_rates import RATES
from clearinghouse.usage import Limit

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "security.md").read_text(encoding="utf-8")
MONITORING = (ROOT / "docs" / "monitoring.md").read_text(encoding="utf-8")
COLUMNS = ("number", "abuse", "check", "test", "answer", "metric", "open")
LINES = [dict(zip(COLUMNS, re.split(r" ?\| ?", line)[1:-1], strict=True)) for line in PAGE.splitlines()
         if line.startswith("| A")]  # fmt: skip
#: In which the entry points are imported, so that every refusal they give is known.
ENTRANCES = (clearinghouse.api.http, clearinghouse.signing)


def refusals(base: type[Refusal] = Refusal) -> dict[str, int]:
    """Statuses by code."""
    found: dict[str, int] = {}
    for kind in base.__subclasses__():
        found |= {kind.code: kind.http_status} | refusals(kind)
    return found


def claims_of(file: str) -> set[str]:
    functions = [
        node
        for node in ast.walk(ast.parse((ROOT / file).read_text(encoding="utf-8")))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    ]
    return {function.name for function in functions if function.name.startswith("test_")}


def test_all_26_abuses_are_there_once_and_in_order() -> None:
    assert [line["number"] for line in LINES] == [f"A{number}" for number in range(1, 27)]


@pytest.mark.parametrize("line", LINES, ids=lambda line: line["number"])
def test_a_line_names_tests_settings_codes_and_metrics_that_exist(line: dict[str, str]) -> None:
    tests = re.findall(r"`(tests/[\w/]+\.py)(?:::(\w+))?`", line["test"])
    assert tests, "name the test that attacks"
    for file, name in tests:
        defined = claims_of(file)
        assert name in defined if name else defined, f"{file} has no {name or 'test'}"
    for status, code in re.findall(r"(\d{3}) `(\w+)`", line["answer"]):
        assert refusals()[code] == int(status), f"{code} is a {refusals()[code]}"
    for metric in re.findall(r"`(clearinghouse_\w+)", line["metric"]):
        assert f"`{metric}`" in MONITORING
    for code in re.findall(r'code="(\w+)"', line["metric"]):
        assert code in refusals()
    for rule in re.findall(r'rule="(\w+)"', line["metric"]):
        assert rule in {*Rule, *RATES, *Limit}
    settings = {info.name for info in all_settings()}
    assert set(re.findall(r"`((?:policy|listen|limits|chain)\.\w+)`", " ".join(line.values()))) <= settings


def test_every_rule_has_a_line_and_every_attackers_script_is_named() -> None:
    assert {*Rule, *RATES} <= set(re.findall(r'rule="(\w+)"', PAGE))
    scripts = {path.relative_to(ROOT).as_posix() for path in (ROOT / "tests" / "abuses").glob("test_*.py")}
    assert scripts <= set(re.findall(r"`(tests/abuses/\w+\.py)", PAGE))


@pytest.mark.parametrize("path", sorted((ROOT / "tests" / "abuses").glob("test_*.py")), ids=lambda path: path.stem)
def test_an_attackers_script_is_of_the_abuse_its_name_and_its_first_line_say(path: Path) -> None:
    number = int(path.stem[6:8])
    text = path.read_text(encoding="utf-8")
    assert text.startswith(f'"""A{number}: ')
    line = next(line for line in LINES if line["number"] == f"A{number}")
    assert path.name in line["test"]
