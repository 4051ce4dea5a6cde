"""Child processes: started, waited for until they say that they listen, and ended."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from tests.bench.failure import BenchFailed

ROOT = Path(__file__).parents[2]
START_TIMEOUT_S = 60
STOP_TIMEOUT_S = 20
LOG_TAIL_CHARS = 3000


def clean_environment(extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """Ours without settings of a clearinghouse that somebody else runs here."""
    ours = {name: value for name, value in os.environ.items() if not name.startswith("CLEARINGHOUSE_")}
    return {**ours, "PYTHONPATH": os.pathsep.join(filter(None, [str(ROOT), ours.get("PYTHONPATH")])), **(extra or {})}


class Server:
    """A Python process that writes to standard error when it listens."""

    def __init__(
        self, name: str, arguments: Sequence[str], *, folder: Path, environment: Mapping[str, str] | None = None
    ) -> None:
        self.name = name
        self._log = folder / f"{name}.log"
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                [sys.executable, *arguments],
                cwd=folder,
                env=clean_environment(environment),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,  # Ctrl-C is for us, who then end the others in their order
            )

    @property
    def pid(self) -> int:
        return self._process.pid

    def wait_for(self, pattern: str) -> re.Match[str]:
        """The first match of `pattern` in what the process has written. BenchFailed if it ends first, or takes long."""
        give_up_at = time.monotonic() + START_TIMEOUT_S
        while True:
            ended = self._process.poll() is not None
            if match := re.search(pattern, self._text()):
                return match
            if ended or time.monotonic() > give_up_at:
                what = f"ended with {self._process.returncode}" if ended else "did not start in time"
                raise BenchFailed(f"{self.name} {what}; it wrote:\n{self._text()[-LOG_TAIL_CHARS:]}")
            time.sleep(0.02)

    def require_running(self) -> None:
        if self._process.poll() is not None:
            raise BenchFailed(
                f"{self.name} ended with {self._process.returncode}; it wrote:\n{self._text()[-LOG_TAIL_CHARS:]}"
            )

    def send_signal(self, number: signal.Signals) -> None:
        self._process.send_signal(number)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Ends the process in its own way; BenchFailed where that is not a clean end, unless something else failed."""
        self._process.terminate()
        try:
            code = self._process.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            code = self._process.wait()
        if error is None and code != 0:
            raise BenchFailed(f"{self.name} ended with {code}; it wrote:\n{self._text()[-LOG_TAIL_CHARS:]}")

    def _text(self) -> str:
        return self._log.read_text(encoding="utf-8", errors="replace")


class LoadProcess:
    """A load generator (`tests.bench.load` or `load_grpc`): one job in, one result out, a line of JSON each."""

    def __init__(self, module: str, *, folder: Path) -> None:
        self._log = folder / f"{module}.log"
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", module],
                cwd=folder,
                env=clean_environment(),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                start_new_session=True,
            )

    @property
    def pid(self) -> int:
        return self._process.pid

    def do(self, job: Mapping[str, Any]) -> dict[str, Any]:
        """Sends a job and waits for its result. BenchFailed where there is none."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(job) + "\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        result: dict[str, Any] = json.loads(line) if line else {"failed": self._text()}
        if "failed" in result:
            raise BenchFailed(f"the load on {job.get('fleet')} failed: {result['failed']}")
        return result

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """It ends with its input. An interrupted job does not end by itself."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        if error is not None:
            self._process.kill()
        self._process.stdin.close()
        self._process.wait(STOP_TIMEOUT_S)
        self._process.stdout.close()

    def _text(self) -> str:
        return self._log.read_text(encoding="utf-8", errors="replace")[-LOG_TAIL_CHARS:]
