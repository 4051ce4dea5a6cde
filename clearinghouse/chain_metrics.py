"""What Prometheus is told of the chain: a chain_watch.ChainObserver, a chain_feed.FeedObserver, an IndexObserver."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge

from clearinghouse.hot_metrics import LATENCY_BUCKETS_S, NAMESPACE, Ages, HotHistograms

#: How a reading of the chain may end (chain_watch.Poll).
CHAIN_POLLS: Final = ("read", "no_decision", "disagreement")
#: What a redeemed ticket may turn out to be (chain_store.Match).
REDEMPTIONS: Final = ("matched", "foreign", "altered")


class ChainMetrics:
    """Labels come from the configuration and from closed sets."""

    def __init__(self, registry: CollectorRegistry) -> None:
        def counter(name: str, text: str, labels: Iterable[str] = ()) -> Counter:
            return Counter(name, text, labels, namespace=NAMESPACE, registry=registry)

        def gauge(name: str, text: str) -> Gauge:
            return Gauge(name, text, namespace=NAMESPACE, registry=registry)

        self._rpc_requests = counter("rpc_requests", "Requests to one endpoint of the chain.", ["endpoint", "outcome"])
        self._rpc_seconds = HotHistograms(
            "rpc_request_seconds", "Time of one request.", ["endpoint"], LATENCY_BUCKETS_S
        )
        registry.register(self._rpc_seconds)
        self._rpc_waited = counter(
            "rpc_budget_wait_seconds", "Seconds waited for chain.rpc_requests_per_s.", ["endpoint"]
        )
        self._chain_disagreements = counter("chain_disagreements", "Blocks that endpoints did not agree about.")
        polls = counter("chain_polls", "Readings of the chain.", ["outcome"])
        self._chain_polls = {outcome: polls.labels(outcome) for outcome in CHAIN_POLLS}
        self._chain_round = gauge("chain_round", "Round of the protocol, as last read; 0 where no chain is read.")
        self._active_orchestrators = gauge("active_orchestrators", "Orchestrators that are active in that round.")
        self._chain_age = Ages("chain_reading_age_seconds", "Age of the newest reading's block.", "network")
        registry.register(self._chain_age)
        self._feed_listens = gauge("chain_feed_listens", "1 while an endpoint of chain.ws_urls is listened to.")
        self._feed_endings = counter("chain_feed_endings", "Times that listening ended.", ["endpoint", "reason"])
        self._feed_words = counter("chain_feed_words", "Logs heard of, each of which makes readings begin at once.")
        self._index_behind = gauge("chain_index_blocks_behind", "Blocks whose events are still to be read.")
        self._index_read_at = gauge("chain_index_read_at_seconds", "Unix time at which events were last read.")
        self._index_leads = gauge("chain_index_leads", "1 in the process that reads events, 0 in the others.")
        self._reorganisations = counter("chain_reorganisations", "Times that events were undone and read again.")
        redemptions = counter("chain_redemptions", "Redeemed tickets by what they turned out to be.", ["status"])
        self._redemptions = {status: redemptions.labels(status) for status in REDEMPTIONS}
        self._foreign = gauge("chain_foreign_redemptions", "Redeemed tickets that were not issued as they are.")

    def rpc_ended(self, endpoint: str, outcome: str, elapsed_s: float) -> None:
        """`endpoint` is a place in the configuration's list and `outcome` comes from a closed set."""
        self._rpc_requests.labels(endpoint, outcome).inc()
        self._rpc_seconds.child(endpoint).observe(elapsed_s)

    def rpc_waited(self, endpoint: str, wait_s: float) -> None:
        """For the budget of this endpoint."""
        self._rpc_waited.labels(endpoint).inc(wait_s)

    def rpc_disagreed(self) -> None:
        self._chain_disagreements.inc()

    def chain_polled(self, outcome: str) -> None:
        self._chain_polls[outcome].inc()

    def chain_read(self, *, round_: int, active_count: int) -> None:
        self._chain_round.set(round_)
        self._active_orchestrators.set(active_count)

    def feed_listens(self, *, listens: bool) -> None:
        self._feed_listens.set(listens)

    def feed_ended(self, endpoint: str, reason: str) -> None:
        """`endpoint` is a place in the configuration's list and `reason` comes from a closed set."""
        self._feed_endings.labels(endpoint, reason).inc()

    def feed_heard(self) -> None:
        self._feed_words.inc()

    def index_read(self, *, behind_count: int) -> None:
        self._index_behind.set(behind_count)
        self._index_read_at.set_to_current_time()

    def index_reorganised(self) -> None:
        self._reorganisations.inc()

    def index_leads(self, *, leads: bool) -> None:
        self._index_leads.set(leads)

    def redemptions_matched(self, status: str, count: int) -> None:
        self._redemptions[status].inc(count)

    def foreign_redemptions(self, count: int) -> None:
        self._foreign.set(count)

    def watch(self, network: str, age_s: Callable[[], float | None]) -> None:
        """`age_s` is asked at each scrape; None, before the first reading, is older than everything."""

        def age() -> float:
            known_s = age_s()
            return math.inf if known_s is None else known_s

        self._chain_age.watch(network, age)
