"""Networks by name: the addresses and selectors that money goes by, against what is published."""

from __future__ import annotations

import pytest

from chain import functions
from chain.networks import ARBITRUM_ONE, BONDING_MANAGER, NETWORKS, ROUNDS_MANAGER, TICKET_BROKER
from chain.signatures import checksum_address


def test_arbitrum_one_is_where_the_protocol_is() -> None:
    assert NETWORKS["arbitrum-one"] is ARBITRUM_ONE
    assert ARBITRUM_ONE.chain_id == 42161
    assert checksum_address(ARBITRUM_ONE.controller) == "0xD8E8328501E9645d16Cf49539efC04f734606ee4"
    assert {name: checksum_address(address) for name, address in ARBITRUM_ONE.known.items()} == {
        TICKET_BROKER: "0xa8bB618B1520E284046F3dFc448851A1Ff26e41B",
        ROUNDS_MANAGER: "0xdd6f56DcC28D3F5f27084381fE8Df634985cc39f",
        BONDING_MANAGER: "0x35Bcf3c30594191d53231E4FF333E8A770453e40",
    }


@pytest.mark.parametrize(
    ("selector", "published"),
    [
        (functions.GET_CONTRACT, "e16c7d98"),
        (functions.GET_SENDER_INFO, "e1a589da"),
        (functions.CLAIMED_RESERVE, "4ac826da"),
        (functions.TICKET_VALIDITY_PERIOD, "856a2cf8"),
        (functions.UNLOCK_PERIOD, "20d3a0b4"),
        (functions.CURRENT_ROUND, "8a19c8bc"),
        (functions.LAST_INITIALIZED_ROUND, "8807f36e"),
        (functions.BLOCK_HASH_FOR_ROUND, "3aa4add4"),
        (functions.GET_TRANSCODER_POOL_SIZE, "2a4e0d55"),
        (functions.IS_ACTIVE, "08802374"),
        (functions.IS_REGISTERED, "68ba170c"),
    ],
)
def test_a_function_is_called_by_its_published_selector(selector: bytes, published: str) -> None:
    assert selector.hex() == published
