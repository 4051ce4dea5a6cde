"""What Prometheus is told of prices: a price_watch.PriceObserver."""

from __future__ import annotations

from collections.abc import Callable
from enum import StrEnum

from prometheus_client import CollectorRegistry, Counter

from clearinghouse.hot_metrics import NAMESPACE, Ages


class Check(StrEnum):
    """What came of asking for a second opinion."""

    AGREED = "agreed"
    DISAGREED = "disagreed"
    #: No usable answer.
    UNANSWERED = "unanswered"


class FeedPoll(StrEnum):
    """How a reading of the feeds ended. `incomplete`: not every currency has a price."""

    READ = "read"
    INCOMPLETE = "incomplete"
    NO_DECISION = "no_decision"


class PriceMetrics:
    """Currencies come from the configuration, and from operators who set a price."""

    def __init__(self, registry: CollectorRegistry) -> None:
        polls = Counter("price_polls", "Readings of the feeds.", ["outcome"], namespace=NAMESPACE, registry=registry)
        self._polls = {outcome: polls.labels(outcome) for outcome in FeedPoll}
        checks = Counter(
            "price_checks", "Second opinions asked for.", ["currency", "outcome"],
            namespace=NAMESPACE, registry=registry,
        )  # fmt: skip
        self._checks = checks
        self._ages = Ages("price_age_seconds", "Age of the price of ETH.", "currency")
        self._known = Ages("price_known", "Whether there is a price of ETH to charge at.", "currency")
        self._overrides = Ages("price_override_seconds", "How long a price set by hand still holds.", "currency")
        for collector in (self._ages, self._known, self._overrides):
            registry.register(collector)

    def feeds_polled(self, outcome: FeedPoll) -> None:
        self._polls[outcome].inc()

    def watch_check(self, currency: str) -> None:
        """Made at the start, so that a first disagreement is seen as a step from 0."""
        for outcome in Check:
            self._checks.labels(currency, outcome)

    def checked(self, currency: str, outcome: Check) -> None:
        self._checks.labels(currency, outcome).inc()

    def watch_price(self, currency: str, age_s: Callable[[], float | None]) -> None:
        """`age_s` is asked at each scrape; None leaves the currency out, as where a price does not age."""
        self._ages.watch(currency, age_s)

    def watch_known(self, currency: str, is_known: Callable[[], bool]) -> None:
        self._known.watch(currency, is_known)

    def watch_override(self, currency: str, left_s: Callable[[], float | None]) -> None:
        """None leaves the currency out: no override of it holds."""
        self._overrides.watch(currency, left_s)
