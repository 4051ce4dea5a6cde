"""`clearinghouse customers`, as people and scripts use it, over a real database."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest

from settlement.cli import app
from tests.parts.command_line import Answer, called

Cli = Callable[..., Answer]


@pytest.fixture
def cli(database: str) -> Cli:
    def call(*arguments: str) -> Answer:
        return called(app, arguments, {"CLEARINGHOUSE_DATABASE_URL": database})

    assert call("gateway", "create", "acme", "--currency", "EUR").exit_code == 0
    return call


SET = ("customers", "set", "acme")
NEW = (*SET, "--name", "Acme GmbH", "--email", "billing@acme.example", "--country", "DE")


def test_a_customer_is_described_bit_by_bit(cli: Cli) -> None:
    made = cli(*NEW, "--json").json()
    assert (made["name"], made["currency"], made["net_days"]) == ("Acme GmbH", "EUR", 14)
    changed = cli(*SET, "--tax-id", "eu_vat:DE123456789", "--net-days", "30", "--po-number", "PO-1", "--json").json()
    assert changed | {"changed_at": made["changed_at"]} == made | {
        "tax_id": "eu_vat:DE123456789", "net_days": 30, "po_number": "PO-1",
    }  # fmt: skip
    assert cli("customers", "show", "acme", "--json").json()["customer"] == changed
    assert cli("customers", "list", "--json").json() == {"items": [changed]}
    assert cli("customers", "remove-tax-id", "acme", "--json").json()["tax_id"] is None
    assert cli(*SET, "--po-number", "", "--json").json()["po_number"] == ""


def test_nothing_changes_where_anything_is_wrong_and_all_of_it_is_said(cli: Cli) -> None:
    before = cli(*NEW, "--json").json()
    refused = cli(*SET, "--name", "Other", "--email", "nobody", "--country", "Germany", "--net-days", "999")
    assert refused.exit_code == 1
    assert "billing@example.com" in refused.err
    assert "did you mean DE?" in refused.err
    assert "0 to 365 days" in refused.err
    assert cli("customers", "show", "acme", "--json").json()["customer"] == before


def test_what_does_not_go_together_changes_nothing(cli: Cli) -> None:
    before = cli(*NEW, "--json").json()
    refused = cli(*SET, "--taxed", "--country", "", "--city", "Hamburg")
    assert (refused.exit_code, "name its country" in refused.err) == (1, True)
    assert cli("customers", "show", "acme", "--json").json()["customer"] == before


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("customers", "cancel-terms", "acme"), "nothing is to change for acme"),
        (("customers", "end-free", "acme", "never"), "acme is not billed as free"),
        (("customers", "terms", "acme", "--way", "postpaid"), "needs credit_limit (--credit-limit)"),
        (("customers", "remove-tax-id", "acme"), "at least a name and an e-mail"),
        ((*SET, "--name", "Acme"), "at least a name and an e-mail"),
        (SET, "say what is to change"),
        (("customers", "set", "nobody", "--name", "x"), "no gateway nobody"),
    ],
)
def test_what_cannot_be_done_is_explained(cli: Cli, arguments: tuple[str, ...], said: str) -> None:
    answer = cli(*arguments)
    assert (answer.exit_code, answer.out) == (1, "")
    assert said in answer.err


def test_people_read_who_pays_and_whether_stripe_was_told(cli: Cli) -> None:
    assert "There are no customers" in cli("customers", "list").out
    shown = cli(*NEW).out
    assert "Acme GmbH" in shown
    assert "not told yet" in shown
    assert "billing@acme.example" in cli("customers", "list").out


def test_terms_are_shown_with_what_is_to_come_and_taken_back(cli: Cli) -> None:
    coming = cli("customers", "terms", "acme", "--way", "postpaid", "--credit-limit", "500", "--json").json()
    assert coming["terms"]["way"] == "prepaid"
    assert [(each["way"], each["credit_limit"]) for each in coming["to_come"]] == [("postpaid", "500")]
    assert coming["to_come"][0]["begins_at"] == coming["period"]["ends_at"]
    shown = cli("customers", "terms", "acme").out
    assert f"postpaid, monthly:1, UTC, credit limit 500 from {coming['period']['ends_at']}" in shown
    assert cli("customers", "terms", "acme", "--json").json() == coming
    assert cli("customers", "cancel-terms", "acme", "--json").json()["to_come"] == []


def test_an_operator_sees_of_a_gateway_what_it_sees_itself(cli: Cli) -> None:
    cli("customers", "terms", "acme", "--way", "subscription", "--fee", "9", "--included", "5", "--from", "start")
    cli("customers", "terms", "acme", "--way", "free", "--ends-at", "2099-01-01T00:00:00Z")
    billing = cli("customers", "show", "acme", "--json").json()["billing"]
    assert (billing["terms"]["way"], billing["terms"]["fee"], billing["balance"]) == ("subscription", "9", "-4")
    assert (billing["next_change"]["way"], billing["hold"]) == ("free", "none")
    assert billing["period"]["ends_at"] == billing["next_change"]["begins_at"]
    shown = cli("customers", "show", "acme").out
    assert "Nobody has said who pays" in shown
    assert re.search(r"^balance +-4 EUR\navailable +-?[0-9.]+ EUR, with the credit limit$", shown, re.MULTILINE)
    assert "subscription, monthly:1, UTC, fee 9 with 5 included" in shown
