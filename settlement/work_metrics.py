"""What Prometheus is told of the jobs. docs/monitoring.md says what each metric means and which value wakes someone.

Every process counts what it ran itself. How the jobs stand is in the database, and who leads tells it for all: a
process that stands by has nothing to say of it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, disable_created_metrics
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from clearinghouse.hot_metrics import NAMESPACE
from clearinghouse.job_runs import Outcome, Run, Standing

#: From a look into an empty table to a check of large books.
_BUCKETS_S: Final = (0.01, 0.05, 0.1, 0.5, 1, 5, 15, 60, 300, 900, 3600, 14_400)


class WorkMetrics:
    """All metrics of the schedule, in one process. A worker.LeadObserver."""

    def __init__(self, registry: CollectorRegistry, *, jobs: Sequence[str]) -> None:
        disable_created_metrics()  # type: ignore[no-untyped-call] # as in clearinghouse/metrics.py
        self._leads = Gauge(
            "work_leads", "1 where this process leads, 0 where it stands by.", namespace=NAMESPACE, registry=registry
        )
        runs = Counter(
            "job_runs", "Runs that ended in this process.", ["job", "outcome"], namespace=NAMESPACE, registry=registry
        )
        self._runs = {(job, outcome): runs.labels(job, outcome) for job in jobs for outcome in Outcome}
        seconds = Histogram(
            "job_run_seconds", "Time of one run.", ["job"], namespace=NAMESPACE, registry=registry, buckets=_BUCKETS_S
        )
        self._seconds = {job: seconds.labels(job) for job in jobs}
        self._standings = _Standings(registry)
        self._is_leading = False

    def leads(self) -> None:
        self._leads.set(1)
        self._is_leading = True

    def stands_by(self) -> None:
        self._leads.set(0)
        self._is_leading = False
        self._standings.seen = None

    def ran(self, run: Run) -> None:
        assert run.ended_at is not None
        assert run.outcome is not None
        self._runs[run.job, run.outcome].inc()
        self._seconds[run.job].observe((run.ended_at - run.started_at).total_seconds())

    def saw(self, standings: Sequence[Standing], now: datetime) -> None:
        if self._is_leading:
            self._standings.seen = (standings, now)


class _Standings(Collector):
    """As they were last seen; nothing where this process does not lead."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.seen: tuple[Sequence[Standing], datetime] | None = None
        registry.register(self)

    def collect(self) -> Iterator[GaugeMetricFamily]:
        late = _gauge("job_late", "1 where a run should have begun or ended by now.")
        failures = _gauge("job_failures", "Failed runs since the last that went well.")
        age = _gauge("job_ok_age_seconds", "Time since the last run that went well began.")
        if self.seen is not None:
            standings, now = self.seen
            for each in standings:
                late.add_metric([each.name], int(each.late(now) is not None))
                failures.add_metric([each.name], each.failures_count)
                if each.last_ok is not None:
                    age.add_metric([each.name], (now - each.last_ok.started_at).total_seconds())
        yield from (late, failures, age)


def _gauge(name: str, text: str) -> GaugeMetricFamily:
    return GaugeMetricFamily(f"{NAMESPACE}_{name}", text, labels=["job"])
