"""Empty databases, as many as a test wants."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager

import pytest

from clearinghouse.database.embedded import EmbeddedDatabase
from tests.conftest import fresh_database
from tests.storm.campaign import Database


@pytest.fixture
def databases(postgres: EmbeddedDatabase, database_template: str, _database_numbers: Iterator[int]) -> Database:
    def database() -> AbstractContextManager[str]:
        return fresh_database(postgres, database_template, f"storm_{next(_database_numbers)}")

    return database
