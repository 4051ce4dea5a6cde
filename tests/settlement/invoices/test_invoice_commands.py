"""`clearinghouse invoices`, as people and scripts use it, and what gateways are shown of theirs."""

from __future__ import annotations

import re
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from clearinghouse.errors import InvalidRequest, NotFound
from clearinghouse.ids import show
from clearinghouse.instants import rfc3339
from clearinghouse.invoices import get_invoice, list_invoices
from tests.parts.invoiced import Invoiced
from tests.settlement.invoices.command import Cli


@pytest.fixture
def cli(house: Invoiced, tmp_path: Path) -> Cli:
    return Cli(house, tmp_path)


async def two_that_owe(house: Invoiced) -> None:
    for name, charge in (("acme", "80.0049"), ("other", "20")):
        debtor = await house.gateway(name)
        house.use(debtor, charge)
        house.close(debtor)


async def test_a_dry_run_shows_everything_and_keeps_nothing(house: Invoiced, cli: Cli) -> None:
    await two_that_owe(house)
    for _ in range(2):
        answer = (await cli("run", "--dry-run", "--json")).json()
        assert [(each["gateway"], each["state"], each["total"]) for each in answer["items"]] == [
            ("acme", "planned", "80.00"), ("other", "planned", "20.00"),
        ]  # fmt: skip
    assert (await house.invoices(), await house.at_stripe()) == ([], [])


async def test_a_run_issues_what_was_chosen_and_again_nothing(house: Invoiced, cli: Cli) -> None:
    await two_that_owe(house)
    assert (await cli("run", "--period", "2026-09", "--json")).json()["items"] == []
    answer = (await cli("run", "--gateway", "acme", "--period", "2026-08", "--json")).json()
    assert [(each["gateway"], each["state"]) for each in answer["items"]] == [("acme", "open")]
    assert (answer["problems"], answer["stripe_is_away"]) == ([], None)
    shown = await cli("run")
    assert shown.exit_code == 0
    assert "other" in shown.out
    assert "Nothing is due." in (await cli("run")).out
    assert sorted(each.total for each in await house.at_stripe()) == [2000, 8000]


async def test_operators_see_what_follows_if_an_invoice_is_not_paid(house: Invoiced, cli: Cli) -> None:
    await two_that_owe(house)
    await cli("run", "--gateway", "acme")
    ours = (await house.invoices())[0]
    assert ours.due_at is not None
    shown = await cli.other("customers", "show", "acme", CLEARINGHOUSE_DUNNING__SIGNING_DAYS="40")
    for days, what in ((14, "no new sessions"), (40, "nothing signed")):
        at = rfc3339(ours.due_at + timedelta(days=days))
        assert re.search(rf"{what}:? +from {at}, unless {ours.number} is paid", shown.out), shown


async def test_a_run_that_is_held_up_says_why_and_fails(house: Invoiced, cli: Cli) -> None:
    await two_that_owe(house)
    stray = await house.gateway("stray", pays=False)
    house.use(stray, "10")
    house.close(stray)
    answer = await cli("run")
    assert answer.exit_code == 1
    assert "stray owes for the period from 2026-08-01, and has no customer" in answer.err
    assert len(await house.at_stripe()) == 2


async def test_one_is_listed_shown_voided_and_reissued(house: Invoiced, cli: Cli) -> None:
    await two_that_owe(house)
    await cli("run", "--gateway", "acme")
    (listed,) = (await cli("list", "--state", "open", "--json")).json()["items"]
    shown = (await cli("show", listed["id"], "--json")).json()
    assert [(line["kind"], line["amount"], line["exact"]) for line in shown["lines"]] == [("usage", "80.00", "80.0049")]
    states = [event["state"] for event in shown["events"]]
    assert states == ["planned", "drafted", "itemized", "agreed", "finalized", "open"]
    assert "80.0049" in (await cli("show", listed["id"])).out
    done = (await cli("void", listed["id"], "--reason", "wrong address", "--reissue", "--json")).json()["items"]
    assert [(each["state"], each["revision"]) for each in done] == [("void", 0), ("open", 1)]
    assert done[0]["problem"].endswith(": wrong address")


async def test_the_job_issues_what_is_due_as_the_schedule_runs_it(house: Invoiced, cli: Cli) -> None:
    await two_that_owe(house)
    done = (await cli.other("jobs", "run", "invoices", "--json")).json()
    assert (done["outcome"], done["said"]) == ("ok", "2 planned, 2 walked")
    assert sorted((each.status, each.total) for each in await house.at_stripe()) == [("open", 2000), ("open", 8000)]
    assert (await cli.other("jobs", "run", "invoices", "--json")).json()["said"] == "nothing was due"


async def test_the_period_that_runs_is_shown_as_if_it_ended_now(house: Invoiced, cli: Cli) -> None:
    house.use(await house.gateway("acme"), "12.3449")
    answer = (await cli("preview", "acme", "--json")).json()
    assert (answer["state"], answer["total"], answer["exact"]) == ("planned", "12.34", "12.3449")
    assert "12.3449" in (await cli("preview", "acme")).out
    assert await house.invoices() == []


async def test_what_cannot_be_meant_is_refused(house: Invoiced, cli: Cli, tmp_path: Path) -> None:
    for arguments, why in (
        (("run", "--period", "October"), "a period is named by the beginning of its first day"),
        (("run", "--period", "2026-13"), "2026-13 is not in the calendar"),
        (("list", "--period", "2026-02-30"), "2026-02-30 is not in the calendar"),
        (("run", "--gateway", "nobody"), "nobody"),
        (("show", "in_123"), "not the id of an invoice"),
        (("void", "inv_" + "0" * 32, "--reason", "because"), "no such invoice"),
    ):
        answer = await cli(*arguments)
        assert answer.exit_code == 1
        assert why in answer.err
    answer = await cli("run", CLEARINGHOUSE_STRIPE__API_KEY_FILE="")
    assert answer.exit_code == 1


@pytest.mark.parametrize(
    ("changes", "fault", "code", "said", "what_next"),
    [
        ({}, 503, "stripe_away", "(HTTP 503)", "Run the same command again once Stripe answers"),
        ({"API_URL": "http://127.0.0.1:9"}, None, "stripe_away", "cannot be reached", "goes on under the same keys"),
        ({"API_KEY_FILE": "wrong_key"}, None, "stripe_not_allowed", "Invalid API Key",
         "`clearinghouse doctor` tries it"),
        ({}, 400, "stripe_refused", "", "look in Stripe's dashboard"),
    ],
    ids=["failing", "away", "wrong key", "refused"],
)  # fmt: skip
async def test_what_stripe_does_not_do_ends_in_an_error_that_says_what_to_do(  # noqa: PLR0917 - what is tried, and said
    house: Invoiced, cli: Cli, changes: dict[str, str], fault: int | None, code: str, said: str, what_next: str,
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    Path("wrong_key").write_text("sk_test_wrong_key_0", encoding="utf-8")
    await two_that_owe(house)
    await cli("run", "--gateway", "acme")
    ours = (await cli("list", "--state", "open", "--json")).json()["items"][0]["id"]
    trouble = {f"CLEARINGHOUSE_STRIPE__{name}": value for name, value in {"RETRY_FOR_S": "0.1", **changes}.items()}
    if fault is not None:
        await house.stripe.fault("status", status=fault, times=None)
    commands = [
        ("void", ours, "--reason", "wrong address", "--json"),
        ("credit", ours, "--amount", "1", "--reason", "an outage"),
    ]
    for command in commands:
        answer = await cli(*command, **trouble)
        assert (answer.exit_code, answer.out) == (1, ""), command
        first, last = answer.err.strip().splitlines()
        assert first.startswith(f"{code}: ")
        assert said in first
        assert what_next in last
        assert "sk_test_wrong_key_0" not in answer.err
    if code != "stripe_refused":  # of which an invoice keeps its own problem
        assert f"{code}: " in (await cli("run", **trouble)).err
    await house.stripe.works_again()
    assert (await cli(*commands[0])).json()["items"][0]["state"] == "void"


async def test_a_gateway_sees_its_own_once_they_are_issued(house: Invoiced) -> None:
    await two_that_owe(house)
    await house.plan()
    acme = house.value("SELECT id FROM gateway WHERE name = 'acme'")
    async with house.engine.connect() as connection:
        assert await list_invoices(connection, acme) == {"items": [], "next_cursor": None}
    await house.walk()
    ours, others = sorted(await house.invoices(), key=lambda each: each.gateway_name)
    async with house.engine.connect() as connection:
        (listed,) = (await list_invoices(connection, acme))["items"]
        found = await get_invoice(connection, acme, listed["id"])
        with pytest.raises(NotFound):
            await get_invoice(connection, acme, show("inv", others.id))
        with pytest.raises(NotFound):
            await get_invoice(connection, acme, "in_1")
        for wrong in ({"limit": 0}, {"cursor": "x"}):
            with pytest.raises(InvalidRequest):
                await list_invoices(connection, acme, **wrong)  # type: ignore[arg-type]
    expected: dict[str, Any] = {
        "id": show("inv", ours.id), "status": "open", "number": ours.number, "total": "80.00", "tax": "0.00",
        "amount_due": "80.00", "first_day": "2026-08-01", "last_day": "2026-08-31", "paid_at": None,
        "credited": "0.00", "replaced_at": None,
    }  # fmt: skip
    assert expected.items() <= listed.items()
    lines = found.pop("lines")
    assert found == listed
    assert [(line["kind"], line["amount"], line["facts"]["charge"]) for line in lines] == [
        ("usage", "80.00", "80.0049"),
    ]  # fmt: skip


async def test_a_gateways_invoices_come_in_pages_newest_first(house: Invoiced) -> None:
    acme = await house.gateway("acme")
    for _ in range(5):
        house.use(acme, "10")
        house.close(acme)
    await house.run()
    found: list[str] = []
    cursor: str | None = None
    async with house.engine.connect() as connection:
        while True:
            page = await list_invoices(connection, acme.id, limit=2, cursor=cursor)
            found += [each["first_day"] for each in page["items"]]
            cursor = page["next_cursor"]
            if cursor is None:
                break
    assert found == ["2026-12-01", "2026-11-01", "2026-10-01", "2026-09-01", "2026-08-01"]
