"""`python -m tests.bench`: run, print, and say what was reached. `--help` lists the options."""

from __future__ import annotations

import argparse
import asyncio
import base64
import json
import os
import platform
import signal
import sys
import sysconfig
import time
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import Any

from tests.bench import report
from tests.bench.accounts import Books, require_books
from tests.bench.failure import BenchFailed
from tests.bench.scenarios import Runner, Scenario, chosen
from tests.bench.stack import Stack, running_echo, running_stack
from tests.bench.usage import memory

PROFILE_TIMEOUT_S = 10


def options_of(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m tests.bench",
        description="Measures the service against the signer called directly, a plain proxy and a bare gRPC echo.",
    )
    parser.add_argument("--seconds", type=float, default=4, help="length of one measurement (default 4)")
    parser.add_argument("--rounds", type=int, default=3, help="rounds in which the scenarios alternate (default 3)")
    parser.add_argument("--callers", type=int, default=64, help="concurrent callers where many call (default 64)")
    parser.add_argument("--accounts", type=int, default=1000, help="accounts with credit (default 1000)")
    parser.add_argument(
        "--warm-up", type=float, default=1, help="seconds of each scenario before the rounds (default 1)"
    )
    parser.add_argument(
        "--only", action="append", default=[], metavar="NAME", help="only this scenario; may be repeated"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write everything measured to FILE")
    parser.add_argument(
        "--profile",
        metavar="NAME",
        nargs="?",
        const="accounts",
        help="afterwards sample the service's CPU by function in this scenario (default accounts)",
    )
    options = parser.parse_args(arguments)
    try:
        options.scenarios = chosen(options.only)
        chosen([options.profile] if options.profile is not None else [])
    except ValueError as error:
        parser.error(str(error))
    if options.seconds <= 0 or min(options.rounds, options.callers, options.accounts) < 1:
        parser.error("--seconds must be above 0, --rounds, --callers and --accounts at least 1")
    return options


def main() -> int:
    options = options_of(sys.argv[1:])
    began_s = time.monotonic()
    try:
        measured = measure(options)
    except BenchFailed as error:
        print(f"the benchmark failed: {error}", file=sys.stderr)
        return 1
    print(f"\n{time.monotonic() - began_s:.0f} s in all")
    if options.json is not None:
        options.json.write_text(json.dumps(measured, indent=2) + "\n", encoding="utf-8")
    return 0


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """Everything, printed on the way."""
    load_average = os.getloadavg()[0]
    say(f"{os.cpu_count()} cores, {interpreter()}, load average before: {load_average:.2f}")
    say(f"starting PostgreSQL, signer, service, plain proxy and listener, with {options.accounts:,} accounts …")
    with (
        running_stack(accounts_count=options.accounts, is_profiled=options.profile is not None) as stack,
        ExitStack() as echo,
    ):
        if stack.database["fsync"] != "on":
            raise BenchFailed("the database does not commit durably")
        runner = Runner(stack, callers=options.callers, seconds=options.seconds)
        warm_up(stack, runner, options, echo)
        rounds = run_rounds(runner, options)
        used = memory(stack.service.pid)
        profile = profiled(stack, runner, chosen([options.profile])[0]) if options.profile else None
        books = asyncio.run(require_books(stack.conninfo, answers=runner.payments))
        database = stack.database
    summary = report.summary_of(rounds)
    targets = report.targets_of(rounds, peak_bytes=used.peak_bytes, now_bytes=used.now_bytes)
    show(options, database, summary, targets, books)
    if profile is not None:
        say(report.profile_lines(profile, calls=profile["calls"]))
    return {
        "machine": {
            "cores": os.cpu_count(),
            "python": interpreter(),
            "system": platform.platform(),
            "load_average_before": load_average,
        },
        "database": database,
        "options": {name: value for name, value in vars(options).items() if name not in {"scenarios", "json"}},
        "summary": summary,
        "targets": [{**asdict(target), "verdict": target.verdict} for target in targets],
        "memory": used._asdict(),
        "ledger": books._asdict(),
        "rounds": rounds,
        "profile": profile,
    }


def interpreter() -> str:
    """A build without profile-guided optimization runs the same code a fifth slower, so it has to be said."""
    is_optimized = "--enable-optimizations" in (sysconfig.get_config_var("CONFIG_ARGS") or "")
    return f"Python {platform.python_version()}{'' if is_optimized else ' (built without --enable-optimizations)'}"


def warm_up(stack: Stack, runner: Runner, options: argparse.Namespace, echo: ExitStack) -> None:
    """Every scenario once. The echo server starts here, because it repeats an answer of the service."""
    say(f"warming up: each scenario for {options.warm_up:g} s …")
    sample: bytes | None = None
    for scenario in options.scenarios:
        if scenario.server == "echo":
            sample = sample or _grpc_answer(runner)
            echo.enter_context(running_echo(stack, sample))
        result = runner.warm_up(scenario, options.warm_up)
        if scenario.is_grpc:
            sample = base64.b64decode(result["sample"])


def _grpc_answer(runner: Runner) -> bytes:
    """An answer to repeat, where the service's own scenario is not part of the run."""
    return base64.b64decode(runner.warm_up(chosen(["grpc"])[0], 0)["sample"])


def run_rounds(runner: Runner, options: argparse.Namespace) -> list[dict[str, Any]]:
    rounds: list[dict[str, Any]] = []
    for number in range(1, options.rounds + 1):
        results: dict[str, Any] = {}
        for scenario in options.scenarios:
            results[scenario.name] = result = runner.measure(scenario)
            rate, p50_ms = result["calls_per_s"], result["p50_ms"]
            say(f"  round {number}: {scenario.name:11}{rate:>8,.0f} calls/s   p50 {p50_ms:.2f} ms")
        rounds.append(results)
    return rounds


def profiled(stack: Stack, runner: Runner, scenario: Scenario) -> dict[str, Any]:
    """One more measurement of a scenario, sampled."""
    say(f"profiling {scenario.name} …")
    stack.service.send_signal(signal.SIGUSR1)
    calls = runner.measure(scenario)["calls"]
    stack.service.send_signal(signal.SIGUSR2)
    give_up_at = time.monotonic() + PROFILE_TIMEOUT_S
    while not stack.profile_file.exists():
        if time.monotonic() > give_up_at:
            raise BenchFailed("the service wrote no profile")
        time.sleep(0.05)
    profile: dict[str, Any] = json.loads(stack.profile_file.read_text(encoding="utf-8"))
    return {**profile, "calls": calls}


def show(
    options: argparse.Namespace,
    database: dict[str, str],
    summary: dict[str, dict[str, Any]],
    targets: list[report.Target],
    books: Books,
) -> None:
    durability = f"PostgreSQL {database['server_version']}, durable commits ({database['wal_sync_method']})"
    say(
        f"""
Medians of {options.rounds} rounds of {options.seconds:g} s in which the scenarios alternate, each warmed up for
{options.warm_up:g} s. {durability}. Each call gets one ticket with real signatures.
The four columns after p99 are CPU in µs per call: of the server called, PostgreSQL, the upstream, and the load.
"others" is the share of the machine that went elsewhere: above 5 % the rates mean little.
"""
    )
    say(report.table(summary, callers=options.callers))
    if "direct" in summary:
        upstream = summary["direct"]
        rate, cpu_us = upstream["calls_per_s"], upstream["cpu_us"]["upstream"]
        say(f"\nThe upstream is one process: {rate:,.0f} calls/s at {cpu_us:.0f} µs each are its ceiling.")
    if ways := report.ways_lines(summary):
        say(f"\n{ways}")
    if stages := report.stage_table(summary):
        say(f"\nMean wall time of the service's stages in µs, waiting for the event loop included:\n\n{stages}")
    say(f"\nTargets:\n{report.target_lines(targets)}")
    say(
        f"\nLedger: {books.claims_verified} claims verified; {books.issuances:,} issuances with {books.tickets:,} "
        "tickets, one for each answer the callers got."
    )


def say(text: str) -> None:
    print(text, flush=True)


if __name__ == "__main__":
    sys.exit(main())
