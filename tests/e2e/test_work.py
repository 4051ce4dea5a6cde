"""`clearinghouse work` and `clearinghouse jobs` as their users run them, beside `dev` and by themselves."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from collections.abc import Iterator

import psycopg
import pytest

from clearinghouse.database.embedded import EmbeddedPostgres
from tests.parts.program import Home, Program, new_home, wait_until

pytestmark = pytest.mark.slow

JOBS = {"ledger-verify", "forget-job-runs"}


@pytest.fixture
def home() -> Iterator[Home]:
    with new_home() as made:
        yield made


def working(home: Home) -> tuple[Program, int]:
    program = home.start("work", "--data-dir", home.data_dir, "--metrics-port", 0)
    return program, int(program.wait_for(r"^working, with metrics on \S+:(\d+)")[1])


def get(port: int, path: str, **headers: str) -> tuple[int, str]:
    request = urllib.request.Request(f"http://127.0.0.1:{port}{path}", headers=headers)
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as refusal:
        return refusal.code, refusal.read().decode()


def test_of_two_workers_one_leads_and_both_tell_machines_how_they_do(home: Home) -> None:
    first, port = working(home)
    first.wait_for("lead_taken")
    second, other_port = working(home)
    wait_until(lambda: all(item["last"] for item in home.json("jobs")["items"]), "the first run of every job")
    shown = home.json("jobs")
    assert {item["name"] for item in shown["items"]} >= JOBS
    assert shown["leader"].endswith(f":{first.pid}")
    ours = [item for item in shown["items"] if item["name"] in JOBS]
    assert all((item["last"]["outcome"], item["failures_count"], item["late"]) == ("ok", 0, None) for item in ours)

    assert get(port, "/healthz") == (200, '{"status":"ok"}')
    assert "leads since" in get(port, "/readyz")[1]
    assert '"detail":"stands by"' in get(other_port, "/readyz")[1]
    assert "clearinghouse_work_leads 1.0" in get(port, "/metrics")[1]
    assert "clearinghouse_work_leads 0.0" in get(other_port, "/metrics")[1]
    counted = 'clearinghouse_payments_waiting{kind="payment"} 0.0'  # by whoever leads, and by whoever does not
    wait_until(lambda: all(counted in get(each, "/metrics")[1] for each in (port, other_port)), "how payments stand")
    assert get(port, "/jobs")[0] == 404

    first.terminate()
    assert first.wait() == 0
    second.wait_for("lead_taken")
    assert home.json("jobs")["leader"].endswith(f":{second.pid}")
    second.interrupt()
    assert second.wait() == 0
    assert "Traceback" not in first.log + second.log
    assert home.json("jobs")["leader"] is None


def test_a_job_is_run_by_hand_and_people_and_scripts_are_told_how_it_went(home: Home) -> None:
    worker, _ = working(home)
    worker.wait_for("lead_taken")
    worker.terminate()
    assert worker.wait() == 0
    done = home.run("jobs", "run", "ledger-verify")
    assert done.code == 0, done
    assert done.out.startswith("ledger-verify: ok: the books are in order")
    told = home.json("jobs", "run", "ledger-verify")
    assert (told["name"], told["outcome"], told["by_hand"]) == ("ledger-verify", "ok", True)
    table = home.run("jobs")
    assert "ledger-verify" in table.out
    assert "NOBODY LEADS" in table.out
    missing = home.run("jobs", "run", "no-such-job")
    assert missing.code == 1
    assert missing.err.startswith("not_found: There is no job 'no-such-job'; there are ")


def test_a_job_that_runs_elsewhere_is_not_begun_and_its_place_is_named(home: Home) -> None:
    worker, _ = working(home)
    worker.wait_for("lead_taken")
    with psycopg.connect(home.conninfo, autocommit=True) as elsewhere:
        elsewhere.execute("SELECT pg_advisory_lock(hashtextextended('job ledger-verify', 0))")
        elsewhere.execute(
            "INSERT INTO job_run (job, due_at, started_at, leader, by_hand)"
            " VALUES ('ledger-verify', now(), '2026-11-21T12:00:00Z', 'worker-9:77', false)"
        )
        done = home.run("jobs", "run", "ledger-verify")
    assert done.code == 1
    assert done.err.startswith("conflict: ledger-verify is being run by worker-9:77 since 2026-11-21 12:00:00 UTC.\n")
    worker.terminate()
    assert worker.wait() == 0


def test_a_failing_job_ends_the_command_with_1(home: Home) -> None:
    home.json("gateway", "create", "acme")
    with (
        EmbeddedPostgres(home.data_dir) as database,
        psycopg.connect(database.conninfo, autocommit=True) as owner,
    ):
        owner.execute("SET session_replication_role = replica")
        owner.execute("UPDATE account SET balance = balance + 1 WHERE gateway_id IS NOT NULL")
        done = home.run("jobs", "run", "ledger-verify", "--json")
        owner.execute("UPDATE account SET balance = balance - 1 WHERE gateway_id IS NOT NULL")
    assert done.code == 1
    assert json.loads(done.out)["error_kind"] == "LedgerNotInOrder"


def test_metrics_ask_for_the_token_where_there_is_one(home: Home) -> None:
    token = home.secret_file("metrics_token", "t" * 32)
    environment = {"CLEARINGHOUSE_API__METRICS_TOKEN_FILE": token}
    program = home.start("work", "--data-dir", home.data_dir, "--metrics-port", 0, environment=environment)
    port = int(program.wait_for(r"^working, with metrics on \S+:(\d+)")[1])
    assert get(port, "/metrics")[0] == 401
    assert get(port, "/metrics", Authorization=f"Bearer {'t' * 32}")[0] == 200
    assert get(port, "/healthz")[0] == 200
    program.terminate()
    assert program.wait() == 0


def test_a_port_that_is_taken_and_a_database_that_is_away_are_said_at_the_start(home: Home) -> None:
    worker, port = working(home)
    taken = home.run("work", "--metrics-port", port)
    assert taken.code == 1
    assert taken.err.splitlines()[-2].startswith("bad_configuration: cannot listen on 127.0.0.1:")
    away = home.run("work", environment={"CLEARINGHOUSE_DATABASE_URL": "postgresql://u:s3cr3t@127.0.0.1:1/books"})
    assert away.code == 1
    assert "database_unavailable: " in away.err
    assert "s3cr3t" not in away.err
    worker.terminate()
    assert worker.wait() == 0


def test_dev_works_too_and_ends_without_a_trace_at_ctrl_c() -> None:
    with new_home() as home:
        serving = home.dev()
        serving.program.wait_for("lead_taken")
        wait_until(lambda: {each["name"] for each in home.json("jobs")["items"] if each["last"]} >= JOBS, "its jobs")
        serving.program.interrupt()
        assert serving.program.wait() == 0
        assert "lead_ended" in serving.program.log
        assert "Traceback" not in serving.program.log
        assert home.json("jobs")["leader"] is None
