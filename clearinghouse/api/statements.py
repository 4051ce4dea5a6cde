"""What a gateway had, used and had left in periods that are closed: GET /v1/statements. Open to a suspended one too.

As JSON and as CSV. On paper they are made by `clearinghouse statements pdf`: setting a page takes as long as a hundred
payments, and would keep them waiting here.
"""

from __future__ import annotations

from typing import Annotated, Any, Final

from fastapi import APIRouter, Depends, Header, Path, Response
from pydantic import Field

from clearinghouse.api.bodies import PATH_PATTERN
from clearinghouse.api.described import described
from clearinghouse.api.problems import json_bytes
from clearinghouse.api.queries import only_query
from clearinghouse.api.shapes import Answer
from clearinghouse.api.wiring import Authenticated, Wired
from clearinghouse.cells import MEDIA_TYPE
from clearinghouse.statements import get_statement, list_statements, statement_csv

router = APIRouter(prefix="/v1", tags=["Account"], dependencies=[Depends(only_query())])

_CSV: Final = "text/csv"


class StatementSummary(Answer):
    """opening + movements - usage = closing, to the last digit."""

    period: str = Field(description="Its first day, by the gateway's calendar.", examples=["2026-10-01"])
    begins_at: str
    ends_at: str = Field(description="What bears this time is of the next one.")
    time_zone: str = Field(examples=["Europe/Berlin"])
    currency: str = Field(examples=["USD"])
    opening: str = Field(examples=["20.125"])
    usage: str = Field(examples=["73.2488"])
    closing: str = Field(examples=["42.3762"])


class MovementAnswer(Answer):
    at: str
    kind: str = Field(description="payment, refund, grant, expiry, …", examples=["payment"])
    amount: str = Field(description="Negative where money went.", examples=["95.5"])
    reference: str = Field(description="Of the entry in the books.")
    description: str


class UsageLineAnswer(Answer):
    """What one application used of one pipeline and model."""

    app: str
    pipeline: str
    model: str
    markup_bps: int
    calls: int
    tickets: int
    ev_wei: str = Field(description="Expected value of the tickets.")
    amount: str


class StatementAnswer(StatementSummary):
    movements: list[MovementAnswer]
    lines: list[UsageLineAnswer]


class StatementList(Answer):
    items: list[StatementSummary]


@router.get("/statements", response_model=StatementList, **described(None, 400))
async def read_statements(caller: Authenticated, wired: Wired) -> dict[str, Any]:
    """The closed periods of the calling gateway, newest first."""
    async with wired.engine.connect() as connection:
        return await list_statements(connection, caller.gateway_id)


_DESCRIBED: Final = described(None, 400, 404)
_DESCRIBED["responses"][200] = {"content": {_CSV: {"schema": {"type": "string"}}}}


@router.get("/statements/{period}", response_model=StatementAnswer, **_DESCRIBED)
async def read_statement(
    period: Annotated[str, Path(pattern=PATH_PATTERN, examples=["2026-10-01"])],
    caller: Authenticated,
    wired: Wired,
    accept: Annotated[str, Header(description="`text/csv` for a table; JSON otherwise.")] = "",
) -> Response:
    """The calling gateway's account over one closed period: what came, what went, what was used."""
    async with wired.engine.connect() as connection:
        statement = await get_statement(connection, caller.gateway_id, period)
    if _CSV in accept.lower():
        return Response(statement_csv(statement), media_type=MEDIA_TYPE)
    return Response(json_bytes(statement), media_type="application/json")
