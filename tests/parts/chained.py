"""The whole service over a chain of our own, which it reads through endpoints that a test may break.

async with chained(database, devnet) as chained:
    devnet.next_round()
    await chained.caught_up()         # what happened on the chain is known to the service
    chained.proxies[0].fault = hanging()
"""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Any

from chain.escrow import EscrowReading
from clearinghouse.coverage.early import READ_INTERVAL_S
from clearinghouse.readiness import Check
from tests.parts.devnet import Devnet, FaultProxy, fault_proxy, round_hash
from tests.parts.devnet.fault_proxy import Fault, honest
from tests.parts.service import Service, running
from tests.parts.stack import SIGNER_KEY, Stream

POLL_S = 0.1
PATIENCE_S = 60
ETHER = 10**18
#: Who the tests pay, unless they choose somebody else.
ORCHESTRATOR = b"\x0a" * 20


class AnyRound:
    """What a signer sees that looks at no limits of its own: funds without end, in whatever round it is."""

    def __init__(self, devnet: Devnet) -> None:
        self._devnet = devnet

    def read(self) -> EscrowReading:
        round_ = self._devnet.round
        return EscrowReading(
            sender=SIGNER_KEY.address, deposit_wei=10**24, reserve_wei=10**24, claimed_in_round_wei=0, withdraw_round=0,
            last_initialized_round=round_, last_initialized_round_block_hash=round_hash(round_), last_seen_l1_block=1,
            observed_at_unix_s=int(time.time()), simulated=True, previous_initialized_round=round_ - 1,
            previous_initialized_round_block_hash=round_hash(round_ - 1),
        )  # fmt: skip


@dataclass
class Chained:
    """A service, the chain, and the ways to it in the order of the configuration."""

    service: Service
    devnet: Devnet
    proxies: list[FaultProxy]

    def new_stream(self, *, recipient: bytes = ORCHESTRATOR, round_: int | None = None) -> Stream:
        """A new session's stream to `recipient`, in the round that the chain is in or in another one."""
        stream = self.service.new_stream()
        params = stream.offer.ticket_params
        params.recipient = recipient
        params.expiration_params.creation_round = self.devnet.round if round_ is None else round_
        params.expiration_params.creation_round_block_hash = round_hash(params.expiration_params.creation_round)
        return stream

    async def chain_check(self) -> Check:
        """What readiness says of the chain."""
        return await self.check("chain")

    async def check(self, name: str) -> Check:
        (check,) = [each for each in await self.service.running.readiness.checks() if each.name == name]
        return check

    async def caught_up(self) -> None:
        """Waits until the service has read a block that has everything which happened so far."""
        wanted = int(self.devnet.rpc("eth_blockNumber"), 16)
        async with asyncio.timeout(PATIENCE_S):
            while True:
                check = await self.chain_check()
                found = re.match(r"block (\d+),", check.detail)
                if found is not None and int(found[1]) >= wanted and (await self.check("coverage")).ok:
                    return
                await asyncio.sleep(POLL_S / 2)

    async def until_level(self, level: str) -> None:
        """Waits until the service has found the coverage to be of this level."""
        detail = ""
        try:
            async with asyncio.timeout(PATIENCE_S):
                while not detail.startswith(f"level {level},"):
                    await asyncio.sleep(POLL_S / 2)
                    detail = (await self.check("coverage")).detail
        except TimeoutError:
            raise AssertionError(f"it is {detail}, not {level}") from None

    async def until_face_value(self, max_wei: int) -> None:
        """Waits until the gate that the service looks at lets tickets of this face value through: twice the deposit is
        twice as much from the next evaluation on."""
        capped = "SELECT face_value_max_wei < %s FROM coverage_gate WHERE sender = decode(%s, 'hex')"
        sender = self.service.running.sender_address.removeprefix("0x").lower()
        async with asyncio.timeout(PATIENCE_S):
            while self.service.house.fetch(capped, max_wei, sender) != [(False,)]:
                await asyncio.sleep(POLL_S)
        await asyncio.sleep(2 * READ_INTERVAL_S)  # every process looks at it so often

    async def until_unready(self) -> Check:
        async with asyncio.timeout(PATIENCE_S):
            while (check := await self.chain_check()).ok:
                await asyncio.sleep(POLL_S)
        return check


@asynccontextmanager
async def chained(
    conninfo: str,
    devnet: Devnet,
    *,
    endpoints: int = 2,
    fault: Fault = honest,
    chain: dict[str, Any] | None = None,
    coverage: dict[str, Any] | None = None,
    deposit_wei: int = ETHER,
    **how: Any,
) -> AsyncIterator[Chained]:
    """The sender has an escrow, and ORCHESTRATOR is active. All endpoints begin with `fault`.

    `how` is tests.parts.service.running's.
    """
    devnet.fund(SIGNER_KEY.address, deposit_wei=deposit_wei, reserve_wei=ETHER)
    devnet.join(ORCHESTRATOR)
    devnet.next_round()
    async with AsyncExitStack() as stack:
        proxies = [await stack.enter_async_context(fault_proxy(devnet.url)) for _ in range(endpoints)]
        for proxy in proxies:
            proxy.fault = fault
        settings = {
            "network": "dev", "rpc_urls": [proxy.url for proxy in proxies], "poll_s": POLL_S, "timeout_s": 0.5,
            **(chain or {}),
        }  # fmt: skip
        coverage = {"evaluate_s": POLL_S, **(coverage or {})}
        service = await stack.enter_async_context(running(conninfo, chain=settings, coverage=coverage, **how))
        yield Chained(service, devnet, proxies)
