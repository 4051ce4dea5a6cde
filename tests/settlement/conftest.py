"""The owner's way into the database of a test, and a table that a job of a test writes to."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import psycopg
import pytest

from tests.parts.worker_process import PERIODS

Owner = psycopg.Connection[tuple[Any, ...]]


@pytest.fixture
def owner(database: str) -> Iterator[Owner]:
    """The superuser, each statement in a transaction of its own."""
    with psycopg.connect(database, autocommit=True) as connection:
        yield connection


@pytest.fixture
def periods(owner: Owner) -> Owner:
    """With the table of `periods_job`."""
    owner.execute(PERIODS)
    return owner
