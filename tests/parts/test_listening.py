from __future__ import annotations

import asyncio
import gc
import socket
import warnings
from pathlib import Path

import pytest

from tests.parts.database_link import database_link


@pytest.mark.parametrize("turns", range(8))
def test_a_connection_that_comes_with_the_end_is_no_leak(tmp_path: Path, turns: int) -> None:
    """`turns` of the event loop after it: accepted, on its way to who serves it, or just served."""
    here, there = tmp_path / "here", tmp_path / "there"
    here.mkdir()

    async def connect_and_end() -> None:
        async with database_link(f"host={there} port=5432", here):
            with socket.socket(socket.AF_UNIX) as caller:
                caller.connect(str(here / ".s.PGSQL.5432"))
                for _ in range(turns):
                    await asyncio.sleep(0)

    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        asyncio.run(connect_and_end())
        gc.collect()
    assert [str(warning.message) for warning in seen] == []
