"""A real PostgreSQL and a real chain for the whole run; an empty database and an untouched chain for every test."""

from __future__ import annotations

import itertools
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg
import pytest
import structlog
from psycopg import sql
from psycopg.conninfo import make_conninfo

from clearinghouse.database.embedded import EmbeddedDatabase, EmbeddedPostgres
from clearinghouse.database.migrate import migrate
from tests.parts.devnet import DEV_CHAIN_ID, AnvilMissing, Devnet, anvil_program, running_anvil

TEMPLATE_NAME = "test_template"

# The library's usual traces draw every local variable of every frame, which takes seconds.
*_usual, _ = structlog.get_config()["processors"]
structlog.configure(
    processors=[*_usual, structlog.dev.ConsoleRenderer(exception_formatter=structlog.dev.plain_traceback)]
)


def prepare_template(conninfo: str) -> None:
    """Bring the empty template database to the state every test's database begins with. Runs once, and only if needed.

    No connection to it may stay open: PostgreSQL does not copy a database that is in use.
    """
    migrate(conninfo)


@pytest.fixture(scope="session")
def postgres() -> Iterator[EmbeddedDatabase]:
    """One server for the run, in a short path so that its socket lies inside. Durable, as in production."""
    with (
        tempfile.TemporaryDirectory(prefix="clearinghouse-test-") as folder,
        EmbeddedPostgres(Path(folder) / "data") as database,
    ):
        yield database


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
def _devnet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Devnet]:
    """One node for the run, with the contracts on it."""
    try:
        anvil_program()
    except AnvilMissing as reason:
        pytest.skip(f"THE CHAIN IS NOT TESTED: {reason}")
    with running_anvil(tmp_path_factory.mktemp("anvil"), chain_id=DEV_CHAIN_ID) as anvil:
        yield Devnet.deployed_on(anvil.url)


@pytest.fixture
def devnet(_devnet: Devnet) -> Iterator[Devnet]:
    """A chain on which nothing has happened yet: what a test does to it is undone."""
    with _devnet.undone():
        yield _devnet


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
