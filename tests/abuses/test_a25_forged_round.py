"""A25: tickets of a round that the chain has forgotten, or never had, are paid for and can hardly be redeemed."""

from __future__ import annotations

import pytest

from chain.signatures import keccak
from tests.abuses.attack import refused_everywhere
from tests.parts.chained import chained
from tests.parts.devnet import Devnet, round_hash
from tests.parts.lying_signer import LyingSigner
from tests.parts.service import Service, running
from tests.parts.stack import CREATION_ROUND, Stream, TestGateway

LAST_HASH = keccak(b"round 3500")
PREVIOUS_HASH = keccak(b"round 3499")


def of_round(service: Service, round_: int, block_hash: bytes) -> Stream:
    stream = service.new_stream()
    stream.offer.ticket_params.expiration_params.creation_round = round_
    stream.offer.ticket_params.expiration_params.creation_round_block_hash = block_hash
    return stream


@pytest.mark.parametrize(
    ("round_", "block_hash"),
    [
        (CREATION_ROUND - 1, PREVIOUS_HASH),
        (CREATION_ROUND + 1, keccak(b"round 3501")),
        (CREATION_ROUND, PREVIOUS_HASH),
        (CREATION_ROUND - 1, LAST_HASH),
        (1, LAST_HASH),
        (2**63 - 1, LAST_HASH),
    ],
)
async def test_parameters_of_no_round_that_is_known_are_asked_to_be_refreshed(
    service: Service, gateway: TestGateway, round_: int, block_hash: bytes
) -> None:
    stream = of_round(service, round_, block_hash)
    await refused_everywhere(service, gateway, stream, 480, "refresh_session", rule="round")


async def test_a_running_session_cannot_go_back_to_an_older_round(service: Service, gateway: TestGateway) -> None:
    stream = service.new_stream()
    await service.pay(gateway, stream)
    for _ in range(2):
        stream.offer.ticket_params.expiration_params.creation_round -= 1
        await refused_everywhere(service, gateway, stream, 480, "refresh_session", rule="round")
        stream.refresh()


async def test_without_a_round_or_its_hash_the_last_one_is_signed(service: Service, gateway: TestGateway) -> None:
    for round_, block_hash in ((0, b""), (0, LAST_HASH), (CREATION_ROUND - 7, b"")):
        await service.pay(gateway, of_round(service, round_, block_hash))
    assert service.house.fetch("SELECT DISTINCT creation_round FROM issuance") == [(CREATION_ROUND,)]


async def test_the_previous_round_is_signed_where_it_is_known(database: str) -> None:
    escrow = {
        "previous_initialized_round": CREATION_ROUND - 1,
        "previous_initialized_round_block_hash": f"0x{PREVIOUS_HASH.hex()}",
    }
    async with running(database, escrow=escrow) as service:
        gateway = await service.house.new_gateway()
        await service.pay(gateway, of_round(service, CREATION_ROUND - 1, PREVIOUS_HASH))
        stream = of_round(service, CREATION_ROUND - 2, keccak(b"round 3498"))
        await refused_everywhere(service, gateway, stream, 480, "refresh_session", rule="round")


async def test_in_front_of_other_signers_the_native_one_still_looks(database: str, signer: LyingSigner) -> None:
    """Without a chain the front knows no round there; a native signer behind it does."""
    async with running(database, signer_urls=[signer.url]) as service:
        gateway = await service.house.new_gateway()
        stream = of_round(service, CREATION_ROUND - 1, PREVIOUS_HASH)
        await refused_everywhere(service, gateway, stream, 480, "refresh_session")


async def test_in_front_of_other_signers_the_rounds_are_those_of_the_chain_and_move_with_it(
    database: str, devnet: Devnet, signer_of_chain: LyingSigner
) -> None:
    async with chained(database, devnet, signer_urls=[signer_of_chain.url]) as over:
        gateway = await over.service.house.new_gateway()
        for _ in range(2):
            for round_ in (devnet.round, devnet.round - 1):
                await over.service.pay(gateway, over.new_stream(round_=round_))
            asked = signer_of_chain.asked
            for round_ in (devnet.round - 2, devnet.round + 1):
                stream = over.new_stream(round_=round_)
                await refused_everywhere(over.service, gateway, stream, 480, "refresh_session", rule="round")
            forged = over.new_stream()
            forged.offer.ticket_params.expiration_params.creation_round_block_hash = round_hash(devnet.round - 1)
            await refused_everywhere(over.service, gateway, forged, 480, "refresh_session", rule="round")
            assert signer_of_chain.asked == asked
            devnet.next_round()
            await over.caught_up()


async def test_a_round_that_has_begun_and_is_not_initialised_ends_the_round_before_the_last(
    database: str, devnet: Devnet
) -> None:
    """Its tickets could not be redeemed any more."""
    async with chained(database, devnet) as over:
        gateway = await over.service.house.new_gateway()
        last = devnet.round
        await over.service.pay(gateway, over.new_stream(round_=last - 1))
        devnet.begin_round()
        await over.caught_up()
        await over.service.pay(gateway, over.new_stream(round_=last))
        stream = over.new_stream(round_=last - 1)
        await refused_everywhere(over.service, gateway, stream, 480, "refresh_session", rule="round")


async def test_where_the_last_round_has_no_hash_the_one_before_it_is_signed(database: str, devnet: Devnet) -> None:
    """As orchestrators do: a ticket of a round without a hash could not be redeemed."""
    async with chained(database, devnet) as over:
        gateway = await over.service.house.new_gateway()
        devnet.next_round(block_hash=bytes(32))
        await over.caught_up()
        stream = over.new_stream()
        stream.offer.ticket_params.ClearField("expiration_params")
        await over.service.pay(gateway, stream)
        assert over.service.house.fetch("SELECT DISTINCT creation_round FROM issuance") == [(devnet.round - 1,)]
