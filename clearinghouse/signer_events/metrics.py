"""What Prometheus is told of signers' events. The labels are closed sets, and every series is there from the start."""

from __future__ import annotations

from collections.abc import Mapping

from prometheus_client import CollectorRegistry, Counter, Gauge

from clearinghouse.hot_metrics import NAMESPACE
from clearinghouse.signer_events.faults import Found
from clearinghouse.signer_events.store import Kind


class SignerEventMetrics:
    """A part of `clearinghouse.metrics.Metrics`."""

    def __init__(self, registry: CollectorRegistry) -> None:
        def counter(name: str, text: str, *labels: str) -> Counter:
            return Counter(name, text, labels, namespace=NAMESPACE, registry=registry)

        def gauge(name: str, text: str, *labels: str) -> Gauge:
            return Gauge(name, text, labels, namespace=NAMESPACE, registry=registry)

        self._unreleased = counter("unreleased", "Calls whose signatures were thrown away.")
        self._unreleased_lost = counter("unreleased_lost", "Of these, not written down.")
        lines = counter("signer_events", "Records of signers' events, by what became of them.", "kind")
        self._lines = {kind: lines.labels(kind) for kind in Kind}
        findings = gauge("signer_event_findings", "What does not fit between signers' events and issuances.", "kind")
        self._findings = {kind: findings.labels(kind) for kind in Found}
        self._lag = gauge("signer_events_lag_records", "Records in Kafka that are still to be read.")

    def unreleased(self, *, lost: bool) -> None:
        """`lost`: an older one had to make room for it."""
        self._unreleased.inc()
        self._unreleased_lost.inc(lost)

    def read(self, counts: Mapping[Kind, int]) -> None:
        for kind, count in counts.items():
            self._lines[kind].inc(count)

    def open_findings(self, counts: Mapping[Found, int]) -> None:
        for kind, count in counts.items():
            self._findings[kind].set(count)

    def lag(self, records: int) -> None:
        self._lag.set(records)
