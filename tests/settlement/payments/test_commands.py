"""`clearinghouse payments`, as operators run it: two people, and a worker beside them."""

from __future__ import annotations

import os
import pwd
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

import psycopg
import pytest

from clearinghouse.database.connect import ADMIN_ROLE, SERVE_ROLE, in_role
from settlement.cli import app
from tests.parts.command_line import Answer, called
from tests.settlement.conftest import Owner

_ME = pwd.getpwuid(os.geteuid())


@dataclass(frozen=True)
class Cli:
    database: str
    monkeypatch: pytest.MonkeyPatch

    def __call__(self, *arguments: str, user: str = "ann") -> Answer:
        self.monkeypatch.setattr(pwd, "getpwuid", lambda _: pwd.struct_passwd((user, *_ME[1:])))
        return called(app, arguments, {"CLEARINGHOUSE_ADMIN_DATABASE_URL": self.database})

    def json(self, *arguments: str, user: str = "ann") -> Any:
        return self(*arguments, "--json", user=user).json()

    def balance(self) -> Decimal:
        return Decimal(self.json("balance", "acme")["balance"])


@pytest.fixture
def cli(database: str, monkeypatch: pytest.MonkeyPatch) -> Cli:
    monkeypatch.setattr("settlement.cli.payments._ANSWER_WITHIN_S", 0.2)
    found = Cli(database, monkeypatch)
    found.json("gateway", "create", "acme")
    return found


def test_a_wire_is_credit_when_another_person_approves_it_and_not_before(cli: Cli) -> None:
    receipt = cli.json("payments", "receipt", "acme", "5000", "--by", "wire", "--reference", "DE89-2026-114")
    assert (receipt["state"], receipt["requested_by"], cli.balance()) == ("requested", "cli:ann", 0)
    for name in ("LOGNAME", "USER", "LNAME", "USERNAME"):  # who somebody is is not for the environment to say
        cli.monkeypatch.setenv(name, "bob")
    own = cli("payments", "approve", receipt["id"])
    assert (own.exit_code, "another person" in own.err, cli.balance()) == (1, True, 0)
    assert "login of their own" in " ".join(own.err.split())
    approved = cli.json("payments", "approve", receipt["id"], "--reason", "on the statement", user="bob")
    assert (approved["state"], approved["decided_by"], cli.balance()) == ("succeeded", "cli:bob", 5000)
    assert cli("payments", "approve", receipt["id"], user="bob").exit_code == 1
    assert cli("payments", "refuse", receipt["id"], "--reason", "after all", user="bob").exit_code == 1
    assert cli.balance() == 5000
    assert [event["kind"] for event in approved["events"]] == ["requested", "approved"]


def test_what_arrived_once_is_entered_once_unless_it_was_refused(cli: Cli) -> None:
    enter = ("payments", "receipt", "acme", "100", "--by", "stablecoin", "--reference", "0xabc")
    first = cli.json(*enter)
    for reference in ("0xabc", "0xABC"):
        again = cli(*enter[:-1], reference, user="bob")
        assert (again.exit_code, "was entered before" in again.err) == (1, True)
    assert cli("payments", "refuse", first["id"], "--reason", "not there", user="ann").exit_code == 1
    assert cli.json("payments", "refuse", first["id"], "--reason", "not there", user="bob")["state"] == "canceled"
    second = cli.json(*enter)
    cli.json("payments", "approve", second["id"], user="bob")
    assert cli.balance() == 100
    assert "--by is one of" in cli("payments", "receipt", "acme", "1", "--by", "cash", "--reference", "x").err


def test_a_debt_is_written_off_once_and_never_more_than_is_owed(cli: Cli, owner: Owner) -> None:
    owner.execute(
        "SELECT book_entry(gen_random_uuid(), 'adjustment', id, -31.20, NULL, 'a:1', 'a test', 'test') FROM gateway"
    )
    too_much = cli("payments", "write-off", "acme", "31.21", "--reason", "insolvent", "--key", "case-17")
    assert (too_much.exit_code, "owes 31.2 USD" in too_much.err, cli.balance()) == (1, True, Decimal("-31.2"))
    for _ in range(2):
        cli.json("payments", "write-off", "acme", "31.20", "--reason", "insolvent", "--key", "case-17")
    assert cli.balance() == 0


def test_without_a_worker_a_link_is_asked_for_and_the_operator_hears_why_there_is_none_yet(cli: Cli) -> None:
    asked = cli("payments", "checkout", "acme", "250", "--save-card", "--key", "order-1")
    assert (asked.exit_code, "is `clearinghouse work` running?" in asked.err) == (0, True)
    (item,) = cli.json("payments", "list", "acme")["items"]
    assert (item["method"], item["state"], item["amount"]) == ("checkout", "requested", "250")
    assert cli.json("payments", "list", "--state", "succeeded")["items"] == []
    assert "requested" in cli("payments", "list").out
    shown = cli("payments", "show", item["id"])
    assert ("requested" in shown.out, shown.exit_code) == (True, 0)
    for bad in (("charge", "acme", "0"), ("transfer", "nobody", "5"), ("show", "pay_1"), ("list", "--state", "paid")):
        assert cli("payments", *bad).exit_code == 1, bad


def test_disputes_are_listed_by_urgency_until_they_are_over(cli: Cli, owner: Owner) -> None:
    dispute = (
        "INSERT INTO dispute (id, gateway_id, stripe_charge_id, amount, currency, status, reason, due_by, ended_at) "
        "SELECT %s, id, 'ch_1', 40, 'USD', %s, 'fraudulent', %s, %s FROM gateway"
    )
    for row in (
        ("dp_later", "needs_response", "2030-01-02", None),
        ("dp_soon", "under_review", "2030-01-01", None),
        ("dp_won", "won", "2029-01-01", "2029-02-01"),
        ("dp_lost", "lost", "2029-01-01", "2029-02-01"),
    ):
        owner.execute(dispute, row)
    listed = [item["id"] for item in cli.json("payments", "disputes")["items"]]
    assert listed == ["dp_soon", "dp_later", "dp_lost"]
    assert "dp_soon" in cli("payments", "disputes").out
    assert cli.json("payments", "forgive-disputes", "acme", "--reason", "paid by wire")["forgiven_count"] == 3
    assert "dp_lost" not in cli("payments", "disputes").out
    assert "dp_won" in cli("payments", "disputes", "--all").out


def test_nobody_refunds_what_never_came(cli: Cli) -> None:
    receipt = cli.json("payments", "receipt", "acme", "100", "--by", "wire", "--reference", "1")
    cli.json("payments", "approve", receipt["id"], user="bob")
    refused = cli("payments", "refund", receipt["id"], "--reason", "back")
    assert (refused.exit_code, "credit withdraw" in refused.err) == (1, True)


CHANGES = (
    "UPDATE payment SET amount = amount + 1",
    "UPDATE payment SET requested_by = 'another'",
    "UPDATE payment SET state = 'failed' WHERE state = 'succeeded'",
    "DELETE FROM payment",
    "TRUNCATE payment CASCADE",
    "UPDATE payment_event SET facts = '{}'",
    "DELETE FROM payment_event",
    "DELETE FROM refund",
    "DELETE FROM dispute",
)


def test_not_even_the_owner_of_the_tables_changes_what_was(cli: Cli, owner: Owner) -> None:
    receipt = cli.json("payments", "receipt", "acme", "100", "--by", "wire", "--reference", "1")
    cli.json("payments", "approve", receipt["id"], user="bob")
    for change in CHANGES:
        with pytest.raises(psycopg.errors.InsufficientPrivilege, match="append-only"):
            owner.execute(change.encode())


def test_an_operator_makes_no_money_of_it(database: str) -> None:
    attempts = (
        "UPDATE payment SET state = 'succeeded'",
        "INSERT INTO payment SELECT * FROM payment",
        "UPDATE refund SET state = 'succeeded'",
        "SELECT confirm_payment(NULL, NULL, NULL, NULL, NULL)",
        "SELECT insert_payment(NULL, NULL, 'wire', 1, false, NULL, NULL, '', '')",
        "SELECT note_refund(NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL)",
    )
    with psycopg.connect(in_role(database, ADMIN_ROLE), autocommit=True) as connection:
        for attempt in attempts:
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                connection.execute(attempt.encode())


def test_who_serves_gateways_asks_and_looks_and_nothing_else(database: str) -> None:
    attempts = (
        "INSERT INTO payment SELECT * FROM payment",
        "SELECT stripe_customer_id FROM payment",
        "SELECT 1 FROM payment_event",
        "SELECT 1 FROM refund",
        "SELECT 1 FROM saved_card",
        "SELECT enter_receipt(NULL, NULL, 'wire', 1, 'r', '', '')",
        "SELECT plan_payment(NULL, NULL, 'automatic', 1, '', '')",
        "SELECT end_payment(NULL, 'failed', NULL, NULL, '', '')",
    )
    with psycopg.connect(in_role(database, SERVE_ROLE), autocommit=True) as connection:
        for attempt in attempts:
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                connection.execute(attempt.encode())
        with pytest.raises(psycopg.errors.CheckViolation):
            connection.execute("SELECT request_payment(NULL, NULL, 'wire', 1, false, NULL, '', '')")
