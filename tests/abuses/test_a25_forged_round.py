"""A25: tickets of a round that the chain has forgotten, or never had, are paid for and can hardly be redeemed."""

from __future__ import annotations

import pytest

from chain.signatures import keccak
from tests.abuses.attack import refused_everywhere
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
    """The front knows no round there; a native signer behind it does."""
    async with running(database, signer_urls=[signer.url]) as service:
        gateway = await service.house.new_gateway()
        stream = of_round(service, CREATION_ROUND - 1, PREVIOUS_HASH)
        await refused_everywhere(service, gateway, stream, 480, "refresh_session")
