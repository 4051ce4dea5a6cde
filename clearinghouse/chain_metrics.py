"""What Prometheus is told of the chain: a chain_watch.ChainObserver."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge

from clearinghouse.hot_metrics import LATENCY_BUCKETS_S, NAMESPACE, Ages, HotHistograms

#: How a reading of the chain may end (chain_watch.Poll).
CHAIN_POLLS: Final = ("read", "no_decision", "disagreement")


class ChainMetrics:
    """Labels come from the configuration and from closed sets."""

    def __init__(self, registry: CollectorRegistry) -> None:
        def counter(name: str, text: str, labels: Iterable[str] = ()) -> Counter:
            return Counter(name, text, labels, namespace=NAMESPACE, registry=registry)

        def gauge(name: str, text: str) -> Gauge:
            return Gauge(name, text, namespace=NAMESPACE, registry=registry)

        self._rpc_requests = counter("rpc_requests", "Requests to one endpoint of the chain.", ["endpoint", "outcome"])
        self._rpc_seconds = HotHistograms("rpc_request_seconds", "Time of one request.", "endpoint", LATENCY_BUCKETS_S)
        registry.register(self._rpc_seconds)
        self._chain_disagreements = counter("chain_disagreements", "Blocks that endpoints did not agree about.")
        polls = counter("chain_polls", "Readings of the chain.", ["outcome"])
        self._chain_polls = {outcome: polls.labels(outcome) for outcome in CHAIN_POLLS}
        self._chain_round = gauge("chain_round", "Round of the protocol, as last read; 0 where no chain is read.")
        self._active_orchestrators = gauge("active_orchestrators", "Orchestrators that are active in that round.")
        self._chain_age = Ages("chain_reading_age_seconds", "Age of the newest reading's block.", "network")
        registry.register(self._chain_age)

    def rpc_ended(self, endpoint: str, outcome: str, elapsed_s: float) -> None:
        """`endpoint` is a place in the configuration's list and `outcome` comes from a closed set."""
        self._rpc_requests.labels(endpoint, outcome).inc()
        self._rpc_seconds.child(endpoint).observe(elapsed_s)

    def rpc_disagreed(self) -> None:
        self._chain_disagreements.inc()

    def chain_polled(self, outcome: str) -> None:
        self._chain_polls[outcome].inc()

    def chain_read(self, *, round_: int, active_count: int) -> None:
        self._chain_round.set(round_)
        self._active_orchestrators.set(active_count)

    def watch(self, network: str, age_s: Callable[[], float | None]) -> None:
        """`age_s` is asked at each scrape; None, before the first reading, is older than everything."""

        def age() -> float:
            known_s = age_s()
            return math.inf if known_s is None else known_s

        self._chain_age.watch(network, age)
