"""What must hold on the wire and in the chain whatever goes wrong, by the job that the schedule runs."""

from __future__ import annotations

import asyncio
import signal
import subprocess
from collections.abc import AsyncIterator, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from chain.funding import Amounts
from settlement.topups.conditions import Condition, TopupRefused
from settlement.topups.flow import Point
from tests.parts.devnet import Devnet
from tests.parts.devnet.fault_proxy import FaultProxy, changed, honest
from tests.parts.program import ONLY_LINUX, ROOT, wait_until
from tests.parts.topups import CONFIRMATIONS, STUCK_AFTER_S, Automatic, automatic, funding
from tests.parts.wallet import ETHER, GWEI, without_blocks
from tests.settlement.topups.test_automatic import process_command, run_process

DUE = Amounts(deposit_wei=2 * ETHER, reserve_wei=ETHER)


@pytest.fixture
async def auto(database: str, devnet: Devnet, tmp_path: Path) -> AsyncIterator[Automatic]:
    async with funding(database, devnet) as funded:
        yield automatic(funded, tmp_path)


def sent_on_the_wire(proxies: Iterable[FaultProxy]) -> list[str]:
    """The bytes of every transaction that any endpoint was given."""
    calls = [call for proxy in proxies for batch in proxy.requests for call in batch]
    return [call["params"][0] for call in calls if call["method"] == "eth_sendRawTransaction"]


def another(result: Any) -> Any:
    """A lie that is well formed: the last digit is another one."""
    return result[:-1] + ("1" if result[-1] != "1" else "2")


#: What an endpoint says and a decision rests on.
LIES = {
    "the balance": changed("eth_getBalance", lambda result, _parameters: another(result)),
    "the nonce": changed("eth_getTransactionCount", lambda result, _parameters: another(result)),
    "the escrow": changed("eth_call", lambda result, _parameters: another(result)),
}


@pytest.mark.parametrize("lie", LIES)
@pytest.mark.parametrize("liar", [0, 1])
async def test_while_endpoints_disagree_about_anything_no_transaction_leaves(
    auto: Automatic, lie: str, liar: int
) -> None:
    auto.advise(DUE)
    auto.funding.proxies[liar].fault = LIES[lie]
    await auto.turn()
    assert (await auto.stands()).condition is Condition.CHAIN_UNDECIDED
    assert sent_on_the_wire(auto.funding.proxies) == []
    assert auto.funding.query("SELECT count(*) FROM topup") == [(0,)]


async def test_a_dry_run_sends_nothing_to_any_endpoint(auto: Automatic) -> None:
    auto.advise(DUE)
    await auto.with_mode("dry_run").turn()
    assert sent_on_the_wire(auto.funding.proxies) == []


async def test_while_endpoints_disagree_a_stuck_one_is_neither_replaced_nor_sent_again(auto: Automatic) -> None:
    auto.advise(DUE)
    with without_blocks(auto.funding.devnet):
        await auto.turn()
        make_it_stuck(auto)
        for proxy in auto.funding.proxies:
            proxy.requests.clear()
        auto.funding.proxies[1].fault = LIES["the nonce"]
        await auto.turn()
        assert sent_on_the_wire(auto.funding.proxies) == []
        assert auto.funding.query("SELECT count(*) FROM topup_transaction") == [(1,)]
        auto.funding.proxies[1].fault = honest
        await auto.turn()
        assert len(set(sent_on_the_wire(auto.funding.proxies))) == 1, "now it is replaced"


async def test_one_that_a_deep_reorganisation_took_back_is_sent_again_by_the_schedule_exactly_once(
    auto: Automatic,
) -> None:
    """The advice that led to it is as fresh as before: it is not followed a second time."""
    auto.advise(DUE)
    with without_blocks(auto.funding.devnet):
        await auto.turn()
        auto.funding.mine(1 + CONFIRMATIONS)
        assert "confirmed" in await auto.turn()
        auto.funding.devnet.rpc("anvil_rollback", 1 + CONFIRMATIONS)
        auto.funding.devnet.rpc("anvil_dropAllTransactions")
        auto.funding.mine()
        assert auto.funding.escrow() == Amounts(0, 0)
        for _ in range(3):
            await auto.turn()
        auto.funding.mine(1 + CONFIRMATIONS)
        for _ in range(3):
            await auto.turn()
            auto.funding.mine(1 + CONFIRMATIONS)
    assert auto.funding.escrow() == DUE
    assert len(set(sent_on_the_wire(auto.funding.proxies))) == 1, "the same bytes, however often"
    assert auto.funding.query("SELECT state FROM topup") == [("confirmed",)]


async def test_of_workers_that_plan_at_the_same_moment_one_does(auto: Automatic) -> None:
    funded = auto.funding
    outcomes = await asyncio.gather(*(funded.other().begin(DUE) for _ in range(6)), return_exceptions=True)
    refused = [each for each in outcomes if isinstance(each, TopupRefused)]
    assert len(refused) == len(outcomes) - 1
    assert {each.condition for each in refused} == {Condition.IN_FLIGHT}
    assert funded.query("SELECT state FROM topup") == [("planned",)]


@pytest.mark.parametrize("point", [Point.SIGNED, Point.STORED, Point.SENT, Point.RECORDED])
async def test_a_process_killed_while_it_replaces_a_stuck_one_pays_once(
    auto: Automatic, tmp_path: Path, point: Point
) -> None:
    """kill -9 of a real process with the second transaction signed, stored, sent or recorded; another goes on."""
    auto.advise(DUE)
    with without_blocks(auto.funding.devnet):
        await auto.turn()
        make_it_stuck(auto)
        died = await asyncio.to_thread(run_process, auto, tmp_path, point)
        assert died.returncode == -signal.SIGKILL, died.stderr
        for _ in range(3):
            await auto.turn()
            auto.funding.mine(1 + CONFIRMATIONS)
        await auto.turn()
    assert auto.funding.escrow() == DUE
    ((state, nonce, count),) = auto.funding.query(
        "SELECT state, nonce, (SELECT count(*) FROM topup_transaction) FROM topup"
    )
    assert (state, nonce, count) == ("confirmed", 0, 2)


@ONLY_LINUX
@pytest.mark.parametrize("point", [Point.PLANNED, Point.SIGNED, Point.STORED, Point.SENT, Point.RECORDED])
async def test_a_process_that_is_stopped_anywhere_and_wakes_when_another_is_done_pays_nothing_more(
    auto: Automatic, tmp_path: Path, point: Point
) -> None:
    """What it was about to do it does: sign, store, send, record. By then another has, to the end."""
    auto.advise(DUE)
    with without_blocks(auto.funding.devnet), stopped_process(auto, tmp_path, point) as stopped:
        await asyncio.to_thread(wait_until_stopped, stopped)
        await auto.turn()
        auto.funding.mine(1 + CONFIRMATIONS)
        assert "confirmed" in await auto.turn()
        assert auto.funding.escrow() == DUE
        stopped.send_signal(signal.SIGCONT)
        assert await asyncio.to_thread(stopped.wait, 60) == 0
        for _ in range(2):
            await auto.turn()
            auto.funding.mine(1 + CONFIRMATIONS)
    assert auto.funding.escrow() == DUE
    assert auto.funding.query("SELECT state, nonce FROM topup") == [("confirmed", 0)]
    assert auto.funding.query("SELECT count(*) FROM topup_transaction") == [(1,)]


@contextmanager
def stopped_process(auto: Automatic, folder: Path, point: Point) -> Iterator[subprocess.Popen[bytes]]:
    """One that stops itself at the point."""
    with subprocess.Popen([*process_command(auto, folder, point), "SIGSTOP"], cwd=ROOT) as process:
        try:
            yield process
        finally:
            process.kill()


def wait_until_stopped(process: subprocess.Popen[bytes]) -> None:
    wait_until(lambda: process_state(process.pid) == "T", "the process to stop itself", timeout_s=60)


def process_state(pid: int) -> str:
    return Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()[0]


def make_it_stuck(auto: Automatic) -> None:
    """Gas has become too dear for what was sent, for as long as is waited."""
    auto.funding.devnet.rpc("anvil_setNextBlockBaseFeePerGas", hex(20 * GWEI))
    auto.funding.mine()
    auto.funding.later(STUCK_AFTER_S)
