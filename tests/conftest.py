"""A real PostgreSQL and a real chain for the whole run; an empty database and an untouched chain for every test."""

from __future__ import annotations

import itertools
import logging
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import hypothesis
import psycopg
import pytest
import structlog
from psycopg import sql
from psycopg.conninfo import make_conninfo

from clearinghouse.database.embedded import EmbeddedDatabase, EmbeddedPostgres
from clearinghouse.database.migrate import migrate
from tests.parts.devnet import DEV_CHAIN_ID, AnvilMissing, Devnet, anvil_program, running_anvil

# No test is judged by the time it takes: machines are busy. A test says the same twice; `make storm` tries what nobody
# has tried.
hypothesis.settings.register_profile(
    "house",
    deadline=None,
    suppress_health_check=[hypothesis.HealthCheck.too_slow],
    derandomize=os.environ.get("STORM_SEED") != "fresh",
)
hypothesis.settings.load_profile("house")

TEMPLATE_NAME = "test_template"
#: Four services in one test have up to twenty each. What is not used costs nothing.
CONNECTIONS_MAX_COUNT = 200
#: A server has less than 1 GiB of files at any time; several run where tests run side by side.
MEMORY_MIN_BYTES = 4 * 2**30

# The library's usual traces draw every local variable of every frame, which takes seconds.
*_usual, _ = structlog.get_config()["processors"]
structlog.configure(
    processors=[*_usual, structlog.dev.ConsoleRenderer(exception_formatter=structlog.dev.plain_traceback)]
)


@pytest.fixture(autouse=True)
def _logging_is_as_before() -> Iterator[None]:
    """A command that runs in this process sets up logging for it, over the standard error that its test captures: what
    later tests log would go to a stream that is closed, at a level of somebody else's choice."""
    root, how = logging.getLogger(), structlog.get_config()
    handlers, level = list(root.handlers), root.level
    loggers = [each for each in root.manager.loggerDict.values() if isinstance(each, logging.Logger)]
    levels = [(each, each.level, each.disabled) for each in loggers]
    yield
    structlog.configure(**how)
    root.handlers[:] = handlers
    root.setLevel(level)
    logging.captureWarnings(False)
    for each, its_level, is_disabled in levels:
        each.setLevel(its_level)
        each.disabled = is_disabled


def prepare_template(conninfo: str) -> None:
    """Bring the empty template database to the state every test's database begins with. Runs once, and only if needed.

    No connection to it may stay open: PostgreSQL does not copy a database that is in use.
    """
    migrate(conninfo)


@pytest.fixture(scope="session")
def postgres() -> Iterator[EmbeddedDatabase]:
    """One server for the run, in a short path so that its socket lies inside.

    Nothing waits for the disk: no machine loses its power here, and tests would be judged by what other programs write
    to it. What outlives `kill -9` of a server is seen on servers of those tests' own, which do wait.
    """
    settings = {"max_connections": f"{CONNECTIONS_MAX_COUNT}", "fsync": "off", "max_wal_size": "256MB"}
    with (
        tempfile.TemporaryDirectory(prefix="clearinghouse-test-", dir=_quick_folder()) as folder,
        EmbeddedPostgres(Path(folder) / "data", settings=settings) as database,
    ):
        yield database


def _quick_folder() -> str | None:
    """Memory, where there is enough. Thousands of databases come and go, each in 1,500 files, and ext4 looks for a free
    inode among all that were deleted of late: that would take more time than the tests."""
    memory = Path("/dev/shm")
    if os.access(memory, os.W_OK) and shutil.disk_usage(memory).free >= MEMORY_MIN_BYTES:
        return str(memory)
    return None


@pytest.fixture(scope="session")
def database_template(postgres: EmbeddedDatabase) -> str:
    """The name of the prepared database that `database` copies."""
    return prepared_template(postgres)


def prepared_template(postgres: EmbeddedDatabase) -> str:
    _execute(postgres, sql.SQL("CREATE DATABASE {}").format(sql.Identifier(TEMPLATE_NAME)))
    prepare_template(make_conninfo(postgres.conninfo, dbname=TEMPLATE_NAME))
    return TEMPLATE_NAME


@pytest.fixture(scope="session")
def _database_numbers() -> Iterator[int]:
    return itertools.count(1)


@pytest.fixture
def database(postgres: EmbeddedDatabase, database_template: str, _database_numbers: Iterator[int]) -> Iterator[str]:
    """The superuser's conninfo for a database that nobody has used; it is dropped afterwards, connections and all."""
    with fresh_database(postgres, database_template, f"test_{next(_database_numbers)}") as conninfo:
        yield conninfo


@pytest.fixture(scope="session")
def anvil_is_there() -> None:
    """Whoever starts a node of its own needs it: without one a test is skipped, aloud."""
    try:
        anvil_program()
    except AnvilMissing as reason:
        pytest.skip(f"THE CHAIN IS NOT TESTED: {reason}")


@pytest.fixture(scope="session")
def _devnet(anvil_is_there: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Devnet]:
    """One node for the run, with the contracts on it."""
    with running_anvil(tmp_path_factory.mktemp("anvil"), chain_id=DEV_CHAIN_ID) as anvil:
        deployed = Devnet.deployed_on(anvil.url)
        deployed.pause()
        yield deployed


@pytest.fixture
def devnet(_devnet: Devnet) -> Iterator[Devnet]:
    """A chain on which nothing has happened yet: what a test does to it is undone.

    While no test uses it, it stands still: otherwise a late test's chain would be as long as the run has taken so far.
    """
    with _devnet.undone():
        _devnet.mine()  # its newest block may be minutes old
        yield _devnet
    _devnet.pause()


@contextmanager
def fresh_database(postgres: EmbeddedDatabase, template: str, name: str) -> Iterator[str]:
    """A copy of a template that lasts as long as the block."""
    copy = sql.SQL("CREATE DATABASE {} TEMPLATE {} STRATEGY wal_log")
    _execute(postgres, copy.format(sql.Identifier(name), sql.Identifier(template)))
    try:
        yield make_conninfo(postgres.conninfo, dbname=name)
    finally:
        _execute(postgres, sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))


def _execute(postgres: EmbeddedDatabase, statement: sql.Composed) -> None:
    with psycopg.connect(make_conninfo(postgres.conninfo, dbname="postgres"), autocommit=True) as connection:
        connection.execute(statement)
