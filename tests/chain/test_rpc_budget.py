"""What an endpoint is sent: no more than its budget, nothing while it asks for patience, and who serves meanwhile."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack

import pytest

from chain.quorum import Quorum, TooFewAnswers
from chain.rpc import Failure, RpcCall, RpcEndpoint, RpcError
from chain.rpc_budget import BudgetSpent, RequestBudget
from tests.parts.devnet import DEV_CHAIN_ID, Devnet, FaultProxy, fault_proxy
from tests.parts.devnet.fault_proxy import honest, status

TIMEOUT_S = 10.0
CALL = [RpcCall("eth_chainId", [])]


@pytest.fixture
async def proxies(devnet: Devnet) -> AsyncIterator[list[FaultProxy]]:
    async with AsyncExitStack() as stack:
        yield [await stack.enter_async_context(fault_proxy(devnet.url)) for _ in range(3)]


def endpoint(proxy: FaultProxy, budget: RequestBudget, *, name: str = "rpc-1") -> RpcEndpoint:
    return RpcEndpoint(proxy.url, name=name, budget=budget)


def quorum_of(proxies: list[FaultProxy], budgets: list[RequestBudget]) -> Quorum:
    endpoints = [
        endpoint(proxy, budget, name=f"rpc-{at}")
        for at, (proxy, budget) in enumerate(zip(proxies, budgets, strict=True))
    ]
    return Quorum(endpoints, chain_id=DEV_CHAIN_ID, count=2, timeout_s=TIMEOUT_S, head_age_max_s=3600)


async def test_several_clients_of_an_endpoint_together_keep_to_its_budget(proxies: list[FaultProxy]) -> None:
    waits: list[float] = []
    budget = RequestBudget(10, waited_s=waits.append)
    first, second = endpoint(proxies[0], budget), endpoint(proxies[0], budget)
    begun_s = time.monotonic()
    await asyncio.gather(*(each.batch(CALL, timeout_s=TIMEOUT_S) for each in [first, second] * 9))
    elapsed_s = time.monotonic() - begun_s
    assert len(proxies[0].requests) == 18
    assert elapsed_s > 0.7, "a second's worth at once, and then ten a second"
    assert len(waits) <= 8
    assert max(waits, default=0) < 1
    await first.close()
    await second.close()


async def test_who_would_wait_for_longer_than_the_timeout_is_told_at_once_and_nothing_is_sent(
    proxies: list[FaultProxy],
) -> None:
    budget = RequestBudget(0.01)
    one = endpoint(proxies[0], budget)
    await one.batch(CALL, timeout_s=TIMEOUT_S)
    begun_s = time.monotonic()
    with pytest.raises(RpcError) as refused:
        await one.batch(CALL, timeout_s=1)
    assert refused.value.failure is Failure.BUDGET_SPENT
    assert time.monotonic() - begun_s < 60
    assert len(proxies[0].requests) == 1
    assert budget.wait_s() <= 100, "it has used no turn of the others' either"
    await one.close()


async def test_patience_that_was_asked_of_one_client_is_shown_by_all_and_another_endpoint_serves_meanwhile(
    proxies: list[FaultProxy],
) -> None:
    budgets = [RequestBudget(100) for _ in proxies]
    watch, indexer = quorum_of(proxies, budgets), quorum_of(proxies, budgets)
    proxies[0].fault = status(429, ("Retry-After", "300"))
    for _ in range(3):
        await watch.newest_block_hash()
        await watch.read(await watch.newest_block_hash(), [])
    assert len(proxies[0].requests) == 1
    for _ in range(6):
        assert len(await indexer.ask([], lambda head, _: head)) == 2
    assert len(proxies[0].requests) == 1, "the other asks it nothing either"
    proxies[1].fault = status(503)
    with pytest.raises(TooFewAnswers, match="rpc-0 budget_spent"):
        await indexer.ask([], lambda head, _: head)
    assert 200 < budgets[0].wait_s() <= 300
    await watch.close()
    await indexer.close()


async def test_an_endpoint_whose_budget_is_spent_is_asked_last(proxies: list[FaultProxy]) -> None:
    budgets = [RequestBudget(0.01), RequestBudget(1000), RequestBudget(1000)]
    quorum = quorum_of(proxies, budgets)
    begun_s = time.monotonic()
    for _ in range(10):
        await quorum.ask([], lambda head, _: head)
    assert time.monotonic() - begun_s < 60, "nobody waited for it"
    assert len(proxies[0].requests) == 1
    assert sum(len(proxy.requests) for proxy in proxies) == 20
    await quorum.close()


async def test_where_all_are_needed_the_budget_is_waited_for(proxies: list[FaultProxy]) -> None:
    quorum = quorum_of(proxies[:2], [RequestBudget(2), RequestBudget(1000)])
    for _ in range(4):
        assert len(await quorum.ask([], lambda head, _: head)) == 2
    await quorum.close()


async def test_whoever_waits_while_patience_is_asked_for_sends_nothing() -> None:
    budget = RequestBudget(0.5)
    await budget.take(timeout_s=0)
    waiting = asyncio.create_task(budget.take(timeout_s=2))
    await asyncio.sleep(0)
    budget.be_patient(30)
    with pytest.raises(BudgetSpent):
        await waiting


async def test_after_patience_the_endpoint_is_asked_again(proxies: list[FaultProxy]) -> None:
    one = endpoint(proxies[0], RequestBudget(100))
    proxies[0].fault = status(429, ("Retry-After", "1"))
    begun_s = time.monotonic()
    with pytest.raises(RpcError):
        await one.batch(CALL, timeout_s=TIMEOUT_S)
    proxies[0].fault = honest
    await one.batch(CALL, timeout_s=TIMEOUT_S)
    assert time.monotonic() - begun_s > 0.8
    await one.close()
