"""`clearinghouse treasury`, as operators run it: what they write down, once, and what they take back."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Final

import psycopg
import pytest

from clearinghouse.database.connect import ADMIN_ROLE, SERVE_ROLE, WORK_ROLE, in_role
from settlement.cli import app
from tests.parts.command_line import Answer, called
from tests.settlement.conftest import Owner

HASH: Final = "0x" + "5e" * 32
SENDER: Final = "0x" + "33" * 20
TRADE: Final = {
    "--paid": "8012.50", "--fee": "12.50", "--currency": "USD", "--venue": "kraken", "--reference": "TX-1",
    "--at": "2026-10-05T12:00:00Z",
}  # fmt: skip
CHANGES: Final = [
    f"{change} {table}{rest}"
    for table in ("treasury_conversion", "treasury_movement", "treasury_void")
    for change, rest in (("UPDATE", " SET {} = {} || 'x'"), ("DELETE FROM", ""), ("TRUNCATE", ""))
]


@dataclass(frozen=True)
class Cli:
    database: str

    def __call__(self, *arguments: str) -> Answer:
        environment = {"CLEARINGHOUSE_ADMIN_DATABASE_URL": self.database, "CLEARINGHOUSE_CHAIN__NETWORK": "dev"}
        return called(app, arguments, environment)

    def json(self, *arguments: str) -> Any:
        return self(*arguments, "--json").json()

    def buy(self, bought: str = "2.5eth", **changes: str) -> Answer:
        options = TRADE | {f"--{name}": value for name, value in changes.items()}
        return self("treasury", "buy", bought, *(word for pair in options.items() for word in pair), "--json")

    def move(self, *amounts: str) -> Answer:
        given = (HASH, "--block", "7", "--sender", SENDER, "--note", "by Ann")
        return self("treasury", "move", *given, *amounts, "--json")


@pytest.fixture
def cli(database: str) -> Cli:
    return Cli(database)


def test_a_trade_is_recorded_once_and_with_other_values_not_at_all(cli: Cli) -> None:
    bought = cli.buy().json()
    assert (bought["paid"], bought["fee"], bought["bought_wei"]) == ("8012.5", "12.5", "2500000000000000000")
    assert (bought["price_with_fee"], bought["was_there"]) == ("3205", False)
    again = cli.buy(reference="tx-1").json()
    assert (again["id"], again["was_there"]) == (bought["id"], True)
    other = cli.buy("2.6eth", paid="8012.51")
    assert (other.exit_code, "another amount paid, amount bought" in other.err) == (1, True)
    assert "treasury void" in other.err
    assert len(cli.json("treasury", "list")["conversions"]) == 1


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"paid": "8012.505"}, "USD has 2 decimals"),
        ({"paid": "12.50"}, "the fee is a part of what was paid"),
        ({"currency": "JPY", "paid": "1000", "fee": "0.5"}, "JPY has 0 decimals"),
        ({"currency": "USDC"}, "nothing is billed in 'USDC'"),
        ({"currency": "ETH"}, "ETH is not bought with ETH"),
        ({"at": "2999-01-01"}, "a time to come"),
        ({"reference": " "}, "a reference is one line"),
    ],
)
def test_what_cannot_be_a_trade_is_refused_and_said_why(cli: Cli, changes: dict[str, str], says: str) -> None:
    refused = cli.buy(**changes)
    assert (refused.exit_code, says in refused.err) == (1, True), refused.err


def test_what_was_voided_is_recorded_anew_and_stays_to_be_seen(cli: Cli) -> None:
    wrong = cli.buy("25eth").json()
    voided = cli.json("treasury", "void", wrong["id"], "--reason", "a zero too many")
    assert (voided["voided"]["reason"], voided["was_there"]) == ("a zero too many", False)
    again = cli.json("treasury", "void", wrong["id"], "--reason", "once more")
    assert (again["voided"]["reason"], again["was_there"]) == ("a zero too many", True)
    right = cli.buy().json()
    assert right["id"] != wrong["id"]
    listed = cli.json("treasury", "list")["conversions"]
    assert {each["id"]: each["voided"] is not None for each in listed} == {wrong["id"]: True, right["id"]: False}
    assert "a zero too many" in cli("treasury", "list").out
    unknown = cli("treasury", "void", f"mov_{'0' * 32}", "--reason", "x")
    assert (unknown.exit_code, "there is no record" in unknown.err) == (1, True)


def test_movements_that_the_index_does_not_have_are_given_with_amount_and_block(cli: Cli) -> None:
    refused = cli("treasury", "accept", HASH, "--note", "by Ann")
    assert (refused.exit_code, "the chain was never read" in refused.err) == (1, True)
    assert "treasury move" in refused.err
    assert "nothing moved" in cli.move().err
    both = cli.move("--deposit", "1eth", "--reserve", "0.5eth").json()["items"]
    assert [(each["kind"], each["amount_wei"], each["was_there"]) for each in both] == [
        ("deposit_funded", "1000000000000000000", False), ("reserve_funded", "500000000000000000", False),
    ]  # fmt: skip
    (again,) = cli.move("--deposit", "1eth").json()["items"]
    assert (again["id"], again["was_there"]) == (both[0]["id"], True)
    other = cli.move("--deposit", "2eth")
    assert (other.exit_code, "and not 2000000000000000000" in other.err) == (1, True)


def test_nobody_changes_what_was_written_and_who_signs_does_not_see_it(cli: Cli, owner: Owner) -> None:
    cli.json("treasury", "void", cli.buy().json()["id"], "--reason", "of a test")
    cli.move("--withdrawn", "1eth").json()
    for change in CHANGES:
        column = {"conversion": "note", "movement": "note"}.get(change.split("_")[1].split()[0], "reason")
        with pytest.raises(psycopg.errors.InsufficientPrivilege, match="append-only"):
            owner.execute(change.format(column, column).encode())
    writing = "SELECT void_treasury_record(id, 'x', 'x') FROM treasury_movement"
    forbidden = {
        SERVE_ROLE: ["SELECT * FROM treasury_conversion", "SELECT * FROM treasury_movement_in_force", writing],
        WORK_ROLE: [writing, "INSERT INTO treasury_void SELECT * FROM treasury_void"],
        ADMIN_ROLE: ["INSERT INTO treasury_void SELECT * FROM treasury_void", "DELETE FROM treasury_conversion"],
    }
    for role, statements in forbidden.items():
        with psycopg.connect(in_role(cli.database, role), autocommit=True) as connection:
            for statement in statements:
                with pytest.raises(psycopg.errors.InsufficientPrivilege, match="permission denied"):
                    connection.execute(statement.encode())


def test_two_who_record_the_same_trade_at_once_have_one_record(owner: Owner, database: str) -> None:
    buying = """
        SELECT id FROM record_conversion(gen_random_uuid(), 'kraken', %s, 'USD', 100, 0, 1, now(), '', 'a test')
    """
    with psycopg.connect(database) as slow, ThreadPoolExecutor() as pool:
        (first,) = slow.execute(buying, ["TX-1"]).fetchone() or ()
        second = pool.submit(lambda: owner.execute(buying, ["tx-1"]).fetchone())
        with pytest.raises(TimeoutError):
            second.result(timeout=0.3)
        slow.commit()
        assert second.result(timeout=5) == (first,)
