"""A17: a signer's StateID has 32 bits, and two sessions get the same one: whose money is it?"""

from __future__ import annotations

import asyncio

from tests.parts.lying_signer import LyingSigner, with_state
from tests.parts.service import running
from tests.parts.stack import TICKET_CHARGE_USD


async def test_sessions_with_one_state_id_stay_apart_and_are_charged_each_to_its_own(
    database: str, signer: LyingSigner
) -> None:
    signer.lie = with_state(state_id="00000000")
    async with running(database, signer_urls=[signer.url]) as service:
        first, second = await service.house.new_gateway(), await service.house.new_gateway()
        streams = [(first, service.new_stream()), (first, service.new_stream()), (second, service.new_stream())]
        for _ in range(3):
            await asyncio.gather(*(service.pay(gateway, stream) for gateway, stream in streams))
        assert service.house.sums(first).debited == 6 * TICKET_CHARGE_USD
        assert service.house.sums(second).debited == 3 * TICKET_CHARGE_USD
        assert service.house.fetch("SELECT count(*) FROM session") == [(3,)]
        ours, theirs = streams[0][1], streams[2][1]
        ours.state = theirs.state
        refused = await service.sign(first, ours.body())
        assert (refused.status, refused.code) == (403, "session_not_yours")
        await service.house.require_sound_books()
