"""`clearinghouse reconcile signer-events` and `signer-events accept`, as an operator runs them."""

from __future__ import annotations

import json
import time
import uuid
from pathlib import Path

from tests.clearinghouse.cli.test_commands import Cli, cli, running

__all__ = ["cli", "running"]  # fixtures
NO_GRACE = {"CLEARINGHOUSE_SIGNER_EVENTS__GRACE_S": "0"}


def foreign_event() -> str:
    data = {
        "auth_id": "somebody", "computed_fee": "1", "manifest_id": "m", "num_tickets": 2,
        "orch_address": "0x" + "11" * 20, "pm_session_id": uuid.uuid4().hex * 2, "sequence_number": 0,
        "session_balance": "5", "session_id": uuid.uuid4().hex,
    }  # fmt: skip
    now_ms = time.time_ns() // 10**6 - 5000
    return json.dumps({"id": str(uuid.uuid4()), "type": "create_signed_ticket", "timestamp": str(now_ms), "data": data})


def test_a_file_is_recorded_and_compared_and_a_critical_finding_ends_with_1_until_it_is_put_aside(
    cli: Cli, tmp_path: Path
) -> None:
    file, event = tmp_path / "events.jsonl", foreign_event()
    file.write_text(f'{event}\nnonsense\n{event}\n{{"type":"other"}}\n')
    answer = cli("reconcile", "signer-events", "--file", str(file), "--json", **NO_GRACE)
    assert answer.exit_code == 1
    document = json.loads(answer.out)
    assert document["lines"] == {"new": 1, "repeated": 1, "other_type": 1, "bad": 1}
    assert document["bad_lines"] == [{"where": "events.jsonl:2", "why": "not JSON"}]
    assert document["found"]["event_without_issuance"] == 1
    finding = document["open_findings"][0]
    assert (finding["kind"], finding["severity"]) == ("event_without_issuance", "critical")
    assert finding["subject"] == json.loads(event)["id"]

    told = cli("reconcile", "signer-events", "--since", "1h", **NO_GRACE)
    assert told.exit_code == 1
    assert "critical" in told.out
    assert "somebody" in told.out

    aside = cli("signer-events", "accept", finding["kind"], finding["subject"], "--reason", "our own drill")
    assert aside.exit_code == 0
    assert cli("reconcile", "signer-events", "--since", "1h", "--json", **NO_GRACE).json()["events"] >= 1
    assert cli("signer-events", "accept", finding["kind"], finding["subject"], "--reason", "x").exit_code == 1


def test_what_cannot_be_done_is_explained(cli: Cli) -> None:
    missing = cli("reconcile", "signer-events", "--file", "/nowhere/events.jsonl")
    assert missing.exit_code == 1
    assert "/nowhere/events.jsonl" in missing.err
    assert cli("reconcile", "signer-events", "--since", "yesterday").exit_code == 1
    assert "kafka_bootstrap_servers" in cli("signer-events", "consume").err
