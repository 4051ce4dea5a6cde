"""`clearinghouse stripe events`: what is there is shown, and done again on demand."""

from __future__ import annotations

from pathlib import Path

import pytest

from settlement.cli import app
from tests.parts.command_line import Answer, called
from tests.settlement.conftest import Owner


@pytest.fixture
def cli_environment(database: str, owner: Owner, tmp_path: Path) -> dict[str, str]:
    owner.execute(
        "INSERT INTO stripe_event (id, type, object_type, object_id, created_at, received_at, source, payload, state,"
        " due_at, attempts_count, failures_count, said, ended_at) VALUES"
        " ('evt_1', 'invoice.paid', 'invoice', 'in_1', now(), now() - interval '3 h', 'delivered', '{\"a\": 1}',"
        "  'done', now(), 1, 0, 'paid', now()),"
        " ('evt_2', 'invoice.voided', 'invoice', 'in_2', now(), now() - interval '2 h', 'listed', '{}',"
        "  'parked', now(), 12, 12, 'nobody knows it', now()),"
        " ('evt_3', 'charge.refunded', 'charge', 'ch_1', now(), now() - interval '1 h', 'delivered', '{}',"
        "  'parked', now(), 1, 0, 'no such payment', now()),"
        " ('evt_4', 'charge.updated', 'charge', 'ch_1', now(), now(), 'delivered', '{}',"
        "  'processing', now() + interval '1 min', 1, 0, NULL, NULL)"
    )
    return {"CLEARINGHOUSE_ADMIN_DATABASE_URL": database, "CLEARINGHOUSE_DATA_DIR": str(tmp_path)}


def stripe(environment: dict[str, str], *arguments: str) -> Answer:
    return called(app, ["stripe", "events", *arguments], environment)


def ids(answer: Answer) -> list[str]:
    return [each["id"] for each in answer.json()["items"]]


def waiting(owner: Owner) -> list[str]:
    query = (
        "SELECT id FROM stripe_event WHERE state = 'received' AND failures_count = 0 AND ended_at IS NULL ORDER BY id"
    )
    return [event_id for (event_id,) in owner.execute(query.encode())]


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ((), ["evt_4", "evt_3", "evt_2", "evt_1"]),
        (("--state", "parked"), ["evt_3", "evt_2"]),
        (("--object", "ch_1"), ["evt_4", "evt_3"]),
        (("--type", "invoice.paid"), ["evt_1"]),
        (("--type", "invoice.*"), ["evt_2", "evt_1"]),
        (("--type", "invoice_*"), []),
        (("--limit", "1"), ["evt_4"]),
    ],
)
def test_events_are_listed_the_newest_first_and_by_what_is_asked(
    cli_environment: dict[str, str], options: tuple[str, ...], expected: list[str]
) -> None:
    assert ids(stripe(cli_environment, "list", *options, "--json")) == expected


def test_people_are_shown_the_reason(cli_environment: dict[str, str]) -> None:
    out = stripe(cli_environment, "list", "--state", "parked").out
    assert "no such payment" in out
    assert "evt_2" in out


def test_a_state_that_is_none_is_refused(cli_environment: dict[str, str]) -> None:
    answer = stripe(cli_environment, "list", "--state", "lost")
    assert answer.exit_code == 1
    assert "received, processing, done, parked" in answer.err


def test_one_is_shown_with_what_arrived(cli_environment: dict[str, str]) -> None:
    assert stripe(cli_environment, "show", "evt_1", "--json").json()["payload"] == '{"a": 1}'
    out = stripe(cli_environment, "show", "evt_1").out
    assert out.endswith('\n{"a": 1}\n')
    assert "invoice.paid" in out
    assert "There is no event 'evt_9'" in stripe(cli_environment, "show", "evt_9").err


def test_what_was_done_or_parked_is_done_again_on_demand(cli_environment: dict[str, str], owner: Owner) -> None:
    assert stripe(cli_environment, "replay", "evt_1", "evt_2", "evt_1", "--json").json() == {"events_count": 2}
    assert waiting(owner) == ["evt_1", "evt_2"]
    said = owner.execute("SELECT said FROM stripe_event WHERE id = 'evt_1'").fetchone()
    assert said is not None
    assert said[0].startswith("to be done again: cli:")


@pytest.mark.parametrize(("wrong", "why"), [("evt_9", "There is no event"), ("evt_4", "is being acted upon now")])
def test_of_several_of_which_one_cannot_be_none_is(
    cli_environment: dict[str, str], owner: Owner, wrong: str, why: str
) -> None:
    answer = stripe(cli_environment, "replay", "evt_1", wrong)
    assert answer.exit_code == 1
    assert why in answer.err
    assert waiting(owner) == []


def test_one_whose_lease_has_run_out_can_be_done_again(cli_environment: dict[str, str], owner: Owner) -> None:
    owner.execute("UPDATE stripe_event SET due_at = now() - interval '1 s' WHERE id = 'evt_4'")
    assert "1 event to be acted upon again" in stripe(cli_environment, "replay", "evt_4").out
    assert waiting(owner) == ["evt_4"]


def test_all_that_is_parked_is_done_again_or_one_type_of_it(cli_environment: dict[str, str], owner: Owner) -> None:
    assert stripe(cli_environment, "redrive", "--type", "charge.refunded", "--json").json() == {"events_count": 1}
    assert waiting(owner) == ["evt_3"]
    assert stripe(cli_environment, "redrive", "--json").json() == {"events_count": 1}
    assert waiting(owner) == ["evt_2", "evt_3"]
    assert "0 events to be acted upon" in stripe(cli_environment, "redrive").out


def test_what_was_settled_otherwise_is_closed_with_its_reason(cli_environment: dict[str, str], owner: Owner) -> None:
    closing = ("close", "evt_2", "--reason", "settled with the bank")
    assert stripe(cli_environment, *closing, "--json").json() == {"events_count": 1}
    row = owner.execute("SELECT state, said FROM stripe_event WHERE id = 'evt_2'").fetchone()
    assert row is not None
    assert row[0] == "done"
    assert row[1].startswith("closed by cli:")
    assert row[1].endswith(": settled with the bank")
    assert ids(stripe(cli_environment, "list", "--state", "parked", "--json")) == ["evt_3"]


def test_only_what_is_parked_is_closed_and_none_of_several_if_one_is_not(
    cli_environment: dict[str, str], owner: Owner
) -> None:
    answer = stripe(cli_environment, "close", "evt_3", "evt_1", "--reason", "all the same")
    assert answer.exit_code == 1
    assert "'evt_1' is not parked" in answer.err
    assert stripe(cli_environment, "close", "evt_3", "--reason", " ").exit_code == 1
    assert owner.execute("SELECT count(*) FROM stripe_event WHERE state = 'parked'").fetchone() == (2,)
