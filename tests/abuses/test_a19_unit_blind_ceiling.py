"""A19: one ceiling for all prices means nothing: what is dear for a pixel is a gift for a second."""

from __future__ import annotations

import pytest

from clearinghouse.identity import gateways, plans
from clearinghouse.ids import show
from tests.abuses.attack import refused_everywhere
from tests.parts.service import Service, running
from tests.parts.stack import Stream, TestGateway

CEILINGS = {
    "price_live_max_wei_per_unit": "8000000000",
    "price_lv2v_max_wei_per_unit": "100.5",
    "price_fixed_max_wei_per_unit": "20000000000",
    "price_untyped_max_wei_per_unit": "0.001",
}
#: Type to (price, units) that is the ceiling exactly, and what its unit is called.
AT_THE_CEILING = {
    "live": (8 * 10**9, 1, "8000000000 wei per second"),
    "lv2v": (201, 2, "100.5 wei per pixel"),
    "fixed": (20 * 10**9, 1, "20000000000 wei per call"),
    "": (10**12, 10**15, "0.001 wei per pixel"),
}


def priced(service: Service, job_type: str, per_unit: int, units: int) -> Stream:
    stream = service.new_stream(job_type=job_type)
    stream.in_pixels = 10**6
    stream.offer.price_info.pricePerUnit, stream.offer.price_info.pixelsPerUnit = per_unit, units
    return stream


@pytest.mark.parametrize("job_type", sorted(AT_THE_CEILING))
async def test_each_type_has_a_ceiling_of_its_own_in_its_own_unit(database: str, job_type: str) -> None:
    per_unit, units, ceiling = AT_THE_CEILING[job_type]
    async with running(database, policy=CEILINGS) as service:
        gateway = await service.house.new_gateway(tickets=100_000)
        await service.pay(gateway, priced(service, job_type, per_unit, units))
        dear = priced(service, job_type, per_unit + 1, units)
        said = await refused_everywhere(service, gateway, dear, 481, "price_exceeded", rule="price")
        assert said.endswith(f"exceeds the clearinghouse's ceiling {ceiling}")


SMALL = {"price_live": "4000000000", "price_fixed": "8000000000"}


async def on_the_small_plan(service: Service, gateway: TestGateway) -> None:
    async with service.house.engine.begin() as connection:
        await plans.put(connection, "small", SMALL, currency=None, actor="test")
        found = await gateways.find(connection, show("gw", gateway.id))
        await gateways.set_plan(connection, found, "small")


async def test_a_gateway_on_the_small_plan_pays_no_more_than_its_plan_allows_whatever_it_tries(database: str) -> None:
    """The clearinghouse's own ceilings are higher: they are for everybody, the plan's are for this gateway."""
    async with running(database, policy=CEILINGS) as service:
        gateway = await service.house.new_gateway(tickets=100_000)
        begun_dear = priced(service, "fixed", 16 * 10**9, 1)
        await service.pay(gateway, begun_dear)
        await on_the_small_plan(service, gateway)
        await service.pay(gateway, priced(service, "fixed", 8 * 10**9, 1))
        second_key = await service.house.new_key(gateway.id)
        begun_dear.offer.price_info.pricePerUnit = 1  # cheap now, and billed at what it began with
        capable = priced(service, "fixed", 16 * 10**9, 1)
        capable.offer.capabilities.version = "9.9.9"
        for caller, attempt in (
            (gateway, priced(service, "fixed", 8 * 10**9 + 1, 1)),
            (second_key, priced(service, "fixed", 8 * 10**9 + 1, 1)),
            (gateway, priced(service, "fixed", 16 * 10**9 + 1, 2)),  # half a wei too much
            (gateway, begun_dear),
            (gateway, capable),
        ):
            said = await refused_everywhere(service, caller, attempt, 481, "price_exceeded", rule="price")
            assert said.endswith("exceeds the plan small's ceiling 8000000000 wei per call")
        dear_second = priced(service, "live", 8 * 10**9, 1)  # what a call may cost is too much for a second
        said = await refused_everywhere(service, gateway, dear_second, 481, "price_exceeded", rule="price")
        assert said.endswith("exceeds the plan small's ceiling 4000000000 wei per second")
        neighbour = await service.house.new_gateway(tickets=100_000)
        await service.pay(neighbour, priced(service, "live", 8 * 10**9, 1))


async def test_a_session_that_began_dearer_than_is_allowed_now_ends(database: str) -> None:
    """It is billed at the price it began with, whatever its orchestrator asks today."""
    async with running(database) as before:
        gateway: TestGateway = await before.house.new_gateway(tickets=1000)
        stream = priced(before, "fixed", 20 * 10**9 + 1, 1)
        await before.pay(gateway, stream)
    async with running(database, policy=CEILINGS) as after:
        stream.offer.price_info.pricePerUnit = 1
        await refused_everywhere(after, gateway, stream, 481, "price_exceeded", rule="price")
