"""`clearinghouse usage`, as an operator runs it."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import psycopg

from clearinghouse.ids import parse
from tests.clearinghouse.cli.test_commands import Cli, cli, conninfo, running
from tests.parts.used import Books, Kind

__all__ = ["cli", "conninfo", "running"]  # fixtures


def test_usage_is_shown_by_what_was_asked_and_sums_are_made_and_mended(cli: Cli, conninfo: str) -> None:
    gateway = cli("gateway", "create", "acme", "--json").json()["gateway_id"]
    assert cli("usage", "show", "acme", "--days", "1").out.startswith("Nothing was signed for acme from 20")
    yesterday = datetime.now(UTC) - timedelta(days=1)
    with psycopg.connect(conninfo, autocommit=True) as owner:
        books = Books(owner)
        for app in ("one", "two", "two"):
            books.use(parse("gw", gateway), yesterday, Kind(app=app))
        before = cli("usage", "show", "acme", "--days", "2", "--by", "app,pipeline", "--json").json()
        assert [(item["app"], item["issuances"]) for item in before["items"]] == [("one", 1), ("two", 2)]
        assert before["totals"][0]["charge"] == "0.000000003"

        rebuilt = cli("usage", "rebuild", "--json").json()
        assert (rebuilt["mended"], rebuilt["added_issuances"]) == (0, 3)
        after = cli("usage", "show", "acme", "--days", "2", "--by", "app,pipeline", "--json").json()
        assert after["rolled_up_until"] == rebuilt["rolled_up_until"]
        assert after["items"] == before["items"]

        owner.execute("UPDATE usage_bucket SET issuances = issuances + 1 WHERE span = 'day'")
        assert cli("ledger", "verify").exit_code == 1
        assert cli("usage", "rebuild").out.startswith("Mended: 2 sums were wrong.\nRolled up until ")
        assert cli("usage", "rebuild").out.startswith("All sums were right.\n")

    table = cli("usage", "show", "acme", "--from", f"{yesterday:%Y-%m-%d}", "--time-zone", "UTC").out.splitlines()
    assert table[0].split() == ["day", "app", "issuances", "tickets", "ev_wei", "fee_wei", "charge", "currency"]
    assert table[2].split()[:4] == [f"{yesterday:%Y-%m-%d}", "two", "2", "2"]
    assert table[3].split()[:3] == ["total", "3", "3"]


def test_words_that_are_wrong_are_refused_with_what_is_right(cli: Cli) -> None:
    assert cli("gateway", "create", "other").exit_code == 0
    wrong = cli("usage", "show", "other", "--by", "gateway")
    assert wrong.exit_code != 0
    assert "usage cannot be told apart by 'gateway': only by day, app, pipeline, model, job_type" in wrong.err
    assert "there is no time zone 'Mars'" in cli("usage", "show", "other", "--time-zone", "Mars").err
    assert cli("usage", "show", "nobody").exit_code != 0
