"""Look-ups go by their keys, whatever the planner saw when the plan was made: a connection keeps its plans for days."""

from __future__ import annotations

from collections.abc import Iterator
from decimal import Decimal
from typing import Any

import psycopg
import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from clearinghouse import lookups
from clearinghouse.database.connect import hot_conninfo
from clearinghouse.identity import gateways, keys
from tests.parts.books import commit, usage

QUERIES = {
    name: getattr(lookups, name)
    for name in ("_KEYS", "_SESSIONS", "_ANSWERS", "_RECEIPTS", "_USAGES", "_WEBHOOK_SECRETS")
}


def nodes(plan: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield plan
    for child in plan.get("Plans", ()):
        yield from nodes(child)


@pytest.mark.parametrize("name", QUERIES)
async def test_a_plan_made_over_tiny_tables_reads_no_table_whole(
    admin: AsyncEngine, owner: psycopg.Connection[tuple[Any, ...]], database: str, name: str
) -> None:
    async with admin.begin() as connection:
        for number in range(3):
            gateway = await gateways.create(connection, f"gateway-{number}", credit_limit=Decimal(1000))
            key = await keys.create(connection, gateway.id, pepper=b"p" * 32)
    assert commit(owner, usage(gateway.id, key.key.id, idempotency_key="once"))[0] is None
    owner.execute("ANALYZE")
    with psycopg.connect(hot_conninfo(database)) as hot:
        row = hot.execute(f"EXPLAIN (GENERIC_PLAN, FORMAT JSON) {QUERIES[name]}".encode()).fetchone()
    assert row is not None
    scans = [node for node in nodes(row[0][0]["Plan"]) if "Relation Name" in node]
    assert scans
    assert [scan["Relation Name"] for scan in scans if "Index Cond" not in scan] == []
