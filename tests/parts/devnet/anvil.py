"""The node: installed from the lock beside this file, started and ended as a process of our own."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from queue import Empty, Queue
from threading import Thread

from tests.parts.npm import NotInstalled, installed

HERE = Path(__file__).parent
PROGRAM = "@foundry-rs/anvil-linux-amd64/bin/anvil"
START_TIMEOUT_S = 20


class AnvilMissing(Exception):
    """There is no node to test with on this machine; the text says why."""


@dataclass(frozen=True)
class Anvil:
    """A running node."""

    url: str
    process: subprocess.Popen[str]

    def halt(self) -> None:
        """Dies without a word, as a machine does."""
        self.process.kill()
        self.process.wait()


def anvil_program() -> Path:
    """The program, installed by npm where it is missing or older than the lock. Raises AnvilMissing."""
    try:
        return installed(HERE, PROGRAM)
    except NotInstalled as error:
        raise AnvilMissing(str(error)) from error


@contextmanager
def running_anvil(folder: Path, *, chain_id: int, port: int = 0) -> Iterator[Anvil]:
    """A node with two funded accounts and a block every second. What it keeps on disk is below `folder`.

    A bounded history, because old states would otherwise be written below the home directory for ever.
    """
    options = ["--host", "127.0.0.1", "--port", str(port), "--chain-id", str(chain_id), "--accounts", "2"]
    options += ["--block-time", "1", "--prune-history", "256", "--cache-path", str(folder)]
    process = subprocess.Popen(
        [str(anvil_program()), *options], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    try:
        yield Anvil(_url_when_listening(process), process)
    finally:
        process.kill()
        process.wait()
        assert process.stdout is not None
        process.stdout.close()


def _url_when_listening(process: subprocess.Popen[str]) -> str:
    """Reads on afterwards too: a node whose output nobody reads stops when the pipe is full."""
    assert process.stdout is not None
    lines: Queue[str] = Queue()

    def read_on() -> None:
        assert process.stdout is not None
        for line in process.stdout:
            lines.put(line)

    Thread(target=read_on, name="anvil-output", daemon=True).start()
    said = ""
    try:
        while (found := re.search(r"Listening on (127\.0\.0\.1:\d+)", said)) is None:
            said += lines.get(timeout=START_TIMEOUT_S)
    except Empty:
        raise RuntimeError(f"anvil does not listen; it said:\n{said}") from None
    return f"http://{found[1]}"
