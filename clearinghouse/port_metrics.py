"""What Prometheus is told of the two ports: of their connections and calls, kept where they are counted."""

from __future__ import annotations

from collections.abc import Iterator

from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector

from clearinghouse.connections import Connections
from clearinghouse.hot_metrics import NAMESPACE
from clearinghouse.shares import Shares


class PortMetrics(Collector):
    """What is held of the two ports, kept where it is counted."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.connections: Connections | None = None
        self.grpc_calls: Shares | None = None
        registry.register(self)

    def collect(self) -> Iterator[GaugeMetricFamily | CounterMetricFamily]:
        if (calls := self.grpc_calls) is not None:
            yield _gauge("grpc_calls_open", "Calls of the gRPC port under way, of every method.", calls.taken_count)
        if (connections := self.connections) is None:
            return
        yield _gauge("connections_open", "Connections of the HTTP port.", connections.open_count)
        yield _gauge("connections_max", "Most connections that the HTTP port holds.", connections.max_count)
        cuts = CounterMetricFamily(
            f"{NAMESPACE}_connections_cut", "Connections closed here, or not accepted, by reason.", labels=["reason"]
        )
        for reason, count in connections.cut_counts.items():
            cuts.add_metric([reason], count)
        yield cuts


def _gauge(name: str, text: str, value: int) -> GaugeMetricFamily:
    return GaugeMetricFamily(f"{NAMESPACE}_{name}", text, value=value)
