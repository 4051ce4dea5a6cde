"""`clearinghouse topup`, as an operator runs it: on a real chain, with a treasury wallet in a keystore."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psycopg
import pytest
from eth_keyfile.keyfile import create_keyfile_json

from chain.funding import Amounts
from chain.signatures import checksum_address, keccak
from settlement.cli import app
from tests.parts.command_line import Answer, called
from tests.parts.devnet import Devnet
from tests.parts.topups import SENDER, escrow
from tests.parts.wallet import ETHER, TREASURY, give, quiet_afterwards, without_blocks

PASSWORD = "the wallet's pa55word"
ROOT = Path(__file__).parents[3]


@dataclass(frozen=True)
class Cli:
    devnet: Devnet
    database: str
    environment: dict[str, str]

    def __call__(self, *arguments: str, **changes: str) -> Answer:
        return called(app, ["topup", *arguments], self.environment | changes)

    def start(self, *arguments: str, clock_wrong_by_s: int = 0, **changes: str) -> subprocess.Popen[str]:
        wrong = ["tests.parts.wrong_clock", str(clock_wrong_by_s)] if clock_wrong_by_s else []
        command = [sys.executable, "-m", *wrong, "settlement.cli", "topup", *arguments]
        environment = {**os.environ, **self.environment, **changes}
        return subprocess.Popen(
            command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            stdin=subprocess.DEVNULL, text=True,
        )  # fmt: skip

    def states(self) -> list[str]:
        with psycopg.connect(self.database, autocommit=True) as connection:
            return [state for (state,) in connection.execute("SELECT state FROM topup ORDER BY created_at")]


@pytest.fixture
def cli(database: str, devnet: Devnet, tmp_path: Path) -> Iterator[Cli]:
    give(devnet, TREASURY.address, 100 * ETHER)
    devnet.mine()
    keystore, password_file = tmp_path / "treasury.json", tmp_path / "password"
    document = create_keyfile_json(keccak(b"a treasury wallet"), PASSWORD.encode(), kdf="pbkdf2", iterations=2)
    keystore.write_text(json.dumps(document), encoding="utf-8")
    password_file.write_text(PASSWORD, encoding="utf-8")
    with quiet_afterwards(devnet):
        yield Cli(
            devnet,
            database,
            {
                "CLEARINGHOUSE_ADMIN_DATABASE_URL": database,
                "CLEARINGHOUSE_CHAIN__NETWORK": "dev",
                "CLEARINGHOUSE_CHAIN__RPC_URLS": f"{devnet.url},{devnet.url}/?second",
                "CLEARINGHOUSE_CHAIN__CONFIRMATIONS_COUNT": "1",
                "CLEARINGHOUSE_TOPUPS__SENDER": checksum_address(SENDER.address),
                "CLEARINGHOUSE_TOPUPS__WALLET": "keystore",
                "CLEARINGHOUSE_TOPUPS__WALLET_KEYSTORE_FILE": str(keystore),
                "CLEARINGHOUSE_TOPUPS__WALLET_PASSWORD_FILE": str(password_file),
            },
        )


def test_an_operator_plans_sends_and_looks_it_up(cli: Cli) -> None:
    planned = cli("plan", "--deposit", "0.3eth", "--json").json()
    assert (planned["deposit_wei"], planned["payer"]) == (str(3 * ETHER // 10), checksum_address(TREASURY.address))
    assert cli.states() == []

    sent = cli("send", "--deposit", "0.3eth", "--reserve", "0.1eth", "--reason", "launch", "--yes", "--json").json()
    assert (sent["state"], sent["reason"]) == ("confirmed", "launch")
    assert sent["actor"].startswith("cli:")
    assert escrow(cli.devnet) == Amounts(3 * ETHER // 10, ETHER // 10)

    (listed,) = cli("list", "--json").json()["items"]
    assert listed["id"] == sent["id"]
    shown = cli("show", sent["id"], "--json").json()
    assert [event["kind"] for event in shown["events"]] == ["planned", "signed", "sent", "confirmed"]
    assert sent["transactions"][0]["hash"] in cli("show", sent["id"]).out
    assert "0.300000 ETH" in cli("list").out


def test_without_a_terminal_a_yes_is_needed_and_nothing_is_sent(cli: Cli) -> None:
    refused = cli("send", "--deposit", "0.3eth")
    assert refused.exit_code == 1
    assert "--yes" in refused.err
    assert cli.states() == []


@pytest.mark.parametrize(
    ("arguments", "changes", "says"),
    [
        (["--deposit", "0.6eth"], {}, "transaction_cap"),
        ([], {}, "no_advice"),
        (["--deposit", "0.1eth"], {"CLEARINGHOUSE_TOPUPS__FEE_MAX_WEI": "1", "CLEARINGHOUSE_TOPUPS__PRIORITY_FEE_WEI":
         "0", "CLEARINGHOUSE_TOPUPS__PRIORITY_FEE_MAX_WEI": "1"}, "fees_too_high"),
        (["--deposit", "0.1eth"], {"CLEARINGHOUSE_CHAIN__RPC_URLS": "http://127.0.0.1:9,http://127.0.0.1:10"},
         "chain_undecided"),
        (["--deposit", "0.1.2"], {}, "amount"),
    ],
)  # fmt: skip
def test_what_stands_in_the_way_is_explained(
    cli: Cli, arguments: list[str], changes: dict[str, str], says: str
) -> None:
    answer = cli("plan", *arguments, **changes)
    assert answer.exit_code in {1, 2}
    assert says in answer.err
    assert len(answer.err.splitlines()) >= 2


def test_without_a_wallet_a_command_says_which_settings_make_one(cli: Cli) -> None:
    bare = {name: value for name, value in cli.environment.items() if "WALLET" not in name}
    answer = Cli(cli.devnet, cli.database, bare)("plan", "--deposit", "0.1eth")
    assert answer.exit_code == 1
    assert "topups.wallet" in answer.err


def test_a_wallet_that_is_empty_is_told_what_it_lacks(cli: Cli) -> None:
    give(cli.devnet, TREASURY.address, ETHER // 10)
    cli.devnet.mine()
    answer = cli("plan", "--deposit", "0.3eth")
    assert answer.exit_code == 1
    assert "wallet_short" in answer.err
    assert "Send ETH to the wallet" in answer.err


def test_one_that_is_killed_while_it_waits_is_followed_to_its_end_and_paid_once(cli: Cli) -> None:
    with without_blocks(cli.devnet):
        process = cli.start("send", "--deposit", "0.3eth", "--yes")
        until_sent(cli)
        process.kill()
        _, said = process.communicate()
        assert PASSWORD not in said
        refused = cli("send", "--deposit", "0.3eth", "--yes")
        assert "in_flight" in refused.err or "wallet_busy" in refused.err
        for _ in range(3):
            cli.devnet.mine()
    assert cli("follow", "--json").json()["state"] == "confirmed"
    assert escrow(cli.devnet) == Amounts(3 * ETHER // 10, 0)


def test_a_clock_that_is_ahead_makes_no_room_under_the_cap_of_a_day(cli: Cli) -> None:
    """What was sent 23 and a half hours ago counts, also where a machine says that it was yesterday."""
    room = {"CLEARINGHOUSE_TOPUPS__DAY_MAX_WEI": str(ETHER // 2), "CLEARINGHOUSE_CHAIN__STALE_MAX_S": "3600"}
    assert cli("send", "--deposit", "0.3eth", "--yes", "--json").json()["state"] == "confirmed"
    with psycopg.connect(cli.database, autocommit=True) as connection:
        connection.execute("SET session_replication_role = replica")  # past the triggers that keep the audit
        connection.execute("UPDATE topup SET ended_at = now() - interval '23 hours 30 minutes'")
    process = cli.start("send", "--deposit", "0.3eth", "--yes", clock_wrong_by_s=50 * 60, **room)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 1
    assert "day_cap" in said
    assert cli.states() == ["confirmed"]


def test_one_that_waits_is_followed_without_its_wallet_and_cancelled_only_with_it(cli: Cli) -> None:
    gone = Cli(cli.devnet, cli.database, {n: value for n, value in cli.environment.items() if "WALLET" not in n})
    with without_blocks(cli.devnet):
        sent = cli("send", "--deposit", "0.3eth", "--yes", "--no-wait", "--json").json()
        refused = gone("cancel", sent["id"], "--yes")
        assert refused.exit_code == 1
        assert "wallet_gone" in refused.err
        assert "Set topups.wallet as it was" in refused.err
        assert gone("follow", "--no-wait", "--json").json()["state"] == "sent"
        for _ in range(3):
            cli.devnet.mine()
    assert gone("follow", "--json").json()["state"] == "confirmed"
    assert "no_wallet" in gone("send", "--deposit", "0.3eth", "--yes").err


def test_one_that_waits_is_cancelled(cli: Cli) -> None:
    with without_blocks(cli.devnet):
        sent = cli("send", "--deposit", "0.3eth", "--yes", "--no-wait", "--json").json()
        assert sent["state"] == "sent"
        cancelled = cli("cancel", sent["id"], "--yes", "--no-wait", "--json").json()
        assert [each["purpose"] for each in cancelled["transactions"]] == ["fund", "cancel"]
        for _ in range(3):
            cli.devnet.mine()
    assert cli("follow", "--json").json()["state"] == "cancelled"
    assert escrow(cli.devnet) == Amounts(0, 0)


def test_a_new_wallet_pays_once_it_has_money(cli: Cli, tmp_path: Path) -> None:
    password_file, keystore = tmp_path / "new_password", tmp_path / "new.json"
    password_file.write_text("another pa55word\n", encoding="utf-8")
    made = ("new-wallet", str(keystore), "--password-file", str(password_file))
    address = cli(*made, "--json").json()["address"]
    assert keystore.stat().st_mode & 0o077 == 0
    assert "never replaced" in cli(*made).err
    give(cli.devnet, bytes.fromhex(address[2:]), ETHER)
    cli.devnet.mine()
    wallet = {
        "CLEARINGHOUSE_TOPUPS__WALLET_KEYSTORE_FILE": str(keystore),
        "CLEARINGHOUSE_TOPUPS__WALLET_PASSWORD_FILE": str(password_file),
    }
    sent = cli("send", "--reserve", "0.2eth", "--yes", "--json", **wallet).json()
    assert (sent["payer"], sent["state"]) == (address, "confirmed")
    assert escrow(cli.devnet) == Amounts(0, ETHER // 5)


def test_an_unknown_one_is_not_found(cli: Cli) -> None:
    for command in (["show"], ["cancel", "--yes"]):
        answer = cli(*command, "0c1d2e3f-0000-4000-8000-000000000000")
        assert (answer.exit_code, "not_found" in answer.err) == (1, True)
        assert "invalid_request" in cli(*command, "nonsense").err


def test_the_wallets_key_and_password_are_in_no_argument(cli: Cli) -> None:
    from tests.parts.processes import watched_arguments

    with watched_arguments() as seen:
        process = cli.start("plan", "--deposit", "0.1eth")
        out, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    secrets = [PASSWORD, keccak(b"a treasury wallet").hex()]
    assert [secret for secret in secrets for text in (*seen, out, err) if secret in text] == []


def test_a_service_that_signs_payments_is_warned_off_the_wallet(
    cli: Cli, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from clearinghouse.cli.context import settings_of
    from clearinghouse.cli.running import _warn

    for name, value in cli.environment.items():
        monkeypatch.setenv(name, value)
    _warn(settings_of(), None)
    assert "topups.wallet is set" in capsys.readouterr().err


@pytest.mark.parametrize("command", ["plan", "send", "follow", "cancel", "list", "show"])
def test_every_command_has_json_a_data_dir_and_an_example(cli: Cli, command: str) -> None:
    answer = cli(command, "--help")
    assert answer.exit_code == 0
    for part in ("--json", "--data-dir", "Example", f"clearinghouse topup {command}"):
        assert part in answer.out


def until_sent(cli: Cli) -> None:
    give_up_at_s = time.monotonic() + 60
    while cli.states() != ["sent"]:
        assert time.monotonic() < give_up_at_s, cli.states()
        threading.Event().wait(0.05)
