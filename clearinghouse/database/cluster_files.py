"""The files of an embedded cluster: the private data directory, its socket directory, initdb, the configuration.

DATA_DIR/                 0700, ours          the only guard of everything below, and of the server itself
  postgres/               0700, the server's  the cluster; appears complete or not at all
  postgres.new-XXXX/                          an initdb under way, or the remains of one that was killed
  sockets/                0700, ours          the server's Unix socket (elsewhere where the path is too long)
  postgres.log, .log.1                        the server's log
  transition.lock, users.lock                 see embedded.py
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import stat
import tempfile
from collections.abc import Mapping
from pathlib import Path

from clearinghouse.database.postgres_programs import EmbeddedPostgresError, Programs, ServerUser

SUPERUSER = "postgres"
CLUSTER_NAME = "postgres"
_SETTINGS_FILE = "clearinghouse.conf"
_SOCKET_PATH_BYTES_MAX = 100  # sun_path has 104 bytes on macOS and 108 on Linux, with the final NUL
PORT = 5432  # part of the socket's file name only: there is no TCP
SOCKET_NAME = f".s.PGSQL.{PORT}"
_INITDB_TIMEOUT_S = 300
_LOG_BYTES_MAX = 1024 * 1024

#: Durable first: what a committed transaction says must survive `kill -9` and a power cut. The rest keeps the server
#: small beside a service on two cores. The log takes starts, stops and crashes ("log" and above) but not the errors of
#: single statements: those go to the client, and a busy service must not fill the disk with them.
DEFAULT_SETTINGS: Mapping[str, str] = {
    "fsync": "on",
    "full_page_writes": "on",
    "synchronous_commit": "on",
    "max_connections": "50",
    "shared_buffers": "128MB",
    "effective_cache_size": "512MB",
    "max_wal_size": "1GB",
    "checkpoint_timeout": "15min",
    "random_page_cost": "1.1",
    "jit": "off",
    "max_parallel_workers_per_gather": "0",
    "timezone": "UTC",
    "log_timezone": "UTC",
    "lc_messages": "C",
    "log_destination": "stderr",
    "logging_collector": "off",
    "log_min_messages": "log",
    "log_error_verbosity": "terse",
    "log_checkpoints": "off",
    "log_line_prefix": "%m [%p] ",
}

#: `trust` is enough: the socket lies in a directory of mode 0700 and there is no other way in, so whoever reaches it
#: can read the cluster's files as well, and a password stored beside them would keep nobody out.
_AUTHENTICATION = ("--auth-local=trust", "--auth-host=reject")


def prepare_data_dir(data_dir: Path) -> None:
    """Make `data_dir` with mode 0700. An existing one is closed to others only where it is plainly ours to close."""
    if set(str(data_dir)) & set('"$`\\\n'):
        raise EmbeddedPostgresError(
            f"The data directory {data_dir} has a quote, $, ` or \\ in its path: choose another."
        )
    data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    found = data_dir.stat()
    if found.st_uid != os.geteuid():
        raise EmbeddedPostgresError(
            f"The data directory {data_dir} belongs to user {found.st_uid}, this process is user {os.geteuid()}: "
            "run as that user, give the directory to this one, or choose another."
        )
    if found.st_mode & 0o077:
        if any(data_dir.iterdir()) and not (data_dir / CLUSTER_NAME).exists():
            raise EmbeddedPostgresError(
                f"The data directory {data_dir} is open to other users (mode {stat.S_IMODE(found.st_mode):04o}) and "
                f"holds files that are not ours: choose another, or, if it is meant, run: chmod 700 '{data_dir}'"
            )
        data_dir.chmod(0o700)


def socket_dir_of(data_dir: Path) -> Path:
    """Inside `data_dir`, unless the path is too long for a Unix socket or has characters that libpq gives a meaning to.

    The other place does not depend on $TMPDIR: every process that uses the cluster must come to the same answer.
    """
    inside = data_dir / "sockets"
    if len(os.fsencode(inside / SOCKET_NAME)) <= _SOCKET_PATH_BYTES_MAX and re.fullmatch(r"[\w./+@ -]+", str(inside)):
        return inside
    digest = hashlib.sha256(os.fsencode(data_dir)).hexdigest()[:16]
    return Path("/tmp").resolve() / f"clearinghouse-{os.geteuid()}-{digest}"  # noqa: S108 - checked below


def prepare_socket_dir(socket_dir: Path) -> None:
    """Make it with mode 0700, or be sure that an existing one is ours alone: in /tmp anybody could have made it."""
    socket_dir.mkdir(mode=0o700, exist_ok=True)
    found = socket_dir.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid() or found.st_mode & 0o077:
        raise EmbeddedPostgresError(
            f"{socket_dir}, the directory for the database's socket, is not a private directory of this user: "
            "remove it, or choose a data directory with a shorter path."
        )


def cluster_version(cluster: Path) -> int | None:
    """The major version that made the cluster; None where there is none yet."""
    try:
        return int((cluster / "PG_VERSION").read_text(encoding="ascii"))
    except FileNotFoundError:
        if cluster.exists():
            raise EmbeddedPostgresError(
                f"{cluster} is not a PostgreSQL cluster (no PG_VERSION): move it away and start again."
            ) from None
        return None
    except ValueError:
        raise EmbeddedPostgresError(
            f"{cluster / 'PG_VERSION'} is damaged: restore the directory from a backup, or move it away."
        ) from None


def remove_unfinished(data_dir: Path) -> None:
    """Remove what killed starters left. Their initdb may still write: what it adds behind us goes the next time."""
    for remains in data_dir.glob(f"{CLUSTER_NAME}.new-*"):
        shutil.rmtree(remains, ignore_errors=True)


def init_cluster(data_dir: Path, programs: Programs, user: ServerUser) -> None:
    """Make the cluster beside its place and move it there when complete, so that `kill -9` leaves nothing half-made."""
    unfinished = Path(tempfile.mkdtemp(prefix=f"{CLUSTER_NAME}.new-", dir=data_dir))
    user.take_over(unfinished)
    locale = ("--encoding=UTF8", "--locale=C", "--locale-provider=builtin", "--builtin-locale=C.UTF-8")
    place = (f"--pgdata={unfinished}", f"--username={SUPERUSER}")
    # A young cluster fills each new segment of its log with zeros while commits wait: 60 ms for the usual 16 MB, every
    # second or two under load.
    segments = "--wal-segsize=1"
    arguments = (*place, "--data-checksums", segments, "--no-instructions", *_AUTHENTICATION, *locale)
    answer = programs.run("initdb", arguments, user=user, timeout_s=_INITDB_TIMEOUT_S)
    if answer.returncode != 0:
        raise EmbeddedPostgresError(
            f"The database could not be created in {data_dir}; initdb says:\n{answer.stdout.strip()}"
        )
    with (unfinished / "postgresql.conf").open("a", encoding="utf-8") as configuration:
        configuration.write(f"\ninclude = '{_SETTINGS_FILE}'\n")
        configuration.flush()
        os.fsync(configuration.fileno())  # initdb synced everything else
    unfinished.rename(data_dir / CLUSTER_NAME)
    _sync_directory(data_dir)


def write_settings(cluster: Path, socket_dir: Path, settings: Mapping[str, str], user: ServerUser) -> None:
    """Write the settings anew: they may have changed with our version, the caller's wishes or a moved directory."""
    access = {
        "listen_addresses": "",
        "unix_socket_directories": '"' + str(socket_dir) + '"',
        "unix_socket_permissions": "0700",
    }
    lines = [f"{name} = '{_quoted(value)}'" for name, value in {**DEFAULT_SETTINGS, **settings, **access}.items()]
    target = cluster / _SETTINGS_FILE
    unfinished = target.with_suffix(".new")
    unfinished.write_text("# Written anew at every start.\n" + "\n".join(lines) + "\n", encoding="utf-8")
    user.take_over(unfinished)
    unfinished.replace(target)


def _quoted(value: str) -> str:
    if "\n" in value:
        raise ValueError("a PostgreSQL setting is one line")
    return value.replace("\\", "\\\\").replace("'", "''")


def bound_log(log: Path) -> None:
    """Keep one older log. Only between two servers: a running one keeps writing to the file it has open."""
    if log.exists() and log.stat().st_size > _LOG_BYTES_MAX:
        log.replace(log.with_name(log.name + ".1"))


def last_lines(log: Path, *, count: int = 15) -> str:
    if not log.exists():
        return "(no log)"
    with log.open("rb") as file:
        file.seek(max(0, log.stat().st_size - 8192))
        return "\n".join(file.read().decode("utf-8", "replace").splitlines()[-count:])


def _sync_directory(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
