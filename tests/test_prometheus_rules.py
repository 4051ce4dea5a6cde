"""The shipped rules: every metric and label they name exists, and promtool's own tests of them pass where it is."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from prometheus_client import CollectorRegistry

from clearinghouse.config import Settings
from clearinghouse.metrics import Metrics, refusal_codes
from settlement.billing_watch.metrics import BillingMetrics
from settlement.jobs import jobs_of
from settlement.stripe_link.inbox_metrics import InboxMetrics
from settlement.work_metrics import WorkMetrics

DEPLOY = Path(__file__).parents[1] / "deploy"
RULES = yaml.safe_load((DEPLOY / "prometheus-rules.yaml").read_text(encoding="utf-8"))
TESTS = yaml.safe_load((DEPLOY / "prometheus-rules.test.yaml").read_text(encoding="utf-8"))
MONITORING = (DEPLOY.parent / "docs" / "monitoring.md").read_text(encoding="utf-8")
EACH = [rule for group in RULES["groups"] for rule in group["rules"]]


@pytest.fixture(scope="module")
def names() -> set[str]:
    """Of every series and family that the two programs export. Of a histogram also its parts."""
    registry = CollectorRegistry()
    Metrics(registry, version="0")
    jobs_of(Settings(), registry)
    WorkMetrics(registry, jobs=["a"])
    InboxMetrics(registry)
    BillingMetrics(registry)
    families = list(registry.collect())
    found = {sample.name for family in families for sample in family.samples} | {family.name for family in families}
    return found | {f"{name}_total" for name in found} | {f"{name}_bucket" for name in found}


@pytest.mark.parametrize("rule", EACH, ids=lambda rule: rule["alert"])
def test_every_metric_of_a_rule_exists_and_is_explained(rule: dict[str, Any], names: set[str]) -> None:
    named = set(re.findall(r"\bclearinghouse_\w+", rule["expr"]))
    assert named <= names
    assert [name for name in named if f"`{name.removesuffix('_bucket')}`" not in MONITORING] == []


@pytest.mark.parametrize("rule", EACH, ids=lambda rule: rule["alert"])
def test_every_rule_has_a_severity_and_says_what_to_do(rule: dict[str, Any]) -> None:
    assert rule["labels"]["severity"] in {"warning", "critical"}
    assert set(rule["annotations"]) == {"summary", "description"}


def test_the_codes_that_rules_name_are_codes_of_refusals() -> None:
    named = [
        code for rule in EACH for text in re.findall(r'code=~?"([^"]+)"', rule["expr"]) for code in text.split("|")
    ]
    assert named
    assert set(named) <= {*refusal_codes(), "internal_error"}


def test_every_rule_has_a_test_in_which_it_fires() -> None:
    text = str(TESTS)
    fires = {f'alertname="{rule["alert"]}"' in text for rule in EACH}
    assert fires == {True}


@pytest.mark.skipif(shutil.which("promtool") is None, reason="there is no promtool on this machine")
@pytest.mark.parametrize(
    "command", [["check", "rules", "prometheus-rules.yaml"], ["test", "rules", "prometheus-rules.test.yaml"]]
)
def test_promtool_agrees(command: list[str]) -> None:
    done = subprocess.run(["promtool", *command], cwd=DEPLOY, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
