"""Metrics: what a scrape shows after what happened."""

from __future__ import annotations

import ast
import math
import re
import typing
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry, generate_latest

from chain.rpc import Failure
from clearinghouse.chain_watch import ChainObserver, Poll
from clearinghouse.config import Settings
from clearinghouse.connections import Connections
from clearinghouse.errors import OutOfCredit, Refusal
from clearinghouse.metrics import SIGNER_STATUSES, STANDINGS, Metrics, Route, Stage, refusal_codes
from clearinghouse.policy import Rule
from clearinghouse.shares import Shares
from clearinghouse.signers.health import Standing
from clearinghouse.signers.pool import PoolObserver
from settlement.billing_watch.metrics import BillingMetrics
from settlement.jobs import jobs_of
from settlement.stripe_link.inbox_metrics import InboxMetrics
from settlement.work_metrics import WorkMetrics

ROOT = Path(__file__).parents[2]


@pytest.fixture
def metrics() -> Metrics:
    return Metrics(CollectorRegistry(), version="1.2.3")


def sample(metrics: Metrics, name: str, **labels: str) -> float | None:
    return metrics.registry.get_sample_value(f"clearinghouse_{name}", labels)


def series(metrics: Metrics) -> set[str]:
    lines = generate_latest(metrics.registry).decode().splitlines()
    return {line.rpartition(" ")[0] for line in lines if not line.startswith("#")}


def test_everything_with_known_labels_is_there_from_the_start_at_zero(metrics: Metrics) -> None:
    assert sample(metrics, "answers_total", route="generate_live_payment") == 0
    assert sample(metrics, "refusals_total", route="sign_ticket", code="out_of_credit") == 0
    assert sample(metrics, "stage_seconds_count", stage="commit") == 0
    assert sample(metrics, "signer_answers_total", status="480") == 0


def test_calls_make_no_new_series_whatever_they_contain(metrics: Metrics) -> None:
    before = series(metrics)
    for index in range(100):
        metrics.answered(f"route_{index}")
        metrics.refused(f"route_{index}", OutOfCredit.code)
        metrics.refused("sign_ticket", f"code_{index}")
        metrics.signer_answered(600 + index)
    assert series(metrics) == before
    assert sample(metrics, "answers_total", route="other") == 100
    assert sample(metrics, "refusals_total", route="other", code="out_of_credit") == 100
    assert sample(metrics, "refusals_total", route="sign_ticket", code="other") == 100
    assert sample(metrics, "signer_answers_total", status="other") == 100


def test_every_refusal_has_a_series_of_its_own(metrics: Metrics) -> None:
    assert {"out_of_credit", "database_unavailable", "refresh_session", "gateway_suspended"} <= set(refusal_codes())
    for code in {*refusal_codes(), "internal_error"}:
        metrics.refused("generate_live_payment", code)
        assert sample(metrics, "refusals_total", route="generate_live_payment", code=code) == 1


def test_a_refusal_made_up_after_the_start_is_counted_as_other(metrics: Metrics) -> None:
    class MadeUp(Refusal):
        code, http_status, what_next = "made_up", 400, "Nothing."

    metrics.refused("sign_ticket", MadeUp.code)
    assert sample(metrics, "refusals_total", route="sign_ticket", code="other") == 1


def test_stages_add_up_to_the_total_and_overhead_is_the_total_without_the_signer(metrics: Metrics) -> None:
    stages = metrics.stages(metrics.now_s() - 0.5)
    stages.done("decode")
    stages.signed()
    overhead_s = stages.overhead_s()

    def sum_of(stage: str) -> float:
        value = sample(metrics, "stage_seconds_sum", stage=stage)
        assert value is not None
        return value

    assert sum_of("decode") == pytest.approx(0.5, abs=0.1)
    assert sum_of("total") >= sum_of("decode") + sum_of("sign")
    assert sum_of("overhead") == overhead_s == pytest.approx(sum_of("total") - sum_of("sign"))
    assert sample(metrics, "stage_seconds_count", stage="total") == 1


def test_a_stage_that_does_not_exist_is_a_bug(metrics: Metrics) -> None:
    with pytest.raises(KeyError):
        metrics.stages(metrics.now_s()).done("breakfast")


def test_commits_tell_their_rows_time_and_retries(metrics: Metrics) -> None:
    metrics.commit(rows=3, elapsed_s=0.002)
    metrics.commit_retried()
    assert sample(metrics, "commit_rows_sum") == 3
    assert sample(metrics, "commit_rows_bucket", le="2.0") == 0
    assert sample(metrics, "commit_rows_bucket", le="4.0") == 1
    assert sample(metrics, "commit_seconds_sum") == 0.002
    assert sample(metrics, "commit_retries_total") == 1


def test_released_tickets_replays_calls_in_flight_and_restarts_are_counted(metrics: Metrics) -> None:
    metrics.in_flight_count += 1
    metrics.released(num_tickets=7)
    metrics.replayed()
    metrics.embedded_database_restarted()
    assert sample(metrics, "calls_in_flight") == 1
    assert sample(metrics, "tickets_total") == 7
    assert sample(metrics, "replays_total") == 1
    assert sample(metrics, "embedded_database_restarts_total") == 1


def test_a_pool_member_has_one_standing_at_a_time(metrics: Metrics) -> None:
    observer: PoolObserver = metrics
    for standing in Standing:
        observer.standing_changed("signer-1", standing)
        shown = {
            known: sample(metrics, "signer_member_standing", member="signer-1", standing=known) for known in Standing
        }
        assert shown == {known: float(known is standing) for known in Standing}
    assert set(STANDINGS) == set(Standing)


def test_attempts_are_counted_by_member_and_outcome(metrics: Metrics) -> None:
    metrics.attempt_ended("signer-1", "generate-live-payment", "timed_out", 1.2)
    assert sample(metrics, "signer_attempts_total", member="signer-1", outcome="timed_out") == 1
    assert sample(metrics, "signer_attempt_seconds_sum", member="signer-1") == 1.2


def test_the_age_of_a_price_is_read_at_the_scrape(metrics: Metrics) -> None:
    ages: list[float | None] = [1.0]
    metrics.prices.watch_price("USD", lambda: ages[0])
    assert sample(metrics, "price_age_seconds", currency="USD") == 1
    ages[0] = 400.0
    assert sample(metrics, "price_age_seconds", currency="USD") == 400
    ages[0] = None
    assert sample(metrics, "price_age_seconds", currency="USD") is None


def test_two_services_in_one_process_do_not_share_metrics() -> None:
    first, second = (Metrics(CollectorRegistry(), version="1") for _ in range(2))
    first.replayed()
    assert (sample(first, "replays_total"), sample(second, "replays_total")) == (1, 0)


def test_the_version_is_shown(metrics: Metrics) -> None:
    assert sample(metrics, "build_info", version="1.2.3") == 1


def names_passed(method: str) -> set[str]:
    """String literals that our code passes as the first argument of a method of this name."""
    found = set()
    for path in (ROOT / "clearinghouse").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == method:
                found |= {arg.value for arg in node.args[:1] if isinstance(arg, ast.Constant)}
    return typing.cast("set[str]", found)


def test_every_stage_and_route_that_the_code_names_is_known() -> None:
    assert names_passed("answered") | names_passed("refused") <= {*Route}
    assert names_passed("done") <= {*Stage}


def test_every_metric_is_explained_for_operators(metrics: Metrics) -> None:
    page = (ROOT / "docs" / "monitoring.md").read_text(encoding="utf-8")
    metrics.prices.watch_price("USD", lambda: 1.0)
    metrics.watch_connections(Connections(8))
    metrics.watch_grpc(Connections(8), Shares(8))
    WorkMetrics(metrics.registry, jobs=["ledger-verify"])  # on a port of its own, and on the same page
    jobs_of(Settings.model_validate({"stripe": {"api_key": "sk_test_local_clearinghouse"}}), metrics.registry)
    InboxMetrics(metrics.registry)
    BillingMetrics(metrics.registry)
    kinds = {"counter": "_total", "info": "_info"}
    shown = {family.name + kinds.get(family.type, "") for family in metrics.registry.collect()}
    explained = set(re.findall(r"`(clearinghouse_\w+)`", page))
    assert explained == shown


def test_statuses_of_signers_are_those_that_become_refusals() -> None:
    from clearinghouse.signers.refusals import _BY_STATUS

    assert set(SIGNER_STATUSES) == {200, 480, *_BY_STATUS}


def test_every_rule_of_the_policy_is_counted_and_nothing_else_makes_a_series(metrics: Metrics) -> None:
    before = series(metrics)
    for rule in Rule:
        metrics.refused("sign_ticket", "ticket_not_allowed", rule=rule)
        assert sample(metrics, "rule_refusals_total", rule=rule.value) == 1
    for rule in ("made_up", None, 7):
        metrics.refused("sign_ticket", "ticket_not_allowed", rule=rule)
    assert series(metrics) == before


def test_how_the_chain_is_read_has_its_series_from_the_start_and_every_outcome_is_explained(metrics: Metrics) -> None:
    observer: ChainObserver = metrics.chain
    observer.chain_polled(Poll.READ)
    assert [sample(metrics, "chain_polls_total", outcome=outcome) for outcome in Poll] == [1, 0, 0]
    page = (ROOT / "docs" / "monitoring.md").read_text(encoding="utf-8")
    (line,) = [line for line in page.splitlines() if line.startswith("| `clearinghouse_rpc_requests_total` |")]
    assert [failure.value for failure in Failure if failure.value not in line] == []


def test_a_chain_that_was_never_read_is_infinitely_old_and_without_one_there_is_no_age(metrics: Metrics) -> None:
    assert sample(metrics, "chain_reading_age_seconds", network="dev") is None
    ages: list[int | None] = [None, 7]
    metrics.chain.watch("dev", lambda: ages.pop(0))
    assert sample(metrics, "chain_reading_age_seconds", network="dev") == math.inf
    assert sample(metrics, "chain_reading_age_seconds", network="dev") == 7
