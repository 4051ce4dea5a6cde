"""The commands as a user runs them: on a new data directory of their own, one embedded PostgreSQL for the module."""

from __future__ import annotations

import asyncio
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from decimal import Decimal
from pathlib import Path
from typing import Any

import psycopg
import pytest

from clearinghouse.cli import app
from clearinghouse.cli.context import DatabaseNotReady, database_explained
from clearinghouse.database.embedded import EmbeddedPostgres
from clearinghouse.database.migrate import migrate
from clearinghouse.identity.keys import API_KEY
from clearinghouse.identity.secret_texts import secret_hmac
from clearinghouse.identity.webhook_signers import WEBHOOK_SECRET
from clearinghouse.ids import parse, uuid7
from tests.parts.books import commit, usage
from tests.parts.command_line import Answer, called

COMMANDS = [
    "gateway create", "gateway list", "gateway show", "gateway suspend", "gateway resume", "gateway set-limit",
    "gateway set-pricing", "gateway set-limits", "gateway set-plan", "plan create", "plan set", "plan show",
    "plan list", "plan delete", "key create", "key list", "key rotate", "key revoke", "key set-limits",
    "webhook-signer create", "webhook-signer list", "webhook-signer rotate", "webhook-signer revoke",
    "credit grant", "credit withdraw", "price set", "price clear", "balance", "issuances", "ledger verify",
    "rates quote", "rates apply", "rates list", "rates show", "rates assign", "coverage verify",
    "coverage rebuild", "reconcile signer-events", "signer-events accept",
]  # fmt: skip
SENDER = "0x70997970C51812dc3A010C7d01b50e0d17dc79C8"


@dataclass(frozen=True)
class Cli:
    data_dir: Path

    def __call__(self, *arguments: str, **environment: str) -> Answer:
        return called(app, arguments, {"CLEARINGHOUSE_DATA_DIR": str(self.data_dir), **environment})


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Cli, str]]:
    """A data directory whose server stays up, as while the service runs, and the owner's conninfo."""
    data_dir = tmp_path_factory.mktemp("cli") / "data"
    with EmbeddedPostgres(data_dir) as database:
        yield Cli(data_dir), database.conninfo


@pytest.fixture
def cli(running: tuple[Cli, str]) -> Cli:
    return running[0]


@pytest.fixture
def conninfo(running: tuple[Cli, str]) -> str:
    return running[1]


@pytest.fixture
def gateway(cli: Cli) -> str:
    """The name of a gateway that no other test has touched."""
    name = f"gateway-{uuid7().hex}"
    cli("gateway", "create", name, "--json").json()
    return name


def test_from_nothing_to_a_gateway_with_credit_and_a_key(cli: Cli, conninfo: str) -> None:
    made = cli("gateway", "create", "acme", "--markup-bps", "250", "--json").json()
    parse("gw", made["gateway_id"])
    assert (made["name"], made["currency"], made["available"]) == ("acme", "USD", "0")

    granted = cli("credit", "grant", "acme", "25.50", "--reason", "invoice 1", "--json").json()
    assert (granted["kind"], granted["amount"], granted["balance"]) == ("grant", "25.5", "25.5")
    assert granted["actor"].startswith("cli:")

    new = cli("key", "create", made["gateway_id"], "--name", "production", "--json").json()
    read = API_KEY.read(new["api_key"])
    pepper = (cli.data_dir / "secrets" / "api_key_pepper").read_text().strip().encode()
    with psycopg.connect(conninfo) as owner:
        row = owner.execute("SELECT secret_hmac FROM api_key WHERE public_id = %s", [read.public_id]).fetchone()
    assert row == (secret_hmac(pepper, read.secret),)

    balance = cli("balance", "acme", "--json").json()
    assert (balance["available"], balance["balance"], balance["credit_limit"], balance["currency"]) == (
        "25.5", "25.5", "0", "USD",
    )  # fmt: skip
    assert cli("ledger", "verify", "--json").json()["is_clean"] is True


def test_every_command_answers_people_too(cli: Cli, gateway: str) -> None:
    answers = [
        cli("credit", "grant", gateway, "9", "--reason", "test"),
        cli("credit", "grant", gateway, "1", "--reason", "test", "--expires-in", "30d"),
        cli("credit", "withdraw", gateway, "2", "--reason", "test"),
        cli("key", "create", gateway, "--expires-at", "2099-01-01T00:00:00Z"),
        cli("key", "list", gateway),
        cli("gateway", "list"),
        cli("gateway", "show", gateway),
        cli("gateway", "set-limit", gateway, "50"),
        cli("gateway", "set-pricing", gateway, "--minimum-charge", "0.001"),
        cli("gateway", "suspend", gateway, "--reason", "test"),
        cli("gateway", "resume", gateway),
        cli("balance", gateway),
        cli("issuances", gateway),
        cli("ledger", "verify"),
    ]
    for answer in answers:
        assert answer.exit_code == 0, answer
        assert answer.out.strip()
        assert not answer.out.lstrip().startswith("{")
    assert "1 of 1 USD lapse at" in cli("balance", gateway).out
    assert "The books are in order" in answers[-1].out


def test_tables_stay_on_one_line_outside_terminals(cli: Cli, gateway: str) -> None:
    made = cli("key", "create", gateway, "--name", "a [red]rather[/red] long name " * 3, "--json").json()
    lines = cli("key", "list", gateway).out.splitlines()
    assert len(lines) == 2
    for shown in (made["public_id"], made["key_id"], made["name"].strip(), "active"):
        assert shown in lines[1]


def test_terms_of_a_gateway_are_set_and_shown(cli: Cli) -> None:
    made = cli(
        "gateway", "create", "terms", "--currency", "ETH", "--minimum-charge", "0.000000000000000001",
        "--credit-limit", "0.5", "--json",
    ).json()  # fmt: skip
    assert (made["minimum_charge"], made["credit_limit"], made["available"]) == ("0.000000000000000001", "0.5", "0.5")
    assert cli("gateway", "set-limit", "terms", "2", "--json").json()["credit_limit"] == "2"
    assert cli("gateway", "set-pricing", "terms", "--markup-bps", "10", "--json").json()["markup_bps"] == 10
    suspended = cli("gateway", "suspend", "terms", "--reason", "chargeback", "--json").json()
    assert (suspended["status"], suspended["status_reason"]) == ("suspended", "chargeback")
    assert cli("gateway", "resume", "terms", "--json").json()["status"] == "active"
    assert "terms" in {item["name"] for item in cli("gateway", "list", "--json").json()["items"]}


def test_limits_are_set_and_shown_with_what_is_used(cli: Cli, conninfo: str, gateway: str) -> None:
    cli("gateway", "set-limit", gateway, "100", "--json").json()
    key = cli("key", "create", gateway, "--json").json()
    with psycopg.connect(conninfo, autocommit=True) as owner:
        ids = parse("gw", key["gateway_id"]), parse("key", key["key_id"])
        assert commit(owner, usage(*ids, ev_wei=10**15))[0] is None
    cli("gateway", "set-limits", gateway, "--spend-day", "25", "--calls-day", "10", "--json").json()
    shown = cli(
        "gateway", "set-limits", gateway, "--calls-day", "none", "--ev-open", "5000000000000000", "--json"
    ).json()
    limited = cli(
        "key", "set-limits", key["public_id"], "--calls-day", "3", "--burst", "4", "--ev-open", "2000000000000000",
        "--sessions-open", "7", "--json",
    ).json()  # fmt: skip
    assert {use["limit"]: (use["allowed"], use["used"], use["unit"]) for use in shown["limits"]} == {
        "calls_per_day": (None, "1", "calls"),
        "spend_per_day": ("25", "2", "USD"),
        "spend_per_month": (None, "2", "USD"),
        "ev_open": ("5000000000000000", "1000000000000000", "wei"),
        "sessions_open": ("20000", "1", "sessions"),
        "sessions_open_per_orchestrator": ("5000", "1", "sessions"),
    }
    assert (limited["burst_count"], limited["limits"][0]["allowed"], limited["limits"][0]["used"]) == (4, "3", "1")
    for command in (("gateway", "show"), ("balance",)):
        document = cli(*command, gateway, "--json").json()
        assert (document["limits"], document["keys"]) == (shown["limits"], [limited])
        lines = [line.split() for line in cli(*command, gateway).out.splitlines()]
        assert ["gateway", "spend_per_day", "2", "25", "USD"] in [line[:5] for line in lines]
        for limit in (
            ["key_calls_per_day", "1", "3", "calls"],
            ["key_ev_open", "1000000000000000", "2000000000000000", "wei"],
            ["key_sessions_open", "1", "7", "sessions"],
        ):
            assert [key["public_id"], *limit] in [line[:5] for line in lines]
    assert "name at least one limit" in cli("gateway", "set-limits", gateway).err


def test_plans_are_made_changed_and_chosen_and_a_gateway_says_where_its_limits_come_from(
    cli: Cli, gateway: str
) -> None:
    name = f"plan-{uuid7().hex}"
    made = cli("plan", "create", name, "--calls-day", "10", "--spend-day", "5", "--currency", "USD", "--json").json()
    assert (made["name"], made["currency"], made["gateways_count"], made["is_applied"]) == (name, "USD", 0, True)
    assert made["changed_by"].startswith("cli:")
    assert {limit: value for limit, value in made["limits"].items() if value} == {
        "calls_per_day": "10", "spend_per_day": "5",
    }  # fmt: skip
    chosen = cli("gateway", "set-plan", gateway, name, "--json").json()
    assert (chosen["plan"], chosen["own_limits"]) == (name, [])
    cli("gateway", "set-limits", gateway, "--spend-day", "7", "--price-live", "9", "--json").json()
    changed = cli(
        "plan", "set", name, "--calls-day", "20", "--price-live", "8", "--price-fixed", "0.5", "--json"
    ).json()
    assert (changed["limits"]["calls_per_day"], changed["gateways_count"]) == ("20", 1)
    assert cli("plan", "show", name, "--json").json() == changed
    assert changed in cli("plan", "list", "--json").json()["items"]
    lines = [" ".join(line.split()) for line in cli("gateway", "show", gateway).out.splitlines()]
    for line in (
        f"plan {name}",
        f"gateway calls_per_day 0 20 calls plan {name}",
        "gateway spend_per_day 0 7 USD gateway",
        f"gateway price_live 8 wei per second plan {name}",
        f"gateway price_fixed 0.5 wei per call plan {name}",
    ):
        assert any(shown.startswith(line) for shown in lines), (line, lines)
    inherited = cli("gateway", "set-limits", gateway, "--spend-day", "inherit", "--json").json()
    assert inherited["own_limits"] == ["price_live"]
    listed = {item["name"]: item["plan"] for item in cli("gateway", "list", "--json").json()["items"]}
    assert listed[gateway] == name


def test_a_plan_is_shown_to_people_and_what_is_wrong_is_said(cli: Cli, gateway: str) -> None:
    name = f"plan-{uuid7().hex}"
    assert "calls_per_day" in cli("plan", "create", name, "--calls-day", "10").out
    assert "calls_per_day 10" in cli("plan", "list").out
    for command, reason in (
        (("plan", "create", name), f"there is a plan named {name} already"),
        (("plan", "set", name), "name at least one of currency, requests_per_s"),
        (("plan", "set", name, "--spend-day", "5"), "spend_per_day: say in which currency"),
        (("plan", "show", "nowhere"), "there is no plan nowhere"),
        (("gateway", "set-plan", gateway, "nowhere"), "there is no plan nowhere"),
        (("gateway", "create", "x", "--plan", "nowhere"), "there is no plan nowhere"),
        (("plan", "delete", "default"), "the plan default stays"),
        (("gateway", "set-limits", gateway, "--price-live", "free"), "or none or inherit, not 'free'"),
    ):
        answer = cli(*command)
        assert (answer.exit_code, reason in answer.err) == (1, True), answer
    assert cli("plan", "delete", name).out == f"The plan {name} is deleted.\n"


def test_a_change_says_how_far_it_is(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("clearinghouse.identity.plans.APPLIED_AT_ONCE_COUNT", 2)
    name = f"plan-{uuid7().hex}"
    cli("plan", "create", name, "--json").json()
    for _ in range(5):
        cli("gateway", "create", f"gateway-{uuid7().hex}", "--plan", name, "--json").json()
    answer = cli("plan", "set", name, "--calls-day", "3", "--json")
    assert answer.err == "2 of 5 gateways have it …\n4 of 5 gateways have it …\n"
    assert answer.json()["is_applied"] is True


def test_a_transfer_with_a_key_is_booked_once(cli: Cli, gateway: str) -> None:
    arguments = ("credit", "grant", gateway, "5", "--reason", "test", "--key", "cli-once")
    first, again = cli(*arguments, "--json").json(), cli(*arguments, "--json").json()
    assert (first["was_repeated"], again["was_repeated"]) == (False, True)
    assert first["id"] == again["id"]
    assert cli("balance", gateway, "--json").json()["balance"] == "5"
    assert "nothing was booked now" in cli(*arguments).err


def test_keys_are_rotated_and_revoked(cli: Cli, gateway: str) -> None:
    old = cli("key", "create", gateway, "--json").json()
    new = cli("key", "rotate", old["public_id"], "--grace", "2h", "--json").json()
    assert new["api_key"] != old["api_key"]
    assert cli("key", "revoke", new["key_id"], "--json").json()["status"] == "revoked"
    listed = {key["public_id"]: key for key in cli("key", "list", gateway, "--json").json()["items"]}
    assert listed[old["public_id"]]["status"] == "active"
    assert listed[old["public_id"]]["expires_at"] is not None
    assert "api_key" not in listed[old["public_id"]]
    cli("key", "rotate", old["public_id"], "--grace", "0", "--json").json()
    listed = {key["public_id"]: key for key in cli("key", "list", gateway, "--json").json()["items"]}
    assert listed[old["public_id"]]["status"] == "expired"


def test_a_webhook_signer_is_given_its_options_and_its_secret_is_replaced(cli: Cli, conninfo: str) -> None:
    made = cli("webhook-signer", "create", "signer-1", "--sender", SENDER, "--face-value-max-wei", "5", "--json").json()
    read = WEBHOOK_SECRET.read(made["webhook_secret"])
    pepper = (cli.data_dir / "secrets" / "api_key_pepper").read_text().strip().encode()
    with psycopg.connect(conninfo) as owner:
        row = owner.execute("SELECT secret_hmac FROM webhook_secret WHERE public_id = %s", [read.public_id]).fetchone()
    assert row == (secret_hmac(pepper, read.secret),)
    assert (made["sender"], made["face_value_max_wei"], made["status"]) == (SENDER, "5", "active")

    rotated = cli("webhook-signer", "rotate", "signer-1", "--grace", "2h")
    options = re.fullmatch(
        r"-remoteSignerWebhookUrl http://127\.0\.0\.1:8080/webhooks/remote-signer\n"
        r"-remoteSignerWebhookHeaders 'Authorization:Bearer (lpws_\w+)'\n",
        rotated.out[rotated.out.index("-remote") :],
    )
    assert options is not None
    new = WEBHOOK_SECRET.read(options[1])
    assert "shown only now" in rotated.err
    assert f"secret {new.public_id}  active\n" in rotated.out
    assert f"secret {read.public_id}  active until 20" in rotated.out
    third = cli("webhook-signer", "rotate", "signer-1")
    assert (third.exit_code, third.err.partition(":")[0]) == (1, "conflict")

    revoked = cli("webhook-signer", "revoke", "signer-1", "--secret", read.public_id, "--json").json()
    assert [secret["status"] for secret in revoked["secrets"]] == ["active", "revoked"]
    assert cli("webhook-signer", "list", "--json").json()["items"] == [revoked]
    assert f"{new.public_id}  active" in cli("webhook-signer", "list").out
    ended = cli("webhook-signer", "revoke", made["webhook_signer_id"])
    assert re.search(r"^status +revoked$", ended.out, re.MULTILINE)


def test_issuances_come_in_pages(cli: Cli, conninfo: str, gateway: str) -> None:
    cli("gateway", "set-limit", gateway, "100", "--json").json()
    key = cli("key", "create", gateway, "--json").json()
    ids = parse("gw", key["gateway_id"]), parse("key", key["key_id"])
    with psycopg.connect(conninfo, autocommit=True) as owner:
        calls = [usage(*ids) for _ in range(3)]
        assert [commit(owner, call)[0] for call in calls] == [None] * 3
    first = cli("issuances", gateway, "--limit", "2", "--json").json()
    second = cli("issuances", gateway, "--limit", "2", "--cursor", first["next_cursor"], "--json").json()
    shown = [parse("iss", item["id"]) for item in first["items"] + second["items"]]
    assert shown == [call.issuance_id for call in reversed(calls)]
    assert second["next_cursor"] is None
    table = cli("issuances", gateway, "--limit", "2")
    assert first["items"][0]["id"] in table.out
    assert f"--cursor {first['next_cursor']}" in table.err
    session = first["items"][0]["session_id"]
    assert len(cli("issuances", gateway, "--session", session, "--json").json()["items"]) == 1


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["balance", "nobody"], "not_found", "there is no gateway nobody"),
        (["gateway", "create", "a b"], "invalid_request", "only the letters"),
        (["gateway", "create", "x", "--currency", "usd"], "invalid_request", "did you mean USD"),
        (["gateway", "set-limit", "GATEWAY", "1e3"], "invalid_request", "plain decimal number"),
        (["gateway", "set-pricing", "GATEWAY"], "invalid_request", "name a markup"),
        (["credit", "grant", "GATEWAY", "0", "--reason", "x"], "invalid_request", "greater than 0"),
        (["credit", "grant", "GATEWAY", "1", "--reason", ""], "invalid_request", "a reason is needed"),
        (["credit", "withdraw", "GATEWAY", "1", "--reason", "x"], "out_of_credit", "1 USD is more than is available"),
        (["credit", "grant", "GATEWAY", "1", "--reason", "x", "--expires-in", "1d", "--expires-at",
          "2099-01-01T00:00:00Z"], "invalid_request", "give one of them"),
        (["key", "create", "GATEWAY", "--expires-in", "1y"], "invalid_request", "a span of time"),
        (["key", "revoke", "0000000000000000"], "not_found", "there is no API key"),
        (["webhook-signer", "rotate", "nobody"], "not_found", "there is no webhook signer nobody"),
        (["webhook-signer", "create", "a b", "--sender", SENDER], "invalid_request", "a webhook signer's name"),
        (["webhook-signer", "create", "a", "--sender", "0x7"], "invalid_request", "sender: "),
        (["webhook-signer", "create", "a", "--sender", SENDER, "--face-value-max-wei", "0"], "invalid_request",
         "a whole number of wei above 0"),
        (["issuances", "GATEWAY", "--limit", "0"], "invalid_request", "1 to 1000"),
        (["issuances", "GATEWAY", "--session", "x"], "invalid_request", "--session"),
    ],
)  # fmt: skip
def test_a_refusal_gives_code_message_and_what_to_do_next(
    cli: Cli, gateway: str, arguments: list[str], code: str, words: str
) -> None:
    answer = cli(*[gateway if argument == "GATEWAY" else argument for argument in arguments])
    assert (answer.exit_code, answer.out) == (1, "")
    first, *rest = answer.err.splitlines()
    assert first.startswith(f"{code}: ")
    assert words in first
    assert rest
    assert "Traceback" not in answer.err


def test_a_whole_key_on_the_command_line_is_refused_and_not_repeated(cli: Cli, gateway: str) -> None:
    api_key = cli("key", "create", gateway, "--json").json()["api_key"]
    answer = cli("key", "revoke", api_key)
    assert answer.exit_code == 1
    assert "a whole API key" in answer.err
    assert api_key[30:60] not in answer.err
    secret = WEBHOOK_SECRET.new(b"ab" * 32)[0]
    for arguments in (["revoke", secret], ["rotate", secret], ["revoke", "signer-1", "--secret", secret]):
        answer = cli("webhook-signer", *arguments)
        assert answer.exit_code == 1
        assert secret[30:60] not in answer.err


def test_the_audit_fails_when_the_books_do_not_agree(cli: Cli, conninfo: str, gateway: str) -> None:
    with psycopg.connect(conninfo, autocommit=True) as owner, _put_back(owner, gateway):
        answer = cli("ledger", "verify")
        assert answer.exit_code == 1
        assert "THE BOOKS ARE NOT IN ORDER" in answer.out
        assert "the balance is 1, the postings sum to 0" in answer.out
        document = json.loads(cli("ledger", "verify", "--json").out)
        assert document["is_clean"] is False
        assert {finding["claim"] for finding in document["findings"]} == {"balance", "zero_sum"}


@contextmanager
def _put_back(owner: psycopg.Connection[Any], gateway: str) -> Iterator[None]:
    change = "UPDATE account SET balance = %s FROM gateway WHERE gateway.id = account.id AND gateway.name = %s"
    owner.execute(change, [Decimal(1), gateway])
    try:
        yield
    finally:
        owner.execute(change, [Decimal(0), gateway])


@pytest.mark.parametrize(
    "arguments",
    [["gateway", "create"], ["credit", "grant", "x", "5"], ["nonsense"], ["balance", "x", "--nonsense"],
     ["issuances", "x", "--limit", "many"]],
)  # fmt: skip
def test_a_command_line_that_cannot_be_understood_exits_2(cli: Cli, arguments: list[str]) -> None:
    answer = cli(*arguments)
    assert (answer.exit_code, answer.out) == (2, "")
    assert answer.err


@pytest.mark.parametrize("arguments", [[], ["gateway"], ["key"], ["webhook-signer"], ["credit"], ["ledger"]])
def test_without_arguments_help_is_shown(cli: Cli, arguments: list[str]) -> None:
    answer = cli(*arguments)
    assert "Usage:" in answer.out + answer.err
    assert "Commands:" in answer.out + answer.err


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_json_a_data_dir_and_help(cli: Cli, command: str) -> None:
    answer = cli(*command.split(), "--help")
    assert answer.exit_code == 0
    assert "--json" in answer.out
    assert "--data-dir" in answer.out


def test_a_database_of_ones_own_is_used_as_it_is(cli: Cli, database: str, tmp_path: Path) -> None:
    elsewhere = {
        "CLEARINGHOUSE_DATABASE_URL": "postgresql://nobody@127.0.0.1:1/nothing",
        "CLEARINGHOUSE_ADMIN_DATABASE_URL": database,
        "CLEARINGHOUSE_DATA_DIR": str(tmp_path / "unused"),
    }
    assert cli("gateway", "create", "theirs", "--json", **elsewhere).json()["name"] == "theirs"
    refused = cli("key", "create", "theirs", **elsewhere)
    assert refused.exit_code == 1
    assert "bad_configuration" in refused.err
    assert "CLEARINGHOUSE_API_KEY_PEPPER_FILE" in refused.err
    pepper_file = tmp_path / "pepper"
    pepper_file.write_text("ab" * 32 + "\n")
    made = cli("key", "create", "theirs", "--json", **elsewhere, CLEARINGHOUSE_API_KEY_PEPPER_FILE=str(pepper_file))
    with psycopg.connect(database) as owner:
        row = owner.execute("SELECT secret_hmac FROM api_key").fetchone()
    assert row == (secret_hmac(b"ab" * 32, API_KEY.read(made.json()["api_key"]).secret),)
    assert not (tmp_path / "unused").exists()


def test_a_database_of_ones_own_is_not_migrated_behind_ones_back(cli: Cli, conninfo: str) -> None:
    empty = psycopg.conninfo.make_conninfo(conninfo, dbname="empty")
    with psycopg.connect(conninfo, autocommit=True) as owner:
        owner.execute("CREATE DATABASE empty")
    answer = cli("gateway", "list", CLEARINGHOUSE_DATABASE_URL=empty)
    assert answer.exit_code == 1
    assert "run `clearinghouse migrate`" in answer.err
    with psycopg.connect(empty) as owner:
        assert owner.execute("SELECT count(*) FROM pg_tables WHERE schemaname = 'public'").fetchone() == (0,)
    migrate(empty)
    assert cli("gateway", "list", "--json", CLEARINGHOUSE_DATABASE_URL=empty).json() == {"items": []}


def test_a_database_that_cannot_be_reached_is_said_so_without_its_password(cli: Cli) -> None:
    url = "postgresql://clearing:s3cr3t@127.0.0.1:1/books"
    answer = cli("balance", "acme", CLEARINGHOUSE_DATABASE_URL=url)
    assert answer.exit_code == 1
    assert answer.err.startswith("database_unavailable: ")
    assert "s3cr3t" not in answer.err


def test_a_wrong_setting_is_named(cli: Cli) -> None:
    answer = cli("balance", "acme", CLEARINGHOUSE_DATABSE_URL="postgresql://x/y")
    assert answer.exit_code == 1
    assert answer.err.startswith("bad_configuration: ")
    assert "CLEARINGHOUSE_DATABASE_URL" in answer.err


def test_a_new_data_directory_is_set_up_by_the_first_command_and_left_stopped(tmp_path: Path) -> None:
    data_dir = tmp_path / "new"
    first = _process("gateway", "create", "acme", "--json", "--data-dir", str(data_dir))
    assert json.loads(first.stdout)["name"] == "acme"
    assert "Creating a new database" in first.stderr
    second = _process("balance", "acme", "--json", "--data-dir", str(data_dir))
    assert json.loads(second.stdout)["available"] == "0"
    assert second.stderr == ""
    assert not (data_dir / "postgres" / "postmaster.pid").exists()


LOADED_FOR_HELP = """
import sys
from settlement.cli import main
sys.argv = ["clearinghouse", "--help"]
try:
    main()
finally:
    names = {name.partition(".")[0] for name in sys.modules} - set(sys.stdlib_module_names)
    print(*(name for name in names if not name.startswith("_")), file=sys.stderr)
"""


def test_help_comes_at_once_because_it_loads_nothing_else() -> None:
    command = [sys.executable, "-c", LOADED_FOR_HELP]
    shown = subprocess.run(command, capture_output=True, check=True, text=True, timeout=60)
    assert "Usage:" in shown.stdout
    assert set(shown.stderr.split()) <= {"clearinghouse", "settlement", "typer", "shellingham", "annotated_doc"}


def test_starting_up_imports_nothing_heavy() -> None:
    code = "import settlement.cli, sys; print(*sorted({name.partition('.')[0] for name in sys.modules}))"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    heavy = {"sqlalchemy", "psycopg", "alembic", "pydantic", "fastapi", "grpc", "coincurve", "numpy", "apscheduler"}
    assert not heavy & set(loaded)


def _process(*arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("CLEARINGHOUSE_")}
    command = [sys.executable, "-m", "settlement.cli", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True, env=environment, timeout=120)


# --- prices -----------------------------------------------------------------------------------------------------------


def price_of(cli: Cli, currency: str, **environment: str) -> dict[str, Any]:
    items = cli("price", "--json", **environment).json()["items"]
    (found,) = [each for each in items if each["currency"] == currency]
    return dict(found)


def test_the_price_is_shown_with_its_source_and_one_set_by_hand_with_who_and_until_when(cli: Cli) -> None:
    found = price_of(cli, "USD")
    assert (found["price"], found["source"], found["override"], found["missing"]) == ("3000", "declared", None, None)
    done = cli("price", "set", "USD", "3210.50", "--until", "2h", "--reason", "the feed stands still", "--json").json()
    assert (done["currency"], done["price"], done["reason"]) == ("USD", "3210.5", "the feed stands still")
    assert done["actor"].startswith("cli:")
    found = price_of(cli, "USD")
    assert (found["price"], found["source"], found["until"]) == ("3210.5", "override", done["until"])
    assert found["override"] == done
    told = cli("price").out
    assert re.search(rf"USD +3210.5 +override .* set by {done['actor']} until .*: the feed stands still", told)
    cli("price", "clear", "USD")
    assert price_of(cli, "USD")["source"] == "declared"
    assert cli("price", "clear", "USD").err.startswith("not_found: no override of the price in USD")


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (("3000", "--until", "tomorrow"), "an end is written"),
        (("3000", "--until", "8d"), "within 7 days"),
        (("3000", "--until", "2020-01-01T00:00:00Z"), "not before now"),
        (("3,000", "--until", "1h"), "plain decimal number"),
    ],
)
def test_a_price_that_cannot_be_or_an_end_that_is_none_is_refused(
    cli: Cli, arguments: tuple[str, ...], reason: str
) -> None:
    answer = cli("price", "set", "USD", *arguments)
    assert (answer.exit_code, reason in answer.err) == (1, True), answer
    assert price_of(cli, "USD")["source"] == "declared"


def test_prices_from_a_chain_that_is_not_configured_say_what_is_needed(cli: Cli) -> None:
    answer = cli("price", CLEARINGHOUSE_PRICE__SOURCE="chainlink")
    assert answer.err.startswith("bad_configuration: chain.rpc_urls is needed")


def test_a_feed_that_cannot_be_read_is_told_as_the_reason(cli: Cli) -> None:
    chain = {
        "CLEARINGHOUSE_PRICE__SOURCE": "chainlink", "CLEARINGHOUSE_CHAIN__RPC_URLS": "http://127.0.0.1:9/key",
        "CLEARINGHOUSE_CHAIN__QUORUM_COUNT": "1",
    }  # fmt: skip
    found = price_of(cli, "USD", **chain)
    assert (found["price"], found["source"]) == (None, None)
    assert "rpc-1 connection_failed" in found["missing"]


# --- rate cards -----------------------------------------------------------------------------------------------------

CARD = """
card = "{name}"
version = {version}
currency = "USD"
effective_from = {effective_from}
[[rates]]
per = "request"
tiers = [{{ up_to = "2", price = "{price}" }}, {{ price = "0.01" }}]
"""


def card_file(tmp_path: Path, name: str, *, version: int = 1, begins: str = "2026-01-01T00:00:00Z", price: str) -> str:
    file = tmp_path / f"{name}-{version}.toml"
    file.write_text(CARD.format(name=name, version=version, effective_from=begins, price=price), encoding="utf-8")
    return str(file)


def test_a_rate_card_is_applied_assigned_and_quoted_as_the_gateway_has_it(
    cli: Cli, gateway: str, tmp_path: Path
) -> None:
    name = f"card-{uuid7().hex}"
    first = card_file(tmp_path, name, price="0.03")
    (applied,) = cli("rates", "apply", first, "--json").json()["items"]
    assert (applied["card"], applied["version"], applied["rates"]) == (name, 1, 1)
    assert applied["applied_by"].startswith("cli:")
    assert cli("rates", "apply", first, "--json").json()["items"] == [applied], "applied again it is as it was"
    assert cli("gateway", "show", gateway, "--json").json()["rate_card"] is None

    assigned = cli("rates", "assign", name, "--gateway", gateway, "--json").json()
    assert assigned == {"gateway": gateway, "rate_card": name, "below_cost": False}
    assert cli("gateway", "show", gateway, "--json").json()["rate_card"] == name
    ahead = "2099-01-01T00:00:00Z"
    cli("rates", "apply", card_file(tmp_path, name, version=2, begins=ahead, price="0.05"))
    quoted = ("rates", "quote", "--gateway", gateway, "--json")
    assert cli(*quoted).json()["charge"] == "0.03"
    assert cli(*quoted, "--at", ahead).json()["charge"] == "0.05"
    assert cli(*quoted, "--after", "2").json()["charge"] == "0.01"
    preview = card_file(tmp_path, name, version=3, price="0.07")
    assert cli("rates", "quote", preview, *quoted[2:]).json()["charge"] == "0.07"

    versions = [item["version"] for item in cli("rates", "list", "--json").json()["items"] if item["card"] == name]
    assert versions == [1, 2]
    assert cli("rates", "show", name, "--json").json()["effective_from"] == "2099-01-01T00:00:00.000000Z"
    assert cli("rates", "show", name, "--version", "1", "--json").json()["rates"][0]["tiers"][0]["price"] == "0.03"
    assert "0.03 up to 2, 0.01 up to any" in cli("rates", "show", name, "--version", "1").out
    assert cli("rates", "assign", "none", "--gateway", gateway, "--json").json()["rate_card"] == "none"


def test_a_quote_for_a_gateway_counts_what_its_month_has_come_to(
    cli: Cli, conninfo: str, gateway: str, tmp_path: Path
) -> None:
    name = f"card-{uuid7().hex}"
    cli("rates", "apply", card_file(tmp_path, name, price="0.03"))
    cli("rates", "assign", name, "--gateway", gateway)
    cli("credit", "grant", gateway, "1", "--reason", "test")
    gateway_id = parse("gw", cli("gateway", "show", gateway, "--json").json()["gateway_id"])
    key = parse("key", cli("key", "create", gateway, "--json").json()["key_id"])
    with psycopg.connect(conninfo) as owner:
        ((rule, terms),) = owner.execute(
            "SELECT rule.id, ceilings_version FROM rate_rule AS rule, gateway WHERE card = %s AND gateway.id = %s",
            [name, gateway_id],
        ).fetchall()
        call = {"charge": Decimal("0.03"), "rate_rule": rule, "quantity": 2, "ceilings_version": terms}
        assert commit(owner, replace(usage(gateway_id, key, ev_wei=1), **call))[0] is None  # type: ignore[arg-type]
    quoted = cli("rates", "quote", "--gateway", gateway, "--json").json()
    assert (quoted["quantity_before"], quoted["charge"]) == ("2", "0.01")


def test_a_plan_brings_its_gateways_a_card_and_may_allow_to_sell_below_cost(
    cli: Cli, gateway: str, tmp_path: Path
) -> None:
    name = f"card-{uuid7().hex}"
    cli("rates", "apply", card_file(tmp_path, name, price="0.03"))
    cli("plan", "create", name)
    cli("gateway", "set-plan", gateway, name)
    assigned = cli("rates", "assign", name, "--plan", name, "--below-cost", "--json").json()
    assert assigned == {"plan": name, "rate_card": name, "below_cost": True, "gateways": 1}
    assert cli("gateway", "show", gateway, "--json").json()["rate_card"] == name


@pytest.mark.parametrize(("arguments", "message"), [
    (("assign", "none"), "name a gateway with --gateway, or a plan with --plan"),
    (("assign", "none", "--gateway", "a", "--plan", "b"), "name a gateway with --gateway, or a plan"),
    (("assign", "none", "--gateway", "a", "--below-cost"), "--below-cost goes with a plan"),
    (("assign", "nothing-of-the-kind", "--plan", "default"), "there is no rate card nothing-of-the-kind"),
    (("show", "nothing-of-the-kind"), "there is no rate card nothing-of-the-kind"),
    (("quote",), "name a rate card's file, or a gateway"),
])  # fmt: skip
def test_what_cannot_be_done_with_rate_cards_is_said(cli: Cli, arguments: tuple[str, ...], message: str) -> None:
    answer = cli("rates", *arguments)
    assert answer.exit_code != 0
    assert message in answer.err


def test_a_quote_for_a_gateway_on_no_card_says_so(cli: Cli, gateway: str) -> None:
    assert "is on no rate card: its calls are charged by its markup" in cli("rates", "quote", "--gateway", gateway).err


def test_a_database_that_is_lost_to_several_tasks_at_once_is_explained_and_a_bug_beside_it_is_not_hidden() -> None:
    async def lost(*more: Exception) -> None:
        async def fails(error: Exception) -> None:
            raise error

        async with asyncio.TaskGroup() as group:
            for _ in range(2):
                group.create_task(psycopg.AsyncConnection.connect("host=127.0.0.1 port=1"))
            for error in more:
                group.create_task(fails(error))

    with pytest.raises(DatabaseNotReady, match="the database cannot be used: connection failed"), database_explained():
        asyncio.run(lost())
    with pytest.raises(ExceptionGroup), database_explained():
        asyncio.run(lost(ValueError("a bug")))


def test_the_service_alone_does_not_promise_a_stripe_that_nobody_starts(tmp_path: Path) -> None:
    answer = called(app, ["dev", "--stripe-local", "--data-dir", str(tmp_path)], {})
    assert (answer.exit_code, answer.out) == (1, "")
    assert "`clearinghouse dev` has it" in answer.err
    assert "no worker, no Stripe" in " ".join(called(app, ["--help"], {}).out.split())
