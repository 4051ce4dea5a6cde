"""What an ETH costs, as Chainlink's feeds on the chain say at one block that the quorum agrees on.

    ETH / USD ────────────────────────────▶ USD per ETH    exact: a feed's answer has 8 decimals
    ETH / USD ÷ EUR / USD ────────────────▶ EUR per ETH    rounded once, half to even, to PRICE_DECIMALS

A feed is believed only as far as it says that it may be: its round is complete, its answer positive and not too old,
its decimals and its name are the expected ones. On an L2 nobody can update a feed while the sequencer is down, and for
a while after that answers may be of before (`SEQUENCER_GRACE_S`): then there is no price in any currency.

Ages are counted by the block's own time, so that the decision (`evaluate`) depends on nothing but what was read.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from decimal import Decimal
from fractions import Fraction
from types import MappingProxyType
from typing import Final, NamedTuple

from chain import abi
from chain.quorum import Agreed, Block, Call, Quorum
from chain.rates import PRICE_DECIMALS, EthPrice

SOURCE: Final = "chainlink"
#: What the feed of ETH is in; every other currency is computed from it.
BASE: Final = "USD"
FEED_DECIMALS: Final = 8
SEQUENCER_GRACE_S: Final = 3600

LATEST_ROUND_DATA: Final = abi.selector("latestRoundData()")
DECIMALS: Final = abi.selector("decimals()")
DESCRIPTION: Final = abi.selector("description()")
_SEQUENCER_UP: Final = 0
_SEQUENCER_DOWN: Final = 1


class NoPrice(ValueError):
    """This feed gives no price now. The text says why, as a clause."""


@dataclass(frozen=True, slots=True)
class Feed:
    """`pair` is its description on the chain, such as "EUR / USD". `age_max_s` is how old its answer may be: more than
    its heartbeat, after which it is updated even where the price stands still."""

    pair: str
    address: bytes
    age_max_s: int


@dataclass(frozen=True, slots=True)
class Feeds:
    """`others` have the price of one unit of their currency in USD. On an L1 there is no sequencer."""

    eth_usd: Feed
    sequencer: bytes | None = None
    others: Mapping[str, Feed] = field(default_factory=lambda: MappingProxyType({}))

    @property
    def currencies(self) -> tuple[str, ...]:
        return (BASE, *self.others)

    def listed(self) -> tuple[Feed, ...]:
        """In the order in which they are read."""
        return (self.eth_usd, *self.others.values())


class Round(NamedTuple):
    """latestRoundData: the newest round of a feed. `answer` is signed."""

    id: int
    answer: int
    started_at_unix_s: int
    updated_at_unix_s: int
    answered_in: int


class FeedAnswer(NamedTuple):
    """`scaled` is the price times 10^FEED_DECIMALS, above 0. `reference` names pair and round."""

    scaled: int
    updated_at_unix_s: int
    reference: str


@dataclass(frozen=True, slots=True)
class FeedReading:
    """What one block says: of each currency a price, or why there is none."""

    block: Block
    prices: Mapping[str, EthPrice]
    missing: Mapping[str, str]


class ChainlinkReader:
    """Reads all feeds in one request. Belongs to the quorum's event loop.

    Its quorum should be its own: a feed that reverts fails the request, and the escrow must not suffer for it.
    """

    def __init__(self, quorum: Quorum, feeds: Feeds) -> None:
        self._quorum, self.feeds = quorum, feeds

    async def poll(self) -> FeedReading:
        """Raises NoDecision where the endpoints do not agree on what the feeds say."""
        block_hash = await self._quorum.newest_block_hash()
        return evaluate(self.feeds, await self._quorum.read(block_hash, _calls(self.feeds)))


def _calls(feeds: Feeds) -> list[Call]:
    calls = [Call(feeds.sequencer, LATEST_ROUND_DATA)] if feeds.sequencer is not None else []
    for feed in feeds.listed():
        calls += [Call(feed.address, function) for function in (LATEST_ROUND_DATA, DECIMALS, DESCRIPTION)]
    return calls


def evaluate(feeds: Feeds, agreed: Agreed) -> FeedReading:
    """The prices that the answers to `_calls` come to. Decides by what was read alone."""
    now_unix_s, results = agreed.block.time_unix_s, list(agreed.results)
    try:
        if feeds.sequencer is not None:
            require_sequencer(results.pop(0), now_unix_s)
        eth_usd = read_feed(feeds.eth_usd, results[:3], now_unix_s)
    except NoPrice as reason:
        return FeedReading(agreed.block, {}, dict.fromkeys(feeds.currencies, str(reason)))
    prices, missing = {}, {}
    for number, (currency, feed) in enumerate([(BASE, None), *feeds.others.items()]):
        try:
            other = read_feed(feed, results[3 * number :][:3], now_unix_s) if feed is not None else None
            prices[currency] = _price(currency, eth_usd, other, now_unix_s)
        except NoPrice as reason:
            missing[currency] = str(reason)
    return FeedReading(agreed.block, prices, missing)


def require_sequencer(data: bytes, now_unix_s: int) -> None:
    """Raises NoPrice unless the chain has been running for longer than SEQUENCER_GRACE_S."""
    status = _round(data, "the sequencer's feed")
    if status.answer == _SEQUENCER_DOWN:
        raise NoPrice("the chain's sequencer is down")
    if status.answer != _SEQUENCER_UP:
        raise NoPrice(f"the sequencer's feed says {status.answer}, which is neither up (0) nor down (1)")
    if status.started_at_unix_s == 0:
        raise NoPrice("the sequencer's feed has not begun to watch")
    up_s = now_unix_s - status.started_at_unix_s
    if up_s < 0:
        raise NoPrice("the sequencer's feed says that it came up in the future")
    if up_s <= SEQUENCER_GRACE_S:
        raise NoPrice(f"the chain's sequencer came up {up_s} s ago: prices are used after {SEQUENCER_GRACE_S} s")


def read_feed(feed: Feed, results: Sequence[bytes], now_unix_s: int) -> FeedAnswer:
    """The feed's answer. `results` are of LATEST_ROUND_DATA, DECIMALS and DESCRIPTION. Raises NoPrice."""
    name = f"the feed {feed.pair}"
    round_ = _round(results[0], name)
    try:
        decimals, description = abi.uint(results[1]), abi.text(results[2])
    except abi.AbiError:
        raise NoPrice(f"{name} does not answer as a feed does") from None
    if description != feed.pair:
        raise NoPrice(f"{name} calls itself {description[:40]!a}")
    if decimals != FEED_DECIMALS:
        raise NoPrice(f"{name} has {decimals} decimals and not {FEED_DECIMALS}")
    if round_.answer <= 0:
        raise NoPrice(f"{name} says {round_.answer}, which is no price")
    if 0 in (round_.id, round_.started_at_unix_s, round_.updated_at_unix_s) or round_.answered_in < round_.id:
        raise NoPrice(f"the newest round of {name} is not complete")
    age_s = now_unix_s - round_.updated_at_unix_s
    if age_s < 0 or round_.started_at_unix_s > now_unix_s:
        raise NoPrice(f"{name} was updated in the future")
    if age_s > feed.age_max_s:
        raise NoPrice(f"{name} was updated {age_s} s ago; at most {feed.age_max_s} s are allowed")
    return FeedAnswer(round_.answer, round_.updated_at_unix_s, f"{feed.pair.replace(' ', '')}:{round_.id}")


def cross_rate(eth_usd_scaled: int, other_usd_scaled: int) -> Decimal:
    """ETH in the other currency: the quotient, rounded once, half to even, to PRICE_DECIMALS. Both above 0."""
    return Decimal(f"{round(Fraction(eth_usd_scaled, other_usd_scaled) * 10**PRICE_DECIMALS)}e-{PRICE_DECIMALS}")


def _price(currency: str, eth_usd: FeedAnswer, other: FeedAnswer | None, now_unix_s: int) -> EthPrice:
    """Observed when the older of its parts was. Raises NoPrice for a value that no price can have."""
    if other is None:
        answers = [eth_usd]
        value = Decimal(f"{eth_usd.scaled}e-{FEED_DECIMALS}")
    else:
        answers = [eth_usd, other]
        value = cross_rate(eth_usd.scaled, other.scaled)
    try:
        return EthPrice(
            currency,
            value,
            SOURCE,
            _instant(min(answer.updated_at_unix_s for answer in answers)),
            confirmed_at=_instant(now_unix_s),
            reference=" ".join(answer.reference for answer in answers),
        )
    except ValueError as reason:
        raise NoPrice(str(reason)) from None


def _round(data: bytes, name: str) -> Round:
    try:
        id_, answer, started_at, updated_at, answered_in = abi.uints(data, 5)
    except abi.AbiError:
        raise NoPrice(f"{name} does not answer as a feed does") from None
    return Round(id_, abi.signed(answer), started_at, updated_at, answered_in)


def _instant(unix_s: int) -> datetime:
    return datetime.fromtimestamp(unix_s, UTC)
