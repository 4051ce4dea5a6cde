"""The real program, as a user runs it: processes of their own that are watched, and never left behind.

    with new_home() as home:
        service = home.dev()                              # `clearinghouse dev … --json`, and its one line of JSON
        balance = home.json("balance", "demo")            # any other command, on the same data directory
        service.interrupt()                               # Ctrl-C
        assert service.wait() == 0

When the block ends, every program that was started and the database server are killed, whatever happened in it.
"""

from __future__ import annotations

import itertools
import json
import os
import re
import signal
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from chain.signatures import keccak
from clearinghouse.database import postmaster
from clearinghouse.database.embedded import EmbeddedPostgres
from tests.parts import processes

#: Generous: a start is two seconds of work on a quiet machine, and many times that on a busy one.
PATIENCE_S = 120.0
_POLL_INTERVAL_S = 0.02
_TAIL_CHARS = 4000
ROOT = Path(__file__).parents[2]

ONLY_LINUX = pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")


def wait_until(is_so: Callable[[], bool], what: str, *, timeout_s: float = PATIENCE_S) -> None:
    """Polls, so that nobody guesses how long something takes. AssertionError when it does not come true."""
    give_up_at_s = time.monotonic() + timeout_s
    while not is_so():
        assert time.monotonic() < give_up_at_s, f"waited {timeout_s:.0f} s in vain for: {what}"
        time.sleep(_POLL_INTERVAL_S)


#: Tickets are created in a round that the service knows: the one that the test orchestrator sees.
ROUND_OF_THE_ORCHESTRATOR = {
    "CLEARINGHOUSE_ESCROW__LAST_INITIALIZED_ROUND_BLOCK_HASH": f"0x{keccak(b'round 3500').hex()}"
}


def command(*arguments: str | Path | int) -> list[str]:
    """The console script beside this interpreter, with arguments."""
    return [str(Path(sysconfig.get_path("scripts")) / "clearinghouse"), *map(str, arguments)]


def module_command(module: str, *arguments: str | Path | int) -> list[str]:
    """One of the tests' own programs. It runs elsewhere, so its environment needs PYTHONPATH = ROOT."""
    return [sys.executable, "-m", module, *map(str, arguments)]


def clean_environment(settings: Mapping[str, str] | None = None) -> dict[str, str]:
    """Ours, without what would steer a clearinghouse or a PostgreSQL client that somebody else runs here."""
    ours = {name: value for name, value in os.environ.items() if not name.startswith(("CLEARINGHOUSE_", "PG"))}
    return {**ours, **ROUND_OF_THE_ORCHESTRATOR, **(settings or {})}


@dataclass(frozen=True)
class Done:
    """A command that has ended."""

    arguments: tuple[str, ...]
    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        assert self.code == 0, self
        return json.loads(self.out)


def run(*arguments: str | Path | int, folder: Path, environment: Mapping[str, str] | None = None) -> Done:
    """One command, to its end."""
    done = subprocess.run(
        command(*arguments), cwd=folder, env=clean_environment(environment), stdin=subprocess.DEVNULL,
        capture_output=True, text=True, timeout=PATIENCE_S, check=False, start_new_session=True,
    )  # fmt: skip
    return Done(tuple(map(str, arguments)), done.returncode, done.stdout, done.stderr)


class Program:
    """A program that runs until told to stop, in a session of its own; both outputs go to files, so it never waits.

    `module` is one of the tests' own programs, such as tests.devnet; without it, it is `clearinghouse`.
    """

    def __init__(
        self, arguments: tuple[str | Path | int, ...], *, folder: Path, number: int, environment: Mapping[str, str],
        module: str | None = None,
    ) -> None:  # fmt: skip
        self.arguments = arguments
        self._out, self._err = (folder / f"program-{number}.{name}" for name in ("out", "err"))
        with self._out.open("wb") as out, self._err.open("wb") as err:
            self._process = subprocess.Popen(
                command(*arguments) if module is None else module_command(module, *arguments), cwd=folder,
                env=clean_environment(environment), stdin=subprocess.DEVNULL, stdout=out, stderr=err,
                start_new_session=True,
            )  # fmt: skip

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def out(self) -> str:
        return self._out.read_text(encoding="utf-8", errors="replace")

    @property
    def log(self) -> str:
        """What it has written to standard error so far."""
        return self._err.read_text(encoding="utf-8", errors="replace")

    @property
    def is_running(self) -> bool:
        return self._process.poll() is None

    def wait_for(self, pattern: str, *, source: str = "log") -> re.Match[str]:
        """The first match in its log (or, with source "out", its standard output)."""
        give_up_at_s = time.monotonic() + PATIENCE_S
        while True:
            ended = not self.is_running
            if match := re.search(pattern, getattr(self, source), re.MULTILINE):
                return match
            assert not ended, f"it ended with {self._process.returncode} and never said {pattern!r}\n{self.story}"
            assert time.monotonic() < give_up_at_s, f"it does not say {pattern!r}\n{self.story}"
            time.sleep(_POLL_INTERVAL_S)

    def interrupt(self) -> None:
        """Ctrl-C: a terminal sends SIGINT to the whole process group."""
        os.killpg(self.pid, signal.SIGINT)

    def terminate(self) -> None:
        self._process.terminate()

    def stop_responding(self) -> None:
        """It hangs: connections are still accepted by the kernel, but nobody reads them."""
        self._process.send_signal(signal.SIGSTOP)

    def kill(self) -> None:
        """kill -9, of it and whatever it started in its group; returns when it is gone."""
        with suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)
        self._process.wait(PATIENCE_S)

    def wait(self) -> int:
        """Its exit code, once it has ended by itself."""
        try:
            return self._process.wait(PATIENCE_S)
        except subprocess.TimeoutExpired:
            pytest.fail(f"it does not end\n{self.story}")

    @property
    def story(self) -> str:
        """For a failure's message."""
        return f"{' '.join(map(str, self.arguments))}, pid {self.pid}, wrote:\n{self.out}{self.log[-_TAIL_CHARS:]}"


@dataclass(frozen=True)
class Serving:
    """A service that has said where it listens."""

    program: Program
    http_port: int
    grpc_port: int
    #: What it printed on standard output; empty for `serve`, which prints nothing.
    facts: dict[str, Any]

    @property
    def http_url(self) -> str:
        return f"http://127.0.0.1:{self.http_port}"


@dataclass
class Home:
    """A folder with a data directory, and the programs that run on it."""

    folder: Path
    data_dir: Path
    _programs: list[Program] = field(default_factory=list)
    _numbers: Iterator[int] = field(default_factory=lambda: itertools.count(1))

    def run(self, *arguments: str | Path | int, environment: Mapping[str, str] | None = None) -> Done:
        return run(*arguments, "--data-dir", self.data_dir, folder=self.folder, environment=environment)

    def json(self, *arguments: str | Path | int) -> Any:
        """What a command that must succeed answers with --json."""
        return self.run(*arguments, "--json").json

    def start(
        self, *arguments: str | Path | int, environment: Mapping[str, str] | None = None, module: str | None = None
    ) -> Program:
        number, environment = next(self._numbers), environment or {}
        program = Program(arguments, folder=self.folder, number=number, environment=environment, module=module)
        self._programs.append(program)
        return program

    def start_dev(self, *further: str | Path | int, environment: Mapping[str, str] | None = None) -> Program:
        """`clearinghouse dev` on free ports, not yet waited for."""
        ports = ("--http-port", 0, "--grpc-port", 0)
        return self.start("dev", "--data-dir", self.data_dir, *ports, "--json", *further, environment=environment)

    def dev(self, *further: str | Path | int, environment: Mapping[str, str] | None = None) -> Serving:
        return started(self.start_dev(*further, environment=environment))

    def serve(self, environment: Mapping[str, str] | None = None, *, http_port: int = 0) -> Serving:
        """`clearinghouse serve` on free ports unless told otherwise, once it serves."""
        ports = ("--http-port", http_port, "--grpc-port", 0)
        program = self.start("serve", "--data-dir", self.data_dir, *ports, environment=environment)
        said = program.wait_for(r"^serving HTTP on \S+:(\d+) and gRPC on \S+:(\d+)")
        return Serving(program, int(said[1]), int(said[2]), {})

    def secret_file(self, name: str, text: str) -> str:
        """Where a setting that ends in _FILE finds a secret."""
        file = self.folder / name
        file.touch(mode=0o600)
        file.write_text(text, encoding="utf-8")
        return str(file)

    @property
    def conninfo(self) -> str:
        """The superuser's way into the embedded database, past all of our own code."""
        return EmbeddedPostgres(self.data_dir).database.conninfo

    @property
    def postmaster_pid(self) -> int | None:
        """The live database server's process."""
        cluster = self.data_dir / "postgres"
        found = postmaster.read_pid_file(cluster / "postmaster.pid")
        return found.pid if found is not None and postmaster.is_live_postmaster(found.pid, cluster) else None

    def kill_database(self) -> None:
        """kill -9 of the database server and of every one of its processes; returns when none is left."""
        pid = self.postmaster_pid
        if pid is None:
            return
        victims = [pid, *processes.descendants(pid)]
        for victim in victims:
            _signal(victim, signal.SIGKILL)
        wait_until(lambda: not any(map(processes.is_alive, victims)), "the end of the killed database server")

    def close(self) -> None:
        """Ends everything, by force. The database last: a service that still lived would start it again."""
        for program in self._programs:
            program.kill()

        def nothing_is_left() -> bool:
            left = processes.of_folder(self.folder)
            for process in left:  # again and again, because what starts the server may have been at work just now
                # "Immediate shutdown" is the server's own end: it takes its processes along and frees its memory.
                _signal(process.pid, signal.SIGQUIT if process.pid == self.postmaster_pid else signal.SIGKILL)
            return not left

        wait_until(nothing_is_left, "the end of all processes of a test")


@contextmanager
def new_home() -> Iterator[Home]:
    """In a short path, so that the database's socket lies inside the data directory as it does for users."""
    with tempfile.TemporaryDirectory(prefix="clearinghouse-e2e-", ignore_cleanup_errors=True) as name:
        folder = Path(name).resolve()
        home = Home(folder, folder / "data")
        try:
            yield home
        finally:
            home.close()


def started(program: Program) -> Serving:
    """`dev --json`, once it has printed its line."""
    facts = json.loads(program.wait_for(r"^\{.*\}$", source="out")[0])
    http, grpc = urlsplit(facts["http_url"]).port, urlsplit(f"//{facts['grpc_target']}").port
    assert http is not None
    assert grpc is not None
    return Serving(program, http, grpc, facts)


def _signal(pid: int, number: signal.Signals) -> None:
    with suppress(ProcessLookupError):
        os.kill(pid, number)
