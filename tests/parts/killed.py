"""Workers at invoices and top-ups that are killed at a step, or at any moment, beside a local Stripe that is not.

with killable(tmp_path) as workers:
    async with invoiced(database, stripe_url=workers.stripe_url) as house:
        ended = workers.run(house, "invoices", gateway=acme, dies_at=7)
        assert ended.code == KILLED
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final
from uuid import UUID

from tests.parts.invoiced import Invoiced
from tests.parts.program import ROOT

KILLED: Final = -signal.SIGKILL
_SERVE_STRIPE: Final = (sys.executable, "-m", "settlement.cli", "stripe-local", "--port", "0")
_FORK: Final = (sys.executable, "-m", "tests.parts.killed_process")


@dataclass(frozen=True)
class Ended:
    """How a worker did. `steps` are those that it came to; of one that was killed, the last is where."""

    code: int
    steps: list[str]


@dataclass
class Workers:
    """`stripe_url` is where the local Stripe listens."""

    stripe_url: str
    folder: Path
    _forks: subprocess.Popen[str]
    _begun: int = field(default=0)

    def run(self, house: Invoiced, *what: str, gateway: UUID | None = None, dies_at: int | None = None) -> Ended:
        """One, until it ends or kills itself at a step. What: `invoices`, `payments`, `sweep`."""
        self._begun += 1
        steps, whose = self.folder / f"steps-{self._begun}", str(gateway) if gateway else None
        pid = self._begin(house, what, gateway=whose, dies_at=dies_at, steps_file=str(steps))
        return Ended(self.wait(pid), steps.read_text(encoding="utf-8").splitlines())

    def begin_everything(self, house: Invoiced, *, writes_per_s: int) -> int:
        """One that goes on until it is killed. Its pid."""
        return self._begin(house, ("everything",), writes_per_s=writes_per_s)

    def kill(self, pid: int) -> None:
        """Returns when it is gone."""
        os.kill(pid, signal.SIGKILL)
        assert self.wait(pid) == KILLED, self.log

    def wait(self, pid: int) -> int:
        return self._asked({"wait": pid})

    @property
    def log(self) -> str:
        """What they all have written."""
        return (self.folder / "workers.log").read_text(encoding="utf-8")

    def _begin(self, house: Invoiced, what: tuple[str, ...], **how: Any) -> int:
        return self._asked({"begin": {"conninfo": house.conninfo, "base_url": self.stripe_url, "what": what, **how}})

    def _asked(self, request: dict[str, Any]) -> int:
        assert self._forks.stdin is not None
        assert self._forks.stdout is not None
        self._forks.stdin.write(f"{json.dumps(request)}\n")
        self._forks.stdin.flush()
        answer = self._forks.stdout.readline()
        assert answer, f"it has ended: {self.log}"
        return int(answer)


@contextmanager
def killable(folder: Path) -> Iterator[Workers]:
    """Stripe, and who begins workers; what is left of them is killed at the end of the block."""
    with (
        (folder / "workers.log").open("wb") as log,
        _ended(subprocess.Popen(_SERVE_STRIPE, cwd=ROOT, stdout=subprocess.PIPE, stderr=log, text=True)) as stripe,
        _ended(
            subprocess.Popen(
                _FORK, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True, bufsize=1
            )
        ) as forks,
    ):
        assert stripe.stdout is not None
        said = stripe.stdout.readline() + stripe.stdout.readline()
        address = re.search(r"http://\S+", said)
        assert address is not None, said
        yield Workers(address[0], folder, forks)


@contextmanager
def _ended(process: subprocess.Popen[str]) -> Iterator[subprocess.Popen[str]]:
    """Where it reads, its input ends first, so that it can kill those that it began."""
    try:
        yield process
    finally:
        if process.stdin is not None:
            process.stdin.close()
            with suppress(subprocess.TimeoutExpired):
                process.wait(10)
        process.kill()
        process.wait()
        if process.stdout is not None:
            process.stdout.close()
