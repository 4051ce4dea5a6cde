"""What Prometheus is told. docs/monitoring.md says what each metric means and which value wakes someone.

One `Metrics` is made where everything is wired and passed on. Labels come from closed sets, never from a caller: each
label value is a time series for ever. Every child is made at the start, so that a first event is seen as a step from 0.
What a call touches is kept by the kinds of hot_metrics.py: a call makes two dozen observations.
Amounts of money are not here: a sample is a float. They are in the issuance table, exactly.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from enum import StrEnum
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Info, disable_created_metrics

from clearinghouse.approved_states import Kind
from clearinghouse.chain_metrics import ChainMetrics
from clearinghouse.connections import Connections
from clearinghouse.coverage.metrics import CoverageMetrics
from clearinghouse.errors import Refusal
from clearinghouse.hot_metrics import (
    LATENCY_BUCKETS_S,
    NAMESPACE,
    HotCounter,
    HotCounters,
    HotHistogram,
    HotHistograms,
)
from clearinghouse.policy import Rule
from clearinghouse.port_metrics import PortMetrics
from clearinghouse.price_metrics import PriceMetrics
from clearinghouse.request_rates import RATES
from clearinghouse.shares import Shares
from clearinghouse.signer_events.metrics import SignerEventMetrics
from clearinghouse.usage import Limit

BATCH_BUCKETS_ROWS: Final = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512)
#: Stands for a label value outside its set: it shows that this file needs one more.
OTHER: Final = "other"


class Route(StrEnum):
    """What was asked for, and over which protocol."""

    GENERATE_LIVE_PAYMENT = "generate_live_payment"
    SIGN_ORCHESTRATOR_INFO = "sign_orchestrator_info"
    DISCOVER_ORCHESTRATORS = "discover_orchestrators"
    SIGN_TICKET = "sign_ticket"
    WEBHOOK = "webhook"
    STRIPE_WEBHOOK = "stripe_webhook"
    MANAGEMENT = "management"
    GRPC_SIGN_TICKET = "grpc_sign_ticket"
    GRPC_SIGN_TICKETS = "grpc_sign_tickets"
    GRPC_SIGN_ORCHESTRATOR_INFO = "grpc_sign_orchestrator_info"
    GRPC_DISCOVER_ORCHESTRATORS = "grpc_discover_orchestrators"
    GRPC_GET_BALANCE = "grpc_get_balance"
    GRPC_LIST_ISSUANCES = "grpc_list_issuances"


class Stage(StrEnum):
    """Parts of signing a ticket, in their order; `total` is all of them, `overhead` is all but the signer's."""

    AUTHENTICATE = "authenticate"
    DECODE = "decode"
    LOOKUP = "lookup"
    GATES = "gates"
    QUOTE = "quote"
    CROSSCHECK = "crosscheck"
    SIGN = "sign"
    VERIFY = "verify"
    COMMIT = "commit"
    OVERHEAD = "overhead"
    TOTAL = "total"


class CrossCheckOutcome(StrEnum):
    """What came of asking an orchestrator about its offer (orchestrators.py)."""

    AGREED = "agreed"
    DIFFERED = "differed"
    #: No usable answer: unreachable, too late, or without an offer.
    UNANSWERED = "unanswered"
    #: Not the URL of an https server: nobody is asked.
    URL_REFUSED = "url_refused"
    #: The name leads into a private network, and nobody is asked. A caller is told the same as of UNANSWERED: what our
    #: name servers know of our own network is not for strangers.
    HOST_REFUSED = "host_refused"


#: Statuses a remote signer can give (remote-signer protocol, section 1).
SIGNER_STATUSES: Final = (200, 400, 403, 429, 480, 481, 482, 500, 503)
STANDINGS: Final = ("unverified", "healthy", "ejected", "wrong_key")


class Metrics:
    """All metrics of one process. Not for several threads: the event loop is the one caller of the hot ones."""

    def __init__(self, registry: CollectorRegistry, *, version: str) -> None:
        self.registry = registry
        disable_created_metrics()  # type: ignore[no-untyped-call] # a time of creation beside each counter would double a scrape

        def counter(name: str, text: str, labels: Iterable[str] = ()) -> Counter:
            return Counter(name, text, labels, namespace=NAMESPACE, registry=registry)

        def gauge(name: str, text: str, labels: Iterable[str] = ()) -> Gauge:
            return Gauge(name, text, labels, namespace=NAMESPACE, registry=registry)

        def hot_counters(name: str, text: str, labels: Sequence[str] = ()) -> HotCounters:
            counters = HotCounters(name, text, labels)
            registry.register(counters)
            return counters

        def hot_histograms(
            name: str, text: str, labels: Sequence[str] = (), *, bounds: tuple[float, ...] = LATENCY_BUCKETS_S
        ) -> HotHistograms:
            histograms = HotHistograms(name, text, labels, bounds)
            registry.register(histograms)
            return histograms

        answers = hot_counters("answers", "Calls answered with success.", ["route"])
        self._answers = {route: answers.child(route) for route in (*Route, OTHER)}
        refusals = counter("refusals", "Calls refused, by code; internal_error is a bug.", ["route", "code"])
        codes = (*refusal_codes(), "internal_error", OTHER)
        self._refusals = {(route, code): refusals.labels(route, code) for route in (*Route, OTHER) for code in codes}
        rules = hot_counters("rule_refusals", "Calls refused by a rule of the policy.", ["rule"])
        self._rules: dict[int | str | None, HotCounter] = {
            str(rule): rules.child(str(rule)) for rule in (*Rule, *Limit, *RATES)
        }
        latency = hot_histograms("stage_seconds", "Time a stage of signing took.", ["stage"])
        self._stages = {stage.value: latency.child(stage.value) for stage in Stage}
        #: Signing calls being worked on.
        self.in_flight_count = 0
        gauge("calls_in_flight", "Signing calls being worked on.").set_function(lambda: self.in_flight_count)
        self._replays = counter("replays", "Calls answered from the record, without a second charge.")
        self._tickets = hot_counters("tickets", "Tickets released, each paid for.").child()
        approvals = hot_counters("webhook_approvals", "Payments approved at the webhook, by what they were.", ["kind"])
        self._approvals = {kind: approvals.child(kind) for kind in Kind}

        self._commit_rows = hot_histograms("commit_rows", "Calls in one commit.", bounds=BATCH_BUCKETS_ROWS).child()
        self._commit_seconds = hot_histograms("commit_seconds", "Time of one commit.").child()
        self._commit_retries = counter("commit_retries", "Commits sent again: outcome unknown, or rolled back.")

        signer_answers = hot_counters("signer_answers", "Complete answers of the signer.", ["status"])
        self._signer_answers = {status: signer_answers.child(str(status)) for status in SIGNER_STATUSES}
        self._other_signer_answers = signer_answers.child(OTHER)
        self._signer_attempts = hot_counters(
            "signer_attempts", "Attempts at one member of the signer pool.", ["member", "outcome"]
        )
        self._signer_attempt_seconds = hot_histograms("signer_attempt_seconds", "Time of one attempt.", ["member"])
        self._signer_standing = gauge(
            "signer_member_standing", "1 for what a member of the pool is believed to be.", ["member", "standing"]
        )

        crosschecks = counter("crosschecks", "New sessions whose orchestrator was to confirm its offer.", ["outcome"])
        self._crosschecks = {outcome: crosschecks.labels(outcome) for outcome in CrossCheckOutcome}
        self.signer_events = SignerEventMetrics(registry)
        self._low_fees = counter("low_fees", "Gateways noted for fees far below the expected value of their tickets.")
        self.chain = ChainMetrics(registry)
        self._database_restarts = counter("embedded_database_restarts", "Restarts of the embedded PostgreSQL.")
        self.prices = PriceMetrics(registry)
        self.coverage = CoverageMetrics(registry)
        self._ports = PortMetrics(registry)
        Info("build", "What is running.", namespace=NAMESPACE, registry=registry).info({"version": version})

    # --- calls ---

    def now_s(self) -> float:
        """The clock of all latencies: time.perf_counter()."""
        return time.perf_counter()

    def stages(self, received_at_s: float) -> Stages:
        """Follows one signing call that arrived at `received_at_s` of `now_s`."""
        return Stages(self._stages, received_at_s)

    def answered(self, route: str) -> None:
        (self._answers.get(route) or self._answers[OTHER]).value += 1

    def refused(self, route: str, code: str, *, rule: int | str | None = None) -> None:
        """`rule` is the refusal's fact of that name, where it has one."""
        if (by_rule := self._rules.get(rule)) is not None:
            by_rule.value += 1
        child = self._refusals.get((route, code))
        if child is None:
            known_route = route if route in self._answers else OTHER
            child = self._refusals.get((known_route, code)) or self._refusals[known_route, OTHER]
        child.inc()

    def released(self, *, num_tickets: int) -> None:
        self._tickets.value += num_tickets

    def approved(self, kind: Kind, *, num_tickets: int) -> None:
        self._approvals[kind].value += 1
        self.released(num_tickets=num_tickets)

    def replayed(self) -> None:
        self._replays.inc()

    def cross_checked(self, outcome: CrossCheckOutcome) -> None:
        self._crosschecks[outcome].inc()

    # --- commits ---

    def commit(self, *, rows: int, elapsed_s: float) -> None:
        self._commit_rows.observe(rows)
        self._commit_seconds.observe(elapsed_s)

    def commit_retried(self) -> None:
        self._commit_retries.inc()

    # --- signers; the last two make this a signers.pool.PoolObserver ---

    def signer_answered(self, status: int) -> None:
        (self._signer_answers.get(status) or self._other_signer_answers).value += 1

    def attempt_ended(self, member: str, route: str, outcome: str, elapsed_s: float) -> None:
        """`member` is named by the configuration and `outcome` comes from the pool's closed set."""
        self._signer_attempts.child(member, outcome).value += 1
        self._signer_attempt_seconds.child(member).observe(elapsed_s)

    def standing_changed(self, member: str, standing: str) -> None:
        for known in STANDINGS:
            self._signer_standing.labels(member, known).set(int(known == standing))

    # --- the rest ---

    def low_fees_noted(self) -> None:
        self._low_fees.inc()

    def embedded_database_restarted(self) -> None:
        self._database_restarts.inc()

    def watch_connections(self, connections: Connections) -> None:
        """Those of the HTTP port, read at each scrape."""
        self._ports.connections = connections

    def watch_grpc(self, connections: Connections, calls: Shares) -> None:
        """Those of the gRPC port, read at each scrape."""
        self._ports.grpc_connections = connections
        self._ports.grpc_calls = calls


class Stages:
    """The stages of one call, each measured from the end of the one before."""

    __slots__ = ("_children", "_last_s", "_sign_s", "_started_s")

    def __init__(self, children: dict[str, HotHistogram], started_s: float) -> None:
        self._children = children
        self._started_s = self._last_s = started_s
        self._sign_s = 0.0

    def done(self, stage: str) -> float:
        """The stage ends now: how long it took, in seconds. KeyError for a stage that `Stage` does not have."""
        now_s = time.perf_counter()
        elapsed_s = now_s - self._last_s
        self._last_s = now_s
        self._children[stage].observe(elapsed_s)
        return elapsed_s

    def signed(self) -> None:
        """The stage "sign" ends now. It is the signer's time and not ours."""
        self._sign_s = self.done("sign")

    def overhead_s(self) -> float:
        """The call ends now: records its total, and gives the part of it that was not the signer's."""
        total_s = time.perf_counter() - self._started_s
        overhead_s = total_s - self._sign_s
        self._children["total"].observe(total_s)
        self._children["overhead"].observe(overhead_s)
        return overhead_s


def refusal_codes() -> tuple[str, ...]:
    """The codes of all refusals that have been imported. Commands have some of their own, which no call ever gets."""
    codes: set[str] = set()
    waiting: list[type[Refusal]] = Refusal.__subclasses__()
    while waiting:
        refusal = waiting.pop()
        if "cli" not in refusal.__module__.split("."):
            codes.add(refusal.code)
        waiting += refusal.__subclasses__()
    return tuple(sorted(codes))
