"""What Prometheus is told of coverage: a watch.CoverageObserver, and how every process stands to the gates.

What a sender has and needs is told by the process that evaluates it, and by no other: a number that nobody renews would
look like one that does not change. Amounts are in ETH, for curves; exactly they are in the snapshots.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Final

from prometheus_client import CollectorRegistry, Counter, Gauge
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from chain.coverage import Level
from chain.signatures import checksum_address
from clearinghouse.coverage.outcomes import Evaluated, Look
from clearinghouse.hot_metrics import NAMESPACE, Ages

if TYPE_CHECKING:
    from clearinghouse.coverage.evaluate import Evaluation
    from clearinghouse.coverage.snapshots import Snapshot

_ETH_WEI: Final = 10**18
_LEVELS: Final = tuple(Level)


class CoverageMetrics:
    """Senders are our own and those of the webhook signers that operators registered."""

    def __init__(self, registry: CollectorRegistry) -> None:
        evaluations = Counter(
            "coverage_evaluations", "Evaluations of a sender in this process.", ["outcome"],
            namespace=NAMESPACE, registry=registry,
        )  # fmt: skip
        self._evaluations = {outcome: evaluations.labels(outcome) for outcome in Evaluated}
        looks = Counter("coverage_outlooks", "Looks ahead.", ["outcome"], namespace=NAMESPACE, registry=registry)
        self._looks = {outcome: looks.labels(outcome) for outcome in Look}
        self._led = Gauge(
            "coverage_senders_led", "Senders that this process evaluates.", namespace=NAMESPACE, registry=registry
        )
        self._ages = Ages("coverage_gate_age_seconds", "Since the own sender's gate was set.", "sender")
        registry.register(self._ages)
        self._current = _Current()
        registry.register(self._current)

    def coverage_evaluated(self, outcome: Evaluated) -> None:
        self._evaluations[outcome].inc()

    def coverage_leads(self, senders: list[bytes]) -> None:
        self._led.set(len(senders))
        self._current.keep_only(senders)

    def coverage_is(self, evaluation: Evaluation) -> None:
        self._current.evaluations[evaluation.escrow.sender] = evaluation

    def outlook_ended(self, look: Look) -> None:
        self._looks[look].inc()

    def snapshot_taken(self, snapshot: Snapshot) -> None:
        if snapshot.has_outlook:
            self._current.snapshots[snapshot.sender] = snapshot

    def watch_gate(self, sender: bytes, age_s: Callable[[], float | None]) -> None:
        """`age_s` is asked at each scrape; None leaves it out: no gate was ever set."""
        self._ages.watch(checksum_address(sender), age_s)


class _Current(Collector):
    """What was last found of each sender that is evaluated here."""

    def __init__(self) -> None:
        self.evaluations: dict[bytes, Evaluation] = {}
        self.snapshots: dict[bytes, Snapshot] = {}

    def keep_only(self, senders: list[bytes]) -> None:
        for found in (self.evaluations, self.snapshots):
            for sender in found.keys() - set(senders):
                del found[sender]

    def collect(self) -> Iterator[GaugeMetricFamily]:
        families = {name: GaugeMetricFamily(f"{NAMESPACE}_{name}", text, labels=labels) for name, text, labels in _ALL}
        for sender, evaluation in self.evaluations.items():
            for name, labels, value in _of_evaluation(evaluation):
                families[name].add_metric([checksum_address(sender), *labels], value)
        for sender, snapshot in self.snapshots.items():
            for name, labels, seen in _of_snapshot(snapshot):
                if seen is not None:
                    families[name].add_metric([checksum_address(sender), *labels], seen)
        yield from families.values()


#: Name, text, labels.
_ALL: Final = (
    ("coverage_level", "0 ok, 1 watch, 2 low, 3 critical.", ["sender"]),
    ("coverage_ratio", "Deposit over what open tickets need; absent where none is open.", ["sender", "view"]),
    ("coverage_deposit_eth", "Deposit.", ["sender"]),
    ("coverage_reserve_eth", "Reserve.", ["sender"]),
    ("coverage_expected_liability_eth", "Expected value of the open tickets.", ["sender", "view"]),
    ("coverage_open_tickets", "Released, neither redeemed nor expired.", ["sender"]),
    ("coverage_orchestrators_asking_too_much", "Orchestrators whose last tickets are above what they can quote by now.",
     ["sender"]),
    ("coverage_remaining_ev_eth", "Expected value that may still be released.", ["sender"]),
    ("coverage_exhausted_probability", "That the deposit is exhausted, by what is open or within the horizon.",
     ["sender", "by"]),
    ("coverage_empty_seconds", "Until the deposit is exhausted; absent where that is not foreseen.",
     ["sender", "estimate"]),
    ("coverage_burn_eth_per_day", "Expected value that is released in a day.", ["sender"]),
    ("coverage_top_up_eth", "What is advised to add.", ["sender", "to"]),
)  # fmt: skip


def _of_evaluation(evaluation: Evaluation) -> Iterator[tuple[str, list[str], float]]:
    standing = evaluation.standing
    yield "coverage_level", [], _LEVELS.index(standing.level)
    if standing.coverage_bps is not None:
        yield "coverage_ratio", ["worst_case"], standing.coverage_bps / 10_000
    yield "coverage_deposit_eth", [], evaluation.escrow.deposit_wei / _ETH_WEI
    yield "coverage_reserve_eth", [], evaluation.escrow.reserve_wei / _ETH_WEI
    yield "coverage_expected_liability_eth", ["worst_case"], standing.worst.expected_wei / _ETH_WEI
    yield "coverage_open_tickets", [], standing.worst.num_tickets
    yield "coverage_orchestrators_asking_too_much", [], sum(quote.asks_too_much for quote in evaluation.quotes)
    yield "coverage_remaining_ev_eth", [], standing.remaining_ev_wei / _ETH_WEI


def _of_snapshot(snapshot: Snapshot) -> Iterator[tuple[str, list[str], float | None]]:
    def eth(wei: int | None) -> float | None:
        return None if wei is None else wei / _ETH_WEI

    bps = snapshot.posterior_coverage_bps
    yield "coverage_ratio", ["posterior"], None if bps is None else bps / 10_000
    yield "coverage_expected_liability_eth", ["posterior"], eth(snapshot.posterior_expected_wei)
    yield "coverage_exhausted_probability", ["open_tickets"], snapshot.exhausted_probability
    yield "coverage_exhausted_probability", ["horizon"], snapshot.exhausted_in_horizon_probability
    yield "coverage_empty_seconds", ["median"], snapshot.empty_median_s
    yield "coverage_empty_seconds", ["pessimistic"], snapshot.empty_pessimistic_s
    yield "coverage_burn_eth_per_day", [], eth(snapshot.burn_wei_per_day)
    yield "coverage_top_up_eth", ["reserve"], eth(snapshot.top_up_reserve_wei)
    yield "coverage_top_up_eth", ["deposit"], eth(snapshot.top_up_deposit_wei)
