"""A22: a clock that goes back makes time that was paid for due again; a signer that bills it anew is paid twice."""

from __future__ import annotations

import pytest

from clearinghouse.signers.server import signer_served
from tests.abuses.attack import refused_everywhere
from tests.parts.service import running
from tests.parts.stack import Clock, Stream, native_signer, offer


@pytest.mark.parametrize("job_type", ["live", "lv2v"])
async def test_a_signer_whose_clock_went_back_bills_nothing_until_it_has_caught_up(
    database: str, job_type: str
) -> None:
    clock = Clock()
    async with signer_served(native_signer(clock)) as url, running(database, signer_urls=[url]) as service:
        gateway = await service.house.new_gateway(tickets=1000)
        stream = Stream(offer(Clock()), job_type=job_type)
        if job_type == "lv2v":
            stream.offer.price_info.pixelsPerUnit = 1280 * 720 * 30
        clock.advance(20)
        await service.pay(gateway, stream)
        in_advance = service.house.sums(gateway).tickets
        clock.advance(-20)
        said = await refused_everywhere(service, gateway, stream, 400, "invalid_request")
        assert "after the signer's clock" in said
        clock.advance(25)
        await service.pay(gateway, stream)
        assert 4 <= service.house.sums(gateway).tickets - in_advance <= 9, (
            "five seconds, not the first call's once more"
        )
