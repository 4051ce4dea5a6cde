"""The embedded PostgreSQL against everything that can happen to it: real servers, real processes, real kill -9."""

from __future__ import annotations

import contextlib
import os
import signal
import stat
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psycopg
import pytest
from psycopg.conninfo import make_conninfo

import clearinghouse
from clearinghouse.database import cluster_files, embedded, postgres_programs, postmaster
from clearinghouse.database.embedded import EmbeddedPostgres, EmbeddedPostgresError

REPOSITORY = Path(clearinghouse.__file__).parents[1]
ONLY_LINUX = pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")

#: A user of the database in a process of its own: joins, says so, and leaves in order when its input ends.
USER = """
import sys
from pathlib import Path
from clearinghouse.database.embedded import EmbeddedPostgres
with EmbeddedPostgres(Path(sys.argv[1])):
    print("joined", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def data_dir() -> Iterator[Path]:
    """Not yet there. Afterwards no server may be left; one that is gets killed and fails the test."""
    with tempfile.TemporaryDirectory(prefix="embedded-") as folder:
        path = Path(folder).resolve() / ".clearinghouse"
        yield path
        left = live_server(path)
        if left is not None:
            os.kill(left, signal.SIGQUIT)
            wait_until(lambda: live_server(path) is None)
        assert left is None, f"server {left} was left running"


@pytest.fixture
def spawn() -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Start Python code in a new process and process group; whatever still runs afterwards is killed."""
    started: list[subprocess.Popen[str]] = []

    def start(code: str, *arguments: object, prefix: tuple[str, ...] = ()) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [*prefix, sys.executable, "-c", code, *map(str, arguments)],
            env={**os.environ, "PYTHONPATH": str(REPOSITORY), "PYTHONDONTWRITEBYTECODE": "1"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


def live_server(data_dir: Path) -> int | None:
    """The pid of the cluster's server, if one is alive."""
    pid = server_pid(data_dir)
    return pid if pid is not None and postmaster.is_live_postmaster(pid, data_dir / "postgres") else None


def server_pid(data_dir: Path) -> int | None:
    found = postmaster.read_pid_file(data_dir / "postgres" / "postmaster.pid")
    return None if found is None else found.pid


def wait_until(is_so: Callable[[], bool], *, timeout_s: int = 120) -> None:
    deadline_s = time.monotonic() + timeout_s
    while not is_so():
        assert time.monotonic() < deadline_s, "waited in vain"
        time.sleep(0.01)


def joined(process: subprocess.Popen[str]) -> None:
    assert process.stdout is not None
    assert process.stderr is not None
    if process.stdout.readline() != "joined\n":
        pytest.fail(process.stderr.read())


def leave_in_order(process: subprocess.Popen[str]) -> None:
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 0, errors


def kill_server(data_dir: Path) -> int:
    pid = live_server(data_dir)
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    wait_until(lambda: live_server(data_dir) is None)
    return pid


def write(conninfo: str, value: int) -> None:
    with psycopg.connect(conninfo) as connection:
        connection.execute("CREATE TABLE IF NOT EXISTS kept (value bigint)")
        connection.execute("INSERT INTO kept VALUES (%s)", (value,))


def read(conninfo: str) -> list[int]:
    with psycopg.connect(conninfo) as connection:
        return [value for (value,) in connection.execute("SELECT value FROM kept ORDER BY value")]


def show(conninfo: str, setting: str) -> str:
    with psycopg.connect(conninfo) as connection:
        row = connection.execute("SELECT current_setting(%s)", (setting,)).fetchone()
    assert row is not None
    return str(row[0])


# The ordinary life


def test_constructing_it_touches_nothing(data_dir: Path) -> None:
    EmbeddedPostgres(data_dir)
    assert not data_dir.exists()


def test_data_survives_a_restart_and_starting_again_is_quick(data_dir: Path) -> None:
    postgres = EmbeddedPostgres(data_dir)
    begun_s = time.monotonic()
    database = postgres.start()
    assert time.monotonic() - begun_s < 60
    assert postgres.start() == database, "starting twice is starting once"
    write(database.conninfo, 1)
    postgres.stop()
    assert live_server(data_dir) is None
    postgres.stop()

    begun_s = time.monotonic()
    with EmbeddedPostgres(data_dir) as again:
        assert time.monotonic() - begun_s < 30
        assert again == database
        assert read(again.conninfo) == [1]


def test_it_is_durable_checksummed_utf8_and_listens_on_no_network(data_dir: Path) -> None:
    with EmbeddedPostgres(data_dir, settings={"max_connections": "17", "application_name": "o'clock\\"}) as database:
        durable = ("fsync", "synchronous_commit", "full_page_writes", "data_checksums")
        assert [show(database.conninfo, name) for name in durable] == ["on"] * 4
        assert show(database.conninfo, "listen_addresses") == ""
        assert show(database.conninfo, "server_encoding") == "UTF8"
        assert show(database.conninfo, "max_connections") == "17"
        with psycopg.connect(make_conninfo(database.conninfo, application_name="")) as connection:
            locale = "SELECT datlocprovider::text, datlocale FROM pg_database WHERE datname = current_database()"
            assert connection.execute(locale).fetchone() == ("b", "C.UTF-8")
    assert "application_name = 'o''clock\\\\'" in (data_dir / "postgres" / "clearinghouse.conf").read_text()
    assert postgres_programs.WHEEL_MODULE not in sys.modules, "the wheel's own bookkeeping stays out of it"


def test_the_data_directory_is_private(data_dir: Path) -> None:
    data_dir.mkdir(mode=0o755)
    with EmbeddedPostgres(data_dir) as database:
        for private in (data_dir, data_dir / "postgres", database.socket_dir):
            assert stat.S_IMODE(private.stat().st_mode) == 0o700, private


def test_a_directory_with_foreign_files_in_it_is_not_taken_over(data_dir: Path) -> None:
    data_dir.mkdir()
    data_dir.chmod(0o755)
    (data_dir / "letter.txt").write_text("mine")
    with pytest.raises(EmbeddedPostgresError, match="chmod 700"):
        EmbeddedPostgres(data_dir).start()
    assert stat.S_IMODE(data_dir.stat().st_mode) == 0o755


@pytest.mark.parametrize("name", ["long" * 30, "comma,and 'quote' and ü", "with space"])
def test_any_path_gets_a_private_socket(data_dir: Path, name: str) -> None:
    place = data_dir / name
    postgres = EmbeddedPostgres(place)
    with postgres as database:
        write(database.conninfo, 1)
        assert read(database.conninfo) == [1]
        assert len(os.fsencode(database.socket_dir / ".s.PGSQL.5432")) <= 100
        assert stat.S_IMODE(database.socket_dir.stat().st_mode) == 0o700
    assert live_server(place) is None
    assert (place in database.socket_dir.parents) == (name == "with space")
    assert database.socket_dir.exists() == (place in database.socket_dir.parents), "nothing is left in /tmp"


def test_a_data_directory_that_cannot_be_made_is_an_error_with_its_reason(data_dir: Path) -> None:
    data_dir.mkdir()
    (data_dir / "file").write_text("in the way")
    with pytest.raises(EmbeddedPostgresError, match=r"cannot be used.*choose another"):
        EmbeddedPostgres(data_dir / "file" / "data").start()


@pytest.mark.parametrize("name", ["$(touch x)", "`id`", 'quo"te', "back\\slash", "new\nline"])
def test_a_path_that_a_shell_would_read_differently_is_refused(data_dir: Path, name: str) -> None:
    with pytest.raises(EmbeddedPostgresError, match="choose another"):
        EmbeddedPostgres(data_dir / name).start()
    assert not data_dir.exists()


def test_a_socket_directory_that_others_can_enter_is_refused(data_dir: Path) -> None:
    postgres = EmbeddedPostgres(data_dir / ("long" * 30))
    socket_dir = postgres.database.socket_dir
    socket_dir.mkdir()
    socket_dir.chmod(0o777)
    try:
        with pytest.raises(EmbeddedPostgresError, match="not a private directory"):
            postgres.start()
    finally:
        socket_dir.rmdir()


# Several users


def test_the_server_stays_while_another_user_is_there_and_the_last_one_stops_it(
    data_dir: Path, spawn: Callable[..., subprocess.Popen[str]]
) -> None:
    here, also_here = EmbeddedPostgres(data_dir), EmbeddedPostgres(data_dir)
    here.start()
    also_here.start()
    elsewhere = spawn(USER, data_dir)
    joined(elsewhere)
    pid = live_server(data_dir)

    here.stop()
    also_here.stop()
    assert pid is not None
    assert live_server(data_dir) == pid
    assert show(here.database.conninfo, "fsync") == "on"

    leave_in_order(elsewhere)
    assert live_server(data_dir) is None


def test_of_two_starters_at_once_one_starts_and_both_attach(
    data_dir: Path, spawn: Callable[..., subprocess.Popen[str]]
) -> None:
    users = [spawn(USER, data_dir) for _ in range(3)]
    for user in users:
        joined(user)
    assert live_server(data_dir) is not None
    for user in users:
        leave_in_order(user)
    assert (data_dir / "postgres.log").read_text().count("starting PostgreSQL") == 1
    assert live_server(data_dir) is None


@pytest.mark.slow
def test_users_that_come_and_go_at_once_always_find_a_server(data_dir: Path) -> None:
    served: list[str] = []

    def come_and_go() -> None:
        for _ in range(6):
            with EmbeddedPostgres(data_dir) as database:
                served.append(show(database.conninfo, "fsync"))

    threads = [threading.Thread(target=come_and_go) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert served == ["on"] * 24
    assert live_server(data_dir) is None


@ONLY_LINUX
def test_the_server_inherits_neither_our_locks_nor_our_secrets(data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CLEARINGHOUSE_SECRET_OF_TEST", "hush")
    with EmbeddedPostgres(data_dir):
        process = Path("/proc") / str(live_server(data_dir))
        open_files = [str(descriptor.readlink()) for descriptor in (process / "fd").iterdir()]
        assert len(open_files) > 3
        assert not [name for name in open_files if name.endswith(("users.lock", "transition.lock"))]
        assert b"hush" not in (process / "environ").read_bytes()


def test_ctrl_c_in_our_terminal_does_not_reach_the_server(
    data_dir: Path, spawn: Callable[..., subprocess.Popen[str]]
) -> None:
    # Whoever runs these tests in the background may have them ignore SIGINT, and their children with them.
    listening = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)\n"
    owner = spawn(
        listening + USER.replace("sys.stdin.read()", "import os, time; time.sleep(60); os._exit(1)"), data_dir
    )
    joined(owner)
    pid = live_server(data_dir)
    assert pid is not None
    assert os.getsid(pid) == pid != os.getsid(owner.pid)
    os.killpg(owner.pid, signal.SIGINT)
    owner.wait(timeout=60)
    # The owner itself did get it, and stopped the server in order on its way out.
    wait_until(lambda: live_server(data_dir) is None)
    assert "received fast shutdown request" in (data_dir / "postgres.log").read_text()


# Crashes


def test_after_kill_9_of_its_owner_the_next_start_attaches_and_can_stop_it(
    data_dir: Path, spawn: Callable[..., subprocess.Popen[str]]
) -> None:
    owner = spawn(USER, data_dir)
    joined(owner)
    pid = live_server(data_dir)
    owner.kill()
    owner.wait()

    with EmbeddedPostgres(data_dir) as database:
        assert live_server(data_dir) == pid, "attached, not restarted"
        assert show(database.conninfo, "fsync") == "on"
    assert live_server(data_dir) is None


@pytest.mark.slow
def test_kill_9_of_a_starter_at_any_moment_leaves_nothing_half_made(
    data_dir: Path, spawn: Callable[..., subprocess.Popen[str]]
) -> None:
    for delay_ms in (150, 250, 350, 500, 700, 900, 1200):
        starter = spawn(USER, data_dir)
        time.sleep(delay_ms / 1000)
        starter.kill()
        starter.wait()
    for value in (1, 2):
        with EmbeddedPostgres(data_dir) as database:
            write(database.conninfo, value)
    assert read_again(data_dir) == [1, 2]
    assert not list(data_dir.glob("postgres.new-*"))


def test_kill_9_during_initdb_leaves_no_cluster_and_the_next_start_makes_one(
    data_dir: Path, spawn: Callable[..., subprocess.Popen[str]]
) -> None:
    starter = spawn(USER, data_dir)
    wait_until(lambda: bool(list(data_dir.glob("postgres.new-*/base"))))
    starter.kill()
    starter.wait()
    assert not (data_dir / "postgres").exists()
    with EmbeddedPostgres(data_dir) as database:
        write(database.conninfo, 1)
    assert read_again(data_dir) == [1]


def read_again(data_dir: Path) -> list[int]:
    with EmbeddedPostgres(data_dir) as database:
        return read(database.conninfo)


def test_ensure_running_restarts_a_killed_server_with_everything_committed(data_dir: Path) -> None:
    postgres = EmbeddedPostgres(data_dir)
    with postgres as database:
        assert postgres.ensure_running() is False
        for value in range(3):
            write(database.conninfo, value)
            killed = kill_server(data_dir)
            assert postgres.ensure_running() is True
            assert live_server(data_dir) not in {None, killed}
            assert read(database.conninfo) == list(range(value + 1))
        assert postgres.ensure_running() is False


def test_of_two_users_that_find_the_server_dead_one_restarts_it(data_dir: Path) -> None:
    users = [EmbeddedPostgres(data_dir) for _ in range(2)]
    for user in users:
        user.start()
    kill_server(data_dir)
    answers: list[bool] = []
    threads = [threading.Thread(target=lambda user=user: answers.append(user.ensure_running())) for user in users]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(answers) == [False, True]
    for user in users:
        user.stop()


def test_ensure_running_waits_for_a_crashed_backend_s_recovery_instead_of_restarting(data_dir: Path) -> None:
    postgres = EmbeddedPostgres(data_dir)
    with postgres as database:
        pid = live_server(data_dir)
        with psycopg.connect(database.conninfo) as connection:
            os.kill(connection.info.backend_pid, signal.SIGKILL)
        while "was terminated by signal 9" not in (data_dir / "postgres.log").read_text():
            time.sleep(0.01)
        assert postgres.ensure_running() is False
        assert show(database.conninfo, "fsync") == "on"
        assert live_server(data_dir) == pid


def test_a_server_whose_socket_was_deleted_is_restarted(data_dir: Path) -> None:
    postgres = EmbeddedPostgres(data_dir)
    with postgres as database:
        write(database.conninfo, 1)
        (database.socket_dir / ".s.PGSQL.5432").unlink()
        assert postgres.ensure_running() is True
        assert read(database.conninfo) == [1]


def test_a_server_that_recovers_is_stopped_without_waiting_for_what_never_comes(data_dir: Path) -> None:
    """PostgreSQL 18 asked for a fast stop at the wrong moment of a recovery stays for ever."""
    for _ in range(4):
        with EmbeddedPostgres(data_dir) as database:
            write(database.conninfo, 1)
            with psycopg.connect(database.conninfo) as connection:
                os.kill(connection.info.backend_pid, signal.SIGKILL)
            while "was terminated by signal 9" not in (data_dir / "postgres.log").read_text():
                time.sleep(0.01)
            started_s = time.monotonic()
        assert time.monotonic() - started_s < 45, "a second try after the first one's time-out at the latest"
    with EmbeddedPostgres(data_dir) as database:
        assert read(database.conninfo) == [1, 1, 1, 1]


def test_a_stop_after_the_server_was_killed_is_quiet(data_dir: Path) -> None:
    with EmbeddedPostgres(data_dir):
        kill_server(data_dir)


@pytest.mark.parametrize("lock_file", ["postgres/postmaster.pid", "sockets/.s.PGSQL.5432.lock"])
def test_a_stale_lock_file_that_names_a_living_stranger_neither_keeps_us_from_starting_nor_harms_it(
    data_dir: Path, lock_file: str
) -> None:
    with EmbeddedPostgres(data_dir) as database:
        write(database.conninfo, 1)
    # A process of the server's own user is the worst case: PostgreSQL itself would take it for its predecessor.
    user = postgres_programs.server_user()
    with subprocess.Popen([*user.command_prefix, "sleep", "60"], stdin=subprocess.DEVNULL) as stranger:
        try:
            stale = f"{stranger.pid}\n{data_dir}/postgres\n1700000000\n5432\n{data_dir}/sockets\n\n  1 1\nready   \n"
            (data_dir / lock_file).write_text(stale)
            with EmbeddedPostgres(data_dir) as database:
                assert read(database.conninfo) == [1]
            assert stranger.poll() is None
        finally:
            stranger.kill()


def test_a_stale_pid_file_that_names_the_live_server_of_another_cluster_does_not_stop_that_one(data_dir: Path) -> None:
    with EmbeddedPostgres(data_dir / "other") as other:
        with EmbeddedPostgres(data_dir / "own"):
            pass
        for name in ("postmaster.pid", "postmaster.opts"):
            (data_dir / "own" / "postgres" / name).write_bytes((data_dir / "other" / "postgres" / name).read_bytes())
        with EmbeddedPostgres(data_dir / "own") as own:
            assert live_server(data_dir / "own") != live_server(data_dir / "other")
            assert show(own.conninfo, "fsync") == "on"
        assert show(other.conninfo, "fsync") == "on"


@ONLY_LINUX
def test_a_zombie_is_not_taken_for_a_server(data_dir: Path, spawn: Callable[..., subprocess.Popen[str]]) -> None:
    """The process makes itself the foster parent of the server and does not reap it, like PID 1 in many containers."""
    code = """
import ctypes, os, signal, sys, time
from pathlib import Path
from clearinghouse.database.embedded import EmbeddedPostgres
assert ctypes.CDLL(None).prctl(36, 1, 0, 0, 0) == 0  # PR_SET_CHILD_SUBREAPER
data_dir = Path(sys.argv[1])
postgres = EmbeddedPostgres(data_dir)
postgres.start()
pid = int((data_dir / "postgres/postmaster.pid").read_text().split()[0])
os.kill(pid, signal.SIGKILL)
while (state := Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]) != "Z":
    time.sleep(0.01)
os.kill(pid, 0)  # it still takes signals
print(postgres.ensure_running(), state)
postgres.stop()
"""
    output, errors = spawn(code, data_dir).communicate(timeout=60)
    assert output == "True Z\n", errors


@pytest.fixture
def busy_orphan(data_dir: Path) -> Iterator[Callable[[int], EmbeddedPostgres]]:
    """Kill the server under a backend that computes for so many seconds and so does not notice."""
    threads: list[threading.Thread] = []
    postgres = EmbeddedPostgres(data_dir)
    loop = "DO $$ BEGIN WHILE clock_timestamp() < '{}' LOOP END LOOP; END $$"

    def compute(seconds: int, begun: threading.Event) -> None:
        lost = contextlib.suppress(psycopg.OperationalError)  # with the statement's answer or just after it
        with lost, psycopg.connect(postgres.database.conninfo, autocommit=True) as connection:
            row = connection.execute("SELECT clock_timestamp() + make_interval(secs => %s)", (seconds,)).fetchone()
            assert row is not None
            begun.set()
            connection.execute(loop.format(row[0]))

    def orphan(seconds: int) -> EmbeddedPostgres:
        write(postgres.start().conninfo, 1)
        begun = threading.Event()
        threads.append(threading.Thread(target=compute, args=(seconds, begun)))
        threads[0].start()
        assert begun.wait(10)
        time.sleep(0.2)
        kill_server(data_dir)
        return postgres

    yield orphan
    for thread in threads:
        thread.join()
    postgres.stop()


@pytest.mark.slow
def test_a_restart_waits_for_the_orphaned_backends_of_a_killed_server(
    busy_orphan: Callable[[int], EmbeddedPostgres], data_dir: Path
) -> None:
    postgres = busy_orphan(3)
    assert postmaster.memory_is_held(data_dir / "postgres") in {True, None}
    assert postgres.ensure_running() is True
    assert read(postgres.database.conninfo) == [1]


@pytest.mark.slow
def test_a_restart_gives_up_on_orphaned_backends_after_its_time_and_says_how_to_find_them(
    busy_orphan: Callable[[int], EmbeddedPostgres], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(embedded, "_ORPHANS_TIMEOUT_S", 1)
    postgres = busy_orphan(5)
    with pytest.raises(EmbeddedPostgresError, match="processes of the server before still run") as refused:
        postgres.ensure_running()
    assert "fuser" in str(refused.value)
    assert "shared memory block" in str(refused.value), "the log's last lines are shown"


# What cannot work, and says why


def test_a_cluster_of_another_major_version_is_refused(data_dir: Path) -> None:
    with EmbeddedPostgres(data_dir):
        pass
    (data_dir / "postgres" / "PG_VERSION").write_text("12\n")
    with pytest.raises(EmbeddedPostgresError, match=r"made by PostgreSQL 12, but the versions installed here are .*18"):
        EmbeddedPostgres(data_dir).start()


def test_a_directory_that_is_no_cluster_is_not_overwritten(data_dir: Path) -> None:
    (data_dir / "postgres").mkdir(parents=True)
    data_dir.chmod(0o700)
    with pytest.raises(EmbeddedPostgresError, match="move it away"):
        EmbeddedPostgres(data_dir).start()


def test_a_server_that_does_not_start_shows_its_log_at_once_and_leaves_nothing_behind(data_dir: Path) -> None:
    broken = EmbeddedPostgres(data_dir, settings={"shared_buffers": "plenty"})
    begun_s = time.monotonic()
    with pytest.raises(EmbeddedPostgresError, match=r'invalid value for parameter "shared_buffers": "plenty"'):
        broken.start()
    assert time.monotonic() - begun_s < 20
    broken.stop()
    assert read_after_repair(data_dir) == "128MB"


def read_after_repair(data_dir: Path) -> str:
    with EmbeddedPostgres(data_dir) as database:
        return show(database.conninfo, "shared_buffers")


def test_ensure_running_needs_a_start_first(data_dir: Path) -> None:
    with pytest.raises(EmbeddedPostgresError, match="start"):
        EmbeddedPostgres(data_dir).ensure_running()


def test_without_the_wheel_the_error_names_the_extra_and_the_setting(
    data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(postgres_programs, "WHEEL_MODULE", "no_such_wheel")
    with pytest.raises(EmbeddedPostgresError, match=r"\[embedded\].*CLEARINGHOUSE_DATABASE_URL"):
        EmbeddedPostgres(data_dir).start()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root needs another user")
def test_root_without_setpriv_is_told_what_to_install(data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(data_dir))
    with pytest.raises(EmbeddedPostgresError, match="util-linux"):
        EmbeddedPostgres(data_dir).start()


@pytest.mark.skipif(os.geteuid() != 0, reason="the other tests show it when they are not run by root")
def test_an_ordinary_user_needs_no_other_user(data_dir: Path, spawn: Callable[..., subprocess.Popen[str]]) -> None:
    user = postgres_programs.server_user()
    data_dir.mkdir(mode=0o700)
    user.take_over(data_dir)
    ordinary = spawn(USER, data_dir, prefix=user.command_prefix)
    joined(ordinary)
    assert live_server(data_dir) is not None
    assert (data_dir / "users.lock").stat().st_uid == (data_dir / "postgres").stat().st_uid == user.uid
    leave_in_order(ordinary)
    assert live_server(data_dir) is None

    with pytest.raises(EmbeddedPostgresError, match=f"belongs to user {user.uid}"):
        EmbeddedPostgres(data_dir).start()


def test_the_log_is_bounded(data_dir: Path) -> None:
    with EmbeddedPostgres(data_dir) as database:
        with psycopg.connect(database.conninfo) as connection, pytest.raises(psycopg.errors.DivisionByZero):
            connection.execute("SELECT 1/0")
        log = data_dir / "postgres.log"
        assert "division" not in log.read_text(), "a statement's error is its sender's, not the log's"
    with log.open("a") as file:
        file.truncate(2 * 1024 * 1024)
    with EmbeddedPostgres(data_dir):
        assert log.stat().st_size < 10_000
        assert (data_dir / "postgres.log.1").stat().st_size == 2 * 1024 * 1024
    assert cluster_files.last_lines(log, count=1).endswith("database system is shut down")


# The fixtures of the whole test suite


def test_every_test_gets_an_empty_database_of_its_own(database: str) -> None:
    write(database, 1)
    assert read(database) == [1]


def test_and_the_next_one_does_not_see_it(database: str) -> None:
    with pytest.raises(psycopg.errors.UndefinedTable):
        read(database)


def test_a_program_that_ctrl_c_reached_before_it_was_in_a_session_of_its_own_is_run_again(tmp_path: Path) -> None:
    """Between fork and setsid: too short to be hit on purpose, so it does to itself what the terminal would."""
    program = tmp_path / "initdb"
    program.write_text('#!/bin/sh\n[ -e "$1" ] && { echo done; exit; }\n: > "$1"\nkill -INT $$\nsleep 60\n')
    program.chmod(0o755)
    user = postgres_programs.ServerUser(os.geteuid(), os.getegid(), ())
    programs = postgres_programs.Programs(tmp_path, 18)
    answer = programs.run("initdb", [str(tmp_path / "been")], user=user, timeout_s=10)
    assert (answer.returncode, answer.stdout) == (0, "done\n")
