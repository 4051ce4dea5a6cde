"""The benchmark itself: that its arithmetic is right, and that a short run goes through with the books in order."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import psycopg
import pytest

from clearinghouse.derivation import derive
from tests.bench.hot_path import Sessions, commit_timed, make_twins, set_gate
from tests.bench.jobs import WrongAnswer, percentile
from tests.bench.month_end import Arrivals, Signed, Window
from tests.bench.offers import FACE_VALUE_WEI, TICKETS_PER_OFFER_MAX, WIN_PROB
from tests.bench.processes import ROOT, clean_environment
from tests.bench.report import Target, costs_of_ways, ways_lines
from tests.bench.scenarios import SCENARIOS, chosen
from tests.bench.webhook_sessions import StateChain, WebhookSession


def test_a_percentile_is_the_nearest_rank() -> None:
    hundred = list(range(1, 101))
    assert [percentile(hundred, percent) for percent in (1, 50, 99, 100)] == [1, 50, 99, 100]
    assert percentile([7], 99) == percentile([7], 1) == 7
    assert percentile([1, 2, 3], 50) == 2


@pytest.mark.parametrize(
    ("is_at_most", "measured", "verdict"),
    [
        (True, 199.0, "reached"),
        (True, 200.0, "reached"),
        (True, 201.0, "MISSED"),
        (False, 201.0, "reached"),
        (False, 200.0, "reached"),
        (False, 199.0, "MISSED"),
        (True, None, "not measured"),
    ],
)
def test_a_target_is_judged_by_its_side_of_the_bound(is_at_most: bool, measured: float | None, verdict: str) -> None:
    assert Target("CPU", 200, is_at_most, measured, "µs").verdict == verdict


def test_a_misspelled_scenario_is_named() -> None:
    with pytest.raises(ValueError, match=r"unknown: hott; known are .*hot"):
        chosen(["direct", "hott"])


def test_a_chain_of_states_is_one_ticket_after_the_other_over_fresh_parameters() -> None:
    chain, base = StateChain(), None
    for call in range(TICKETS_PER_OFFER_MAX + 2):
        state = chain.next_state()
        derived = derive(state, base)
        assert (derived.first_nonce, derived.num_tickets) == (call % TICKETS_PER_OFFER_MAX + 1, 1)
        assert derived.ev_numerator == FACE_VALUE_WEI * WIN_PROB
        assert base is None or (base.pm_session_id == state.pm_session_id) == (derived.first_nonce > 1)
        base = state


def test_a_session_of_the_webhook_shows_its_state_whole_and_goes_on_under_the_auth_id_it_was_given() -> None:
    session = WebhookSession(host="h", authorization="Bearer a", signer_authorization="Bearer s")
    for auth_id in ("", "gw_1/ses_2"):
        head, _, body = session.next_request().partition(b"\r\n\r\n")
        assert f"Content-Length: {len(body)}".encode() in head
        document = json.loads(body)
        assert document["headers"]["Authorization"] == ["Bearer a"]
        assert document["state"]["AuthID"] == auth_id
        session.answered(b'{"status":200,"auth_id":"gw_1/ses_2"}')
    with pytest.raises(WrongAnswer, match="out_of_credit"):
        session.answered(b'{"status":402,"reason":"out_of_credit: nothing is left"}')


def test_the_upstream_call_is_what_a_proxy_costs_above_a_listener() -> None:
    cpu = {"service": 150.0, "postgres": 50.0, "proxy": 90.0, "listener": 40.0}
    asked = {"service": 110.0, "postgres": 55.0}
    each = {name: {"cpu_us": cpu} for name in ("proxy", "listener", "accounts")} | {"webhook": {"cpu_us": asked}}
    assert costs_of_ways(each) == {"proxy": 200, "upstream call": 50, "webhook": 165}
    assert "165 µs per call by webhook; 200 µs as proxy, of which 50" in ways_lines(each)
    assert ways_lines({"accounts": {"cpu_us": cpu}}) == ""


@pytest.mark.slow
def test_a_short_run_measures_everything_and_its_answers_are_those_in_the_ledger(tmp_path: Path) -> None:
    file = tmp_path / "bench.json"
    short = ["--rounds", "1", "--seconds", "0.3", "--warm-up", "0.1", "--callers", "4", "--accounts", "5"]
    done = subprocess.run(
        [sys.executable, "-m", "tests.bench", *short, "--json", str(file)],
        cwd=ROOT, env=clean_environment(), capture_output=True, text=True, timeout=200, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    measured = json.loads(file.read_text(encoding="utf-8"))
    assert set(measured["summary"]) == {scenario.name for scenario in SCENARIOS}
    assert measured["ledger"]["issuances"] == measured["ledger"]["tickets"] > 10
    assert all(target["verdict"] != "not measured" for target in measured["targets"])
    assert measured["summary"]["accounts"]["cpu_us"]["service"] > 10


@pytest.mark.parametrize("rows", [1, 3])
def test_a_commits_twin_does_the_same_but_for_what_coverage_needs(database: str, rows: int) -> None:
    with psycopg.connect(database, autocommit=True) as owner:
        make_twins(owner)
        sessions = Sessions(owner, rows)
        set_gate(owner, "ok", sessions.gateways)
        for twin, expected in (("_bare", (1, 2)), ("", (2, 3))):
            assert min(commit_timed(owner, twin, sessions.next(), is_alone=rows == 1)) > 0
            counts = "SELECT (SELECT count(*) FROM exposure_delta), (SELECT count(*) FROM issuance)"
            assert owner.execute(counts).fetchall() == [tuple(rows * count for count in expected)]


def test_a_short_run_of_the_usage_benchmark_finds_every_answer_right() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tests.bench.usage_rollups", "--issuances", "5000"],
        cwd=ROOT, env=clean_environment(), capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "30 days by day and application over 5,000 issuances, all equal to their sums:" in done.stdout


def test_changes_at_stripe_are_counted_in_every_second_whenever_it_begins() -> None:
    arrivals = Arrivals([0.0, 0.5, 1.0, 1.4, 2.6])
    assert arrivals.most_in_a_second() == 3
    assert arrivals.per_s([Window(0.0, 1.0), Window(2.0, 4.0)]) == 1.0


def test_what_signing_took_is_told_apart_by_when_it_was() -> None:
    signed = Signed([(0.5, 10.0), (1.5, 20.0), (2.0, 30.0)])
    assert signed.within(Window(0.0, 1.0), Window(2.0, 3.0)) == [10.0, 30.0]
