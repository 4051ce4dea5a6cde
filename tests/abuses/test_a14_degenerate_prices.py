"""A14: prices of nothing, and negative ones, in a session that began with a proper price."""

from __future__ import annotations

import pytest

from chain.messages import Price
from chain.payment_state import SignedState, decode_state, encode_state
from tests.abuses.attack import refused_everywhere
from tests.parts.service import Service
from tests.parts.stack import TestGateway

LEAST = -(2**63)
DEGENERATE = ((0, 1), (1, 0), (0, 0), (-1, 1), (1, -1), (-1, -1), (LEAST, 1), (LEAST, LEAST))


@pytest.mark.parametrize("job_type", ["fixed", "live", "lv2v", ""])
async def test_no_price_of_zero_or_less_is_taken_on_a_first_or_a_later_call(
    service: Service, gateway: TestGateway, job_type: str
) -> None:
    running = service.new_stream(job_type=job_type)
    if job_type == "lv2v":
        running.offer.price_info.pixelsPerUnit = 10**9
    running.in_pixels = 1
    await service.pay(gateway, running)
    for per_unit, units in DEGENERATE:
        for stream in (running, service.new_stream(job_type=job_type)):
            stream.offer.price_info.pricePerUnit, stream.offer.price_info.pixelsPerUnit = per_unit, units
            said = await refused_everywhere(service, gateway, stream, 400, "invalid_request")
            assert said.startswith("missing or zero priceInfo")


async def test_a_degenerate_price_written_into_a_state_is_a_forged_state_and_no_bug(
    service: Service, gateway: TestGateway
) -> None:
    stream = service.new_stream()
    await service.pay(gateway, stream)
    assert stream.state is not None
    honest = stream.state
    stream.refresh()
    for per_unit, units in DEGENERATE:
        state = decode_state(honest.state)._replace(initial_price=Price(per_unit, units))
        stream.state = SignedState(encode_state(state), honest.sig)
        assert await refused_everywhere(service, gateway, stream, 400, "invalid_request") == "invalid sig"
