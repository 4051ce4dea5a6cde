"""`clearinghouse coverage simulate` as it is run."""

from __future__ import annotations

import json
import re
import shlex
from fractions import Fraction
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
import typer
from click.testing import Result
from typer.testing import CliRunner

from clearinghouse.cli import app, quantities
from clearinghouse.cli.coverage_plot import deposit_svg

ROOT = Path(__file__).parents[3]
QUICK = ["--runs", "1500", "--ruin-probability", "0.01", "--horizon", "2d"]


def simulate(*arguments: str) -> Result:
    return CliRunner().invoke(app, ["coverage", "simulate", *arguments])


def answered(*arguments: str) -> Any:
    result = simulate(*QUICK, *arguments, "--json")
    assert result.exit_code == 0, result.stderr
    assert result.stderr == ""
    return json.loads(result.stdout)


def test_the_same_seed_gives_the_same_bytes_and_another_one_does_not() -> None:
    first, again = simulate(*QUICK, "--json"), simulate(*QUICK, "--json")
    assert first.exit_code == 0
    assert first.stdout == again.stdout
    assert simulate(*QUICK, "--json", "--seed", "2").stdout != first.stdout


def test_amounts_are_exact_wei_in_json_and_what_was_asked_is_what_is_judged() -> None:
    document = answered("--deposit", "0.3eth", "--reserve", "1200000000gwei")
    assert document["funds"] == {"deposit_wei": "300000000000000000", "reserve_wei": "1200000000000000000"}
    assert document["quoted_face_value_max_wei"] == "12000000000000000"
    assert document["ruin"]["played"]["value"] > 0.9
    assert document["do_computed_and_played_agree"]
    assert int(document["recommended"]["deposit_wei"]) > int(document["needed"]["played"]["wei"])


def test_ten_times_the_price_burns_ten_times_as_much() -> None:
    one, ten = answered("--price", "20"), answered("--price", "200")
    assert int(ten["fees_per_day_wei"]) == 10 * int(one["fees_per_day_wei"])
    assert int(ten["burn_per_day"]["computed_wei"]) == pytest.approx(
        10 * int(one["burn_per_day"]["computed_wei"]), rel=0.3
    )


@pytest.mark.parametrize("job", ["live", "fixed"])
def test_other_job_types_have_prices_of_their_own(job: str) -> None:
    assert answered("--job", job, "--price", "1gwei")["fees_per_day_wei"] == str(10**9 * 1_000 * 86_400)


def test_the_table_has_both_computations_and_says_whether_they_agree() -> None:
    result = simulate(*QUICK, "--deposit", "0.3eth", "--reserve", "0")
    assert result.exit_code == 0
    for text in ("played, steady demand", "deposit exhausted in 2 days", "computed and played agree  ", "0.300000 ETH"):
        assert text in result.stdout
    assert "less than the plan's 0.012000 ETH" in result.stdout


def test_the_plot_falls_from_the_deposit_to_nothing_and_is_svg(tmp_path: Path) -> None:
    file = tmp_path / "deposit.svg"
    assert simulate(*QUICK, "--deposit", "0.3eth", "--plot", str(file)).exit_code == 0
    drawing = ElementTree.fromstring(file.read_text(encoding="utf-8"))
    *_, line = drawing.findall("{http://www.w3.org/2000/svg}polyline")  # the others are the grid
    heights = [float(point.split(",")[1]) for point in line.attrib["points"].split()]
    assert heights == sorted(heights)  # y grows downwards
    assert (heights[0], heights[-1]) == (50, 350)


@pytest.mark.parametrize(
    ("deposit_wei", "step_s"), [(0, 300.0), (1, 86_400.0), (10**25, 15.0), (7 * 10**17, 131_000.0)]
)
def test_any_deposit_and_horizon_can_be_drawn(deposit_wei: int, step_s: float) -> None:
    drawing = deposit_svg(deposit_wei, ([0, 1], [0, 2], [0, 3]), step_s)
    places = [float(number) for number in re.findall(r'(?:x|y|x1|y1)="([0-9.-]+)"', drawing)]
    assert min(places) >= 0
    assert max(places) <= 720
    assert 6 <= drawing.count("<text") <= 25


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--price", "cheap"], "'cheap' is not an amount such as"),
        (["--price", "-5"], "'-5' is not an amount such as"),
        (["--deposit", "3 btc"], "unknown unit; there are wei, gwei and eth"),
        (["--deposit", "0.5"], "a part of a wei"),
        (["--horizon", "7"], "needs one of the units s, m, h and d"),
        (["--horizon", "2y"], "needs one of the units s, m, h and d"),
        (["--horizon", "5m"], "a horizon must be within 3600"),
        (["--demand-variation", "50d"], "write the number alone"),
        (["--job", "dead"], "none of the job types lv2v, live, fixed"),
        (["--plot", "deposit.png"], "does not end in .svg"),
        (["--plot", "nowhere/deposit.svg"], "there is no directory nowhere"),
        (["--sessions", "0"], "Invalid value: --sessions must be above 0"),
        (["--pool-size", "0"], "Invalid value: --pool-size must be above 0"),
        (["--ruin-probability", "0"], "must be above 0 and below 1"),
        (["--ruin-probability", "0.00001"], "it takes 1000000"),
        (["--runs", "1000000"], "1 to 100000 runs"),
        (["--ticket-ev", "0"], "above 0 and at most its face value"),
    ],
)
def test_what_is_wrong_on_the_command_line_is_named(arguments: list[str], message: str) -> None:
    result = simulate(*arguments)
    assert (result.exit_code, result.stdout) == (2, "")
    assert message in " ".join(re.sub(r"[│╭╮╰╯─]", " ", result.stderr).split())


def test_quantities_are_read_exactly() -> None:
    assert quantities.amount_wei("0.012eth") == 12 * 10**15
    assert quantities.amount_wei("1.000000001 GWEI") == 10**9 + 1
    assert quantities.price_wei("0.1") == Fraction(1, 10)
    assert [quantities.duration_s(text) for text in ("1.5h", "90s", "7d", "2m")] == [5_400, 90, 604_800, 120]
    for text in ("", "1e5", "1,5eth", "٣", "nan", "1eth eth"):
        with pytest.raises(typer.BadParameter):
            quantities.amount_wei(text)


def test_the_commands_of_the_page_and_the_help_run() -> None:
    page = (ROOT / "docs" / "coverage.md").read_text(encoding="utf-8")
    helped = simulate("--help").stdout
    for text in (page, helped):
        commands = re.findall(r"^\s*clearinghouse coverage simulate(.*)$", text, re.MULTILINE)
        assert len(commands) >= 3
        for command in commands:
            arguments = shlex.split(re.sub(r"\s(\||#|--plot \S+).*", "", command))
            quick = ["--runs", "1000", "--ruin-probability", "0.01"]
            result = simulate(*arguments, *quick)
            assert result.exit_code == 0, (command, result.stderr)
