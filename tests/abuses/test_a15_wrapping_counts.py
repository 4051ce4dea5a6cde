"""A15: so many tickets due that a 64-bit count wraps around to a few, for a fee that is astronomical."""

from __future__ import annotations

import pytest

from chain.tickets import WIN_PROB_CERTAIN
from tests.abuses.attack import minimal, refused_everywhere
from tests.parts.service import Service, running
from tests.parts.stack import TestGateway

HALF = (WIN_PROB_CERTAIN + 1) // 2


@pytest.mark.parametrize("job_type", ["fixed", "lv2v", "live", ""])
async def test_a_count_beyond_64_bits_is_as_large_as_it_is(
    service: Service, gateway: TestGateway, job_type: str
) -> None:
    for face_value_wei, win_prob in ((1, 1), (2, HALF), (1, 2**192), (2, 2**193 - 1), (3, 2**191)):
        stream = service.new_stream(job_type=job_type)
        stream.offer.ticket_params.face_value = minimal(face_value_wei)
        stream.offer.ticket_params.win_prob = minimal(win_prob)
        stream.offer.price_info.pricePerUnit, stream.in_pixels = 2**63 - 1, 2**63 - 1
        await refused_everywhere(service, gateway, stream, 403, "ticket_not_allowed", rule="call_ev")


@pytest.mark.parametrize("count", [2**63, 2**64, 2**64 + 1, 2**64 + 100, 2**128 + 7])
async def test_the_signer_behind_the_policy_does_not_wrap_either(database: str, count: int) -> None:
    """With the front's limit on a call out of the way."""
    async with running(database, policy={"call_ev_max_wei": 2**256 - 1}) as service:
        gateway = await service.house.new_gateway(tickets=10_000)
        stream = service.new_stream(job_type="fixed")
        stream.offer.price_info.pricePerUnit = 10**6
        stream.offer.ticket_params.face_value = minimal(2)
        stream.offer.ticket_params.win_prob = minimal(10**6 * WIN_PROB_CERTAIN // (2 * count))
        said = await refused_everywhere(service, gateway, stream, 400, "invalid_request")
        assert said.endswith("exceeds maximum of 100")
