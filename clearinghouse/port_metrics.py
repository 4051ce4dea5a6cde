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
        self.grpc_connections: Connections | None = None
        self.grpc_calls: Shares | None = None
        registry.register(self)

    def collect(self) -> Iterator[GaugeMetricFamily | CounterMetricFamily]:
        if (calls := self.grpc_calls) is not None:
            yield _gauge("grpc_calls_open", "Calls of the gRPC port under way, of every method.", calls.taken_count)
        for port, prefix, connections in (("HTTP", "", self.connections), ("gRPC", "grpc_", self.grpc_connections)):
            if connections is not None:
                yield from _of_connections(port, prefix, connections)


def _of_connections(
    port: str, prefix: str, connections: Connections
) -> Iterator[GaugeMetricFamily | CounterMetricFamily]:
    yield _gauge(f"{prefix}connections_open", f"Connections of the {port} port.", connections.open_count)
    yield _gauge(f"{prefix}connections_max", f"Most connections that the {port} port holds.", connections.max_count)
    cuts = CounterMetricFamily(
        f"{NAMESPACE}_{prefix}connections_cut",
        f"Connections of the {port} port closed here, or not accepted, by reason.",
        labels=["reason"],
    )
    for reason, count in connections.cut_counts.items():
        cuts.add_metric([reason], count)
    yield cuts


def _gauge(name: str, text: str, value: int) -> GaugeMetricFamily:
    return GaugeMetricFamily(f"{NAMESPACE}_{name}", text, value=value)
