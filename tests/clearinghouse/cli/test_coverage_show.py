"""`clearinghouse coverage` as operators run it: the table, JSON, and curves, over snapshots of a real evaluation."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import psycopg
import pytest
from click.testing import Result
from typer.testing import CliRunner

from chain.chain_reading import Lock
from chain.signatures import checksum_address
from chain.tickets import WIN_PROB_CERTAIN
from clearinghouse.cli import app
from tests.parts.covered import ETHER, OTHER_SENDER, SENDER, Books, Escrows, Watching, escrow_of, watching

SVG = "{http://www.w3.org/2000/svg}"
SHOWN = checksum_address(SENDER)


async def snapshot(over: Watching) -> None:
    async with asyncio.timeout(20):
        had = len(over.heard.snapshots)
        while len(over.heard.snapshots) < had + len(over.escrows.senders()):
            await over.turn()
            await asyncio.sleep(0.05)


@pytest.fixture
def books(database: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Books]:
    monkeypatch.setenv("CLEARINGHOUSE_DATABASE_URL", database)
    with psycopg.connect(database, autocommit=True) as owner:
        yield Books(owner)


def evaluated(database: str, escrows: Escrows | None = None, **settings: Any) -> None:
    async def evaluate() -> None:
        async with watching(database, escrows, snapshot_s=0.1, **settings) as over:
            await snapshot(over)

    asyncio.run(evaluate())


def coverage(*arguments: str) -> Result:
    return CliRunner().invoke(app, ["coverage", *arguments])


def test_before_anything_was_evaluated_it_says_who_does_it(books: Books) -> None:
    result = coverage()
    assert (result.exit_code, result.stdout.count("\n")) == (0, 1)
    assert "`clearinghouse serve`" in result.stdout
    assert json.loads(coverage("--json").stdout) == {"items": []}


def test_one_number_is_on_top_and_everything_it_comes_from_is_below(database: str, books: Books) -> None:
    books.issue(books.new_gateway(), face_value_wei=ETHER // 100, win_prob=WIN_PROB_CERTAIN // 10**6, num_tickets=10**8)
    evaluated(database)
    result = coverage()
    assert result.exit_code == 0, result.stderr
    first, *rest = result.stdout.splitlines()
    assert first == f"{SHOWN}  7.63 × covered · ok"
    text = "\n".join(rest)
    for shown in (
        "10.000000 ETH", "5.000000 ETH, 0.050000 ETH for an orchestrator", "100,000,000, the largest of 0.010000 ETH",
        "1.000000 ETH ± 0.100000 ETH", "by 0 redemptions", "block 100, round 3500", "empty, half of the time",
        "lasts 7 days with 99.9 %",
    ):  # fmt: skip
        assert shown in text, f"{shown!r} is not in\n{result.stdout}"
    (item,) = json.loads(coverage("--json").stdout)["items"]
    assert (item["sender"], item["level"], item["is_known"]) == (SHOWN, "ok", True)
    assert item["snapshot"]["coverage_bps"] == 76_335
    assert item["snapshot"]["expected_wei"] == str(10**18)
    assert [window["window_s"] for window in item["snapshot"]["outlook"]["windows"]] == [3600, 21600, 86400, 604800]


def test_what_is_simulated_leaving_or_not_known_says_so_loudly(database: str, books: Books) -> None:
    books.issue(books.new_gateway())
    escrows = Escrows({SENDER: escrow_of(simulated=True, lock=Lock.UNLOCKING, block_number=None)})
    evaluated(database, escrows)
    books.expire_gates()
    text = coverage().stdout
    assert "SIMULATED" in text.splitlines()[0]
    assert "NOT KNOWN" in text.splitlines()[0]
    assert "UNLOCKING: counts as gone" in text


def test_who_has_claimed_of_the_reserve_is_listed_with_what_it_can_quote_and_what_it_asked(
    database: str, books: Books
) -> None:
    """Of 5.06 ETH that a hundred share: 0.0506 each."""
    gateway, read, unread = books.new_gateway(), b"\x0a" * 20, b"\x0b" * 20
    for recipient in (read, unread):
        books.issue(gateway, recipient=recipient, face_value_wei=ETHER // 100)
    escrow = escrow_of(claimed_in_round_wei=6 * ETHER // 100, claimed_by_wei={read: 4 * ETHER // 100})
    evaluated(database, Escrows({SENDER: escrow}))
    lines = [re.split(r"\s{2,}", line.strip()) for line in coverage().stdout.splitlines()]
    assert [checksum_address(read), "0.040000 ETH", "0.010600 ETH", "0.010000 ETH"] in lines
    assert [checksum_address(unread), "≤ 0.060000 ETH", "0.000000 ETH", "0.010000 ETH", "too much"] in lines
    (shown,) = json.loads(coverage("--json").stdout)["items"]
    assert [each["asks_too_much"] for each in shown["snapshot"]["orchestrators"]] == [False, True]


def test_a_sender_can_be_chosen_and_must_be_for_a_drawing(database: str, books: Books, tmp_path: Path) -> None:
    evaluated(database, Escrows({SENDER: escrow_of(), OTHER_SENDER: escrow_of(OTHER_SENDER)}))
    assert len(json.loads(coverage("--json").stdout)["items"]) == 2
    (item,) = json.loads(coverage("--json", "--sender", SHOWN.lower()).stdout)["items"]
    assert item["sender"] == SHOWN
    refused = coverage("--plot", str(tmp_path / "all.svg"))
    assert refused.exit_code != 0
    assert checksum_address(OTHER_SENDER) in refused.stderr
    assert coverage("--plot", str(tmp_path / "one.svg"), "--sender", SHOWN).exit_code == 0


def put_back(database: str, minutes: int) -> None:
    """All snapshots were taken so much earlier."""
    with psycopg.connect(database, autocommit=True) as owner:
        owner.execute("UPDATE coverage_snapshot SET observed_at = observed_at - make_interval(mins => %s)", [minutes])


def test_the_drawing_shows_the_deposit_fall_below_what_must_be_covered(
    database: str, books: Books, tmp_path: Path
) -> None:
    books.issue(books.new_gateway(), face_value_wei=ETHER, win_prob=WIN_PROB_CERTAIN)
    for deposit in (10, 6, 1):
        put_back(database, 4)
        evaluated(database, Escrows({SENDER: escrow_of(deposit_wei=deposit * ETHER)}))
    svg, png = tmp_path / "c.svg", tmp_path / "c.png"
    result = coverage("--plot", str(svg), "--since", "1d", "--json")
    assert result.exit_code == 0, result.stderr
    assert json.loads(result.stdout) == {"file": str(svg), "sender": SHOWN, "points": 3}
    *_, need, _, deposits = [
        [float(place.split(",")[1]) for place in line.attrib["points"].split()]
        for line in ElementTree.fromstring(svg.read_text(encoding="utf-8")).findall(f"{SVG}polyline")
        if line.attrib["stroke-width"] == "2"
    ]
    assert deposits[0] < need[0], "up is less"
    assert deposits == sorted(deposits)
    assert deposits[-1] > need[-1]
    assert coverage("--plot", str(png)).exit_code == 0
    head = png.read_bytes()[:24]
    assert head[:8] == b"\x89PNG\r\n\x1a\n"
    assert (int.from_bytes(head[16:20], "big"), int.from_bytes(head[20:24], "big")) == (1440, 800)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--plot", "x.jpg"], "neither .svg nor .png"),
        (["--plot", "x.svg"], "no such sender was evaluated"),
        (["--plot", "x.svg", "--watch"], "do not go together"),
        (["--sender", "nobody"], "address"),
    ],
)
def test_what_cannot_be_shown_is_said(books: Books, arguments: list[str], message: str) -> None:
    result = coverage(*arguments)
    assert result.exit_code != 0
    assert message in " ".join(result.stderr.split())
