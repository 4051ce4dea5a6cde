"""What Prometheus is told of billing periods, by the worker that ran the job last."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Final

from prometheus_client import CollectorRegistry
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from clearinghouse.hot_metrics import NAMESPACE
from settlement.closing.close import EVERY_S, Point

#: A worker that has not run the job for so long has nothing to say of it: another leads.
_KNOWN_FOR_S: Final = 3 * EVERY_S


class ClosingMetrics(Collector):
    """A close.ClosingObserver."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._seen: tuple[int, float] | None = None
        registry.register(self)

    def reached(self, point: Point) -> None:
        pass

    def ended(self, overdue_count: int) -> None:
        self._seen = overdue_count, time.monotonic()

    def collect(self) -> Iterator[GaugeMetricFamily]:
        overdue = GaugeMetricFamily(
            f"{NAMESPACE}_billing_periods_overdue_gateways",
            "Gateways with a billing period that ended more than 10 minutes ago and is not closed.",
        )
        if self._seen is not None and time.monotonic() - self._seen[1] < _KNOWN_FOR_S:
            overdue.add_metric([], self._seen[0])
        yield overdue
