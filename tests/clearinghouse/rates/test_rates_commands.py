"""`clearinghouse rates`, and the page about rate cards, which must be true."""

from __future__ import annotations

import json
import re
from decimal import Decimal
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from clearinghouse.cli import app
from clearinghouse.rates.card import SPECIFICITY, Floor
from clearinghouse.rates.document import document, read_toml
from clearinghouse.rates.units import Per

PAGE = (Path(__file__).parents[3] / "docs" / "rates.md").read_text(encoding="utf-8")
EXAMPLE = re.findall(r"^```toml\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)[0]


def rates(*arguments: str) -> Result:
    return CliRunner().invoke(app, ["rates", *arguments], env={"COLUMNS": "200", "NO_COLOR": "1"})


@pytest.fixture
def file(tmp_path: Path) -> str:
    path = tmp_path / "standard.toml"
    path.write_text(EXAMPLE, encoding="utf-8")
    return str(path)


@pytest.mark.parametrize("command", ["check", "quote"])
def test_every_command_shows_how_it_is_used_by_an_example(command: str) -> None:
    answer = rates(command, "--help")
    assert answer.exit_code == 0
    assert re.search(rf"Examples?:[^:]*clearinghouse rates {command}", answer.output)


def test_the_pages_example_is_a_card_and_says_what_the_page_says_of_it() -> None:
    card = read_toml(EXAMPLE)
    assert {rate.per for rate in card.rates} == {Per.COST, Per.MINUTE, Per.PIXEL_SECOND, Per.REQUEST}
    assert card.rate("any", "other", "m").tiers[0].price == Decimal("1.05")
    assert card.rate("studio", "live-video-to-video", "m").per is Per.PIXEL_SECOND
    assert [rate.pipeline for rate in card.rates if rate.floor is Floor.NONE] == ["text-to-image"]


def test_the_page_has_every_unit_floor_and_the_order_of_the_kinds() -> None:
    assert all(f"`{value}`" in PAGE for value in (*Per, *Floor))
    stated = re.search(r"so the order is: (.*?)\. ", PAGE, re.DOTALL)
    assert stated is not None
    kinds = [re.findall(r"application|pipeline|model", part) for part in stated[1].split(";")]
    names = ("application", "pipeline", "model")
    wanted = [[name for name, has in zip(names, kind, strict=True) if has] for kind in SPECIFICITY]
    assert kinds == [[], *wanted[1:]], "the first is written as: all three"


def test_a_card_without_mistakes_is_summed_up(file: str) -> None:
    assert rates("check", file).output.split("\n")[1].split() == [
        "standard", "1", "USD", "2026-12-01T00:00:00.000000Z", "4",
    ]  # fmt: skip
    (item,) = json.loads(rates("check", file, "--json").stdout)["items"]
    assert item["rates"] == 4
    assert re.fullmatch("[0-9a-f]{64}", item["sha256"])


def test_mistakes_are_told_with_file_line_and_field(file: str, tmp_path: Path) -> None:
    other = tmp_path / "wrong.json"
    shown = document(read_toml(EXAMPLE))
    shown["rates"][1]["per"] = "hour"
    other.write_text(json.dumps(shown, indent=1), encoding="utf-8")
    answer = rates("check", file, str(other))
    assert answer.exit_code == 1
    assert "wrong.json, line 14: rates[1].per is one of cost, second, minute" in answer.stderr


def test_versions_that_do_not_go_together_are_told(file: str) -> None:
    answer = rates("check", file, file)
    assert answer.exit_code == 1
    assert "two versions 1" in answer.stderr


def test_a_quote_says_what_it_follows_from(file: str) -> None:
    call = ("--pipeline", "live-video-to-video", "--seconds", "120", "--ev", "2000gwei", "--eth-price", "3120.50")
    answer = rates("quote", file, *call, "--after", "9999")
    assert answer.exit_code == 0, answer.output
    assert dict(re.split(r"  +", line, maxsplit=1) for line in answer.output.strip().split("\n")) == {
        "rate card": "standard, version 1",
        "rate": "minute:*/live-video-to-video/*",
        "quantity": "2 (after 9999)",
        "": "1 at 0.08 = 0.08",
        "floor": "period",
        "by usage": "0.18 USD",
        "minimum charge": "0 USD",
        "rated": "0.18 USD",
        "cost": "0.006241 USD",
        "by the floor": "0 USD",
        "charge": "0.18 USD",
        "margin": "0.173759 USD",
    }
    assert "1 at 0.10 = 0.1\n" in answer.output
    assert json.loads(rates("quote", file, *call, "--json").stdout)["charge"] == "0.2"


def test_a_quote_below_cost_is_for_plans_that_allow_it(file: str) -> None:
    call = ("quote", file, "--pipeline", "text-to-image", "--ev", "0.001eth", "--eth-price", "3000", "--json")
    assert json.loads(rates(*call).stdout)["charge"] == "3"
    assert json.loads(rates(*call, "--plan-allows-below-cost").stdout)["charge"] == "0"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--pipeline", "live-video-to-video"), "which was not measured of this call"),
        (("--ev", "1eth"), "--eth-price"),
        (("--ev", "1eth", "--eth-price", "99999999999999"), "--eth-price"),
        (("--pipeline", "text-to-image", "--after", "0.5"), "--after"),
        (("--seconds", "0.0000000001"), "--seconds"),
    ],
)
def test_a_quote_that_cannot_be_made_says_why(file: str, options: tuple[str, ...], message: str) -> None:
    answer = rates("quote", file, *options)
    assert answer.exit_code != 0
    assert message in answer.stderr


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    assert "none.toml cannot be read: No such file" in rates("check", str(tmp_path / "none.toml")).stderr
    binary = tmp_path / "binary.toml"
    binary.write_bytes(b"\xff\xfe")
    assert "binary.toml is not UTF-8" in rates("check", str(binary)).stderr
