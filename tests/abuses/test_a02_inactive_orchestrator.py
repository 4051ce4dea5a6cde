"""A2: a recipient that is not an active orchestrator: made up, not active yet, or not any more. On a chain."""

from __future__ import annotations

import asyncio
from typing import Any

from chain.signatures import checksum_address
from tests.abuses.attack import refused_everywhere
from tests.parts.chained import ORCHESTRATOR, chained
from tests.parts.devnet import Devnet
from tests.parts.devnet.fault_proxy import changed, honest
from tests.parts.lying_signer import LyingSigner

NEWCOMER, LISTED_ONLY = b"\x0e" * 20, b"\x0f" * 20


async def test_an_orchestrator_is_paid_from_the_round_it_is_active_in_to_the_last_such_round(
    database: str, devnet: Devnet, signer_of_chain: LyingSigner
) -> None:
    async with chained(database, devnet, signer_urls=[signer_of_chain.url]) as over:
        gateway = await over.service.house.new_gateway()

        async def is_refused() -> None:
            stream = over.new_stream(recipient=NEWCOMER)
            said = await refused_everywhere(over.service, gateway, stream, 403, "ticket_not_allowed", rule="recipient")
            assert checksum_address(NEWCOMER) in said

        await is_refused()
        assert signer_of_chain.asked == 0
        devnet.join(NEWCOMER)
        await over.caught_up()
        await is_refused()  # in the pool, and not active yet
        devnet.next_round()
        await over.caught_up()
        await over.service.pay(gateway, over.new_stream(recipient=NEWCOMER))
        devnet.leave(NEWCOMER)
        await over.caught_up()
        await over.service.pay(gateway, over.new_stream(recipient=NEWCOMER))
        devnet.next_round()
        await over.caught_up()
        await is_refused()


async def test_the_operators_list_narrows_the_chains(database: str, devnet: Devnet) -> None:
    active_and_listed, active = ORCHESTRATOR, NEWCOMER
    devnet.join(active)
    policy = {"recipients": [checksum_address(active_and_listed), checksum_address(LISTED_ONLY)]}
    async with chained(database, devnet, policy=policy) as over:
        gateway = await over.service.house.new_gateway()
        await over.service.pay(gateway, over.new_stream(recipient=active_and_listed))
        for other in (active, LISTED_ONLY):
            stream = over.new_stream(recipient=other)
            await refused_everywhere(over.service, gateway, stream, 403, "ticket_not_allowed", rule="recipient")


async def test_when_a_round_begins_and_its_orchestrators_cannot_be_read_the_old_ones_are_paid_for_a_while(
    database: str, devnet: Devnet
) -> None:
    """Of everybody else nothing is known: neither a yes nor a no."""
    async with chained(database, devnet) as over:
        gateway = await over.service.house.new_gateway()
        devnet.join(NEWCOMER)
        for proxy in over.proxies:
            proxy.fault = changed("eth_call", no_list)
        devnet.next_round()
        await over.caught_up()
        await over.service.pay(gateway, over.new_stream(recipient=ORCHESTRATOR))
        await refused_everywhere(
            over.service, gateway, over.new_stream(recipient=NEWCOMER), 503, "registry_unknown", rule="recipient"
        )
        for proxy in over.proxies:
            proxy.fault = honest
        async with asyncio.timeout(60):
            while (await over.service.sign(gateway, over.new_stream(recipient=NEWCOMER).body())).status != 200:
                await asyncio.sleep(0.1)


def no_list(result: str, parameters: list[Any]) -> str | None:
    """The first of the pool is not to be had."""
    return "0x" if parameters[0]["data"] == "0x88a6c749" else result
