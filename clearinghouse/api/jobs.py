"""What is done on a schedule, for operators and their dashboards. Asks for the admin token, as admin.py does."""

from __future__ import annotations

from fastapi import APIRouter, Depends
from pydantic import Field

from clearinghouse.api.described import described
from clearinghouse.api.shapes import Answer
from clearinghouse.api.wiring import Books, require_admin
from clearinghouse.database.connect import database_now
from clearinghouse.job_runs import jobs_document, lead, standings

router = APIRouter(prefix="/v1/jobs", tags=["Administration"], dependencies=[Depends(require_admin)])


class RunAnswer(Answer):
    """A run that has ended."""

    outcome: str = Field(description="ok or failed.", examples=["ok"])
    started_at: str
    ended_at: str
    duration_ms: int
    said: str | None = Field(description="What it did, in one line.", examples=["12 runs forgotten"])
    error_kind: str | None = Field(description="Of a failure; does not change with its words.")
    error: str | None
    by_hand: bool
    leader: str = Field(description="Host and process.", examples=["worker-1:4711"])


class JobAnswer(Answer):
    """A job, and how it does."""

    name: str = Field(examples=["ledger-verify"])
    every_s: int
    next_at: str
    running_since: str | None
    last: RunAnswer | None = Field(description="The last run; those whose process was given up do not count.")
    last_ok_at: str | None = Field(description="When the last run that went well began.")
    failures_count: int = Field(description="Failed runs since then.")
    late: str | None = Field(description="What should have begun or ended by now.")


class JobList(Answer):
    leader: str | None = Field(description="Host and process of the worker that leads; null where none does.")
    leads_since: str | None
    items: list[JobAnswer] = Field(description="In the order of their names.")


@router.get("", **described(None))
async def list_jobs(books: Books) -> JobList:
    """Every job: its last run and its next, how it went, and whether it is late."""
    async with books.connect() as connection:
        found = jobs_document(await standings(connection), await lead(connection), await database_now(connection))
    return JobList.model_validate(found)
