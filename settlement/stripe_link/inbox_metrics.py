"""What Prometheus is told of Stripe's events. docs/monitoring.md says what each metric means."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from typing import Final

from prometheus_client import CollectorRegistry, Counter
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from clearinghouse.hot_metrics import NAMESPACE
from settlement.stripe_link.inbox import Backlog

#: What became of an attempt at an event.
OUTCOMES: Final = ("done", "failed", "away", "parked", "given_back", "overtaken")


class InboxMetrics(Collector):
    """Attempts by this process, and the inbox as this process last saw it: the same for all of them."""

    def __init__(self, registry: CollectorRegistry) -> None:
        events = Counter(
            "stripe_events", "Attempts at Stripe's events, by what became of them.", ["outcome"],
            namespace=NAMESPACE, registry=registry,
        )  # fmt: skip
        self._events = {outcome: events.labels(outcome) for outcome in OUTCOMES}
        self._seen: tuple[Backlog, datetime] | None = None
        registry.register(self)

    def ended(self, outcome: str, count: int) -> None:
        self._events[outcome].inc(count)

    def saw(self, backlog: Backlog, now: datetime) -> None:
        self._seen = (backlog, now)

    def collect(self) -> Iterator[GaugeMetricFamily]:
        """Without values for an inbox that was not seen yet."""
        waiting = _gauge("stripe_events_waiting", "Events of Stripe's that are still to be acted upon.")
        oldest = _gauge("stripe_events_oldest_seconds", "How long the oldest of them has waited; 0 without one.")
        parked = _gauge("stripe_events_parked", "Events that nobody acts upon until told to.")
        if self._seen is not None:
            backlog, now = self._seen
            since = backlog.oldest_received_at
            waiting.add_metric([], backlog.waiting_count)
            oldest.add_metric([], (now - since).total_seconds() if since is not None else 0)
            parked.add_metric([], backlog.parked_count)
        yield from (waiting, oldest, parked)


def _gauge(name: str, text: str) -> GaugeMetricFamily:
    return GaugeMetricFamily(f"{NAMESPACE}_{name}", text, labels=[])
