"""The two ways tests reach the books: as the owner, who may do anything, and in the admin role, as our code does."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import psycopg
import pytest
import uvloop
from sqlalchemy.ext.asyncio import AsyncEngine

from clearinghouse.database.connect import ADMIN_ROLE, async_engine, in_role

LoopFactory = Callable[[], asyncio.AbstractEventLoop]


def pytest_asyncio_loop_factories(item: pytest.Item) -> dict[str, LoopFactory]:
    """Connections are tested on the loop the service runs on, uvloop, whose transports are not asyncio's."""
    both: dict[str, LoopFactory] = {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}
    loops: dict[str, dict[str, LoopFactory]] = {
        "test_door.py": both,
        "test_http_connection.py": {"uvloop": uvloop.new_event_loop},
        "test_port.py": both,
        "test_port_closing.py": both,
        "test_port_strangers.py": both,
    }
    return loops.get(item.path.name, {"asyncio": asyncio.new_event_loop})


@pytest.fixture
def owner(database: str) -> Iterator[psycopg.Connection[tuple[Any, ...]]]:
    """The superuser, each statement in a transaction of its own."""
    with psycopg.connect(database, autocommit=True) as connection:
        yield connection


@pytest.fixture
async def admin(database: str) -> AsyncIterator[AsyncEngine]:
    engine = async_engine(in_role(database, ADMIN_ROLE), pool_size=16)
    yield engine
    await engine.dispose()
