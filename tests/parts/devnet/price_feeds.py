"""Chainlink's feeds on a chain of our own, which say what a test has them say.

feeds = PriceFeeds.deployed_on(devnet)      # one ETH is 3000 USD, one EUR 1.2 USD, the sequencer is long up
feeds.eth_usd.say("3123.45")
feeds.sequencer.set(answer=1, started_at=feeds.now())
"""

from __future__ import annotations

from dataclasses import dataclass, field
from decimal import Decimal

from eth_abi.abi import encode

from tests.parts.devnet.artifacts import bytecodes
from tests.parts.devnet.network import Devnet

DECIMALS = 8
LONG_S = 86_400


@dataclass
class PriceFeed:
    """One feed. `address` is hex, as configurations have it."""

    devnet: Devnet
    name: str
    round_id: int = 0
    address: str = field(init=False)

    def __post_init__(self) -> None:
        creation = bytecodes()["Aggregator"] + encode(["string", "uint8"], [self.name, DECIMALS])
        transaction = {
            "from": self.devnet.rpc("eth_accounts")[0], "data": "0x" + creation.hex(), "gas": hex(3_000_000)
        }  # fmt: skip
        hash_ = self.devnet.rpc("eth_sendTransaction", transaction)
        self.devnet.mine()
        self.address = self.devnet.rpc("eth_getTransactionReceipt", hash_)["contractAddress"]
        self.devnet.contracts[self.address] = bytes.fromhex(self.address[2:])

    def say(self, price: str, *, age_s: int = 0) -> None:
        """A price, so many seconds ago by the chain's clock."""
        at = now(self.devnet) - age_s
        self.set(answer=int(Decimal(price).scaleb(DECIMALS)), started_at=at, updated_at=at)

    def set(
        self, *, answer: int, started_at: int, updated_at: int | None = None, answered_in: int | None = None
    ) -> None:
        self.round_id += 1
        answered_in = self.round_id if answered_in is None else answered_in
        updated_at = started_at if updated_at is None else updated_at
        set_round = "setRound(uint80,int256,uint256,uint256,uint80)"
        self.devnet.send(self.address, set_round, self.round_id, answer, started_at, updated_at, answered_in)


@dataclass
class PriceFeeds:
    """The feeds that tests need."""

    devnet: Devnet
    eth_usd: PriceFeed
    eur_usd: PriceFeed
    sequencer: PriceFeed

    @classmethod
    def deployed_on(cls, devnet: Devnet) -> PriceFeeds:
        names = ("ETH / USD", "EUR / USD", "L2 Sequencer Uptime Status Feed")
        feeds = cls(devnet, *(PriceFeed(devnet, name) for name in names))
        feeds.eth_usd.say("3000")
        feeds.eur_usd.say("1.2")
        feeds.sequencer.set(answer=0, started_at=feeds.now() - LONG_S)
        return feeds

    def now(self) -> int:
        return now(self.devnet)


def now(devnet: Devnet) -> int:
    """By the chain's newest block."""
    return int(devnet.rpc("eth_getBlockByNumber", "latest", False)["timestamp"], 16)
