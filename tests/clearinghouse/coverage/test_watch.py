"""The watch over coverage: what it writes into the gates, who writes it, and what becomes of it where things fail."""

from __future__ import annotations

import asyncio
import sys
import time
from datetime import timedelta
from typing import Any

import psycopg
import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from chain.chain_reading import Lock
from chain.coverage import Level
from chain.escrow import EscrowUnknown
from chain.tickets import WIN_PROB_CERTAIN
from clearinghouse.coverage import snapshots
from clearinghouse.coverage.snapshots import Snapshot
from tests.parts.covered import (
    ETHER,
    OTHER_SENDER,
    RULES,
    SENDER,
    Books,
    Escrows,
    Watching,
    escrow_of,
    watching,
)

PATIENCE_S = 60
HANGS = (sys.executable, "-c", "import time; time.sleep(60)")
FAILS = (sys.executable, "-c", "import sys; sys.exit('no memory')")


@pytest.fixture
def books(owner: psycopg.Connection[tuple[Any, ...]]) -> Books:
    return Books(owner)


async def next_snapshot(watching: Watching) -> Snapshot:
    """Takes turns until there is one more."""
    had = len(watching.heard.snapshots)
    async with asyncio.timeout(PATIENCE_S):
        while len(watching.heard.snapshots) == had:
            await watching.turn()
            await asyncio.sleep(0.05)
    return watching.heard.snapshots[-1]


async def test_the_level_falls_with_the_deposit_and_rises_when_it_is_funded(database: str, books: Books) -> None:
    gateway = books.new_gateway()
    books.issue(gateway, face_value_wei=ETHER, win_prob=WIN_PROB_CERTAIN, num_tickets=1)  # needs 2 ETH
    async with watching(database) as over:
        for deposit, level in ((10, "ok"), (3.9, "watch"), (2.9, "low"), (2.4, "critical"), (10, "ok")):
            over.escrows.change(deposit_wei=int(deposit * ETHER))
            await over.turn()
            assert books.gates() == [(SENDER, level, True)]


async def test_the_cap_on_face_values_in_the_gate_follows_the_deposit_down_and_up(
    database: str, books: Books, owner: psycopg.Connection[tuple[Any, ...]]
) -> None:
    async with watching(database) as over:
        for deposit_wei in (10 * ETHER, ETHER, ETHER - 1, 20 * ETHER):
            over.escrows.change(deposit_wei=deposit_wei)
            await over.turn()
            cap = "SELECT face_value_max_wei FROM coverage_gate"
            assert owner.execute(cap).fetchall() == [(deposit_wei // 50,)]


@pytest.mark.parametrize("lock", [Lock.UNLOCKING, Lock.UNLOCKED])
async def test_what_is_being_unlocked_counts_as_gone(database: str, books: Books, lock: Lock) -> None:
    books.issue(books.new_gateway())
    async with watching(database) as over:
        await over.turn()
        assert books.gates() == [(SENDER, "ok", True)]
        over.escrows.change(lock=lock)
        await over.turn()
        assert books.gates() == [(SENDER, "critical", True)]
        assert over.heard.evaluations[-1].standing.remaining_ev_wei == 0


async def test_expired_and_redeemed_tickets_need_no_cover(database: str, books: Books) -> None:
    gateway = books.new_gateway()
    books.issue(gateway, num_tickets=5)
    books.issue(gateway, num_tickets=7, round_=3499)
    books.issue(gateway, num_tickets=100, round_=3498)
    books.issue(gateway, num_tickets=-2)
    async with watching(database) as over:
        await over.turn()
        assert over.heard.evaluations[-1].standing.worst.num_tickets == 10
        over.escrows.change(round=3501)
        await over.turn()
        assert over.heard.evaluations[-1].standing.worst.num_tickets == 3


async def test_tickets_that_the_webhook_approved_are_open_for_two_days_with_the_largest_face_value_there_may_be(
    database: str, books: Books
) -> None:
    gateway = books.new_gateway()
    unseen: dict[str, Any] = {"face_value_wei": None, "win_prob": None, "round_": None}
    ev = ETHER // 1000 * WIN_PROB_CERTAIN
    books.issue(gateway, num_tickets=10, ev_numerator=ev, age=timedelta(hours=47), **unseen)
    books.issue(gateway, num_tickets=10, ev_numerator=ev, age=timedelta(hours=51), **unseen)
    async with watching(database) as over:
        await over.turn()
    worst = over.heard.evaluations[-1].standing.worst
    assert (worst.num_tickets, worst.ev_numerator, worst.face_value_max_wei) == (10, ev, 10 * ETHER // 50)


async def test_while_critical_what_remains_is_divided_among_gateways_with_sessions_and_the_others_get_nothing(
    database: str, books: Books
) -> None:
    greedy, modest, idle = (books.new_gateway(sessions_open=n, ev_total_wei=5 * ETHER) for n in (1, 1, 0))
    books.issue(greedy, face_value_wei=ETHER // 10, win_prob=WIN_PROB_CERTAIN, num_tickets=10)
    books.issue(modest, face_value_wei=ETHER // 10, win_prob=WIN_PROB_CERTAIN, num_tickets=1)
    async with watching(database, Escrows({SENDER: escrow_of(deposit_wei=int(1.4 * ETHER))})) as over:
        await over.turn()
    standing = over.heard.evaluations[-1].standing
    assert books.gates() == [(SENDER, "critical", True)]
    assert 0 < standing.remaining_ev_wei < ETHER // 2
    assert books.shares() == {modest: 5 * ETHER + standing.remaining_ev_wei}, "the least open are raised first"
    assert {greedy, idle} & books.shares().keys() == set()


async def test_while_critical_who_is_suspended_holds_no_share_that_the_others_could_use(
    database: str, owner: psycopg.Connection[tuple[Any, ...]], books: Books
) -> None:
    suspended, active = (books.new_gateway() for _ in range(2))
    books.issue(active, face_value_wei=ETHER // 10, win_prob=WIN_PROB_CERTAIN, num_tickets=10)
    books.issue(suspended, face_value_wei=ETHER // 10, win_prob=WIN_PROB_CERTAIN, num_tickets=1)
    owner.execute("UPDATE gateway SET status = 'suspended', status_reason = 'unpaid' WHERE id = %s", [suspended])
    async with watching(database, Escrows({SENDER: escrow_of(deposit_wei=int(1.4 * ETHER))})) as over:
        await over.turn()
        remaining_wei = over.heard.evaluations[-1].standing.remaining_ev_wei
        assert remaining_wei > 0
        assert books.shares() == {active: remaining_wei}
        owner.execute("UPDATE gateway SET status = 'active', status_reason = '' WHERE id = %s", [suspended])
        await over.turn()
    assert suspended in books.shares(), "the least open are raised first"


async def test_while_critical_all_shares_spent_on_tickets_that_the_webhook_approves_leave_the_floor_standing(
    database: str, owner: psycopg.Connection[tuple[Any, ...]], books: Books
) -> None:
    """They are larger than the cap in the gate: the signer was set to more, and no face value is shown."""
    gateway = books.new_gateway()
    books.issue(gateway, face_value_wei=ETHER // 100, win_prob=WIN_PROB_CERTAIN, num_tickets=100)
    owner.execute(
        "INSERT INTO webhook_signer (id, name, sender, face_value_max_wei) "
        "VALUES (gen_random_uuid(), 'signer', %s, %s)", [SENDER, ETHER // 20],
    )  # fmt: skip
    async with watching(database, Escrows({SENDER: escrow_of(deposit_wei=int(1.2 * ETHER))})) as over:
        await over.turn()
        given = over.heard.evaluations[-1].standing
        assert given.level is Level.CRITICAL
        assert given.face_value_max_wei == ETHER // 100
        assert books.shares() == {gateway: given.remaining_ev_wei}
        spent: dict[str, Any] = {"face_value_wei": None, "win_prob": None, "round_": None, "num_tickets": 10**6}
        books.issue(gateway, ev_numerator=given.remaining_ev_wei * WIN_PROB_CERTAIN, **spent)
        await over.turn()
    covered_bps = over.heard.evaluations[-1].standing.coverage_bps
    assert given.remaining_ev_wei > 0
    assert covered_bps is not None
    assert covered_bps >= RULES.thresholds.floor_bps


async def test_of_two_watches_one_evaluates_and_the_other_takes_over_when_it_ends(database: str, books: Books) -> None:
    async with watching(database) as second:
        async with watching(database) as first:
            await first.turn()
            await second.turn()
            assert (first.heard.led, second.heard.led) == ([[SENDER]], [[]])
            assert second.heard.evaluations == []
        await second.turn()
        assert second.heard.led[-1] == [SENDER]
    assert len(second.heard.evaluations) == 1


async def test_a_watch_that_is_silent_loses_the_lead_before_its_gates_expire_and_can_write_no_more(
    database: str, books: Books
) -> None:
    # It is silent for half of that, and the other has the rest of it to take over in.
    async with watching(database, gate_valid_s=16, evaluate_s=0.2) as hung, watching(database) as other:
        await hung.turn()
        while not other.heard.evaluations:
            assert books.gates() == [(SENDER, "ok", True)], "it takes over while the gate still holds"
            await other.turn()
            await asyncio.sleep(0.05)
        with pytest.raises(psycopg.OperationalError):
            await hung.turn()
        assert len(hung.heard.evaluations) == 1


@pytest.mark.parametrize("trouble", [EscrowUnknown("the newest reading is 99 s old"), RuntimeError("a bug")])
async def test_a_watch_that_cannot_evaluate_gives_the_lead_to_one_that_can(
    database: str, books: Books, trouble: Exception
) -> None:
    blind = Escrows()
    async with watching(database, blind) as first, watching(database) as second:
        await first.turn()
        await second.turn()
        assert (first.heard.led[-1], second.heard.led[-1]) == ([SENDER], [])
        books.issue(books.new_gateway(), face_value_wei=ETHER, win_prob=WIN_PROB_CERTAIN, num_tickets=5)
        blind.by_sender[SENDER] = trouble
        await first.turn()
        await second.turn()
        assert books.gates() == [(SENDER, "watch", True)]
        blind.by_sender[SENDER] = escrow_of()
        await first.turn()
        assert (first.heard.led[-1], len(first.heard.evaluations)) == ([], 1), "it stands by, now that another leads"


async def test_a_failure_for_one_sender_does_not_stop_the_others_and_is_counted(database: str, books: Books) -> None:
    escrows = Escrows({OTHER_SENDER: RuntimeError("a bug"), SENDER: escrow_of()})
    async with watching(database, escrows) as over:
        await over.turn()
    assert over.heard.outcomes == ["failed", "done"]
    assert books.gates() == [(SENDER, "ok", True)]


async def test_without_a_fresh_escrow_no_gate_is_renewed_and_its_level_is_kept_for_when_it_is_back(
    database: str, books: Books
) -> None:
    gateway = books.new_gateway()
    books.issue(gateway, face_value_wei=ETHER, win_prob=WIN_PROB_CERTAIN)
    async with watching(database, Escrows({SENDER: escrow_of(deposit_wei=3 * ETHER - 1)})) as over:
        await over.turn()
        books.expire_gates()
        over.escrows.lose()
        await over.turn()
        assert (over.heard.outcomes[-1], books.gates()) == ("escrow_unknown", [(SENDER, "low", False)])
        over.escrows.change(deposit_wei=3 * ETHER + 1)  # above the threshold, within the hysteresis
        await over.turn()
    assert books.gates() == [(SENDER, "low", True)]


async def test_the_level_survives_the_evaluator(database: str, books: Books) -> None:
    books.issue(books.new_gateway(), face_value_wei=ETHER, win_prob=WIN_PROB_CERTAIN)
    for deposit_wei in (3 * ETHER - 1, 3 * ETHER + 1):
        async with watching(database, Escrows({SENDER: escrow_of(deposit_wei=deposit_wei)})) as over:
            await over.turn()
        assert books.gates() == [(SENDER, "low", True)]


# --- snapshots ---


async def test_a_snapshot_has_both_views_and_the_outlook_and_is_read_back_as_it_was(
    database: str, books: Books, admin: AsyncEngine
) -> None:
    books.issue(books.new_gateway(), face_value_wei=ETHER // 100, num_tickets=10**8)
    async with watching(database, snapshot_s=0.1) as over:
        snapshot = await next_snapshot(over)
    assert over.heard.looks == ["done"]
    assert snapshot.expected_wei == pytest.approx(ETHER, rel=1e-6)
    assert snapshot.posterior_expected_wei == pytest.approx(ETHER, rel=1e-6), "no redemption was ever seen"
    assert snapshot.delays_count == 0
    assert snapshot.exhausted_probability is not None
    assert snapshot.exhausted_probability < 1e-6
    assert snapshot.burn_wei_per_day is not None
    assert snapshot.burn_wei_per_day > ETHER
    assert snapshot.windows is not None
    assert [window.window_s for window in snapshot.windows] == [3600, 6 * 3600, 24 * 3600, 7 * 24 * 3600]
    assert snapshot.top_up_deposit_wei is not None
    assert snapshot.top_up_deposit_wei > 0
    async with admin.connect() as connection:
        assert await snapshots.newest_of_all(connection) == [snapshot]


@pytest.mark.parametrize(("program", "outcome"), [(HANGS, "timed_out"), (FAILS, "failed"), (("/none",), "failed")])
async def test_without_an_outlook_the_snapshot_has_what_is_exact(
    database: str, books: Books, program: tuple[str, ...], outcome: str
) -> None:
    books.issue(books.new_gateway())
    timeout_s = 1 if program is HANGS else PATIENCE_S  # a program that fails may take a while for it
    async with watching(database, program=program, snapshot_s=0.1, outlook_timeout_s=timeout_s) as over:
        snapshot = await next_snapshot(over)
    assert set(over.heard.looks) == {outcome}, "perhaps more than one: the next snapshot is due at once"
    assert not snapshot.has_outlook
    assert (snapshot.num_tickets, snapshot.level) == (1, "ok")


async def test_a_redemption_a_funding_and_a_change_of_level_are_each_a_snapshot_at_once(
    database: str, books: Books
) -> None:
    books.issue(books.new_gateway(), face_value_wei=ETHER, win_prob=WIN_PROB_CERTAIN)
    async with watching(database, snapshot_s=0.1) as first:
        await next_snapshot(first)
    async with watching(database, snapshot_s=3600, program=FAILS) as over:
        for change in ({"deposit_wei": 9 * ETHER}, {"reserve_wei": 6 * ETHER}, {"deposit_wei": 2 * ETHER}):
            over.escrows.change(**change)
            snapshot = await next_snapshot(over)
            assert {name: getattr(snapshot, name) for name in change} == change
        for _ in range(5):
            await over.turn()
            await asyncio.sleep(0.05)
    assert [snapshot.level for snapshot in over.heard.snapshots] == ["ok", "ok", "critical"], "and no others"


async def test_what_happens_while_somebody_looks_ahead_is_a_snapshot_without_an_outlook(
    database: str, books: Books
) -> None:
    books.issue(books.new_gateway(), face_value_wei=ETHER, win_prob=WIN_PROB_CERTAIN)
    async with watching(database, snapshot_s=0.1, program=HANGS) as over:
        await over.turn()
        await asyncio.sleep(0.2)
        for deposit in (10, 3, 2):
            over.escrows.change(deposit_wei=deposit * ETHER)
            await over.turn()
        await over.turn()
    assert [(snapshot.level, snapshot.has_outlook) for snapshot in over.heard.snapshots] == [
        ("watch", False),
        ("critical", False),
    ]


async def test_a_look_ahead_that_is_under_way_ends_with_the_watch(database: str, books: Books) -> None:
    async with watching(database, program=HANGS, snapshot_s=0.1) as over:
        await over.turn()
        await asyncio.sleep(0.2)
        await over.turn()
        began_s = time.monotonic()
    assert time.monotonic() - began_s < 30, "it would hang for a minute"
    assert over.heard.looks == []
