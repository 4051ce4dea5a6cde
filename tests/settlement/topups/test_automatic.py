"""Top-ups by the schedule: sent where coverage advises them, once, and never on what is stale, disputed or declared."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from chain.funding import Amounts
from clearinghouse.config import Settings
from settlement.jobs import jobs_of
from settlement.topups.conditions import Condition, what_next
from settlement.topups.documents import standing_document
from settlement.topups.flow import Point
from settlement.topups.wired import PLAN_VALID_S
from tests.parts.devnet import Devnet
from tests.parts.devnet.fault_proxy import changed
from tests.parts.topups import CONFIRMATIONS, SENDER, STUCK_AFTER_S, Automatic, automatic, funding
from tests.parts.wallet import ETHER, TREASURY, give, without_blocks

DUE = Amounts(deposit_wei=2 * ETHER, reserve_wei=ETHER)
ROOT = Path(__file__).parents[3]


@pytest.fixture
async def auto(database: str, devnet: Devnet, tmp_path: Path) -> AsyncIterator[Automatic]:
    async with funding(database, devnet) as funded:
        yield automatic(funded, tmp_path)


async def until_quiet(auto: Automatic) -> None:
    """Turns and blocks, until nothing is in flight."""
    for _ in range(3):
        await auto.turn()
        auto.funding.mine(1 + CONFIRMATIONS)
    await auto.turn()
    assert await auto.funding.store.in_flight() is None


def paid(auto: Automatic) -> int:
    """By the books, in wei."""
    query = "SELECT coalesce(sum(deposit_wei + reserve_wei), 0) FROM topup WHERE state = 'confirmed'"
    return int(auto.funding.query(query)[0][0])


async def test_what_coverage_advises_is_sent_and_arrives(auto: Automatic) -> None:
    auto.advise(DUE)
    assert "sent" in await auto.turn()
    assert (await auto.stands()).advised == DUE
    auto.funding.mine(1 + CONFIRMATIONS)
    assert "confirmed" in await auto.turn()
    assert auto.funding.escrow() == DUE
    stands = await auto.stands()
    assert stands.payer == TREASURY.address
    assert stands.balance_wei is not None
    assert not stands.balance_is_low


async def test_the_same_advice_is_not_followed_twice(auto: Automatic) -> None:
    auto.advise(DUE)
    await until_quiet(auto)
    for _ in range(3):
        await auto.turn()
    assert auto.funding.escrow() == DUE
    assert "advice_awaited" in await auto.turn()
    auto.advise(Amounts(0, 0), age_s=-1)
    assert "nothing_due" in await auto.turn()
    assert (await auto.stands()).condition is None


async def test_what_others_paid_in_meanwhile_is_taken_off(auto: Automatic) -> None:
    auto.advise(DUE)
    auto.funding.devnet.fund(SENDER.address, deposit_wei=ETHER)
    await until_quiet(auto)
    assert auto.funding.escrow() == DUE
    assert paid(auto) == 2 * ETHER


async def test_the_reserve_comes_first_where_the_caps_do_not_allow_all(auto: Automatic) -> None:
    auto.advise(Amounts(deposit_wei=4 * ETHER, reserve_wei=3 * ETHER))
    await auto.turn()
    auto.funding.mine(1 + CONFIRMATIONS)
    assert auto.funding.escrow() == Amounts(deposit_wei=2 * ETHER, reserve_wei=3 * ETHER)


async def test_the_rest_of_the_advice_comes_with_the_next_and_no_day_passes_its_cap(auto: Automatic) -> None:
    """8 ether a day, 5 at a time: 12 were needed."""
    auto.advise(Amounts(deposit_wei=12 * ETHER, reserve_wei=0))
    await until_quiet(auto)
    auto.advise(Amounts(deposit_wei=7 * ETHER, reserve_wei=0), age_s=-1)
    await until_quiet(auto)
    auto.advise(Amounts(deposit_wei=4 * ETHER, reserve_wei=0), age_s=-2)
    await auto.turn()
    assert (await auto.stands()).condition is Condition.DAY_CAP
    assert paid(auto) == auto.funding.escrow().total_wei == 8 * ETHER


async def test_less_than_is_worth_sending_is_not_sent(auto: Automatic) -> None:
    auto.advise(Amounts(ETHER // 1000, 0))
    assert "nothing_due" in await auto.turn()


@pytest.mark.parametrize(
    ("how", "condition"),
    [
        ({"age_s": 301}, Condition.ADVICE_STALE),
        ({"age_s": -301}, Condition.ADVICE_STALE),
        ({"simulated": True}, Condition.SIMULATED),
        ({"block": None, "block_number": None}, Condition.SIMULATED),
    ],
)
async def test_stale_and_simulated_coverage_sends_nothing(
    auto: Automatic, how: dict[str, Any], condition: Condition
) -> None:
    auto.advise(DUE, **how)
    await auto.turn()
    assert (await auto.stands()).condition is condition
    assert auto.funding.query("SELECT count(*) FROM topup") == [(0,)]


async def test_without_an_outlook_nothing_is_sent(auto: Automatic) -> None:
    auto.advise(None)
    await auto.turn()
    assert (await auto.stands()).condition is Condition.NO_ADVICE


async def test_coverage_from_before_the_last_top_up_is_not_followed(auto: Automatic) -> None:
    auto.advise(DUE)
    await until_quiet(auto)
    auto.advise(Amounts(5 * ETHER, 0), age_s=-1, block=1)
    assert "advice_awaited" in await auto.turn()
    assert (await auto.stands()).condition is None
    assert paid(auto) == DUE.total_wei


async def test_endpoints_that_disagree_send_nothing_and_are_told_of(auto: Automatic) -> None:
    auto.advise(DUE)
    auto.funding.proxies[1].fault = changed("eth_call", lambda result, _parameters: result[:-2] + "77")
    await auto.turn()
    stands = await auto.stands()
    assert stands.condition is Condition.CHAIN_UNDECIDED
    assert auto.funding.query("SELECT count(*) FROM topup") == [(0,)]


async def test_an_empty_wallet_is_a_condition_with_the_numbers_and_ends_when_it_is_filled(auto: Automatic) -> None:
    give(auto.funding.devnet, TREASURY.address, 10**15)
    auto.funding.mine()
    auto.advise(DUE)
    await auto.turn()
    stands = await auto.stands()
    assert stands.condition is Condition.WALLET_SHORT
    assert stands.balance_is_low
    assert stands.balance_wei == 10**15
    assert "3 ETH" in stands.said
    auto.funding.later(60)
    await auto.turn()
    assert (await auto.stands()).since == stands.since
    give(auto.funding.devnet, TREASURY.address, 10 * ETHER)
    auto.funding.mine()
    await until_quiet(auto)
    assert auto.funding.escrow() == DUE
    events = auto.funding.query(
        "SELECT kind, facts ->> 'condition' FROM topup_event WHERE topup_id IS NULL ORDER BY id"
    )
    assert events == [("hindered", "wallet_short"), ("all_well", None)]


async def test_a_dry_run_only_tells_what_it_would_send(auto: Automatic) -> None:
    auto.advise(DUE)
    await auto.with_mode("dry_run").turn()
    stands = await auto.stands()
    assert (stands.mode, stands.condition, stands.advised) == ("dry_run", Condition.DRY_RUN, DUE)
    shown = standing_document(stands)
    assert shown is not None
    assert shown["advised"] == {"deposit_wei": str(DUE.deposit_wei), "reserve_wei": str(DUE.reserve_wei)}
    assert auto.funding.query("SELECT count(*) FROM topup") == [(0,)]


async def test_switched_off_nothing_is_begun_and_what_is_under_way_is_seen_to_its_end(auto: Automatic) -> None:
    auto.advise(DUE)
    off = auto.with_mode("off")
    assert "off" in await off.turn()
    assert auto.funding.query("SELECT count(*) FROM topup") == [(0,)]
    await auto.turn()
    auto.funding.mine(1 + CONFIRMATIONS)
    assert "confirmed" in await off.turn()
    assert auto.funding.escrow() == DUE


async def test_the_escrow_of_the_signer_that_is_expected_is_topped_up_where_no_other_is_named(auto: Automatic) -> None:
    auto.advise(DUE)
    auto.settings["signer"] = {"go_livepeer": {"expected_address": auto.settings["topups"].pop("sender")}}
    await until_quiet(auto)
    assert auto.funding.escrow() == DUE


async def test_the_wallet_that_another_key_opens_is_explained(auto: Automatic) -> None:
    auto.advise(DUE)
    auto.settings["topups"]["wallet_password"] = "an0ther"
    await auto.turn()
    stands = await auto.stands()
    assert stands.condition is Condition.NO_WALLET
    assert "an0ther" not in stands.said


def test_the_job_is_there_also_without_a_wallet() -> None:
    from prometheus_client import CollectorRegistry

    assert "topups" in [job.name for job in jobs_of(Settings(), CollectorRegistry())]


def without_wallet(auto: Automatic) -> Automatic:
    """As where somebody takes the wallet out of the settings."""
    topups = auto.settings["topups"]
    gone = {name: value for name, value in topups.items() if not name.startswith("wallet")}
    return replace(auto, settings={**auto.settings, "topups": {**gone, "mode": "off"}})


async def test_without_a_wallet_and_anything_to_follow_it_needs_no_chain(auto: Automatic) -> None:
    gone = without_wallet(auto)
    gone.settings["chain"] = {"network": "dev"}
    assert "off" in await gone.turn()
    stands = await gone.stands()
    assert (stands.condition, stands.balance_is_low) == (None, False)


async def test_what_is_in_flight_when_the_wallet_is_taken_away_is_seen_to_its_end(auto: Automatic) -> None:
    """Also where the nodes have forgotten it: its bytes are in the database."""
    auto.advise(DUE)
    gone = without_wallet(auto)
    with without_blocks(auto.funding.devnet):
        await auto.turn()
        auto.funding.devnet.rpc("anvil_dropAllTransactions")
        assert "sent" in await gone.turn()
        assert (await gone.stands()).condition is None
        auto.funding.mine(1 + CONFIRMATIONS)
    assert "confirmed" in await gone.turn()
    assert auto.funding.escrow() == DUE
    assert (await gone.stands()).condition is None
    assert auto.funding.query("SELECT count(*) FROM topup_transaction") == [(1,)]


async def test_one_that_is_stuck_without_its_wallet_says_what_to_do_and_ends_once_there_is_one(auto: Automatic) -> None:
    auto.advise(DUE)
    gone = without_wallet(auto)
    with without_blocks(auto.funding.devnet):
        await auto.turn()
        auto.funding.later(STUCK_AFTER_S)
        await gone.turn()
        stands = await gone.stands()
        assert stands.condition is Condition.WALLET_GONE
        assert "no wallet is configured" in stands.said
        assert "topups.wallet" in what_next(stands.condition)
        assert auto.funding.query("SELECT count(*) FROM topup_transaction") == [(1,)]
        await auto.turn()
        assert auto.funding.query("SELECT count(*) FROM topup_transaction") == [(2,)]
        auto.funding.mine(1 + CONFIRMATIONS)
    await gone.turn()
    assert (await gone.stands()).condition is None
    assert await auto.funding.store.in_flight() is None
    assert paid(auto) == DUE.total_wei


async def test_a_plan_that_was_not_signed_when_the_wallet_was_taken_away_is_abandoned(auto: Automatic) -> None:
    await auto.funding.begin(DUE)
    gone = without_wallet(auto)
    assert "wallet_gone" in await gone.turn()
    assert (await gone.stands()).condition is None, "a command elsewhere may be about to sign it"
    auto.funding.later(PLAN_VALID_S + 1)
    assert "abandoned" in await gone.turn()
    assert (await gone.stands()).condition is None
    assert auto.funding.query("SELECT count(*) FROM topup_transaction") == [(0,)]


async def test_a_wallet_that_is_no_more_is_not_low(auto: Automatic) -> None:
    give(auto.funding.devnet, TREASURY.address, 10**15)
    auto.funding.mine()
    auto.advise(DUE)
    await auto.turn()
    assert (await auto.stands()).balance_is_low
    await without_wallet(auto).turn()
    stands = await auto.stands()
    assert (stands.condition, stands.balance_is_low) == (None, False)


def command_line(auto: Automatic, *arguments: str) -> subprocess.CompletedProcess[str]:
    """`clearinghouse …` with the settings as its environment."""
    shown = {"rpc_urls": ",".join(auto.settings["chain"]["rpc_urls"])}
    environment = {
        f"CLEARINGHOUSE_{section}__{name}".upper(): str(shown.get(name, value))
        for section, values in auto.settings.items()
        for name, value in values.items()
    }
    environment |= {"CLEARINGHOUSE_DATABASE_URL": auto.funding.database, "PATH": os.environ["PATH"]}
    command = [sys.executable, "-m", "settlement.cli", *arguments]
    return subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=60, check=False
    )  # fmt: skip


async def test_the_schedule_runs_it_as_any_other_job(auto: Automatic) -> None:
    """In its own process, under a lease, in the worker's role, and recorded."""
    auto.funding.now = datetime.now(UTC)
    auto.advise(DUE)
    for said in ("sent", "confirmed"):
        done = await asyncio.to_thread(command_line, auto, "jobs", "run", "topups")
        assert (done.returncode, said in done.stdout) == (0, True), done
        auto.funding.mine(1 + CONFIRMATIONS)
    assert auto.funding.escrow() == DUE
    runs = auto.funding.query("SELECT outcome FROM job_run WHERE job = 'topups'")
    assert runs == [("ok",), ("ok",)]


def process_command(auto: Automatic, folder: Path, point: str) -> list[str]:
    file = folder / "settings.json"
    file.write_text(json.dumps(auto.settings), encoding="utf-8")
    now = auto.funding.now.isoformat()
    return [sys.executable, "-m", "tests.parts.topup_process", str(file), auto.funding.database, now, point]


def run_process(auto: Automatic, folder: Path, point: str) -> subprocess.CompletedProcess[str]:
    command = process_command(auto, folder, point)
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)


async def test_processes_that_race_pay_once(auto: Automatic, tmp_path: Path) -> None:
    auto.advise(DUE)
    with without_blocks(auto.funding.devnet):
        done = await asyncio.gather(*(asyncio.to_thread(run_process, auto, tmp_path, "") for _ in range(3)))
        assert [each.returncode for each in done] == [0, 0, 0], done
        await until_quiet(auto)
    assert auto.funding.escrow() == DUE
    assert paid(auto) == DUE.total_wei
    assert auto.funding.query("SELECT count(*) FROM topup_transaction") == [(1,)]


@pytest.mark.parametrize("point", list(Point))
async def test_a_process_killed_anywhere_pays_once(auto: Automatic, tmp_path: Path, point: Point) -> None:
    """kill -9 of a real process at every point; another process goes on. The books and the escrow say the same."""
    auto.advise(DUE)
    with without_blocks(auto.funding.devnet):
        died = await asyncio.to_thread(run_process, auto, tmp_path, point)
        if point in {Point.SEEN_TO_END, Point.ENDED}:
            assert died.returncode == 0, died.stderr
            auto.funding.mine(1 + CONFIRMATIONS)
            died = await asyncio.to_thread(run_process, auto, tmp_path, point)
        assert died.returncode == -signal.SIGKILL, died.stderr
        await until_quiet(auto)
    assert auto.funding.escrow() == DUE
    assert paid(auto) == DUE.total_wei
    assert auto.funding.query("SELECT count(*) FROM topup_transaction") == [(1,)]
