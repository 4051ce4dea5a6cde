"""Coverage with several `clearinghouse serve` over one database and one chain: one of them evaluates for all."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from math import isqrt

import pytest

from tests.parts import client
from tests.parts.chained import ETHER, ORCHESTRATOR
from tests.parts.devnet import Devnet, fault_proxy, round_hash
from tests.parts.program import Home
from tests.parts.service_process import ServiceProcess, serving
from tests.parts.signer_process import Keystore
from tests.parts.stack import TICKET_EV_WEI, Stream, TestGateway

pytestmark = pytest.mark.slow

GATE_VALID_S = 10
#: Some twenty evaluations.
RACE_S = 4
PATIENCE_S = 60


@asynccontextmanager
async def over_a_chain(
    conninfo: str, devnet: Devnet, *, deposit_wei: int = ETHER
) -> AsyncIterator[list[ServiceProcess]]:
    """Two processes; the deposit is there, and ORCHESTRATOR is active."""
    devnet.join(ORCHESTRATOR)
    devnet.next_round()
    async with AsyncExitStack() as stack:
        proxies = [await stack.enter_async_context(fault_proxy(devnet.url)) for _ in range(2)]

        def settings_of(home: Home, keystore: Keystore) -> dict[str, str]:
            devnet.fund(keystore.address, deposit_wei=deposit_wei, reserve_wei=ETHER)
            return {
                "CLEARINGHOUSE_CHAIN__NETWORK": "dev",
                "CLEARINGHOUSE_CHAIN__RPC_URLS_FILE": home.secret_file(
                    "rpc_urls", "\n".join(proxy.url for proxy in proxies)
                ),
                "CLEARINGHOUSE_CHAIN__POLL_S": "0.2",
                "CLEARINGHOUSE_COVERAGE__EVALUATE_S": "0.2",
                "CLEARINGHOUSE_COVERAGE__GATE_VALID_S": str(GATE_VALID_S),
            }

        yield await stack.enter_async_context(serving(conninfo, processes_count=2, settings_of=settings_of))


def new_stream(process: ServiceProcess, devnet: Devnet) -> Stream:
    stream = process.new_stream()
    params = stream.offer.ticket_params
    params.recipient = ORCHESTRATOR
    params.expiration_params.creation_round = devnet.round
    params.expiration_params.creation_round_block_hash = round_hash(devnet.round)
    return stream


async def leads(process: ServiceProcess) -> bool:
    page = (await client.call(process.port, "GET", "/metrics")).body
    return b"\nclearinghouse_coverage_senders_led 1.0\n" in page


async def leader_and_other(processes: list[ServiceProcess]) -> tuple[ServiceProcess, ServiceProcess]:
    async with asyncio.timeout(PATIENCE_S):
        while sorted([await leads(process) for process in processes]) != [False, True]:
            await asyncio.sleep(0.1)
    first, second = processes
    return (first, second) if await leads(first) else (second, first)


@pytest.mark.parametrize("how", ["kill", "stop_responding"])
async def test_when_the_process_that_evaluates_ends_or_hangs_another_takes_over_and_no_payment_is_refused(
    database: str, devnet: Devnet, how: str
) -> None:
    async with over_a_chain(database, devnet) as processes:
        leader, other = await leader_and_other(processes)
        gateway = await other.house.new_gateway(tickets=1000)
        stream = new_stream(other, devnet)
        await other.pay(gateway, stream)
        getattr(leader.serving.program, how)()
        ends_at_s = time.monotonic() + 1.5 * GATE_VALID_S
        while time.monotonic() < ends_at_s:  # longer than any gate of the one that is gone
            await other.pay(gateway, stream)
            await asyncio.sleep(0.2)
        assert await leads(other)


# --- two processes, one deposit ---------------------------------------------------------------------------------------

AT_ONCE = 5
DEPOSIT_TICKETS = 400


def level_of(process: ServiceProcess) -> str:
    ((level,),) = process.house.fetch("SELECT level FROM coverage_gate WHERE valid_until > now()")
    return str(level)


def tickets_of(process: ServiceProcess, gateway: TestGateway) -> int:
    return process.house.sums(gateway).tickets


async def take(process: ServiceProcess, gateway: TestGateway, stream: Stream, *, until_s: float) -> set[str | None]:
    """Call after call without a pause, whatever the answers are. The codes of those that were refused."""
    codes: set[str | None] = set()
    while time.monotonic() < until_s:
        answer = await process.sign(gateway, stream.body())
        if answer.status == 200:
            stream.learn(answer.body)
        else:
            codes.add(answer.code)
    return codes


async def test_while_two_processes_race_for_what_is_left_no_gateway_eats_the_others_share_and_the_deposit_covers_all(
    database: str, devnet: Devnet
) -> None:
    async with over_a_chain(database, devnet, deposit_wei=DEPOSIT_TICKETS * TICKET_EV_WEI) as both:
        greedy, modest = [await both[0].house.new_gateway(tickets=1000) for _ in range(2)]
        streams = [new_stream(both[number % 2], devnet) for number in range(7)]
        for number, stream in enumerate(streams):
            stream.offer.price_info.pricePerUnit = AT_ONCE * TICKET_EV_WEI
            await both[number % 2].pay(modest if number == 0 else greedy, stream)
        own, *others = streams
        turn = 0
        while level_of(both[0]) != "critical":
            answer = await both[turn % 2].sign(greedy, others[turn % 6].body())
            assert answer.status == 200 or answer.code == "coverage_critical", answer  # one may know before the other
            if answer.status == 200:
                others[turn % 6].learn(answer.body)
            turn += 1
            await asyncio.sleep(0.1)
        began, until_s = tickets_of(both[0], greedy), time.monotonic() + RACE_S
        codes = await asyncio.gather(
            *(take(both[number % 2], greedy, stream, until_s=until_s) for number, stream in enumerate(others))
        )
        assert set().union(*codes) == {"coverage_critical"}, "running sessions are refused for no other reason"
        assert tickets_of(both[0], greedy) == began, "who has the most open gets nothing while others have less"
        for number in range(3):  # the one that asked for nothing meanwhile still has its share, in either process
            await both[number % 2].pay(modest, own)
        num_tickets = tickets_of(both[0], greedy) + tickets_of(both[0], modest)
        assert num_tickets + 3 * isqrt(4 * num_tickets) + 5 <= DEPOSIT_TICKETS, "by arithmetic of the test's own"
        await both[0].house.require_sound_books()
