"""A real Alertmanager, where one is installed (Debian: prometheus-alertmanager)."""

from __future__ import annotations

import json
import shutil
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.parts.ports import free_port

START_TIMEOUT_S = 30


def alertmanager_program() -> str | None:
    return shutil.which("prometheus-alertmanager") or shutil.which("alertmanager")


@dataclass(frozen=True)
class Alertmanager:
    """One that runs; `url` is where it is told, and where people look."""

    url: str

    def alerts(self) -> list[dict[str, Any]]:
        """Those that it takes to be firing."""
        with urllib.request.urlopen(f"{self.url}/api/v2/alerts", timeout=10) as answer:
            found: list[dict[str, Any]] = json.loads(answer.read())
        return found


@contextmanager
def running_alertmanager(program: str, folder: Path) -> Iterator[Alertmanager]:
    """It tells nobody."""
    config = folder / "alertmanager.yml"
    config.write_text("route: {receiver: nobody}\nreceivers: [{name: nobody}]\n", encoding="utf-8")
    port = free_port()
    command = [
        program, f"--config.file={config}", f"--storage.path={folder / 'alertmanager'}",
        f"--web.listen-address=127.0.0.1:{port}", "--cluster.listen-address=",
    ]  # fmt: skip
    with subprocess.Popen(command, stderr=subprocess.DEVNULL) as process:
        try:
            running = Alertmanager(f"http://127.0.0.1:{port}")
            _wait_until_up(running)
            yield running
        finally:
            process.terminate()


def _wait_until_up(running: Alertmanager) -> None:
    give_up_at_s = time.monotonic() + START_TIMEOUT_S
    while True:
        try:
            running.alerts()
        except OSError:
            assert time.monotonic() < give_up_at_s, "the Alertmanager does not start"
            time.sleep(0.1)
        else:
            return
