"""The group commit and what one request of a batch can do to the others."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import psycopg
import pytest
from prometheus_client import CollectorRegistry

from clearinghouse.commits import GroupCommit
from clearinghouse.database.connect import SERVE_ROLE, in_role
from clearinghouse.metrics import Metrics
from tests.parts.books import Connection, as_issuance, new_gateway, usage


@asynccontextmanager
async def committing(database: str) -> AsyncIterator[GroupCommit]:
    metrics = Metrics(CollectorRegistry(), version="test")
    conninfo = in_role(database, SERVE_ROLE)
    commits = GroupCommit(conninfo, batch_rows_max_count=512, deadline_s=10, metrics=metrics)
    try:
        yield commits
    finally:
        await commits.close()


@pytest.mark.parametrize(
    ("is_checked", "refused_as"),
    [
        (True, psycopg.errors.CheckViolation),
        # What no check keeps out, and no row of an index can hold: psycopg counts it among the server's own troubles.
        (False, psycopg.errors.ProgramLimitExceeded),
    ],
)
async def test_a_request_with_a_value_that_the_database_does_not_take_fails_alone(
    database: str, owner: Connection, is_checked: bool, refused_as: type[psycopg.Error]
) -> None:
    if not is_checked:
        owner.execute("ALTER TABLE keyed_answer DROP CONSTRAINT keyed_answer_key_check")
    asked = [as_issuance(usage(*new_gateway(owner))) for _ in range(7)]
    asked[3] = asked[3]._replace(idempotency_key=secrets.token_hex(4000))
    async with committing(database) as commits:
        outcomes = await asyncio.gather(*map(commits.commit, asked), return_exceptions=True)
    assert isinstance(outcomes.pop(3), refused_as)
    assert [getattr(outcome, "code", outcome) for outcome in outcomes] == [None] * 6
