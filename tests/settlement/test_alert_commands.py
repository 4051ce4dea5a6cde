"""`clearinghouse alerts` and `notices`, as people and scripts use them, over a real database."""

from __future__ import annotations

import asyncio
import os
import re
import subprocess
import sys
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any

import psycopg
import pytest
from typer.testing import CliRunner

from chain.chain_reading import Lock
from clearinghouse.config_alerts import AlertSettings
from clearinghouse.config_dunning import DunningSettings
from settlement.alerts.carrier import alert_courier
from settlement.alerts.rules import RULES
from settlement.alerts.silences import require_known
from settlement.cli import app
from settlement.schedule import Tick
from tests.parts.command_line import Answer, called
from tests.parts.receiver import http_receiver, mail_receiver
from tests.parts.watched import Watched, watched

PEPPER = "pepper-" * 8
SECRET = "s" * 32
COMMANDS = [
    "alerts list", "alerts ack", "alerts silence", "alerts unsilence", "alerts replay", "alerts test",
    "notices set", "notices secret", "notices rotate", "notices test", "notices list", "notices replay",
]  # fmt: skip


@dataclass(frozen=True)
class Cli:
    conninfo: str
    environment: dict[str, str]

    def __call__(self, *arguments: str, **changes: str) -> Answer:
        return called(app, arguments, self.environment | changes)

    def process(self, *arguments: str, **changes: str) -> Answer:
        """In a process of its own: what configures its log must not be this one."""
        done = subprocess.run(
            [sys.executable, "-m", "settlement.cli", *arguments], env={**os.environ, **self.environment, **changes},
            capture_output=True, text=True, check=False, timeout=60,
        )  # fmt: skip
        return Answer(done.returncode, done.stdout, done.stderr)

    def refused(self, *arguments: str, **changes: str) -> str:
        """What it says, alone on standard error."""
        answer = self(*arguments, **changes)
        assert (answer.exit_code, answer.out) == (1, ""), answer
        return answer.err

    def query(self, query: str) -> list[tuple[Any, ...]]:
        with psycopg.connect(self.conninfo, autocommit=True) as connection:
            return connection.execute(query.encode()).fetchall()


@pytest.fixture
def cli(database: str) -> Cli:
    return Cli(
        database,
        {"CLEARINGHOUSE_ADMIN_DATABASE_URL": database, "CLEARINGHOUSE_API_KEY_PEPPER": PEPPER, "COLUMNS": "200"},
    )


def escrow_is_unlocked(conninfo: str, settings: AlertSettings | None = None) -> None:
    """And the worker has seen it, and told the log."""

    async def told(house: Watched) -> None:
        await house.escrow(after_s=0, lock=Lock.UNLOCKING)
        await house.evaluated(after_s=1)
        await alert_courier(settings or AlertSettings()).tick(Tick(house.engine, house.at(2)))

    in_house(conninfo, told, settings)


def in_house(
    conninfo: str, work: Callable[[Watched], Coroutine[Any, Any, None]], settings: AlertSettings | None = None
) -> None:
    async def within() -> None:
        async with watched(conninfo, settings) as house:
            await work(house)

    asyncio.run(within())


# --- alerts -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_shows_how_it_is_used_by_an_example(command: str) -> None:
    answer = CliRunner().invoke(app, [*command.split(), "--help"], env={"COLUMNS": "200", "NO_COLOR": "1"})
    assert answer.exit_code == 0
    assert re.search(rf"Examples?:[^:]*clearinghouse {command}", answer.output)
    assert "--json" in answer.output


def test_where_nothing_is_wrong_that_is_said(cli: Cli) -> None:
    assert cli("alerts", "list").out == "Nothing is wrong.\n"
    assert cli("alerts", "list", "--json").json() == {"items": [], "silences": []}


def test_an_alert_is_listed_and_somebody_looks_after_it(cli: Cli) -> None:
    escrow_is_unlocked(cli.conninfo)
    (alert,) = cli("alerts", "list", "--json").json()["items"]
    assert (alert["rule"], alert["state"], alert["severity"]) == ("unlock_started", "firing", "critical")
    assert alert["facts"]["deposit"] == "10 ETH"
    table = cli("alerts", "list").out
    assert alert["id"] in table
    assert alert["summary"] in table

    done = cli("alerts", "ack", alert["id"], "--json").json()
    assert done["acknowledged_by"].startswith("cli:")
    assert cli("alerts", "ack", alert["fingerprint"], "--json").json()["acknowledged_at"] == done["acknowledged_at"]
    assert f"acknowledged_by  {done['acknowledged_by']}" in re.sub(" +", "  ", cli("alerts", "ack", alert["id"]).out)
    assert done["acknowledged_by"] in cli("alerts", "list").out


def test_what_has_ended_is_listed_where_it_is_asked_for(cli: Cli) -> None:
    escrow_is_unlocked(cli.conninfo)

    async def locked(house: Watched) -> None:
        await house.escrow(after_s=10)
        await house.until_over(after_s=11)

    in_house(cli.conninfo, locked)
    assert cli("alerts", "list", "--json").json()["items"] == []
    (ended,) = cli("alerts", "list", "--all", "--json").json()["items"]
    assert ended["state"] == "resolved"
    assert ended["resolved_at"] > ended["fired_at"]


def test_an_alert_that_is_not_there_is_refused_with_where_to_look(cli: Cli) -> None:
    gone = "alr_01930c3a5b7c7e8f9a0b1c2d3e4f5a6b"
    assert cli.refused("alerts", "ack", gone).startswith(
        f"not_found: there is no open alert {gone}: see `clearinghouse alerts list`"
    )
    assert cli.refused("alerts", "ack", "alr_nonsense").startswith("invalid_request: ")


def test_a_silence_is_made_listed_and_ended(cli: Cli) -> None:
    made = cli("alerts", "silence", "rule=deposit_low", "--for", "2h", "--reason", "topping up", "--json").json()
    assert made["matches"] == {"rule": "deposit_low"}
    assert made["reason"] == "topping up"
    listed = cli("alerts", "list")
    assert f"silent until {made['ends_at']}: rule=deposit_low ({made['id']}, {made['actor']})" in listed.out
    assert cli("alerts", "list", "--json").json()["silences"] == [made]
    ended = cli("alerts", "unsilence", made["id"], "--json").json()
    assert ended["ends_at"] < made["ends_at"]
    assert cli("alerts", "list", "--json").json()["silences"] == []
    assert cli.refused("alerts", "unsilence", made["id"]).startswith("not_found: ")
    assert cli.refused("alerts", "unsilence", "nonsense").startswith("invalid_request: ")


def test_a_silence_that_would_silence_nothing_is_refused(cli: Cli) -> None:
    refused = {
        "deposit_low": "NAME=VALUE",
        "rule=": "NAME=VALUE",
        "rule=deposit-low": "there is no rule deposit-low: did you mean deposit_low?",
        "rule=zzz": "there is no rule zzz: docs/alerts.md has them",
        "severity=fatal": "severity is warning or critical",
        "group=money": "group is books, chain, funds, signing or work",
        "rule=deposit_low rule=reserve_low": "a name is given twice",
    }
    for matches, says in refused.items():
        assert says in cli.refused("alerts", "silence", *matches.split(), "--for", "1h")
    assert "30m" in cli.refused("alerts", "silence", "rule=deposit_low", "--for", "soon")
    assert cli.query("SELECT count(*) FROM silence") == [(0,)]


def test_every_rule_can_be_silenced_by_its_name() -> None:
    for rule in RULES:
        require_known({"rule": rule, "sender": "0x00"})


def test_what_was_given_up_is_sent_again_when_somebody_says_so(cli: Cli) -> None:
    async def refused_for_good() -> AlertSettings:
        async with http_receiver(400) as manager:
            settings = AlertSettings(channels={"manager": f"alertmanager+http://127.0.0.1:{manager.port}/"})
            await asyncio.to_thread(escrow_is_unlocked, cli.conninfo, settings)
            return settings

    asyncio.run(refused_for_good())
    states = "SELECT state FROM delivery WHERE channel = 'manager'"
    assert cli.query(states) == [("dead",)]
    assert cli("alerts", "replay", "--channel", "other", "--json").json() == {"messages": 0}
    assert cli("alerts", "replay", "--channel", "manager").out == "messages  1\n"
    assert cli.query(states) == [("waiting",)]


def test_alert_is_another_name_for_the_same_commands_that_the_help_does_not_show() -> None:
    for command in ("alert test", "alert list"):
        answer = CliRunner().invoke(app, [*command.split(), "--help"], env={"COLUMNS": "200", "NO_COLOR": "1"})
        assert answer.exit_code == 0
    shown = CliRunner().invoke(app, ["--help"], env={"COLUMNS": "200", "NO_COLOR": "1"}).output
    assert re.search(r"\balerts\b", shown)
    assert not re.search(r"\balert\b +", shown)


def test_channels_are_tried_with_an_alert_and_its_end(cli: Cli) -> None:
    async def tried() -> tuple[Answer, list[str], list[str]]:
        async with http_receiver() as hook, mail_receiver() as mails:
            answer = await asyncio.to_thread(
                cli.process, "alert", "test", "--json",
                CLEARINGHOUSE_ALERTS__CHANNELS=f"""
                    hook: webhook+http://127.0.0.1:{hook.port}/in
                    mail: mailto://127.0.0.1:{mails.port}?from=alerts@ch.example&to=oncall@ch.example
                """,
                CLEARINGHOUSE_ALERTS__WEBHOOK_SECRET=SECRET,
            )  # fmt: skip
            return answer, [post.document["type"] for post in hook.posts], [mail["Subject"] for mail in mails.mails]

    answer, posted, subjects = asyncio.run(tried())
    assert {each["channel"]: each["error"] for each in answer.json()["items"]} == {
        "log": None, "hook": None, "mail": None,
    }  # fmt: skip
    assert posted == ["alert.firing", "alert.resolved"]
    assert subjects == [
        "[WARNING] This is a test of the clearinghouse's alerts",
        "[WARNING] resolved: This is a test of the clearinghouse's alerts",
    ]


def test_a_channel_that_does_not_take_it_fails_the_command_with_why_and_without_its_token(cli: Cli) -> None:
    async def tried(*arguments: str) -> Answer:
        async with http_receiver(401) as hook:
            return await asyncio.to_thread(
                cli.process, "alert", "test", *arguments,
                CLEARINGHOUSE_ALERTS__CHANNELS=f"pager: pagerduty+http://R0UTINGKEY@127.0.0.1:{hook.port}",
            )  # fmt: skip

    one = asyncio.run(tried("--channel", "pager"))
    assert one.exit_code == 1
    assert re.fullmatch(r"pager  127\.0\.0\.1:\d+ answered 401\n", one.out)
    every = asyncio.run(tried())
    assert "R0UTINGKEY" not in one.out + one.err + every.out + every.err
    assert "log    took it" in every.out


def test_a_channel_that_does_not_exist_or_cannot_be_is_refused(cli: Cli) -> None:
    missing = cli.process("alert", "test", "--channel", "pager")
    assert (missing.exit_code, missing.out) == (1, "")
    assert missing.err.startswith("invalid_request: there is no channel 'pager': there are log")
    bad = cli.process("alert", "test", CLEARINGHOUSE_ALERTS__CHANNELS="pager: nonsense://t0ken")
    assert (bad.exit_code, bad.out) == (1, "")
    assert bad.err.startswith("bad_channel: alerts.channels: pager: ")
    assert "t0ken" not in bad.err
    assert "docs/alerts.md" in bad.err


# --- notices ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def acme(cli: Cli) -> str:
    return str(cli("gateway", "create", "acme", "--json").json()["gateway_id"])


def test_a_gateway_says_where_it_hears_of_itself_and_what_is_not_named_stays(cli: Cli, acme: str) -> None:
    first = cli("notices", "set", "acme", "--webhook", "https://acme.example/hooks", "--low-balance", "25", "--json")
    assert first.json() == {
        "gateway_id": acme, "webhook": "https://acme.example/hooks", "email": None, "low_balance": "25",
        "depleted_below": None, "secret_version": 1,
    }  # fmt: skip
    second = cli("notices", "set", acme, "--email", "billing@acme.example", "--low-balance", "none", "--json").json()
    assert (second["webhook"], second["email"], second["low_balance"]) == (
        "https://acme.example/hooks", "billing@acme.example", None,
    )  # fmt: skip
    shown = cli("notices", "set", "acme", "--webhook", "none").out
    assert "webhook" not in shown
    assert "billing@acme.example" in shown


def test_the_secret_is_shown_and_rotated(cli: Cli, acme: str) -> None:
    cli("notices", "set", acme, "--webhook", "https://acme.example/hooks")
    secret = cli("notices", "secret", "acme", "--json").json()["secret"]
    assert re.fullmatch(r"lphk_[0-9a-f]{64}", secret)
    rotated = cli("notices", "rotate", "acme", "--grace", "1h", "--json").json()
    assert rotated["secret_version"] == 2
    assert rotated["secret"] != secret
    assert rotated["secret"] in cli("notices", "secret", "acme").out


def test_a_test_waits_for_the_worker_and_is_no_notice(cli: Cli, acme: str) -> None:
    cli("notices", "set", acme, "--webhook", "https://acme.example/hooks", "--email", "billing@acme.example")
    assert cli("notices", "test", "acme", "--json").json() == {"gateway_id": acme, "channels": "webhook, email"}
    assert cli.query("SELECT channel, state, number FROM delivery ORDER BY channel") == [
        ("email", "waiting", -1), ("webhook", "waiting", -1),
    ]  # fmt: skip
    assert cli("notices", "list", "--json").json() == {"items": []}
    assert cli("notices", "list").out == "No gateway was told anything.\n"


def test_notices_are_listed_and_what_was_given_up_is_replayed(cli: Cli, acme: str) -> None:
    cli("notices", "set", acme, "--webhook", "https://acme.example/hooks")
    in_house(cli.conninfo, _depleted_and_given_up)
    (notice,) = cli("notices", "list", "acme", "--dead", "--json").json()["items"]
    assert (notice["type"], notice["gateway_id"], notice["number"]) == ("balance.depleted", acme, 1)
    assert notice["sent"] == [{"channel": "webhook", "state": "dead", "attempts": 0, "error": "refused"}]
    assert "webhook dead (0)" in cli("notices", "list").out
    assert cli("notices", "replay", "acme", "--dead", "--json").json() == {"messages": 1}
    assert cli("notices", "list", "--dead", "--json").json() == {"items": []}
    assert cli("notices", "replay", "acme", "--dead").out == "messages  0\n"
    in_house(cli.conninfo, _given_up)
    assert cli("notices", "replay", notice["id"]).out == "messages  1\n"


async def _depleted_and_given_up(house: Watched) -> None:
    from clearinghouse.config_alerts import NoticeSettings
    from settlement.notices.evaluate import NoticeEvaluation

    assert (
        await NoticeEvaluation(NoticeSettings(), DunningSettings()).tick(Tick(house.engine, house.at(0))) == "1 notices"
    )
    await _given_up(house)


async def _given_up(house: Watched) -> None:
    house.owner.execute("UPDATE delivery SET state = 'dead', ended_at = now(), error = 'refused'")


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["set", "nobody", "--email", "a@b.example"], "not_found: "),
        (["set", "acme", "--webhook", "http://acme.example/"], "a webhook needs the https URL of a public host"),
        (["set", "acme", "--email", "acme"], "an address is written name@host.example"),
        (["set", "acme", "--low-balance", "much"], "invalid_request: "),
        (["set", "acme", "--low-balance", "1", "--depleted-below", "2"], "a balance is low before it is depleted"),
        (["test", "acme"], "`clearinghouse notices set`"),
        (["rotate", "acme"], "`clearinghouse notices set` gives it one"),
        (["rotate", "acme", "--grace", "long"], "30m"),
        (["list", "nobody"], "not_found: "),
        (["replay", "ntc_01930c3a5b7c7e8f9a0b1c2d3e4f5a6b"], "see `clearinghouse notices list`"),
        (["replay", "acme"], "--dead"),
    ],
)
def test_what_cannot_be_done_is_refused_with_what_to_do(cli: Cli, acme: str, arguments: list[str], says: str) -> None:
    assert says in cli.refused("notices", *arguments)
