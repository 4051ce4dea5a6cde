"""Kinds of metrics for one event loop: the library's serve threads, and take a microsecond or two for each observation.

Histograms and counters are kept as plain numbers and put into the library's families when they are asked for.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterator, Sequence
from itertools import accumulate
from typing import Final

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString

NAMESPACE: Final = "clearinghouse"
#: Both ends matter: a stage takes tens of microseconds, and a client gives up after 5 s.
LATENCY_BUCKETS_S: Final = (
    0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0,
)  # fmt: skip


class HotHistogram:
    """Observations by bucket, for the event loop alone: without the library's lock it costs a tenth."""

    __slots__ = ("bounds", "counts", "total")

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self.bounds = bounds
        #: By bucket, not cumulative; the last one is for what exceeds every bound.
        self.counts = [0] * (len(bounds) + 1)
        self.total = 0.0

    def observe(self, value: float) -> None:
        self.counts[bisect_left(self.bounds, value)] += 1  # a value equal to a bound belongs to its bucket
        self.total += value


class HotHistograms(Collector):
    """One histogram for each combination of label values, from the first `child` of them on."""

    def __init__(self, name: str, text: str, labels: Sequence[str], bounds: tuple[float, ...]) -> None:
        self._name, self._text, self._labels, self._bounds = f"{NAMESPACE}_{name}", text, labels, bounds
        self._children: dict[tuple[str, ...], HotHistogram] = {}

    def child(self, *label_values: str) -> HotHistogram:
        child = self._children.get(label_values)
        if child is None:
            child = self._children[label_values] = HotHistogram(self._bounds)
        return child

    def collect(self) -> Iterator[HistogramMetricFamily]:
        family = HistogramMetricFamily(self._name, self._text, labels=self._labels)
        names = [*map(floatToGoString, self._bounds), "+Inf"]
        for label_values, child in self._children.items():
            buckets = list(zip(names, accumulate(child.counts), strict=True))
            family.add_metric(label_values, buckets, child.total)
        yield family


class HotCounter:
    """A number that only grows, by whoever adds to `value`: for the event loop alone, as HotHistogram."""

    __slots__ = ("value",)

    def __init__(self) -> None:
        self.value = 0


class HotCounters(Collector):
    """One counter for each combination of label values; without labels there is one."""

    def __init__(self, name: str, text: str, labels: Sequence[str]) -> None:
        self._name, self._text, self._labels = f"{NAMESPACE}_{name}", text, labels
        self._children: dict[tuple[str, ...], HotCounter] = {}

    def child(self, *label_values: str) -> HotCounter:
        child = self._children.get(label_values)
        if child is None:
            child = self._children[label_values] = HotCounter()
        return child

    def collect(self) -> Iterator[CounterMetricFamily]:
        family = CounterMetricFamily(self._name, self._text, labels=self._labels)
        for label_values, child in self._children.items():
            family.add_metric(label_values, child.value)
        yield family


class Ages(Collector):
    """Ages are read when asked: a gauge that is set now and then would stand still just when what it tells of does."""

    def __init__(self, name: str, text: str, label: str) -> None:
        self._name, self._text, self._label = f"{NAMESPACE}_{name}", text, label
        self._ages: dict[str, Callable[[], float | None]] = {}

    def watch(self, label_value: str, age_s: Callable[[], float | None]) -> None:
        self._ages[label_value] = age_s

    def collect(self) -> Iterator[GaugeMetricFamily]:
        family = GaugeMetricFamily(self._name, self._text, labels=[self._label])
        for label_value, age_s in self._ages.items():
            if (age := age_s()) is not None:
                family.add_metric([label_value], age)
        yield family
