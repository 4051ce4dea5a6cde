"""`make devnet`, as whoever tries it out uses it: processes and commands, and a chain that pays."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.devnet import terms
from tests.parts import processes
from tests.parts.devnet_tried import Tried, devnet_tried, start
from tests.parts.program import ROOT, new_home, wait_until

pytestmark = pytest.mark.slow

FACE_VALUE_WEI = terms.ONE_IN_TEN.face_value_wei


@pytest.fixture
def tried() -> Iterator[Tried]:
    """A devnet that runs, in which rounds begin by command."""
    with devnet_tried("--round-s", "0", "--json") as tried:
        tried.facts = json.loads(tried.program.wait_for(r"^\{.*\}$", source="out")[0])
        yield tried


def test_tickets_are_signed_win_and_are_redeemed_from_the_deposit(tried: Tried) -> None:
    paid = tried.json("devnet", "pay", "30", "--session", "mine")
    assert [receipt["num_tickets"] for receipt in paid["payments"]] == [10] * 30
    assert paid["winners_waiting"] > 0, "300 tickets of which one in ten wins: 1 in 10^13 that none does"
    before = tried.json("devnet", "status")
    done = tried.json("devnet", "redeem")
    assert (done["redeemed"], done["winners_waiting"], done["refused"]) == (paid["winners_waiting"], 0, {})
    assert int(done["paid_wei"]) == done["redeemed"] * FACE_VALUE_WEI
    assert int(before["deposit_wei"]) - int(done["deposit_wei"]) == int(done["paid_wei"])

    def matched() -> list[tuple[Any, ...]]:
        return tried.query("SELECT status, count(*) FROM winning_ticket GROUP BY status")

    wait_until(lambda: matched() == [("matched", done["redeemed"])], "every redemption to be matched")


def test_coverage_falls_new_sessions_are_refused_and_with_funds_service_resumes(tried: Tried) -> None:
    tried.json("devnet", "pay", "46", "--session", "mine")
    tried.until_level("ok")
    covered_bps = tried.until_snapshot(lambda it: it["open_tickets"] == 460, "of all tickets")["coverage_bps"]
    tried.json("devnet", "redeem")
    # Low is from 0.00095 to 0.00104 ETH, however lucky the tickets of before were: a step takes 0.00005 at most.
    tried.json("devnet", "drain", "--to", "0.00103eth", "--session", "mine")
    tried.until_level("low")
    issued = tried.query("SELECT count(*), sum(charge) FROM issuance")
    refused = tried.json("devnet", "pay", code=1)
    assert (refused["payments"], refused["refused"]["code"]) == ([], "coverage_low")
    assert tried.query("SELECT count(*), sum(charge) FROM issuance") == issued, "a refusal costs nothing"
    assert len(tried.json("devnet", "pay", "2", "--session", "mine")["payments"]) == 2
    tried.until_snapshot(lambda it: it["coverage_bps"] < covered_bps * 2 // 3, "that is lower")

    tried.json("devnet", "fund", "--deposit", "0.002eth")
    tried.until_level("ok")
    assert tried.json("devnet", "pay")["refused"] is None

    tried.json("devnet", "unlock")
    tried.until_level("critical")
    assert tried.json("devnet", "pay", code=1)["refused"]["code"] == "coverage_low"
    assert tried.json("devnet", "pay", "--session", "mine", code=1)["refused"]["code"] == "coverage_critical"
    tried.json("devnet", "lock")
    tried.until_level("ok")
    assert tried.json("devnet", "pay", "--session", "mine")["refused"] is None

    assert tried.run("clearinghouse", "ledger", "verify").returncode == 0
    assert tried.query("SELECT DISTINCT status FROM winning_ticket") == [("matched",)]
    assert tried.query("SELECT * FROM exposure_difference()") == []


def test_ctrl_c_ends_all_of_it_and_the_next_start_is_a_fresh_one(tried: Tried) -> None:
    tried.json("devnet", "pay", "3", "--session", "mine")
    second = start(tried.home)
    assert second.wait() == 1
    assert "a devnet runs in" in second.log
    tried.program.interrupt()
    assert tried.program.wait() == 0, tried.program.story
    assert processes.left_in(tried.home.folder) == [], tried.program.story
    assert "Traceback" not in tried.program.log, tried.program.story
    assert tried.run("devnet", "status").stderr.startswith("no_devnet")

    third = start(tried.home, "--json")
    third.wait_for(r"^\{.*\}$", source="out")
    assert tried.json("devnet", "status")["tickets"] == 0
    assert tried.query("SELECT count(*) FROM issuance") == [(0,)]


def test_a_devnet_that_was_killed_is_followed_by_one_that_cleans_up(tried: Tried) -> None:
    tried.program.kill()
    third = start(tried.home, "--json")
    third.wait_for(r"^\{.*\}$", source="out")
    assert tried.json("devnet", "pay")["refused"] is None


def test_a_folder_that_is_somebody_elses_is_left_alone() -> None:
    with new_home() as home:
        (home.folder / ".clearinghouse-devnet").mkdir()
        precious = home.folder / ".clearinghouse-devnet" / "precious"
        precious.write_text("x", encoding="utf-8")
        program = start(home)
        assert program.wait() == 1
        assert "was not made by a devnet" in program.log
        assert precious.exists()


def test_without_node_it_says_so_and_where_to_get_it(tmp_path: Path) -> None:
    """`make devnet` itself, where nothing is installed yet and there is no npm."""
    make = shutil.which("make")
    if make is None:
        pytest.skip("make is not installed")
    programs = tmp_path / "bin"
    programs.mkdir()
    (programs / "sh").symlink_to("/bin/sh")
    done = subprocess.run(
        ["make", "-C", str(ROOT), "devnet", f"DEVNET={tmp_path}", f"VENV={tmp_path}"],
        env={**os.environ, "PATH": str(programs)}, executable=make, capture_output=True, text=True, timeout=60,
        check=False,
    )  # fmt: skip
    assert done.returncode != 0
    assert "needs npm, which comes with Node.js" in done.stderr
    assert list(tmp_path.iterdir()) == [programs], "nothing was installed"


# --- the page ---------------------------------------------------------------------------------------------------------

PAGE = (ROOT / "docs" / "devnet.md").read_text(encoding="utf-8")
#: What differs from run to run. On the page `…` stands for any text, and on a line of its own for any lines.
VARIES = re.compile(r"0x[0-9a-fA-F]+|lpch_\S+|[0-9][0-9.]*")


@dataclass(frozen=True)
class Shown:
    """A command of the page, and what it is said to print."""

    command: str
    output: str

    def is_like(self, said: str) -> bool:
        return re.fullmatch(self._pattern(), _masked(said)) is not None

    def _pattern(self) -> str:
        lines = ["(?:.*\n)*" if line == "…" else f"{'.*'.join(map(re.escape, line.split('…')))}\n"
                 for line in _masked(self.output).splitlines()]  # fmt: skip
        return "".join(lines)


def _masked(text: str) -> str:
    here = text.replace(str(Path(sys.executable).parent), ".venv/bin").strip()
    lines = [" ".join(VARIES.sub("#", line).split()) for line in here.splitlines()]
    return "\n".join(lines) + "\n"


def shown_on_the_page() -> list[Shown]:
    shown = []
    for block in re.findall(r"^```console\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL):
        for part in re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]:
            line, _, output = part.partition("\n")
            shown.append(Shown(line, output))
    return shown


@pytest.mark.timeout(900)
def test_the_page_shows_what_one_really_gets() -> None:
    started, *typed = shown_on_the_page()
    assert started.command == "make devnet"
    assert len(typed) > 15, "the page was read"
    with devnet_tried() as tried:
        tried.program.wait_for("Ctrl-C stops all of it", source="out")
        assert started.is_like(tried.program.out), tried.program.out
        for shown in typed:
            program, *arguments = shown.command.removeprefix(".venv/bin/").split()
            # What only looks is asked again until it has heard of what was done.
            patience_s = 60 if program == "clearinghouse" else 0
            give_up_at_s = time.monotonic() + patience_s
            while not shown.is_like(said := _said(tried, program, *arguments)):
                assert time.monotonic() < give_up_at_s, f"$ {shown.command}\n{said}\nis not\n{shown.output}"


def _said(tried: Tried, *line: str) -> str:
    done = tried.run(*line)
    return done.stdout + done.stderr
