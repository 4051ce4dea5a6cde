"""What Prometheus is told of it."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from typing import Final

from prometheus_client import CollectorRegistry
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from clearinghouse.hot_metrics import NAMESPACE
from settlement.billing_watch.figures import FIGURES, Figure, Rows

#: What was not read again for so long is not told any more.
KNOWN_FOR_S: Final = 120


class BillingMetrics(Collector):
    """Each figure as it was last read; without values where it was not, or too long ago."""

    def __init__(self, registry: CollectorRegistry, *, known_for_s: float = KNOWN_FOR_S) -> None:
        self._known_for_s = known_for_s
        self._seen: dict[Figure, tuple[Rows, float]] = {}
        registry.register(self)

    def saw(self, figures: Mapping[Figure, Rows]) -> None:
        """Those that could be read."""
        now_s = time.monotonic()
        self._seen |= {figure: (rows, now_s) for figure, rows in figures.items()}

    def collect(self) -> Iterator[GaugeMetricFamily]:
        for figure in FIGURES:
            rows, seen_at_s = self._seen.get(figure, ({}, 0))
            is_known = time.monotonic() - seen_at_s < self._known_for_s
            for index, (name, what) in enumerate(figure.names):
                family = GaugeMetricFamily(f"{NAMESPACE}_{name}", what, labels=figure.labels)
                for labels, values in rows.items() if is_known else ():
                    family.add_metric(labels, float(values[index]))
                yield family
