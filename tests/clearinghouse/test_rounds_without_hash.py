"""Rounds to which L1 gives no hash: their tickets cannot be redeemed, so those of the round before are signed."""

from __future__ import annotations

import pytest

from chain.messages import decode_payment
from chain.signatures import keccak
from chain.tickets import is_winning
from clearinghouse.api.answers import read_answer
from tests.parts.chained import Chained, chained
from tests.parts.devnet import Devnet, round_hash
from tests.parts.devnet.network import ChainRefused
from tests.parts.stack import TICKET_EV_WEI, Stream
from tests.parts.winners import ticket_of

RAND = 4711
ZERO_HASH = bytes(32)


def stream_without_round(over: Chained) -> Stream:
    """Of an orchestrator that leaves the round to the signer, as some do."""
    stream = over.new_stream()
    stream.offer.ticket_params.ClearField("expiration_params")
    stream.offer.ticket_params.recipient_rand_hash = keccak(RAND.to_bytes(32, "big"))
    stream.offer.price_info.pricePerUnit = 20 * TICKET_EV_WEI
    return stream


async def redeem_a_winner(over: Chained, stream: Stream) -> int:
    """Signs twenty tickets and redeems one that wins. The round that they were created in. Raises ChainRefused."""
    gateway = await over.service.house.new_gateway(tickets=20)
    payment = decode_payment(read_answer((await over.service.pay(gateway, stream)).body).payment)
    signed = zip(payment.nonces, payment.signatures, strict=True)
    nonce, signature = next(each for each in signed if is_winning(each[1], RAND, payment.win_prob))
    over.devnet.redeem(ticket_of(payment, nonce), signature, RAND)
    return payment.creation_round


async def test_tickets_of_the_round_before_are_signed_and_redeemed(database: str, devnet: Devnet) -> None:
    async with chained(database, devnet) as over:
        before = devnet.round
        devnet.next_round(block_hash=ZERO_HASH)
        await over.caught_up()
        assert await redeem_a_winner(over, stream_without_round(over)) == before


async def test_a_round_that_is_named_without_its_hash_is_replaced_as_well(database: str, devnet: Devnet) -> None:
    async with chained(database, devnet) as over:
        before = devnet.round
        devnet.next_round(block_hash=ZERO_HASH)
        await over.caught_up()
        stream = stream_without_round(over)
        stream.offer.ticket_params.expiration_params.creation_round = devnet.round
        stream.offer.ticket_params.expiration_params.creation_round_block_hash = ZERO_HASH
        assert await redeem_a_winner(over, stream) == before


async def test_the_next_round_that_has_a_hash_is_used_again(database: str, devnet: Devnet) -> None:
    async with chained(database, devnet) as over:
        devnet.next_round(block_hash=ZERO_HASH)
        newest = devnet.next_round()
        await over.caught_up()
        assert await redeem_a_winner(over, stream_without_round(over)) == newest
        assert round_hash(newest) != ZERO_HASH


async def test_of_two_rounds_without_a_hash_the_contract_would_redeem_nothing(database: str, devnet: Devnet) -> None:
    """They are signed and charged all the same, and cost the deposit nothing."""
    async with chained(database, devnet) as over:
        devnet.next_round(block_hash=ZERO_HASH)
        devnet.next_round(block_hash=ZERO_HASH)
        await over.caught_up()
        with pytest.raises(ChainRefused, match="creationRoundBlockHash is invalid"):
            await redeem_a_winner(over, stream_without_round(over))
