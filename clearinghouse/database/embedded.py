"""The life cycle of the PostgreSQL that the clearinghouse brings along: start or attach, notice its death, stop.

Any number of processes may use one data directory at once (the service, the CLI, a worker). Two lock files order them,
and both free themselves when a process dies, however it dies:

* `transition.lock`, held alone while a server is created, started or stopped: of two starters one starts, both attach;
* `users.lock`, shared by everyone who uses the server: who leaves and finds nobody else stops it.

A user killed with `kill -9` leaves the server running without a user. The next start attaches to it, and its stop ends
it. Whether a server is alive is decided by asking it. Pid files are believed only where the process they name is a
live postgres of this cluster: after a crash the number may belong to a zombie or to a stranger.
"""

from __future__ import annotations

import enum
import logging
import subprocess
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType, TracebackType
from typing import Final

import psycopg
from psycopg import pq, sql
from psycopg.conninfo import make_conninfo

from clearinghouse.database import cluster_files, postmaster
from clearinghouse.database.file_locks import SharedLock, exclusive_lock
from clearinghouse.database.postgres_programs import (
    EmbeddedPostgresError,
    Programs,
    ServerUser,
    find_programs,
    server_user,
)

__all__ = ["DATABASE_NAME", "EmbeddedDatabase", "EmbeddedPostgres", "EmbeddedPostgresError"]

DATABASE_NAME: Final = "clearinghouse"

_START_TIMEOUT_S = 60
_STOP_TIMEOUT_S = 20
#: A transition may run initdb, start and stop in a row; whoever waits longer than that waits for a hanging process.
_TRANSITION_TIMEOUT_S = 300
#: Orphaned backends notice the death of their server as soon as they wait for anything; only long computations go on.
_ORPHANS_TIMEOUT_S = 30
#: A server whose directory was deleted notices within a minute and ends itself (PostgreSQL looks once a minute).
_FOREIGN_TIMEOUT_S = 75
_LAUNCHES_MAX = 3
_POLL_INTERVAL_S = 0.05
_SOCKET_NAME = cluster_files.SOCKET_NAME
_PING_TIMEOUT_S = 2  # libpq's least

_NO_SETTINGS: Mapping[str, str] = MappingProxyType({})
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class EmbeddedDatabase:
    """Where the database is. `conninfo` is libpq's, for the superuser, over the Unix socket; it has no secret."""

    data_dir: Path
    socket_dir: Path
    conninfo: str


class _Server(enum.Enum):
    READY = enum.auto()
    BUSY = enum.auto()  # alive, and starting, recovering, stopping or silent
    UNREACHABLE = enum.auto()  # alive and ready, but its socket file was deleted: nobody can reach it any more
    FOREIGN = enum.auto()  # the server of another, perhaps deleted cluster answers at our socket
    GONE = enum.auto()


class EmbeddedPostgres:
    """One user of the cluster in `data_dir`. Blocking, and safe to call from several threads.

    `settings` are PostgreSQL settings by name, over our own; a server that already runs keeps those it began with.
    Every method raises EmbeddedPostgresError, whose message says what to do.
    """

    def __init__(self, data_dir: Path, *, settings: Mapping[str, str] = _NO_SETTINGS) -> None:
        self._data_dir = data_dir.expanduser().absolute().resolve()
        self._cluster = self._data_dir / cluster_files.CLUSTER_NAME
        self._server_log = self._data_dir / "postgres.log"
        self._socket_dir = cluster_files.socket_dir_of(self._data_dir)
        self._settings = dict(settings)
        self._mutex = threading.Lock()
        self._users: SharedLock | None = None

    def __enter__(self) -> EmbeddedDatabase:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def database(self) -> EmbeddedDatabase:
        """Where the database is, or will be once started."""
        return EmbeddedDatabase(self._data_dir, self._socket_dir, self._conninfo(DATABASE_NAME))

    def start(self) -> EmbeddedDatabase:
        """Become a user: create the cluster if there is none, start the server or attach to the running one."""
        with self._mutex:
            if self._users is None:
                try:
                    cluster_files.prepare_data_dir(self._data_dir)
                    with self._transition():
                        self._join()
                except OSError as error:  # no room, no permission, a file in the way
                    raise EmbeddedPostgresError(
                        f"The data directory {self._data_dir} cannot be used ({error}): repair it or choose another."
                    ) from error
        return self.database

    def stop(self) -> None:
        """Cease to be a user. The last one stops the server, after its open transactions were rolled back."""
        with self._mutex:
            if self._users is not None:
                try:
                    with self._transition():
                        self._leave()
                finally:
                    self._release()  # where the transition could not even begin

    def ensure_running(self) -> bool:
        """For a user whose connections fail: start the server again if it died. True if this call had to."""
        with self._mutex:
            if self._users is None:
                raise EmbeddedPostgresError("The embedded database is not in use here: call start() first.")
            if self._state() is _Server.READY:
                return False
            with self._transition():
                return self._bring_up()

    @contextmanager
    def _transition(self) -> Iterator[None]:
        try:
            with exclusive_lock(self._data_dir / "transition.lock", timeout_s=_TRANSITION_TIMEOUT_S):
                yield
        except TimeoutError as error:
            raise EmbeddedPostgresError(
                f"Another process is starting or stopping the database and does not finish ({error}): "
                f"find it with `fuser {self._data_dir / 'transition.lock'}` and end it."
            ) from error

    def _join(self) -> None:
        # Only a transition holds users.lock alone, and this is the only one. The few seconds are for one that was
        # killed: its two locks need not become free at the same instant.
        self._users = SharedLock(self._data_dir / "users.lock", timeout_s=5)
        try:
            self._bring_up()
            self._create_database()
        except BaseException:  # Ctrl-C as well: no server may stay behind without a user
            self._leave()
            raise

    def _leave(self) -> None:
        assert self._users is not None
        try:
            if self._users.is_the_only_one():
                self._shut_down()
        finally:
            self._release()  # before the transition ends: the next one must not find users.lock held alone

    def _release(self) -> None:
        if self._users is not None:
            self._users.release()
            self._users = None

    # The server itself; everything below runs within a transition.

    def _state(self) -> _Server:
        answer = pq.PGconn.ping(make_conninfo(self._conninfo("postgres"), connect_timeout=_PING_TIMEOUT_S).encode())
        pid_file = postmaster.read_pid_file(self._cluster / "postmaster.pid")
        if answer in {pq.Ping.OK, pq.Ping.REJECT}:
            if self._is_ours(pid_file):
                return _Server.READY if answer == pq.Ping.OK else _Server.BUSY
            return _Server.FOREIGN
        if pid_file is None or not postmaster.is_live_postmaster(pid_file.pid, self._cluster):
            return _Server.GONE
        is_reachable = (self._socket_dir / _SOCKET_NAME).exists()
        return _Server.UNREACHABLE if pid_file.status == "ready" and not is_reachable else _Server.BUSY

    def _is_ours(self, pid_file: postmaster.PidFile | None) -> bool:
        """Whether the server that answers wrote the cluster's pid file: beside its socket it leaves the same number."""
        socket_lock = postmaster.read_pid_file(self._socket_dir / f"{_SOCKET_NAME}.lock")
        return pid_file is not None and socket_lock is not None and pid_file.pid == socket_lock.pid

    def _bring_up(self) -> bool:
        """Return when the server answers; True if it had to be started."""
        launches = 0
        begun_s = time.monotonic()
        while (state := self._state()) is not _Server.READY:
            if state is _Server.GONE:
                self._require_few(launches)
                self._launch()
                launches += 1
            elif state is _Server.UNREACHABLE:
                _log.warning("the database's socket was deleted; restarting the server")
                self._run_pg_ctl_stop()
            else:
                self._wait(state, waited_s=time.monotonic() - begun_s)
        return launches > 0

    def _require_few(self, launches: int) -> None:
        if launches == _LAUNCHES_MAX:
            raise EmbeddedPostgresError(
                f"The database server starts and dies at once, {_LAUNCHES_MAX} times in a row: see {self._server_log}. "
                "It ends with:\n" + cluster_files.last_lines(self._server_log)
            )

    def _wait(self, state: _Server, *, waited_s: float) -> None:
        if state is _Server.FOREIGN and waited_s > _FOREIGN_TIMEOUT_S:
            raise EmbeddedPostgresError(
                f"The server of another database answers at {self._socket_dir}: end it (its pid is the first line of "
                f"{self._socket_dir / _SOCKET_NAME}.lock), then start again."
            )
        if state is _Server.BUSY and waited_s > _START_TIMEOUT_S:
            raise EmbeddedPostgresError(
                f"The database server runs but has not answered for {_START_TIMEOUT_S} s: see {self._server_log}, end "
                f"the process named in {self._cluster / 'postmaster.pid'}, then start again. The log ends with:\n"
                + cluster_files.last_lines(self._server_log)
            )
        time.sleep(_POLL_INTERVAL_S)

    def _launch(self) -> None:
        """Start the server, having made the cluster if there is none. Returns when it accepts connections."""
        user = server_user()
        programs = self._programs()
        begun_s = time.monotonic()
        cluster_files.remove_unfinished(self._data_dir)
        if not self._cluster.exists():
            _log.info("creating the database in %s", self._data_dir)
            cluster_files.init_cluster(self._data_dir, programs, user)
        self._check_owner(user)
        cluster_files.prepare_socket_dir(self._socket_dir)
        cluster_files.write_settings(self._cluster, self._socket_dir, self._settings, user)
        cluster_files.bound_log(self._server_log)
        if self._state() is not _Server.GONE:
            return  # a start that a killed process had begun came to life meanwhile; _bring_up waits for it
        was_killed = self._forget_dead_server()
        self._run_pg_ctl_start(programs, user, was_killed=was_killed)
        _log.info("database server started in %.2f s", time.monotonic() - begun_s)

    def _check_owner(self, user: ServerUser) -> None:
        owner = self._cluster.stat().st_uid
        if owner != user.uid:
            raise EmbeddedPostgresError(
                f"The database in {self._cluster} belongs to user {owner}, but the server would run as user "
                f"{user.uid}: run the clearinghouse as before, or: chown -R {user.uid}:{user.gid} '{self._cluster}'"
            )

    def _forget_dead_server(self) -> bool:
        """Remove what a killed server left; True if there was anything.

        The numbers in its lock files may be a zombie's or a stranger's by now, which would keep PostgreSQL from
        starting. Two servers on one cluster remain impossible: PostgreSQL looks at the cluster's shared memory as well.
        """
        pid_path = self._cluster / "postmaster.pid"
        was_killed = pid_path.exists()
        if was_killed:
            _log.warning("the database server did not shut down cleanly; recovering")
        for left in (pid_path, self._socket_dir / f"{_SOCKET_NAME}.lock", self._socket_dir / _SOCKET_NAME):
            left.unlink(missing_ok=True)
        return was_killed

    def _run_pg_ctl_start(self, programs: Programs, user: ServerUser, *, was_killed: bool) -> None:
        arguments = ["start", "-D", str(self._cluster), "-l", str(self._server_log), "-w", "-t", str(_START_TIMEOUT_S)]
        orphans_deadline_s = time.monotonic() + _ORPHANS_TIMEOUT_S
        while True:
            answer = self._run_pg_ctl(programs, arguments, user)
            if answer.returncode == 0 or self._state() is not _Server.GONE:
                return
            held = postmaster.memory_is_held(self._cluster)
            may_have_orphans = was_killed if held is None else held
            if not may_have_orphans or time.monotonic() > orphans_deadline_s:
                break
            time.sleep(10 * _POLL_INTERVAL_S)
        cause = (
            f"processes of the server before still run (waited {_ORPHANS_TIMEOUT_S} s): end the postgres processes "
            f"that `fuser {self._cluster}` shows, then start again."
            if may_have_orphans
            else f"see {self._server_log}."
        )
        raise EmbeddedPostgresError(
            f"The database server did not start: {cause} Its log ends with:\n"
            + cluster_files.last_lines(self._server_log)
        )

    def _shut_down(self) -> None:
        if self._state() in {_Server.GONE, _Server.FOREIGN}:
            return
        begun_s = time.monotonic()
        self._run_pg_ctl_stop()
        if self._data_dir not in self._socket_dir.parents and not any(self._socket_dir.iterdir()):
            self._socket_dir.rmdir()
        _log.info("database server stopped in %.2f s", time.monotonic() - begun_s)

    def _run_pg_ctl_stop(self) -> None:
        # Asked to stop in order while it recovers, PostgreSQL 18 waits for its own helpers for ever. To stop it at once
        # loses nothing: what was committed is recovered at the next start.
        for mode in ("immediate",) if self._state() is _Server.BUSY else ("fast", "immediate"):
            arguments = ["stop", "-D", str(self._cluster), "-m", mode, "-w", "-t", str(_STOP_TIMEOUT_S)]
            answer = self._run_pg_ctl(self._programs(), arguments, server_user())
            if answer.returncode == 0 or self._state() is _Server.GONE:
                break
        if answer.returncode != 0 and self._state() is not _Server.GONE:
            raise EmbeddedPostgresError(
                f"The database server did not stop within {_STOP_TIMEOUT_S} s ({answer.stdout.strip()}). "
                f"Its log, {self._server_log}, ends with:\n{cluster_files.last_lines(self._server_log)}"
            )

    def _run_pg_ctl(
        self, programs: Programs, arguments: list[str], user: ServerUser
    ) -> subprocess.CompletedProcess[str]:
        # pg_ctl keeps its own limit; ours, a little longer, only guards against pg_ctl itself.
        return programs.run("pg_ctl", arguments, user=user, timeout_s=_START_TIMEOUT_S + 15)

    def _programs(self) -> Programs:
        return find_programs(cluster_files.cluster_version(self._cluster))

    def _create_database(self) -> None:
        """The cluster's own database `postgres` stays empty: it is where one connects to create or drop others."""
        try:
            with psycopg.connect(self._conninfo("postgres"), autocommit=True) as connection:
                query = "SELECT 1 FROM pg_database WHERE datname = %s"
                if connection.execute(query, (DATABASE_NAME,)).fetchone() is None:
                    connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(DATABASE_NAME)))
        except psycopg.Error as error:
            raise EmbeddedPostgresError(
                f"The database server in {self._data_dir} answers but cannot be used ({str(error).strip()}); see "
                f"{self._server_log}."
            ) from error

    def _conninfo(self, database: str) -> str:
        socket_dir = str(self._socket_dir)
        return make_conninfo(host=socket_dir, port=cluster_files.PORT, user=cluster_files.SUPERUSER, dbname=database)
