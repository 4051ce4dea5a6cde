"""The service under a sampling profiler, which slows it by a few per cent and does not distort it.

    python -m tests.bench.profiled FILE serve …     SIGUSR1 begins to sample, SIGUSR2 writes FILE

A timer of CPU time interrupts the process; each sample is weighed with the CPU time the main thread has spent since the
one before, so that the time of other threads (gRPC's, for one) is not mistaken for ours. Time inside C code belongs to
the Python function that called it or, because Python looks for signals when a function begins, to the next one called.
"""

from __future__ import annotations

import json
import signal
import sys
import time
from collections import Counter
from pathlib import Path
from types import FrameType

from clearinghouse.cli import main

INTERVAL_S = 0.001
ROOT = Path(__file__).parents[2]


class Sampler:
    """Own and inclusive CPU time of the main thread by function."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._own_ns: Counter[str] = Counter()
        self._inclusive_ns: Counter[str] = Counter()
        self._last_ns = self._process_began_ns = 0

    def install(self) -> None:
        signal.signal(signal.SIGPROF, self._sample)
        signal.signal(signal.SIGUSR1, self._begin)
        signal.signal(signal.SIGUSR2, self._end)

    def _begin(self, _number: int, _frame: FrameType | None) -> None:
        self._own_ns.clear()
        self._inclusive_ns.clear()
        self._process_began_ns, self._last_ns = time.process_time_ns(), time.thread_time_ns()
        signal.setitimer(signal.ITIMER_PROF, INTERVAL_S, INTERVAL_S)

    def _sample(self, _number: int, frame: FrameType | None) -> None:
        now_ns = time.thread_time_ns()
        spent_ns, self._last_ns = now_ns - self._last_ns, now_ns
        if frame is not None:
            self._own_ns[_name(frame)] += spent_ns
        seen = set()
        while frame is not None:
            seen.add(_name(frame))
            frame = frame.f_back
        for name in seen:
            self._inclusive_ns[name] += spent_ns

    def _end(self, _number: int, _frame: FrameType | None) -> None:
        signal.setitimer(signal.ITIMER_PROF, 0)
        process_ns = time.process_time_ns() - self._process_began_ns
        report = {"process_ns": process_ns, "own_ns": self._own_ns, "inclusive_ns": self._inclusive_ns}
        unfinished = self._file.with_suffix(".part")
        unfinished.write_text(json.dumps(report), encoding="utf-8")
        unfinished.replace(self._file)


def _name(frame: FrameType) -> str:
    code = frame.f_code
    path = Path(code.co_filename)
    place = path.relative_to(ROOT).as_posix() if path.is_relative_to(ROOT) else "/".join(path.parts[-2:])
    return f"{place}:{code.co_firstlineno} {code.co_qualname}"


if __name__ == "__main__":
    Sampler(Path(sys.argv.pop(1))).install()
    main()
