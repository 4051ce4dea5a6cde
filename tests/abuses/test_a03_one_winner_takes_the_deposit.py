"""A3: an enormous face value at a tiny probability costs little, and one winner would empty the deposit."""

from __future__ import annotations

import json

from chain.tickets import WIN_PROB_CERTAIN
from tests.abuses.attack import OURS, minimal, refused_everywhere
from tests.parts.chained import ETHER, chained
from tests.parts.devnet import Devnet
from tests.parts.lying_signer import LyingSigner
from tests.parts.service import Service, our_body, running
from tests.parts.stack import TICKET_EV_WEI, Stream, TestGateway

DEPOSIT_WEI = 10 * 10**18
LARGEST_WEI = DEPOSIT_WEI // 50


def of_face_value(stream: Stream, face_value_wei: int) -> Stream:
    """The same expected value, in fewer and larger winners."""
    stream.offer.ticket_params.face_value = minimal(face_value_wei)
    stream.offer.ticket_params.win_prob = minimal(TICKET_EV_WEI * WIN_PROB_CERTAIN // face_value_wei)
    return stream


async def test_a_winner_takes_a_fiftieth_of_the_deposit_at_most(service: Service, gateway: TestGateway) -> None:
    await service.pay(gateway, of_face_value(service.new_stream(), LARGEST_WEI))
    for face_value_wei in (LARGEST_WEI + 1, DEPOSIT_WEI, 2**256 - 1):
        stream = of_face_value(service.new_stream(), face_value_wei)
        said = await refused_everywhere(service, gateway, stream, 403, "ticket_not_allowed", rule="face_value")
        assert f"{face_value_wei} wei" in said
        assert f"{LARGEST_WEI} wei" in said


async def test_a_running_session_cannot_turn_to_larger_winners(service: Service, gateway: TestGateway) -> None:
    stream = service.new_stream()
    await service.pay(gateway, stream)
    stream.refresh()
    of_face_value(stream, LARGEST_WEI + 1)
    await refused_everywhere(service, gateway, stream, 403, "ticket_not_allowed", rule="face_value")


async def test_in_front_of_signers_whose_deposit_is_unknown_an_absolute_limit_holds(
    database: str, signer: LyingSigner
) -> None:
    policy = {"face_value_max_wei": 10**16}
    async with running(database, signer_urls=[signer.url], policy=policy) as service:
        gateway = await service.house.new_gateway()
        stream = of_face_value(service.new_stream(), 10**16 + 1)
        await refused_everywhere(service, gateway, stream, 403, "ticket_not_allowed", rule="face_value")
        assert signer.asked == 0
        problem = await service.sign(gateway, json.dumps(our_body(stream.document())).encode(), path=OURS)
        assert (problem.json["face_value_wei"], problem.json["max_wei"]) == (str(10**16 + 1), str(10**16))
        await service.pay(gateway, of_face_value(service.new_stream(), 10**16))


async def test_the_limit_follows_the_deposit_that_is_read_from_the_chain_whoever_signs(
    database: str, devnet: Devnet, signer_of_chain: LyingSigner
) -> None:
    async with chained(database, devnet, signer_urls=[signer_of_chain.url]) as over:
        gateway = await over.service.house.new_gateway()

        def of(face_value_wei: int) -> Stream:
            return of_face_value(over.new_stream(), face_value_wei)

        await over.service.pay(gateway, of(ETHER // 50))
        await refused_everywhere(
            over.service, gateway, of(ETHER // 50 + 1), 403, "ticket_not_allowed", rule="face_value"
        )
        devnet.fund(signer_of_chain.address, deposit_wei=ETHER)
        await over.caught_up()
        await over.until_face_value(ETHER // 25)
        await over.service.pay(gateway, of(ETHER // 25))
        asked = signer_of_chain.asked
        devnet.withdraw_everything(signer_of_chain.address)
        await over.caught_up()
        stream = of(5 * TICKET_EV_WEI)
        await refused_everywhere(over.service, gateway, stream, 403, "ticket_not_allowed", rule="face_value")
        assert signer_of_chain.asked == asked
