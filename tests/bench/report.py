"""From rounds to what a reader wants to know: medians, ratios, targets."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

from tests.bench.scenarios import SCENARIOS, Scenario

Round = Mapping[str, Mapping[str, Any]]
MIB = 1024 * 1024


def summary_of(rounds: Sequence[Round]) -> dict[str, dict[str, Any]]:
    """Medians over the rounds, by scenario."""
    return {
        scenario.name: _medians([each[scenario.name] for each in rounds])
        for scenario in SCENARIOS
        if all(scenario.name in each for each in rounds)
    }


def _medians(results: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    first = results[0]
    medians: dict[str, Any] = {}
    for name, value in first.items():
        if isinstance(value, Mapping):
            medians[name] = _medians([result[name] for result in results])
        elif isinstance(value, int | float):
            medians[name] = median(result[name] for result in results)
    medians |= {"calls_per_s_min": min(r["calls_per_s"] for r in results)} if "calls_per_s" in first else {}
    medians |= {"calls_per_s_max": max(r["calls_per_s"] for r in results)} if "calls_per_s" in first else {}
    return medians


# --- targets ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Target:
    """A number to reach. `measured` is None where what it needs was not run."""

    sentence: str
    bound: float
    is_at_most: bool
    measured: float | None
    unit: str
    note: str = ""

    @property
    def verdict(self) -> str:
        if self.measured is None:
            return "not measured"
        return (
            "reached" if (self.measured <= self.bound) == self.is_at_most or self.measured == self.bound else "MISSED"
        )


def targets_of(rounds: Sequence[Round], *, peak_bytes: int, now_bytes: int) -> list[Target]:
    """The targets, judged."""

    def over_rounds(value: Callable[[Round], float], *needed: str) -> float | None:
        return median(value(each) for each in rounds) if all(n in each for each in rounds for n in needed) else None

    def ratio(above: str, below: str) -> float | None:
        return over_rounds(lambda each: each[above]["calls_per_s"] / each[below]["calls_per_s"], above, below)

    def webhook_share(each: Round) -> float:
        cost = costs_of_ways(each)
        return cost["webhook"] / (cost["proxy"] - cost["upstream call"])

    idle_ms = over_rounds(lambda each: each["idle"]["p50_ms"], "idle")
    busy_ms = over_rounds(lambda each: each["accounts"]["p50_ms"], "accounts")
    alone_ms = over_rounds(lambda each: each["accounts-1"]["p50_ms"], "accounts-1")
    alone = f", with one caller {alone_ms:.2f} ms" if alone_ms is not None else ""
    return [
        Target(
            "service CPU per POST /generate-live-payment",
            200, True, over_rounds(lambda each: each["accounts"]["cpu_us"]["service"], "accounts"), "µs",
        ),
        Target(
            "added p50 over the direct call, one caller",
            1, True,
            over_rounds(lambda now: now["accounts-1"]["p50_ms"] - now["direct-1"]["p50_ms"], "accounts-1", "direct-1"),
            "ms",
        ),
        Target("p99, all callers", 15, True, over_rounds(lambda each: each["accounts"]["p99_ms"], "accounts"), "ms"),
        Target("calls/s: one hot account / all accounts", 0.8, False, ratio("hot", "accounts"), "×"),
        Target("calls/s: service / plain proxy", 0.5, False, ratio("accounts", "proxy"), "×"),
        Target("calls/s: gRPC / bare grpc.aio echo", 0.5, False, ratio("grpc", "echo"), "×"),
        Target(
            "CPU: webhook / (proxy way less its upstream call)",
            1, True, over_rounds(webhook_share, *WAYS_NEED), "×",
        ),
        Target(
            "first call after 5 s idle, against p50 of a busy service",
            busy_ms or 0, True, idle_ms if busy_ms is not None else None, "ms",
            f"busy {busy_ms:.2f} ms{alone}" if busy_ms is not None else "",
        ),
        Target(
            "resident memory of the serving process, peak",
            250, True, peak_bytes / MIB, "MiB", f"{now_bytes / MIB:.0f} MiB at the end",
        ),
    ]  # fmt: skip


# --- text -------------------------------------------------------------------------------------------------------------


def table(summary: Mapping[str, Mapping[str, Any]], *, callers: int) -> str:
    """One line a scenario. CPU is µs per call in the process named by the column."""
    head = (
        f"{'':32}{'callers':>8}{'calls/s':>9}{'(min–max)':>14}{'p50 ms':>8}{'p99 ms':>8}"
        f"{'server':>9}{'postgres':>9}{'upstream':>9}{'load':>7}{'others':>8}"
    )
    lines = [head]
    lines += [_line(scenario, summary[scenario.name], callers) for scenario in SCENARIOS if scenario.name in summary]
    return "\n".join(lines)


def _line(scenario: Scenario, row: Mapping[str, Any], callers: int) -> str:
    cpu, n = row["cpu_us"], callers if scenario.is_busy else 1
    if scenario.pause_s:
        return f"{scenario.title:32}{n:>8}{'':>23}{row['p50_ms']:>8.2f}"
    spread = f"{row['calls_per_s_min']:,.0f}–{row['calls_per_s_max']:,.0f}"
    upstream = "" if scenario.server == "upstream" else f"{cpu['upstream']:.0f}"
    return (
        f"{scenario.title:32}{n:>8}{row['calls_per_s']:>9,.0f}{spread:>14}{row['p50_ms']:>8.2f}{row['p99_ms']:>8.2f}"
        f"{cpu[scenario.server]:>9.0f}{cpu['postgres']:>9.0f}{upstream:>9}{cpu['load']:>7.0f}"
        f"{row['others_percent']:>7.0f}%"
    )


#: Scenarios that the costs of the two ways in are computed from.
WAYS_NEED = ("proxy", "listener", "accounts", "webhook")


def costs_of_ways(each: Round) -> dict[str, float]:
    """CPU in µs per call, of service and PostgreSQL together; the upstream call is the service's half of it."""

    def cpu_us(name: str, *roles: str) -> float:
        return sum(float(each[name]["cpu_us"][role]) for role in roles)

    return {
        "proxy": cpu_us("accounts", "service", "postgres"),
        "upstream call": cpu_us("proxy", "proxy") - cpu_us("listener", "listener"),
        "webhook": cpu_us("webhook", "service", "postgres"),
    }


def ways_lines(summary: Mapping[str, Mapping[str, Any]]) -> str:
    """What a call costs by either way in. The upstream call is what the plain proxy costs above the plain listener."""
    if not all(name in summary for name in WAYS_NEED):
        return ""
    cost = costs_of_ways(summary)
    return (
        f"CPU of service and PostgreSQL together: {cost['webhook']:.0f} µs per call by webhook; {cost['proxy']:.0f} µs "
        f"as proxy, of which {cost['upstream call']:.0f} µs are its call to the upstream: "
        f"{cost['proxy'] - cost['upstream call']:.0f} µs without."
    )


def stage_table(summary: Mapping[str, Mapping[str, Any]]) -> str:
    """Mean wall time of the stages, as the service's own metrics have them."""
    names = [name for name in ("accounts", "hot", "grpc", "webhook", "accounts-1") if name in summary]
    if not names:
        return ""
    stages = list(summary[names[0]]["stage_us"])
    lines = [f"{'':14}" + "".join(f"{name:>12}" for name in names)]
    for stage in stages:
        values = "".join(f"{summary[name]['stage_us'].get(stage, 0):>12.0f}" for name in names)
        lines.append(f"{stage:14}{values}")
    lines.append(f"{'rows/commit':14}" + "".join(f"{summary[name].get('commit_rows', 0):>12.1f}" for name in names))
    return "\n".join(lines)


def target_lines(targets: Sequence[Target]) -> str:
    lines = []
    for target in targets:
        sign = "≤" if target.is_at_most else "≥"
        measured = f"{target.measured:.2f} {target.unit}" if target.measured is not None else "–"
        bound = f"{sign} {target.bound:.4g} {target.unit}"
        note = f"   ({target.note})" if target.note else ""
        lines.append(f"  {target.verdict:13}{target.sentence:58}{bound:>14}  measured {measured}{note}")
    return "\n".join(lines)


def profile_lines(profile: Mapping[str, Any], *, calls: int, count: int = 30) -> str:
    """Own time by function, in µs per call; beside it the time including what it called."""
    own, inclusive = profile["own_ns"], profile["inclusive_ns"]
    main_us = sum(own.values()) / 1000 / calls
    lines = [
        f"profile of {calls:,} calls: {profile['process_ns'] / 1000 / calls:.0f} µs CPU per call, of which the main "
        f"thread {main_us:.0f} µs",
        f"{'own µs':>8}{'incl. µs':>10}",
    ]
    for name, own_ns in sorted(own.items(), key=lambda item: -item[1])[:count]:
        lines.append(f"{own_ns / 1000 / calls:>8.1f}{inclusive[name] / 1000 / calls:>10.1f}  {name}")
    return "\n".join(lines)
