"""Prices, watched in the background: feeds and second opinions every `price.poll_s`, overrides every two seconds.

    feeds on the chain ──┐                 ┌─▶ memory: what calls are charged at (prices.py)
    second opinions ─────┼─▶ PriceWatch ───┤
    overrides ───────────┘                 └─▶ price_observation: what was known when

Calls are charged at what memory has; none of them waits for anything here. Where sources are away, memory grows old and
is then refused (promise 7). A second opinion that is away is no disagreement: it is counted, and the feed is used.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import UTC, datetime
from decimal import Decimal
from typing import Final

import structlog
from sqlalchemy.ext.asyncio import AsyncEngine

from chain.chainlink import BASE, SOURCE, ChainlinkReader, Feed, FeedReading, Feeds
from chain.http_price import HttpPrice, HttpPriceUnknown
from chain.networks import NETWORKS
from chain.quorum import NoDecision, QuorumObserver
from chain.rates import DeclaredPrices, EthPrice, FreshPrices, PriceSource, PriceUnknown
from chain.signatures import parse_address
from clearinghouse import price_store
from clearinghouse.background import Repeated
from clearinghouse.chain_watch import Budgets, quorum_of
from clearinghouse.config import PriceSettings, Settings
from clearinghouse.database.connect import DATABASE_FAILED
from clearinghouse.ledger.money import show_amount
from clearinghouse.price_metrics import Check, FeedPoll, PriceMetrics
from clearinghouse.price_store import Observation
from clearinghouse.prices import CheckedPrices, Comparison, FedPrices, Opinion, OverriddenPrices, Override
from clearinghouse.readiness import NotReady

log = structlog.get_logger(__name__)
#: For somebody who only looks: what is found is the answer, and no news.
_SILENT: Final = structlog.wrap_logger(None, wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))

SECOND_OPINION: Final = "second_opinion"
OVERRIDES_POLL_S: Final = 2
#: How long a start waits for the first reading. Without one the service starts all the same, and refuses.
FIRST_READING_TIMEOUT_S: Final = 8
#: Kept while the database is away; what is more is not written down.
UNRECORDED_MAX_COUNT: Final = 1000


class PriceLayers:
    """The price of ETH in memory, from the settings' source up; each layer is told by the watch what it should know."""

    def __init__(self, settings: PriceSettings) -> None:
        self.fed = FedPrices() if settings.source == SOURCE else None
        lowest: PriceSource = self.fed or DeclaredPrices(settings.declared, declared_at=datetime.now(UTC))
        self.fresh = FreshPrices(lowest, max_age_s=settings.max_age_s)
        self.checked = CheckedPrices(
            self.fresh,
            max_bps=settings.disagreement_max_bps,
            max_age_s=settings.max_age_s,
            on_disagreement=settings.on_disagreement,
        )
        self.overridden = OverriddenPrices(self.checked)


class PriceWatch:
    """`start` before use, `stop` after; both belong to one event loop. Or `look` once, where nothing is served.

    `feeds` is None where prices are declared, `engine` where there is no database to find overrides in. Only with
    `metrics` is anything logged or written down.
    """

    def __init__(
        self,
        settings: PriceSettings,
        *,
        engine: AsyncEngine | None,
        feeds: ChainlinkReader | None,
        opinions: Mapping[str, HttpPrice],
        metrics: PriceMetrics | None = None,
    ) -> None:
        self._settings, self._engine = settings, engine
        self._feeds, self._opinions, self._metrics = feeds, opinions, metrics
        self._log = log if metrics is not None else _SILENT
        self.layers = PriceLayers(settings)
        self._works: list[Repeated] = []
        self._missing: Mapping[str, str] = {}
        #: Why there is no new second opinion, by currency.
        self.opinion_troubles: dict[str, str] = {}
        self._disagreeing: set[str] = set()
        self._kept: dict[tuple[str, str], tuple[datetime, Decimal]] = {}
        #: In the order in which they came.
        self._unrecorded: dict[Observation, None] = {}

    @property
    def prices(self) -> PriceSource:
        """What calls are charged at."""
        return self.layers.overridden

    @property
    def currencies(self) -> list[str]:
        """Those that the settings have a price in, and those that an operator set one in."""
        return list(dict.fromkeys([*self._settings.currencies, *(o.currency for o in self.overrides())]))

    def overrides(self) -> list[Override]:
        return self.layers.overridden.in_force()

    def comparison(self, currency: str) -> Comparison | None:
        """With the newest second opinion on a currency, or on the one that it is computed from."""
        return self.layers.checked.comparison(currency)

    async def start(self) -> None:
        """Waits for the first reading, but not for long: sources that are away must not keep a service away."""
        for currency in self._settings.currencies:
            self._measure(currency)
        await self.look()
        self._works = [
            Repeated("watch-price-overrides", self.read_overrides, every_s=OVERRIDES_POLL_S),
            Repeated("watch-prices", self._poll, every_s=self._settings.poll_s),
        ]
        for work in self._works:
            work.start(at_once=False)

    async def look(self) -> None:
        """Everything once, from all sources at the same time."""
        try:
            async with asyncio.timeout(FIRST_READING_TIMEOUT_S):
                await asyncio.gather(self.read_overrides(), self._poll())
        except TimeoutError:
            self._be_in_trouble(f"no reading within {FIRST_READING_TIMEOUT_S} s")

    async def stop(self) -> None:
        for work in self._works:
            await work.stop()

    async def probe(self) -> str:
        """For readiness. Raises NotReady where there is no price in any currency."""
        known = self.known().values()
        prices = [shown(price) for price in known if isinstance(price, EthPrice)]
        missing = [price for price in known if isinstance(price, str)]
        if missing and not prices:
            raise NotReady(" ".join(missing))
        return " ".join([", ".join(prices) or "only accounts in ETH can pay", *missing])

    def known(self) -> dict[str, EthPrice | str]:
        """By currency the price, or why there is none."""
        known: dict[str, EthPrice | str] = {}
        for currency in self.currencies:
            try:
                known[currency] = self.prices.price(currency)
            except PriceUnknown as reason:
                trouble = self.layers.fed.trouble if self.layers.fed is not None else None
                known[currency] = f"{reason} ({trouble})" if trouble is not None else str(reason)
        return known

    # --- the sources ---

    async def _poll(self) -> None:
        """Feeds and second opinions at the same time, then what they come to together."""
        if self._feeds is None:
            return
        await asyncio.gather(self._read_feeds(self._feeds), *(self._ask(currency) for currency in self._opinions))
        for currency in self._opinions.keys() - self.opinion_troubles.keys():
            if (comparison := self.comparison(currency)) is not None:
                self._note_comparison(currency, comparison)
        await self._record()

    async def _read_feeds(self, feeds: ChainlinkReader) -> None:
        assert self.layers.fed is not None, "there are feeds"
        try:
            reading = await feeds.poll()
        except NoDecision as reason:
            self._be_in_trouble(str(reason))
            self._count(FeedPoll.NO_DECISION)
            return
        if self.layers.fed.trouble is not None:
            self._log.info("price_feeds_read", block_number=reading.block.number)
        self.layers.fed.learn(reading)
        self._count(FeedPoll.INCOMPLETE if reading.missing else FeedPoll.READ)
        self._note_missing(reading)
        for price in reading.prices.values():
            self._keep(Observation(SOURCE, price.currency, price.observed_at, price.value, reading.block.hash))

    async def _ask(self, currency: str) -> None:
        service = self._opinions[currency]
        try:
            opinion = await service.read(timeout_s=self._settings.second_opinion_timeout_s)
        except HttpPriceUnknown as reason:
            if self.opinion_troubles.get(currency) != str(reason):
                self._log.warning("second_opinion_missing", currency=currency, reason=str(reason))
            self.opinion_troubles[currency] = str(reason)
            if self._metrics is not None:
                self._metrics.checked(currency, Check.UNANSWERED)
            return
        if self.opinion_troubles.pop(currency, None) is not None:
            self._log.info("second_opinion_back", currency=currency)
        at = datetime.now(UTC)
        self.layers.checked.learn(currency, Opinion(opinion, at))
        self._keep(Observation(SECOND_OPINION, currency, at.replace(second=0, microsecond=0), opinion))

    async def read_overrides(self) -> None:
        """From the database, where there is one. While it cannot be read those in memory hold, until they end."""
        if self._engine is None:
            return
        before = {each.currency: each for each in self.overrides()}
        try:
            async with self._engine.connect() as connection:
                found = await price_store.overrides_in_force(connection)
        except DATABASE_FAILED as error:
            self._log.warning("price_overrides_not_read", reason=type(error).__name__, retry_in_s=OVERRIDES_POLL_S)
            return
        self.layers.overridden.learn(found)
        for override in found:
            if before.pop(override.currency, None) != override:
                self._measure(override.currency)
                facts = {"currency": override.currency, "price": show_amount(override.value), "actor": override.actor}
                self._log.warning("price_overridden", **facts, until=override.until.isoformat(), reason=override.reason)
        for currency in before:
            self._log.warning("price_override_ended", currency=currency)

    # --- what is told of it ---

    def _be_in_trouble(self, reason: str) -> None:
        if self.layers.fed is not None and self.layers.fed.trouble != reason:
            self._log.warning("price_feeds_not_read", reason=reason)
            self.layers.fed.trouble = reason

    def _note_missing(self, reading: FeedReading) -> None:
        """Once for each change: ages in a reason grow, so reasons are compared without their numbers."""
        for currency in reading.missing.keys() - self._missing.keys():
            self._log.error("price_missing", currency=currency, reason=reading.missing[currency])
        for currency in self._missing.keys() - reading.missing.keys():
            self._log.info("price_back", currency=currency)
        self._missing = reading.missing

    def _note_comparison(self, currency: str, comparison: Comparison) -> None:
        if self._metrics is not None:
            self._metrics.checked(currency, Check.AGREED if comparison.is_agreed else Check.DISAGREED)
        if not comparison.is_agreed and currency not in self._disagreeing:
            self._log.error(
                "price_disagreement", currency=currency, policy=self._settings.on_disagreement, reason=str(comparison)
            )
            self._disagreeing.add(currency)
        elif comparison.is_agreed and currency in self._disagreeing:
            self._log.info("price_agreement_again", currency=currency)
            self._disagreeing.remove(currency)

    def _count(self, outcome: FeedPoll) -> None:
        if self._metrics is not None:
            self._metrics.feeds_polled(outcome)

    def _measure(self, currency: str) -> None:
        if self._metrics is None:
            return
        self._metrics.watch_price(currency, lambda: self._age_s(currency))
        self._metrics.watch_known(currency, lambda: isinstance(self.known().get(currency), EthPrice))
        self._metrics.watch_override(currency, lambda: self.layers.overridden.left_s(currency))
        if currency in self._opinions:
            self._metrics.watch_check(currency)

    def _age_s(self, currency: str) -> float | None:
        """Of what the feed said, fresh or not; None before the first reading and where prices do not age."""
        try:
            price = self.layers.fed.price(currency) if self.layers.fed is not None else None
        except PriceUnknown:
            return None
        return price.age(datetime.now(UTC)).total_seconds() if price is not None else None

    # --- what is written down ---

    def _keep(self, observation: Observation) -> None:
        """Unless it is what this source said the time before."""
        said, at = (observation.source, observation.currency), (observation.observed_at, observation.price)
        if self._kept.get(said) != at and len(self._unrecorded) < UNRECORDED_MAX_COUNT:
            self._kept[said] = at
            self._unrecorded[observation] = None

    async def _record(self) -> None:
        if self._engine is None or self._metrics is None or not self._unrecorded:
            return
        writing = list(self._unrecorded)
        try:
            await price_store.record(self._engine, writing)
        except DATABASE_FAILED as error:
            self._log.warning("prices_not_recorded", reason=type(error).__name__, count=len(writing))
            return
        for observation in writing:
            del self._unrecorded[observation]


def shown(price: EthPrice) -> str:
    """A price as one line says it."""
    until = f" until {price.until:%Y-%m-%d %H:%M:%S} UTC" if price.until is not None else ""
    return f"{show_amount(price.value)} {price.currency} per ETH ({price.source}{until})"


@asynccontextmanager
async def prices_of(
    settings: Settings,
    engine: AsyncEngine | None,
    *,
    metrics: PriceMetrics | None = None,
    quorum_observer: QuorumObserver | None = None,
    budgets: Budgets | None = None,
) -> AsyncIterator[PriceWatch]:
    """The watch that the settings describe, not started."""
    async with AsyncExitStack() as stack:
        feeds: ChainlinkReader | None = None
        opinions: dict[str, HttpPrice] = {}
        if settings.price.source == SOURCE:
            quorum = quorum_of(settings.chain, observer=quorum_observer, budgets=budgets)
            stack.push_async_callback(quorum.close)
            feeds = ChainlinkReader(quorum, feeds_of(settings))
            for currency, url in (settings.price.second_opinions or {}).items():
                opinions[currency] = HttpPrice(url.get_secret_value(), name=f"the second opinion on {currency}")
                stack.push_async_callback(opinions[currency].close)
        yield PriceWatch(settings.price, engine=engine, feeds=feeds, opinions=opinions, metrics=metrics)


@asynccontextmanager
async def prices_watched(
    settings: Settings,
    engine: AsyncEngine,
    *,
    metrics: PriceMetrics,
    quorum_observer: QuorumObserver,
    budgets: Budgets | None = None,
) -> AsyncIterator[PriceWatch]:
    """The same, kept up to date while the block lasts."""
    async with prices_of(settings, engine, metrics=metrics, quorum_observer=quorum_observer, budgets=budgets) as watch:
        try:
            await watch.start()
            yield watch
        finally:
            await watch.stop()


def feeds_of(settings: Settings) -> Feeds:
    """The feeds to read: the settings' own, else the network's. ValueError where there is none of ETH."""
    price, network = settings.price, NETWORKS[settings.chain.network]
    eth_usd = parse_address(price.eth_usd_feed) if price.eth_usd_feed is not None else network.eth_usd_feed
    if eth_usd is None:
        raise ValueError(f"price.eth_usd_feed is needed: no feed is known of the network {network.name}")
    return Feeds(
        eth_usd=Feed(f"ETH / {BASE}", eth_usd, price.feed_max_age_s),
        sequencer=parse_address(price.sequencer_feed) if price.sequencer_feed is not None else network.sequencer_feed,
        others={
            currency: Feed(f"{currency} / {BASE}", parse_address(address), price.currency_feed_max_age_s)
            for currency, address in price.currency_feeds.items()
        },
    )
