"""A10: many gateways, each within its own limits, and together more than the deposit can bear.

What one gateway may use is tests/promises/test_limits.py; here, what all of them may have open together.
"""

from __future__ import annotations

import asyncio

import pytest

from clearinghouse import open_ev
from tests.abuses.attack import refused_everywhere
from tests.parts.lying_signer import LyingSigner
from tests.parts.service import Service, running
from tests.parts.stack import TICKET_EV_WEI

PATIENCE_S = 30
POLICY = {"ev_open_max_wei": 10 * TICKET_EV_WEI}


async def released_by_all(service: Service) -> int:
    return int(service.house.fetch("SELECT coalesce(sum(num_tickets), 0) FROM issuance")[0][0])


async def test_gateways_that_are_many_get_no_more_tickets_together_than_the_ceiling_says(
    database: str, signer: LyingSigner
) -> None:
    async with running(database, signer_urls=[signer.url], policy=POLICY) as service:
        for _ in range(10):
            await service.pay(await service.house.new_gateway(), service.new_stream())
        newcomer, asked = await service.house.new_gateway(), signer.asked
        await refused_everywhere(service, newcomer, service.new_stream(), 503, "ceiling_reached", rule="ev_open_total")
        await asyncio.sleep(1.5 * open_ev.READ_INTERVAL_S)  # once more after the tickets were added up
        await refused_everywhere(service, newcomer, service.new_stream(), 503, "ceiling_reached", rule="ev_open_total")
        assert signer.asked == asked
        assert await released_by_all(service) == 10


@pytest.mark.parametrize(("name", "most"), [("sessions_open", 2), ("ev_open", 2 * TICKET_EV_WEI)])
async def test_whoever_has_one_key_of_a_gateway_has_no_more_open_than_the_key_may_on_any_way(
    database: str, signer: LyingSigner, name: str, most: int
) -> None:
    async with running(database, signer_urls=[signer.url]) as service:
        gateway = await service.house.new_gateway()
        other_key = await service.house.new_key(gateway.id)
        await service.house.limit_key(gateway, **{name: most})
        for _ in range(2):
            await service.pay(gateway, service.new_stream())
        assert (await service.sign(gateway, service.new_stream().body())).status == 429  # the commit refused it
        asked = signer.asked
        await refused_everywhere(service, gateway, service.new_stream(), 429, "limit_reached", rule=f"key_{name}")
        assert signer.asked == asked
        await service.pay(other_key, service.new_stream())
        assert await released_by_all(service) == 3


async def test_what_other_processes_release_is_known_a_second_later(database: str) -> None:
    async with running(database, policy=POLICY) as first, running(database, policy=POLICY) as second:
        gateway = await first.house.new_gateway()
        for _ in range(10):
            await first.pay(gateway, first.new_stream())
        await asyncio.sleep(1.5 * open_ev.READ_INTERVAL_S)
        async with asyncio.timeout(PATIENCE_S):  # a reading may be late where the machine is busy
            while (answer := await second.sign(gateway, second.new_stream().body())).status == 200:
                await asyncio.sleep(open_ev.READ_INTERVAL_S / 2)
        assert (answer.status, answer.code) == (503, "ceiling_reached")
        assert answer.header("retry-after") == str(open_ev.RETRY_AFTER_S)


async def test_nothing_is_signed_while_nobody_knows_what_is_open(
    database: str, signer: LyingSigner, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As after five seconds in which the database did not answer."""
    monkeypatch.setattr(open_ev, "STALE_AFTER_S", -1)
    async with running(database, signer_urls=[signer.url], policy=POLICY) as service:
        gateway = await service.house.new_gateway()
        await refused_everywhere(service, gateway, service.new_stream(), 503, "unavailable", rule="ev_open_total")
        assert signer.asked == 0
