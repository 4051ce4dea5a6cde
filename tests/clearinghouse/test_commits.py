"""The group commit and what one request of a batch can do to the others."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace

import psycopg
import pytest
from prometheus_client import CollectorRegistry

from clearinghouse.commits import GroupCommit
from clearinghouse.database.connect import SERVE_ROLE, in_role
from clearinghouse.metrics import Metrics
from tests.parts.books import Connection, as_issuance, commit, commit_together, new_gateway, usage


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


def test_nonces_of_a_rand_that_nobody_knows_begin_with_the_first(owner: Connection) -> None:
    first, later = (usage(*new_gateway(owner)) for _ in range(2))
    outcomes = commit_together(owner, [first, replace(later, first_nonce=2)])
    assert [code for code, _ in outcomes] == [None, "nonce_used"]
    assert owner.execute("SELECT hash, last_nonce FROM recipient_rand").fetchall() == [(first.rand, 1)]


def test_a_claim_that_is_gone_is_no_release(owner: Connection) -> None:
    """Somebody's refusal may forget a rand after the claim of it found it there: then nothing would hold the nonces."""
    owner.execute(
        "CREATE FUNCTION forget() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END';"
        "CREATE TRIGGER forget BEFORE INSERT ON recipient_rand FOR EACH ROW EXECUTE FUNCTION forget()"
    )
    with pytest.raises(psycopg.errors.SerializationFailure, match="forgotten while it was claimed"):
        commit(owner, usage(*new_gateway(owner)))
    assert owner.execute("SELECT count(*) FROM issuance").fetchone() == (0,)
