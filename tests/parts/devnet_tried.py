"""`make devnet` as whoever tries it out uses it: programs that run, and commands typed beside them."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psycopg
import pytest

from clearinghouse.database.embedded import EmbeddedPostgres
from tests.parts.devnet import AnvilMissing, anvil_program
from tests.parts.program import (
    PATIENCE_S,
    ROOT,
    Home,
    Program,
    clean_environment,
    command,
    module_command,
    new_home,
    wait_until,
)


@dataclass
class Tried:
    """A devnet, and whoever types commands beside it."""

    home: Home
    program: Program
    facts: dict[str, Any] = field(default_factory=dict)

    @property
    def folder(self) -> Path:
        return self.home.folder / ".clearinghouse-devnet"

    def run(self, *line: str) -> subprocess.CompletedProcess[str]:
        """A command line, of programs by name."""
        program, *arguments = line
        argv = command(*arguments) if program == "clearinghouse" else module_command("tests.devnet", *arguments)
        return subprocess.run(
            argv, cwd=self.home.folder, env=environment(), stdin=subprocess.DEVNULL, capture_output=True, text=True,
            timeout=PATIENCE_S, check=False,
        )  # fmt: skip

    def json(self, *line: str, code: int = 0) -> Any:
        done = self.run(*line, "--json")
        assert done.returncode == code, (done, self.program.story)
        return json.loads(done.stdout)

    def coverage(self) -> Any:
        """Of the sender, as an operator sees it."""
        (found,) = self.json("clearinghouse", "coverage")["items"]
        return found

    def until_level(self, level: str) -> None:
        wait_until(lambda: self.coverage()["level"] == level, f"coverage to be {level}")

    def until_snapshot(self, is_so: Callable[[Any], bool], what: str) -> Any:
        """The first snapshot, of this moment on, of which it is so. The first of all takes the service some seconds."""
        found: list[Any] = []

        def look() -> bool:
            found[:] = [self.coverage()["snapshot"]]
            return found[0] is not None and is_so(found[0])

        wait_until(look, f"a snapshot of coverage {what}")
        return found[0]

    def query(self, query: str) -> list[tuple[Any, ...]]:
        conninfo = EmbeddedPostgres(self.folder / "data").database.conninfo
        with psycopg.connect(conninfo, autocommit=True) as connection:
            return connection.execute(query.encode()).fetchall()


def environment() -> dict[str, str]:
    """Of whoever followed the welcome: `clearinghouse` finds the devnet's settings."""
    config = ".clearinghouse-devnet/clearinghouse.toml"
    return {
        name: value
        for name, value in clean_environment({"PYTHONPATH": str(ROOT), "CLEARINGHOUSE_CONFIG": config}).items()
        if not name.startswith("CLEARINGHOUSE_ESCROW")
    }


@contextmanager
def devnet_tried(*further: str) -> Iterator[Tried]:
    try:
        anvil_program()
    except AnvilMissing as reason:
        pytest.skip(f"THE DEVNET IS NOT TESTED: {reason}")
    with new_home() as home:
        yield Tried(home, start(home, *further))


def start(home: Home, *further: str) -> Program:
    ports = ("--http-port", 0, "--grpc-port", 0)
    return home.start("start", *ports, *further, environment={"PYTHONPATH": str(ROOT)}, module="tests.devnet")
