"""What both load generators share: jobs on standard input, results on standard output, and the statistics.

A job names a fleet of callers and how long it shall call. Its first job also says where to and with which sessions; the
sessions go on in the next job, as those of real streams would.
"""

from __future__ import annotations

import asyncio
import json
import sys
from array import array
from collections.abc import Awaitable, Callable
from typing import Any

import uvloop

Job = dict[str, Any]
Result = dict[str, Any]


class WrongAnswer(Exception):
    """An answer that is not the one expected: the run is worth nothing."""


def answer_jobs(run: Callable[[Job], Awaitable[Result]]) -> None:
    """Until the input ends. A failed job is reported, and the process goes on."""
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        for line in sys.stdin:
            try:
                result = runner.run(_awaited(run, json.loads(line)))
            except (WrongAnswer, OSError, TimeoutError) as error:
                result = {"failed": f"{type(error).__name__}: {error}"}
            print(json.dumps(result), flush=True)


async def _awaited(run: Callable[[Job], Awaitable[Result]], job: Job) -> Result:
    return await run(job)


def statistics(latencies_ns: array[int], elapsed_ns: int) -> Result:
    """Counted from the first request to the last answer."""
    ordered = sorted(latencies_ns)
    return {
        "calls": len(ordered),
        "elapsed_s": elapsed_ns / 1e9,
        "calls_per_s": len(ordered) * 1e9 / elapsed_ns,
        "p50_ms": percentile(ordered, 50) / 1e6,
        "p99_ms": percentile(ordered, 99) / 1e6,
        "max_ms": ordered[-1] / 1e6,
    }


def percentile(ordered: list[int], percent: int) -> int:
    """The smallest value that at least `percent` of a hundred values do not exceed (nearest rank)."""
    return ordered[max(0, -(-len(ordered) * percent // 100) - 1)]
