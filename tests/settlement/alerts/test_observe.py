"""Every rule from the row that somebody leaves in the database to the alert that is told and to its end.

PostgreSQL is real, and so is whoever writes: heartbeats, the watch of coverage, the chain's events, commits of
payments, signers' reports, runs of jobs, couriers. What cannot be waited for is moved: the time of an evaluation, or
when a row was written.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest
from sqlalchemy.ext.asyncio import AsyncConnection

from chain.chain_reading import Lock
from chain.coverage import Level
from chain.signatures import checksum_address
from chain.tickets import WIN_PROB_CERTAIN
from clearinghouse.config_alerts import AlertSettings
from clearinghouse.database.connect import ADMIN_ROLE, SERVE_ROLE, async_engine, in_role
from clearinghouse.heartbeat import Heartbeat
from clearinghouse.identity import gateways, keys
from clearinghouse.ids import show, uuid7
from clearinghouse.job_runs import Times
from clearinghouse.readiness import NotReady, Readiness
from clearinghouse.signer_events.reconcile import accept_finding
from settlement.alerts.carrier import alert_courier
from settlement.alerts.evaluate import evaluation_of
from settlement.alerts.fund_rules import FUND_RULES
from settlement.alerts.observe import FOREIGN_WITHIN, observe
from settlement.alerts.observed import Observed
from settlement.alerts.service_rules import CHECK_RULES
from settlement.alerts.store import acknowledge
from settlement.own_jobs import ledger_verify
from settlement.schedule import Job, Tick
from tests.clearinghouse.signer_events.parts import World, findings, reconcile_all, record
from tests.parts.books import Usage, commit, usage
from tests.parts.covered import Escrows, watching
from tests.parts.days import days
from tests.parts.receiver import http_receiver
from tests.parts.redeemed import Blocks, redemption
from tests.parts.service import house_of
from tests.parts.watched import ETHER, SENDER, Watched, watched

ONE_IN_65535 = WIN_PROB_CERTAIN // 65_535
LIFE = ["firing", "resolved"]


async def test_an_empty_database_has_nothing_to_say(house: Watched) -> None:
    async with house.engine.connect() as connection:
        seen = await observe(connection, house.begun_at)
    assert (seen.funds, seen.checks, seen.foreign, seen.redemptions, seen.jobs, seen.undelivered) == ((),) * 6
    assert seen.signer_findings_critical == {}
    assert seen.chain_indexed_at is None
    await house.evaluated(after_s=0)
    assert house.told_rules() == set()


# --- deposit, reserve, coverage ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rule", "for_s", "changes"),
    [
        ("deposit_low", 600, {"deposit_wei": ETHER // 20 - 1}),
        ("deposit_critical", 300, {"deposit_wei": ETHER // 100 - 1}),
        ("reserve_low", 0, {"reserve_wei": ETHER // 200 - 1}),
        ("coverage_watch", 0, {"level": Level.WATCH, "coverage_bps": 19_000}),
        ("coverage_low", 0, {"level": Level.LOW, "coverage_bps": 14_000}),
        ("coverage_critical", 0, {"level": Level.CRITICAL, "coverage_bps": 11_000}),
        ("empty_soon", 0, {"empty_pessimistic_s": 72 * 3600 - 1}),
        ("empty_very_soon", 0, {"empty_pessimistic_s": 24 * 3600 - 1}),
        ("unlock_started", 0, {"lock": Lock.UNLOCKING}),
    ],
)
async def test_funds_that_are_not_as_they_should_be_are_told_when_they_have_been_so_for_long_enough(
    house: Watched, rule: str, for_s: int, changes: dict[str, Any]
) -> None:
    for at in sorted({0, max(for_s - 1, 0)}):
        await house.escrow(after_s=at, **changes)
        await house.evaluated(after_s=at)
        assert house.told(rule) == ([] if for_s else ["firing"])
    await house.escrow(after_s=for_s, **changes)
    await house.evaluated(after_s=for_s + 1)
    assert house.told_rules() == {rule}, "nothing else, and nothing that says less of the same"
    facts = house.facts(rule)
    assert facts["sender"] == checksum_address(SENDER)
    assert {"deposit", "reserve", "burn", "time left"} <= set(facts)
    await house.escrow(after_s=for_s + 2)
    await house.until_over(after_s=for_s + 2)
    assert house.told(rule) == LIFE
    assert house.firing() == set()


def test_no_rule_about_funds_is_left_out() -> None:
    (mark,) = test_funds_that_are_not_as_they_should_be_are_told_when_they_have_been_so_for_long_enough.pytestmark  # type: ignore[attr-defined]
    assert {rule for rule, *_ in mark.args[1]} == set(FUND_RULES)


async def test_funds_that_nobody_evaluates_are_told_and_end_no_alert_about_them(house: Watched) -> None:
    await house.escrow(after_s=0, lock=Lock.UNLOCKING)
    await house.evaluated(after_s=0)
    await house.until_over(after_s=181)
    assert house.firing() == {"unlock_started", "coverage_unknown"}
    await house.escrow(after_s=210)
    await house.until_over(after_s=211)
    assert house.told("coverage_unknown") == house.told("unlock_started") == LIFE


async def test_a_lock_that_is_opened_is_told_from_what_the_watch_of_coverage_records(
    house: Watched, database: str
) -> None:
    """Not by the minute's snapshot: one is made for it. What is read of the chain is the test's."""
    escrows = Escrows()
    async with watching(database, escrows, snapshot_s=60) as watch:

        async def seen(lock: Lock) -> None:
            query = "SELECT lock FROM coverage_snapshot ORDER BY observed_at DESC LIMIT 1"
            while house.owner.execute(query).fetchone() != (lock.value,):
                await watch.turn()
                await asyncio.sleep(0.1)

        await seen(Lock.LOCKED)
        opened_s = time.monotonic()
        escrows.change(lock=Lock.UNLOCKING)
        await seen(Lock.UNLOCKING)
        took_s = time.monotonic() - opened_s
        await house.evaluated(after_s=(datetime.now(UTC) - house.begun_at).total_seconds())
    assert "unlock_started" in house.told_rules()
    assert took_s < 30, "else a minute would not do"


# --- what serving processes say ---------------------------------------------------------------------------------------


class Part:
    """Well, or not."""

    trouble = ""

    async def probe(self) -> str:
        if self.trouble:
            raise NotReady(self.trouble)
        return "is well"


@asynccontextmanager
async def beating(database: str, name: str) -> AsyncIterator[tuple[Heartbeat, Part]]:
    """A serving process with one part that may fail."""
    engine, part = async_engine(in_role(database, SERVE_ROLE), pool_size=1), Part()
    yield Heartbeat(engine, Readiness({"database": Part().probe}), {name: part.probe}), part
    await engine.dispose()


@pytest.mark.parametrize("name", list(CHECK_RULES))
async def test_what_every_process_finds_wrong_is_told_and_what_one_finds_wrong_is_told_as_that(
    house: Watched, database: str, name: str
) -> None:
    rule = CHECK_RULES[name].rule
    async with beating(database, name) as (one, part), beating(database, name) as (other, other_part):
        part.trouble = "it hangs"
        await one.beat()
        await other.beat()
        house.owner.execute("UPDATE service_condition SET since = since - interval '60 s'")
        await house.evaluated(after_s=1)
        assert house.told_rules() == {f"{rule}_partly"}
        assert list(house.facts(f"{rule}_partly").values()) == ["it hangs"]

        other_part.trouble = "it hangs, too"
        await other.beat()
        house.owner.execute("UPDATE service_condition SET since = since - interval '60 s'")
        await house.evaluated(after_s=2)
        assert house.told(rule) == ["firing"]
        part.trouble = other_part.trouble = ""
        await one.beat()
        await other.beat()
        beats_on(house)
        await house.until_over(after_s=3)
        assert house.told(rule) == house.told(f"{rule}_partly") == LIFE
        assert house.firing() == set()


def beats_on(house: Watched) -> None:
    """Whoever beat just now goes on for as long as an alert takes to end."""
    house.owner.execute("UPDATE service_condition SET seen_at = seen_at + interval '25 s'")


async def test_processes_that_are_all_silent_are_told_and_those_that_took_their_leave_are_not_missed(
    house: Watched, database: str
) -> None:
    async with beating(database, "signer") as (one, part):
        part.trouble = "it hangs"
        await one.beat()
        await house.evaluated(after_s=25)
        assert house.told_rules() == {"service_silent"}, "what it said last is not known any more"
        part.trouble = ""
        await one.beat()
        beats_on(house)
        await house.until_over(after_s=25.5)
        assert house.told("service_silent") == LIFE
        await one.stop()
    await house.evaluated(after_s=3600)
    assert house.firing() == set()


# --- the chain's events -----------------------------------------------------------------------------------------------


def stolen(nonce: int) -> dict[str, Any]:
    """A redeemed ticket that nobody here issued."""
    return redemption(sender=SENDER, recipient=b"\x0a" * 20, rand=os.urandom(32), nonce=nonce, face_value_wei=ETHER)


async def test_a_foreign_redemption_is_told_and_is_over_when_the_chain_takes_it_back(house: Watched) -> None:
    blocks = Blocks(house.owner)
    blocks.add(stolen(1), stolen(2))
    assert blocks.match() == {"foreign": 2}
    await house.evaluated(after_s=1)
    assert house.told_rules() == {"foreign_redemption"}
    assert house.facts("foreign_redemption")["face value"] == "2 ETH"
    blocks.undo(0)
    await house.until_over(after_s=2)
    assert house.told("foreign_redemption") == LIFE


async def test_another_foreign_redemption_is_told_although_somebody_looks_after_the_first(
    house: Watched, database: str
) -> None:
    blocks = Blocks(house.owner)
    blocks.add(stolen(1))
    blocks.match()
    await house.evaluated(after_s=1)
    await acknowledged(house, database)
    await house.evaluated(after_s=5 * 3600)
    assert house.told("foreign_redemption") == ["firing"]
    blocks.add(stolen(2))
    blocks.match()
    await house.evaluated(after_s=6 * 3600)
    assert house.told("foreign_redemption") == ["firing", "firing"]
    assert house.facts("foreign_redemption")["tickets"] == "2"
    await acknowledged(house, database)
    await house.until_over(after_s=FOREIGN_WITHIN.total_seconds() + 60)
    assert house.told("foreign_redemption") == ["firing", "firing", "resolved"], "none was added for a week"


async def test_who_acknowledges_while_it_is_evaluated_waits_and_is_not_forgotten(house: Watched, database: str) -> None:
    await house.escrow(after_s=0, lock=Lock.UNLOCKING)
    await house.evaluated(after_s=1)
    sees, may_go_on = asyncio.Event(), asyncio.Event()

    async def slow(connection: AsyncConnection, now: datetime) -> Observed:
        sees.set()
        await may_go_on.wait()
        return await observe(connection, now)

    evaluating = asyncio.create_task(evaluation_of(AlertSettings(), slow).tick(Tick(house.engine, house.at(2))))
    await sees.wait()
    acknowledging = asyncio.create_task(acknowledged(house, database))
    await asyncio.sleep(0.3)
    assert not acknowledging.done(), "the alert is in the hands of who evaluates"
    may_go_on.set()
    await evaluating
    await acknowledging
    await house.escrow(after_s=5 * 3600, lock=Lock.UNLOCKING)
    await house.evaluated(after_s=5 * 3600)
    assert house.told("unlock_started") == ["firing"], "it is not repeated"
    assert house.owner.execute("SELECT acknowledged_by FROM alert").fetchone() == ("somebody",)


async def acknowledged(house: Watched, database: str) -> None:
    engine = async_engine(in_role(database, ADMIN_ROLE), pool_size=1)
    ((fingerprint,),) = house.owner.execute("SELECT fingerprint FROM alert WHERE severity = 'critical'")
    async with engine.begin() as connection:
        await acknowledge(connection, fingerprint, actor="somebody", now=datetime.now(UTC))
    await engine.dispose()


async def test_events_of_the_chain_that_are_not_read_are_told_until_they_are(house: Watched) -> None:
    blocks = Blocks(house.owner)
    house.owner.execute("UPDATE chain_follower SET read_at = now() - interval '121 s'")
    await house.evaluated(after_s=1)
    assert house.told_rules() == {"chain_not_indexed"}
    blocks.add()
    await house.until_over(after_s=2)
    assert house.told("chain_not_indexed") == LIFE


@asynccontextmanager
async def paid(house: Watched, database: str, **terms: Any) -> AsyncIterator[Usage]:
    """A payment of a hundred tickets of which one in 65,535 wins."""
    engine = async_engine(in_role(database, ADMIN_ROLE), pool_size=1)
    async with engine.begin() as connection:
        gateway = await gateways.create(connection, "acme", credit_limit=Decimal(1000))
        key = await keys.create(connection, gateway.id, pepper=b"p" * 32)
    call = usage(gateway.id, key.key.id, ev_wei=10**11, num_tickets=100, sender=SENDER, win_prob=ONE_IN_65535, **terms)
    assert commit(house.owner, call)[0] is None
    yield call
    await engine.dispose()


def won(call: Usage, nonce: int) -> dict[str, Any]:
    return redemption(
        sender=SENDER, recipient=call.recipient, rand=call.rand, nonce=nonce, face_value_wei=10**9 * 65_535,
        win_prob=ONE_IN_65535,
    )  # fmt: skip


async def test_winners_beyond_chance_are_told_until_they_are_long_past(house: Watched, database: str) -> None:
    async with paid(house, database) as call:
        blocks = Blocks(house.owner)
        blocks.add(won(call, 1), won(call, 2))
        assert blocks.match() == {"matched": 2}
        await house.evaluated(after_s=1)
        assert house.told_rules() == set(), "two of a hundred such: still more than one in a million"
        blocks.add(won(call, 3))
        blocks.match()
        await house.evaluated(after_s=2)
        assert house.told_rules() == {"redemption_burst"}
        facts = house.facts("redemption_burst")
        assert (facts["redeemed"], facts["expected at most"]) == ("3", "0.00153"), "the winners have left the book"
        await house.until_over(after_s=72 * 3600 + 60)
    assert house.told("redemption_burst")[-1] == "resolved"


async def test_the_roll_up_of_the_book_changes_nothing_about_what_is_expected(house: Watched, database: str) -> None:
    async with paid(house, database) as call:
        blocks = Blocks(house.owner)
        blocks.add(won(call, 7))
        blocks.match()
        expected = []
        for _ in range(2):
            async with house.engine.connect() as connection:
                expected.append((await observe(connection, house.at(1))).redemptions)
            house.owner.execute("SELECT roll_up_exposure(1000)")
    assert expected[0] == expected[1]
    assert [(each.count, each.expected) for each in expected[0]] == [(1, pytest.approx(100 / 65_535))] * 3


# --- signers' reports -------------------------------------------------------------------------------------------------


async def test_what_the_books_do_not_have_is_told_until_somebody_has_looked_into_it(
    house: Watched, database: str, world: World
) -> None:
    (stream,) = await world.streams(1, payments=2)
    behind = await world.behind_our_back(stream)
    await record(world.engine, world.folder, [*world.signer.tickets[:-1], behind])
    await reconcile_all(world.engine)
    await house.evaluated(after_s=1)
    assert "signer_used_elsewhere" in house.told_rules()
    admin = async_engine(in_role(database, ADMIN_ROLE), pool_size=1)
    async with admin.begin() as connection:
        for found in await findings(world.engine):
            await accept_finding(connection, found.kind, found.subject, reason="a test", actor="somebody")
    await admin.dispose()
    await house.until_over(after_s=2)
    assert house.told("signer_used_elsewhere") == LIFE


async def test_reports_that_are_missing_are_told_until_they_come_late(house: Watched, world: World) -> None:
    await world.streams(1, payments=4)
    first, *missing, last = world.signer.tickets
    await record(world.engine, world.folder, [first, last])
    await reconcile_all(world.engine)
    await house.evaluated(after_s=1)
    assert house.told_rules() == {"signer_events_missing"}
    assert set(house.facts("signer_events_missing")) == {"issuance_without_event", "sequence_missing"}
    await record(world.engine, world.folder, missing, "late.jsonl")
    await reconcile_all(world.engine)
    await house.until_over(after_s=2)
    assert house.told("signer_events_missing") == LIFE


# --- the schedule, the books, top-ups, channels ----------------------------------------------------------------------


def registered(house: Watched, name: str, times: Times) -> None:
    """As whoever leads registers it; two hours ago."""
    house.owner.execute(
        "SELECT register_jobs('worker-1:1', %s, %s, %s, %s)",
        [house.at(-7200), [name], [times.every_s], [times.offset_s]],
    )


async def test_books_that_do_not_add_up_are_told_until_they_do(house: Watched, database: str) -> None:
    async with house_of(database) as books:
        await books.new_gateway(tickets=10)
    registered(house, "ledger-verify", ledger_verify().times)
    house.owner.execute("SET session_replication_role = replica")  # past all triggers, as nobody else can
    house.owner.execute("UPDATE account SET balance = balance + 1 WHERE gateway_id IS NOT NULL")
    async with days(database, house.at(0)) as passing:
        await passing.run(ledger_verify(), by_hand=True)
        await house.evaluated(after_s=1)
        assert house.told_rules() == {"ledger_verify_failed"}
        assert "violations of " in house.facts("ledger_verify_failed")["found"]
        house.owner.execute("UPDATE account SET balance = balance - 1 WHERE gateway_id IS NOT NULL")
        passing.now = house.at(2)
        await passing.run(ledger_verify(), by_hand=True)
        await house.until_over(after_s=3)
    assert house.told("ledger_verify_failed") == LIFE


async def test_a_job_that_does_not_begin_is_told_until_it_does(house: Watched, database: str) -> None:
    async def tick(tick: Tick) -> str:
        return "done"

    registered(house, "job", Times(3600))
    await house.evaluated(after_s=0)
    assert house.told_rules() == {"job_late"}
    async with days(database, house.at(1)) as passing:
        await passing.run(Job("job", 3600, tick))
    await house.until_over(after_s=2)
    assert house.told("job_late") == LIFE


async def test_a_job_that_fails_again_is_told_with_its_error_until_it_goes_well(house: Watched, database: str) -> None:
    failures = [OSError("no route to host"), OSError("no route to host")]

    async def tick(tick: Tick) -> str:
        if failures:
            raise failures.pop()
        return "done"

    registered(house, "job", Times(3600))
    async with days(database, house.at(0)) as passing:
        await passing.run(Job("job", 3600, tick))
        await house.evaluated(after_s=1)
        assert house.told_rules() == set(), "once may be chance"
        await passing.run(Job("job", 3600, tick), by_hand=True)
        await house.evaluated(after_s=2)
        assert house.told_rules() == {"job_failing"}
        assert "no route to host" in str(house.facts("job_failing"))
        await passing.run(Job("job", 3600, tick), by_hand=True)
    await house.until_over(after_s=3)
    assert house.told("job_failing") == LIFE


async def test_a_wallet_without_gas_and_a_top_up_that_waits_are_told_until_both_are_well(house: Watched) -> None:
    def note(condition: str | None, balance_wei: int, *, is_low: bool) -> None:
        house.owner.execute(
            "SELECT note_topup_standing(%s, 'on', %s, %s, %s, %s, %s, %s, 0, 'worker')",
            [house.at(0), condition, "1 ETH would be sent", SENDER, balance_wei, is_low, ETHER],
        )

    note("dry_run", ETHER // 1000, is_low=True)
    await house.evaluated(after_s=1)
    assert house.told_rules() == {"gas_low", "topup_waits"}
    assert house.facts("gas_low") == {"wallet": checksum_address(SENDER), "balance": "0.001 ETH"}
    note(None, ETHER, is_low=False)
    await house.until_over(after_s=2)
    assert house.told("gas_low") == house.told("topup_waits") == LIFE


async def test_events_of_stripes_that_are_parked_are_told_until_they_are_done_again(house: Watched) -> None:
    insert = """INSERT INTO stripe_event (id, type, object_type, object_id, created_at, received_at, source, payload,
                                          state, due_at, said, ended_at)
                VALUES (%s, 'charge.refunded', 'charge', 'ch_1', %s, %s, 'delivered', '{}', %s, %s, %s, %s)"""
    at = house.at(0)
    house.owner.execute(insert, ["evt_1", at, at, "parked", at, "no such payment", at])
    house.owner.execute(insert, ["evt_2", at, at, "received", at, None, None])
    await house.evaluated(after_s=1)
    assert house.told_rules() == {"stripe_events_parked"}
    assert house.facts("stripe_events_parked") == {"events": "1", "newest": "evt_1", "says": "no such payment"}
    await house.evaluated(after_s=601)
    await house.evaluated(after_s=662)
    assert house.told_rules() == {"stripe_events_parked", "stripe_events_waiting"}
    house.owner.execute("UPDATE stripe_event SET state = 'done', ended_at = now()")
    await house.until_over(after_s=663)
    assert house.told("stripe_events_parked") == house.told("stripe_events_waiting") == LIFE


async def test_a_correction_that_came_to_nothing_is_told_for_a_day_or_until_another_has_its_place(
    house: Watched,
) -> None:
    insert = """INSERT INTO rerating (id, gateway_id, begins_at, card, version, as_of, reason, actor, calls_count,
                                      difference, included, state, problem, ended_at)
                VALUES (%s, %s, %s, 'standard', 2, 2, 'wrong', 'test', 1, 1, 0, %s, %s, %s)"""
    at, acme, other = house.at(0), uuid7(), uuid7()
    house.owner.execute("SET session_replication_role = replica")  # neither period nor card is there
    house.owner.execute(insert, [first := uuid7(), acme, at, "refused", "it was paid", at])
    await house.evaluated(after_s=1)
    assert house.told_rules() == {"correction_refused"}
    assert house.facts("correction_refused") == {"refused": "1", "newest": show("rrt", first), "says": "it was paid"}
    house.owner.execute(insert, [uuid7(), acme, at, "planned", None, None])
    await house.until_over(after_s=2)
    assert house.told("correction_refused") == LIFE
    house.owner.execute(insert, [uuid7(), other, at, "refused", "it was paid", at])
    await house.evaluated(after_s=86_000)
    assert house.firing() == {"correction_refused"}
    await house.until_over(after_s=86_401)
    assert house.told("correction_refused") == LIFE + LIFE


async def test_a_credit_note_that_came_to_nothing_is_told_until_another_one_for_the_same_reason(house: Watched) -> None:
    insert = """INSERT INTO credit_note (id, invoice_id, gives, amount_minor, total_minor, lines, reason, actor, state,
                                         problem, ended_at)
                VALUES (%s, %s, 'credit', 1, 1, '[]', %s, 'test', %s, %s, %s)"""
    at, invoice = house.at(0), uuid7()
    house.owner.execute("SET session_replication_role = replica")  # the invoice is not there
    house.owner.execute(insert, [first := uuid7(), invoice, "an outage", "refused", "none left", at])
    await house.evaluated(after_s=1)
    assert house.facts("correction_refused") == {"refused": "1", "newest": show("crn", first), "says": "none left"}
    house.owner.execute(insert, [uuid7(), invoice, "asked twice", "planned", None, None])
    await house.until_over(after_s=2)
    assert house.firing() == {"correction_refused"}, "the other one takes back something else"
    house.owner.execute("UPDATE credit_note SET reason = 'an outage' WHERE state = 'planned'")
    await house.until_over(after_s=1000)
    assert house.told("correction_refused") == LIFE


async def test_a_dispute_and_a_request_that_nobody_answers_are_told_until_they_are_over(house: Watched) -> None:
    at = house.at(0)
    house.owner.execute("INSERT INTO gateway (id, name) VALUES (gen_random_uuid(), 'disputed')")
    house.owner.execute(
        "INSERT INTO dispute (id, gateway_id, stripe_charge_id, amount, currency, status, reason, due_by) "
        "SELECT 'dp_1', id, 'ch_1', 40, 'USD', 'needs_response', 'fraudulent', %s FROM gateway LIMIT 1",
        [house.at(86_400)],
    )
    house.owner.execute(
        "INSERT INTO payment (id, gateway_id, method, amount, currency, requested_by, created_at) "
        "SELECT gen_random_uuid(), id, 'checkout', 5, 'USD', 'test', %s FROM gateway LIMIT 1", [at],
    )  # fmt: skip
    await house.evaluated(after_s=1)
    assert house.told_rules() == {"dispute_open"}
    await house.evaluated(after_s=601)
    assert house.told_rules() == {"dispute_open", "payments_waiting"}
    house.owner.execute("UPDATE dispute SET status = 'under_review'")
    house.owner.execute("UPDATE payment SET state = 'open'")
    await house.until_over(after_s=602)
    assert house.told("dispute_open") == house.told("payments_waiting") == LIFE


async def test_a_channel_that_takes_nothing_for_ten_minutes_is_told_on_the_others_until_it_does(database: str) -> None:
    async with http_receiver(503) as hook:
        channels = {"pager": f"webhook+http://127.0.0.1:{hook.port}/"}
        settings = AlertSettings(channels=channels, webhook_secret="s" * 32)
        courier = alert_courier(settings)
        async with watched(database, settings) as house:
            await house.escrow(after_s=0, lock=Lock.UNLOCKING)
            await house.evaluated(after_s=0)
            await courier.tick(Tick(house.engine, house.at(1)))
            await house.escrow(after_s=590, lock=Lock.UNLOCKING)
            await house.evaluated(after_s=595)
            assert house.told_rules() == {"unlock_started"}
            await house.evaluated(after_s=605)
            assert house.told_rules() == {"unlock_started", "channel_failing"}
            assert house.facts("channel_failing")["error"].endswith("answered 503")
            hook.answers[:] = [200]
            for at in (700, 705, 710):
                await courier.tick(Tick(house.engine, house.at(at)))
            await house.escrow(after_s=711, lock=Lock.UNLOCKING)
            await house.until_over(after_s=712)
            assert house.told("channel_failing") == LIFE
    said = [post.document["data"]["rule"] for post in hook.posts if post.headers["clearinghouse-attempt"] != "1"]
    assert said == ["unlock_started"], "what it did not take came when it did"


async def test_a_channel_that_was_given_up_is_told_until_a_message_gets_through(database: str) -> None:
    async with http_receiver(400, 200) as hook:
        channels = {"pager": f"alertmanager+http://127.0.0.1:{hook.port}/"}
        settings = AlertSettings(channels=channels)
        courier = alert_courier(settings)
        async with watched(database, settings) as house:
            await house.escrow(after_s=0, lock=Lock.UNLOCKING)
            await house.evaluated(after_s=0)
            await courier.tick(Tick(house.engine, house.at(1)))
            await house.evaluated(after_s=2)
            assert house.told_rules() == {"unlock_started", "channel_failing"}
            assert house.facts("channel_failing")["given up"] == "1"
            await courier.tick(Tick(house.engine, house.at(3)))
            await house.until_over(after_s=4)
            assert house.told("channel_failing") == LIFE
