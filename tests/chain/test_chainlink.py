"""Prices by Chainlink's feeds: exact, agreed by the quorum, and none at all rather than a doubtful one."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from fractions import Fraction

import pytest
from eth_abi.abi import encode
from hypothesis import given
from hypothesis import strategies as st

from chain.chainlink import (
    LATEST_ROUND_DATA,
    SEQUENCER_GRACE_S,
    ChainlinkReader,
    Feed,
    FeedReading,
    Feeds,
    cross_rate,
    evaluate,
)
from chain.networks import ARBITRUM_ONE, DEV
from chain.quorum import Agreed, Block, Disagreement, Quorum
from chain.rates import PRICE_DECIMALS
from chain.rpc import RpcEndpoint
from chain.signatures import checksum_address
from tests.parts.devnet import Devnet, FaultProxy, fault_proxy
from tests.parts.devnet.fault_proxy import changed
from tests.parts.devnet.price_feeds import PriceFeeds

NOW = 1_800_000_000
BLOCK = Block(b"\x01" * 32, 7, 7, NOW)
ETH_USD = Feed("ETH / USD", b"\x11" * 20, age_max_s=3600)
EUR_USD = Feed("EUR / USD", b"\x22" * 20, age_max_s=90_000)
UINT256 = 2**256


def a_round(answer: int, *, at: int = NOW - 10, **changes: int) -> bytes:
    """As latestRoundData returns it. `changes`: id, started, updated, answered_in."""
    id_ = changes.get("id", 5)
    words = (
        id_, answer % UINT256, changes.get("started", at), changes.get("updated", at), changes.get("answered_in", id_)
    )  # fmt: skip
    return encode(["uint256"] * 5, words)


def results_of(round_: bytes, name: str, decimals: int = 8) -> list[bytes]:
    return [round_, encode(["uint256"], [decimals]), encode(["string"], [name])]


def read(
    *,
    eth: bytes = a_round(3000 * 10**8),
    eur: bytes = a_round(120_000_000),
    sequencer: bytes = a_round(0, at=NOW - SEQUENCER_GRACE_S - 1),
    names: tuple[str, str] = ("ETH / USD", "EUR / USD"),
    decimals: tuple[int, int] = (8, 8),
) -> FeedReading:
    """Of feeds for USD and EUR, on a chain with a sequencer."""
    feeds = Feeds(ETH_USD, sequencer=b"\x33" * 20, others={"EUR": EUR_USD})
    results = [sequencer, *results_of(eth, names[0], decimals[0]), *results_of(eur, names[1], decimals[1])]
    return evaluate(feeds, Agreed(BLOCK, tuple(results)))


def at(unix_s: int) -> datetime:
    return datetime.fromtimestamp(unix_s, UTC)


# --- what is a price --------------------------------------------------------------------------------------------------


def test_a_price_is_the_feeds_to_the_last_digit_and_has_its_time_and_when_it_was_confirmed() -> None:
    price = read(eth=a_round(312_345_678_901, at=NOW - 1800)).prices["USD"]
    assert (price.value, price.source) == (Decimal("3123.45678901"), "chainlink")
    assert price.cited == "chainlink ETH/USD:5"
    assert (price.observed_at, price.confirmed_at) == (at(NOW - 1800), at(NOW))
    assert price.ages


def test_a_cross_rate_is_as_old_as_the_older_of_its_feeds() -> None:
    reading = read(eth=a_round(3000 * 10**8, at=NOW - 5), eur=a_round(120_000_000, at=NOW - 80_000))
    assert reading.prices["EUR"].value == 2500
    assert reading.prices["EUR"].observed_at == at(NOW - 80_000)
    assert reading.prices["EUR"].cited == "chainlink ETH/USD:5 EUR/USD:5"
    assert reading.missing == {}


@given(eth=st.integers(1, 10**20), other=st.integers(1, 10**12))
def test_a_cross_rate_is_the_exact_quotient_rounded_once_half_to_even(eth: int, other: int) -> None:
    """Compared with the quotient's digits by hand."""
    whole, rest = divmod(eth * 10**PRICE_DECIMALS, other)
    whole += 2 * rest > other or (2 * rest == other and whole % 2 == 1)
    assert Fraction(cross_rate(eth, other)) == Fraction(whole, 10**PRICE_DECIMALS)


@given(st.integers(1, 10**20))
def test_a_price_in_usd_is_never_rounded(scaled: int) -> None:
    assert Fraction(read(eth=a_round(scaled)).prices["USD"].value) == Fraction(scaled, 10**8)


# --- what is none -----------------------------------------------------------------------------------------------------

BAD_ROUNDS = {
    "zero": (a_round(0), "says 0, which is no price"),
    "negative": (a_round(-5), "says -5, which is no price"),
    "never begun": (a_round(1, started=0), "not complete"),
    "never updated": (a_round(1, updated=0), "not complete"),
    "carried over": (a_round(1, id=9, answered_in=8), "not complete"),
    "no round": (a_round(1, id=0), "not complete"),
    "from the future": (a_round(1, at=NOW + 1), "updated in the future"),
    "begun in the future": (a_round(1, started=NOW + 1), "updated in the future"),
    "too old": (a_round(1, at=NOW - 90_001), "updated 90001 s ago"),
    "no contract": (b"", "does not answer as a feed does"),
    "too large": (a_round(2**255 - 1), "digits on either side"),
}


@pytest.mark.parametrize(("round_", "reason"), BAD_ROUNDS.values(), ids=BAD_ROUNDS)
def test_a_doubtful_answer_for_eth_is_no_price_in_any_currency_and_says_why(round_: bytes, reason: str) -> None:
    reading = read(eth=round_)
    assert "USD" not in reading.prices
    assert reason in reading.missing["USD"]
    if reason != BAD_ROUNDS["too large"][1]:
        assert reading.prices == {}
        assert reading.missing["EUR"] == reading.missing["USD"]


@pytest.mark.parametrize(("round_", "reason"), BAD_ROUNDS.values(), ids=BAD_ROUNDS)
def test_a_doubtful_answer_for_one_currency_leaves_the_others(round_: bytes, reason: str) -> None:
    reading = read(eur=round_)
    assert reading.prices.keys() == {"USD"}
    if round_ != BAD_ROUNDS["too large"][0]:
        assert reason in reading.missing["EUR"]


def test_an_answer_is_used_for_exactly_as_long_as_its_feed_may_be_old() -> None:
    assert read(eth=a_round(1, at=NOW - 3600), eur=a_round(1)).missing == {}
    assert "at most 3600 s are allowed" in read(eth=a_round(1, at=NOW - 3601)).missing["USD"]


@pytest.mark.parametrize("decimals", [0, 6, 18])
def test_a_feed_with_other_decimals_is_not_believed(decimals: int) -> None:
    assert f"has {decimals} decimals and not 8" in read(decimals=(decimals, 8)).missing["USD"]
    assert read(decimals=(8, decimals)).prices.keys() == {"USD"}


def test_a_feed_of_something_else_is_not_believed() -> None:
    assert "the feed EUR / USD calls itself 'GBP / USD'" in read(names=("ETH / USD", "GBP / USD")).missing["EUR"]


SEQUENCERS = {
    "down": (a_round(1, at=NOW - 10), "the chain's sequencer is down"),
    "up too recently": (a_round(0, at=NOW - SEQUENCER_GRACE_S), "came up 3600 s ago"),
    "never watched": (a_round(0, started=0), "has not begun to watch"),
    "in the future": (a_round(0, at=NOW + 1), "in the future"),
    "neither": (a_round(2), "neither up (0) nor down (1)"),
    "no contract": (b"", "does not answer as a feed does"),
}


@pytest.mark.parametrize(("round_", "reason"), SEQUENCERS.values(), ids=SEQUENCERS)
def test_without_a_sequencer_that_is_up_for_a_while_there_is_no_price_at_all(round_: bytes, reason: str) -> None:
    reading = read(sequencer=round_)
    assert reading.prices == {}
    assert all(reason in said for said in reading.missing.values())
    assert reading.missing.keys() == {"USD", "EUR"}


def test_a_chain_without_a_sequencer_needs_none() -> None:
    feeds = Feeds(ETH_USD)
    reading = evaluate(feeds, Agreed(BLOCK, tuple(results_of(a_round(10**8), "ETH / USD"))))
    assert reading.prices["USD"].value == 1


def test_arbitrum_one_has_its_feeds_and_the_dev_chain_none() -> None:
    assert ARBITRUM_ONE.eth_usd_feed is not None
    assert checksum_address(ARBITRUM_ONE.eth_usd_feed) == "0x639Fe6ab55C921f74e7fac1ee960C0B6293ba612"
    assert ARBITRUM_ONE.sequencer_feed is not None
    assert checksum_address(ARBITRUM_ONE.sequencer_feed) == "0xFdB631F5EE196F0ed6FAa767959853A9F217697D"
    assert (DEV.eth_usd_feed, DEV.sequencer_feed) == (None, None)


# --- on a chain -------------------------------------------------------------------------------------------------------


@dataclass
class OnChain:
    feeds: PriceFeeds
    proxies: list[FaultProxy]
    reader: ChainlinkReader

    async def read(self) -> FeedReading:
        """Of a block that has everything so far: the first poll reads one that was the newest before it."""
        await self.reader.poll()
        return await self.reader.poll()


@pytest.fixture
async def on_chain(devnet: Devnet) -> AsyncIterator[OnChain]:
    feeds = PriceFeeds.deployed_on(devnet)
    async with AsyncExitStack() as stack:
        proxies = [await stack.enter_async_context(fault_proxy(devnet.url)) for _ in range(2)]
        quorum = Quorum(
            [RpcEndpoint(proxy.url, name=f"rpc-{number}") for number, proxy in enumerate(proxies, 1)],
            chain_id=DEV.chain_id, count=2, timeout_s=2, head_age_max_s=60,
        )  # fmt: skip
        stack.push_async_callback(quorum.close)
        wanted = Feeds(
            Feed("ETH / USD", bytes.fromhex(feeds.eth_usd.address[2:]), 3600),
            bytes.fromhex(feeds.sequencer.address[2:]),
            {"EUR": Feed("EUR / USD", bytes.fromhex(feeds.eur_usd.address[2:]), 90_000)},
        )
        yield OnChain(feeds, proxies, ChainlinkReader(quorum, wanted))


async def test_all_feeds_are_read_at_one_block_in_one_request_to_each_endpoint(on_chain: OnChain) -> None:
    await on_chain.read()
    before = [len(proxy.requests) for proxy in on_chain.proxies]
    reading = await on_chain.reader.poll()
    assert [len(proxy.requests) for proxy in on_chain.proxies] == [count + 1 for count in before]
    assert {currency: price.value for currency, price in reading.prices.items()} == {"USD": 3000, "EUR": 2500}
    pins = {call["params"][1]["blockHash"] for call in on_chain.proxies[0].requests[-1] if call["method"] == "eth_call"}
    assert pins == {"0x" + reading.block.hash.hex()}


async def test_a_price_that_moves_is_seen_and_a_sequencer_that_stops_too(on_chain: OnChain) -> None:
    on_chain.feeds.eth_usd.say("3333.33333333", age_s=60)
    assert (await on_chain.read()).prices["USD"].value == Decimal("3333.33333333")
    on_chain.feeds.sequencer.set(answer=1, started_at=on_chain.feeds.now())
    assert "sequencer is down" in (await on_chain.read()).missing["USD"]
    on_chain.feeds.sequencer.set(answer=0, started_at=on_chain.feeds.now())
    assert "prices are used after 3600 s" in (await on_chain.read()).missing["USD"]


async def test_one_endpoint_that_lies_about_the_price_makes_no_price(on_chain: OnChain) -> None:
    def lie(result: str, parameters: list[dict[str, str]]) -> str:
        return result[:-1] + "f" if parameters[0]["data"] == "0x" + LATEST_ROUND_DATA.hex() else result

    await on_chain.read()
    on_chain.proxies[1].fault = changed("eth_call", lie)
    with pytest.raises(Disagreement, match=r"rpc-1, rpc-2|rpc-2, rpc-1"):
        await on_chain.reader.poll()
