"""`clearinghouse statements` and `usage export`, as people and scripts use them, over a real database."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import os
import pty
import re
import subprocess
import sys
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from fractions import Fraction
from pathlib import Path

import pytest
from pyarrow import parquet
from pypdf import PdfReader
from typer.testing import CliRunner

from clearinghouse.instants import rfc3339
from settlement.cli import app
from tests.parts.command_line import Answer, called
from tests.settlement.conftest import Owner
from tests.settlement.statements.booked import Books, close

COMMANDS = ["statements show", "statements pdf", "statements csv", "usage export"]


@dataclass(frozen=True)
class Cli:
    environment: dict[str, str]

    def __call__(self, *arguments: str, **changes: str) -> Answer:
        return called(app, arguments, self.environment | changes)

    def refused(self, *arguments: str, **changes: str) -> str:
        """What it says, alone on standard error."""
        answer = self(*arguments, **changes)
        assert answer.exit_code != 0, answer
        assert answer.out == ""
        return " ".join(answer.err.split())


@pytest.fixture
def cli(database: str) -> Cli:
    return Cli(
        {"CLEARINGHOUSE_ADMIN_DATABASE_URL": database, "CLEARINGHOUSE_API_KEY_PEPPER": "pepper-" * 8, "COLUMNS": "200"}
    )


@pytest.fixture
def span(owner: Owner) -> list[str]:
    """`--from` and `--to` around what the gateway acme did, with something before and after."""
    books = Books(owner, "acme", currency="EUR")
    books.enter("payment", Decimal("12.345"))
    begin = books.mark()
    for entry in [("payment", "25", 0), ("usage", "0", 0), ("usage", "0", 1), ("usage", "0", 0), ("refund", "3.5", 0)]:
        books.enter(entry[0], Decimal(entry[1]), entry[2])
    end = books.mark()
    books.use(2)
    return ["--from", rfc3339(begin.at), "--to", rfc3339(end.at)]


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_shows_how_it_is_used_by_an_example(command: str) -> None:
    answer = CliRunner().invoke(app, [*command.split(), "--help"], env={"COLUMNS": "200", "NO_COLOR": "1"})
    assert answer.exit_code == 0
    assert re.search(rf"Examples?:[^:]*clearinghouse {command}", answer.output)


def test_a_statement_is_shown_and_balances_by_hand(cli: Cli, span: list[str]) -> None:
    shown = cli("statements", "show", "acme", *span, "--json").json()
    assert (shown["opening"], shown["currency"], shown["is_final"]) == ("12.345", "EUR", True)
    assert [(row["kind"], row["amount"]) for row in shown["movements"]] == [("payment", "25"), ("refund", "-3.5")]
    assert [(row["pipeline"], row["calls"], row["quantity"]) for row in shown["lines"]] == [
        ("pipeline-0", 2, "2"),
        ("pipeline-1", 1, "1"),
    ]
    used = sum(Fraction(line["amount"]) for line in shown["lines"])
    assert Fraction(shown["opening"]) + 25 - Fraction("3.5") - used == Fraction(shown["closing"])
    table = cli("statements", "show", "acme", *span).out
    for value in (shown["closing"], shown["movements"][0]["reference"], shown["lines"][0]["amount"], "pipeline-1"):
        assert value in table


def test_a_statement_is_written_on_paper_and_as_a_table(cli: Cli, span: list[str], tmp_path: Path) -> None:
    issuer = {
        "CLEARINGHOUSE_STATEMENTS__ISSUER_NAME": "Example Clearinghouse Ltd",
        "CLEARINGHOUSE_STATEMENTS__ISSUER_ADDRESS": "1 Lock Street\nBristol",
    }
    paper, table = tmp_path / "acme.pdf", tmp_path / "acme.csv"
    assert cli("statements", "pdf", "acme", *span, "-o", str(paper), **issuer).exit_code == 0
    said = PdfReader(paper).pages[0].extract_text()
    for expected in ("Example Clearinghouse Ltd", "Bristol", "acme", "Opening balance", "12.35", "Payment: a test"):
        assert expected in said
    assert cli("statements", "csv", "acme", *span, "-o", str(table)).exit_code == 0
    *parts, closing = (Fraction(row["amount"]) for row in csv.DictReader(io.StringIO(table.read_text("utf-8"))))
    assert sum(parts) == closing
    assert sorted(path.name for path in tmp_path.iterdir()) == ["acme.csv", "acme.pdf"]


def test_the_same_period_gives_the_same_bytes(cli: Cli, span: list[str], tmp_path: Path, owner: Owner) -> None:
    made: dict[str, list[str]] = {}
    for _ in range(2):
        for words in ("statements pdf", "statements csv", "usage export"):
            file = tmp_path / "made"
            assert cli(*words.split(), "acme", *span, "-o", str(file)).exit_code == 0
            made.setdefault(words, []).append(hashlib.sha256(file.read_bytes()).hexdigest())
        owner.execute("UPDATE account SET credit_limit = 7")
    assert all(first == again for first, again in made.values())


def test_every_form_of_an_export_has_the_same_rows(cli: Cli, span: list[str], tmp_path: Path) -> None:
    files = {form: tmp_path / f"acme.{form}" for form in ("csv", "jsonl", "parquet")}
    for form, file in files.items():
        answer = cli("usage", "export", "acme", *span, "--format", form, "-o", str(file))
        assert (answer.exit_code, answer.out) == (0, "")
        assert "3 issuances written to" in answer.err
    by_json = [json.loads(line) for line in files["jsonl"].read_text().splitlines()]
    by_csv = list(csv.DictReader(io.StringIO(files["csv"].read_text("utf-8"))))
    by_parquet = parquet.read_table(files["parquet"]).to_pylist()
    ids = [row["id"] for row in by_json]
    assert ids == sorted(ids)
    assert ids == [row["id"] for row in by_csv] == [row["id"] for row in by_parquet]
    charges = [row["charge"] for row in by_json]
    assert charges == [row["charge"] for row in by_csv] == [row["charge"] for row in by_parquet]


def test_a_period_is_named_and_one_that_has_not_ended_is_no_document(cli: Cli, span: list[str], tmp_path: Path) -> None:
    shown = cli("statements", "show", "acme", "--period", "current")
    assert "It is not complete" in shown.err
    assert cli("statements", "show", "acme", "--period", "current", "--json").json()["is_final"] is False
    file = tmp_path / "acme.pdf"
    said = cli.refused("statements", "pdf", "acme", "--period", "current", "-o", str(file))
    assert "is not complete" in said
    assert "statements show" in said
    assert not file.exists()
    export = cli("usage", "export", "acme", "--period", "current", "-o", str(tmp_path / "so-far.csv"))
    assert "It is not complete" in export.err
    assert "4 issuances" in export.err


def test_books_that_differ_make_no_statement_but_a_reason_to_verify_them(
    cli: Cli, owner: Owner, tmp_path: Path
) -> None:
    books = Books(owner, "acme", currency="EUR")
    books.enter("payment", Decimal(5))
    end = books.mark().at
    first_day, next_day = str(end.astimezone(UTC).date()), str((end + timedelta(days=31)).date())
    assert close(owner, books, first_day, end, next_day=next_day) == "closed"
    owner.execute("UPDATE account SET balance = 6 WHERE gateway_id IS NOT NULL")
    for command in (["show"], ["csv", "-o", str(tmp_path / "acme.csv")], ["pdf", "-o", str(tmp_path / "acme.pdf")]):
        said = cli.refused("statements", command[0], "acme", "--period", first_day, *command[1:])
        assert said.startswith(f"books_differ: acme-{first_day} has opening, usage and closing 1, 0, 6")
        assert "clearinghouse ledger verify" in said
    assert list(tmp_path.iterdir()) == []


def owing(owner: Owner) -> list[str]:
    """A gateway that used more than it paid, with who pays for it."""
    books = Books(owner, "acme", currency="EUR")
    begin = books.mark()
    books.use()
    end = books.mark()
    owner.execute(
        """INSERT INTO customer (gateway_id, name, email, po_number, net_days, locale)
           VALUES (%s, 'Acme GmbH', 'billing@acme.example', 'PO-7731', 10, 'de')""",
        [books.gateway_id],
    )
    return ["--from", rfc3339(begin.at), "--to", rfc3339(end.at)]


def test_who_pays_by_transfer_gets_an_invoice_of_what_is_owed(cli: Cli, owner: Owner, tmp_path: Path) -> None:
    span, file = owing(owner), tmp_path / "invoice.pdf"
    done = cli(
        "statements", "pdf", "acme", *span, "--due", "-o", str(file),
        CLEARINGHOUSE_STATEMENTS__PAY_TO="Example Bank\nIBAN GB33 BUKB 2020 1555 5555 55",
    )  # fmt: skip
    assert done.exit_code == 0
    said = " ".join(PdfReader(file).pages[0].extract_text().split())
    due_on = datetime.fromisoformat(span[3]).date() + timedelta(days=10)
    for expected in (
        "Invoice", "Acme GmbH", f"Due {due_on}", "Your order PO-7731", "Amount due 2,00 EUR",
        "IBAN GB33 BUKB 2020 1555 5555 55", "Closing balance -2,00",
    ):  # fmt: skip
        assert expected in said.replace("\xa0", " "), (expected, said)


def test_an_invoice_that_does_not_say_where_it_is_paid_is_not_made(cli: Cli, owner: Owner, tmp_path: Path) -> None:
    span, file = owing(owner), tmp_path / "invoice.pdf"
    for settings in ({}, {"CLEARINGHOUSE_STATEMENTS__PAY_TO": " \n "}):
        said = cli.refused("statements", "pdf", "acme", *span, "--due", "-o", str(file), **settings)
        assert "statements.pay_to is not set" in said
    assert not file.exists()


def test_who_has_invoices_is_asked_without_stripe_only_where_that_is_agreed_on(
    cli: Cli, owner: Owner, tmp_path: Path
) -> None:
    """No key of Stripe's is here, and its customer is none yet: a worker may have the one, and makes the other."""
    span, file = owing(owner), str(tmp_path / "invoice.pdf")
    cli = Cli(cli.environment | {"CLEARINGHOUSE_STATEMENTS__PAY_TO": "IBAN GB33 BUKB 2020 1555 5555 55"})
    with owner.transaction():
        owner.execute("SET LOCAL session_replication_role = replica")  # as if it had been agreed on before
        owner.execute(
            "INSERT INTO billing_terms (gateway_id, begins_at, way) SELECT id, created_at, 'postpaid' FROM gateway"
        )
    said = cli.refused("statements", "pdf", "acme", *span, "--due", "-o", file)
    assert "--collection manual" in said
    assert cli("customers", "set", "acme", "--collection", "manual").exit_code == 0
    assert cli("statements", "pdf", "acme", *span, "--due", "-o", file).exit_code == 0


def test_nobody_is_asked_twice_nor_for_nothing(cli: Cli, owner: Owner, tmp_path: Path) -> None:
    span, file = owing(owner), str(tmp_path / "invoice.pdf")
    cli = Cli(cli.environment | {"CLEARINGHOUSE_STATEMENTS__PAY_TO": "IBAN GB33 BUKB 2020 1555 5555 55"})
    early = ["--from", "2020-01-01", "--to", span[1]]
    assert "the balance at the end is 0 EUR" in cli.refused("statements", "pdf", "acme", *early, "--due", "-o", file)
    owner.execute(
        """INSERT INTO invoice (id, gateway_id, kind, begins_at, ends_at, first_day, next_day, currency, decimals,
                                exact, total_minor, state, stripe_customer_id, stripe_invoice_id)
           SELECT gen_random_uuid(), id, 'usage', now() - interval '1 day', now(), '2026-10-01', '2026-11-01', 'EUR',
                  2, 2, 200, 'drafted', 'cus_1', 'in_1' FROM gateway"""
    )
    assert "of Stripe is drafted, and will ask for 2.00 EUR" in cli.refused(
        "statements", "pdf", "acme", *span, "--due", "-o", file
    )
    owner.execute("DELETE FROM customer")
    assert "there is no customer" in cli.refused("statements", "pdf", "acme", *span, "--due", "-o", file)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["acme"], "no period has ended yet"),
        (["acme", "--period", "2026-10", "--from", "2026-10-01"], "give --period, or --from and --to"),
        (["acme", "--from", "2026-10-01"], "--from and --to need each other"),
        (["acme", "--period", "October"], "a period is named 2026-10"),
        (["acme", "--from", "2026-10-01", "--to", "yesterday"], "a time is written"),
        (["nobody"], "there is no gateway"),
    ],
)
def test_what_cannot_be_is_explained(cli: Cli, span: list[str], arguments: list[str], said: str) -> None:
    assert said in cli.refused("statements", "show", *arguments)


def test_a_file_that_is_there_stays_until_the_new_one_is_complete(
    cli: Cli, span: list[str], tmp_path: Path, owner: Owner
) -> None:
    file = tmp_path / "acme.csv"
    file.write_text("from before")
    cli.refused("usage", "export", "acme", "--period", "2020-01", "-o", str(file))
    owner.execute("DELETE FROM session WHERE pipeline = 'pipeline-1'")
    differs = cli.refused("usage", "export", "acme", *span, "-o", str(file))
    assert "3 issuances are in the books, 2 of them" in differs
    assert "clearinghouse ledger verify" in differs
    assert file.read_text() == "from before"
    assert "cannot be written" in cli.refused(
        "usage", "export", "acme", *span, "-o", str(tmp_path / "no-folder" / "acme.csv")
    )
    assert [path.name for path in tmp_path.iterdir()] == ["acme.csv"]


def test_what_is_no_file_is_not_replaced_by_one_and_a_link_leads_where_it_did(
    cli: Cli, span: list[str], tmp_path: Path
) -> None:
    pipe, link = tmp_path / "pipe", tmp_path / "link"
    os.mkfifo(pipe)
    link.symlink_to("acme.csv")
    assert "is not a file" in cli.refused("usage", "export", "acme", *span, "-o", str(pipe))
    assert pipe.is_fifo()
    assert cli("usage", "export", "acme", *span, "-o", str(link)).exit_code == 0
    assert (link.is_symlink(), link.read_bytes()) == (True, (tmp_path / "acme.csv").read_bytes())


def test_a_file_may_be_read_by_whom_the_umask_lets(cli: Cli, span: list[str], tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        cli("usage", "export", "acme", *span, "-o", str(tmp_path / "acme.csv"))
    finally:
        os.umask(before)
    assert (tmp_path / "acme.csv").stat().st_mode & 0o777 == 0o640


def test_a_terminal_sees_how_far_it_is_and_standard_output_stays_empty(
    cli: Cli, span: list[str], tmp_path: Path
) -> None:
    ours, theirs = pty.openpty()
    done = subprocess.run(
        [sys.executable, "-m", "settlement.cli", "usage", "export", "acme", *span, "-o", str(tmp_path / "acme.csv")],
        env={**os.environ, **cli.environment, "TERM": "xterm"}, stdout=subprocess.PIPE, stderr=theirs, check=True,
        timeout=timedelta(minutes=1).total_seconds(),
    )  # fmt: skip
    os.close(theirs)
    shown = os.read(ours, 65536).decode()
    os.close(ours)
    assert done.stdout == b""
    assert "3/3" in shown
