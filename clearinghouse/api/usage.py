"""`GET /v1/usage`: what a gateway used, for its dashboard."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query
from pydantic import Field

from clearinghouse.api.described import described
from clearinghouse.api.queries import only_query
from clearinghouse.api.shapes import Answer
from clearinghouse.api.wiring import Authenticated, Wired
from clearinghouse.database.connect import database_now
from clearinghouse.usage_query import (
    BY,
    BY_DEFAULT,
    DAYS_DEFAULT_COUNT,
    DAYS_MAX_COUNT,
    GROUPS_MAX_COUNT,
    question,
    time_zone_of,
    usage_document,
    usage_of,
)

router = APIRouter(prefix="/v1", tags=["Account"])


class UsageSums(Answer):
    """What several payments come to together."""

    currency: str = Field(examples=["USD"])
    issuances: int = Field(description="Released payments.", examples=[1200])
    tickets: int = Field(examples=[3600])
    ev_wei: str = Field(description="Expected value of the tickets.", examples=["3600000000000000"])
    fee_wei: str = Field(description="Fees as the signers computed them; recorded, not charged.")
    charge: str = Field(examples=["10.8"])


class UsageGroup(UsageSums):
    """The same, of those that have these in common; null where they were not told apart by it."""

    day: str | None = Field(description="In the time zone of the answer.", examples=["2026-04-07"])
    app: str | None
    pipeline: str | None
    model: str | None
    job_type: str | None


class UsageAnswer(Answer):
    """Usage of some days, up to this instant."""

    gateway_id: str
    from_day: str = Field(alias="from", description="The first day.", examples=["2026-03-09"])
    to_day: str = Field(alias="to", description="The last day, included.", examples=["2026-04-07"])
    time_zone: str = Field(examples=["Europe/Berlin"])
    begins_at: str = Field(description="When the first day began.")
    ends_at: str = Field(description="When the last day ends.")
    by: list[str] = Field(examples=[["day", "app"]])
    items: list[UsageGroup] = Field(description="In the order of `by`; what was not used is left out.")
    totals: list[UsageSums] = Field(description="Of all items; by currency. Empty where nothing was used.")
    rolled_up_until: str = Field(
        description="What was issued before is read from sums, what came after one by one: nothing is missing."
    )


@router.get(
    "/usage",
    dependencies=[Depends(only_query("from", "to", "by", "time_zone"))],
    response_model=UsageAnswer,
    **described(None, 400),
)
async def read_usage(
    caller: Authenticated,
    wired: Wired,
    *,
    first: Annotated[
        str | None,
        Query(
            alias="from",
            description=f"The first day; {DAYS_DEFAULT_COUNT} days by default, {DAYS_MAX_COUNT} at most.",
            examples=["2026-03-09"],
        ),
    ] = None,
    last: Annotated[str | None, Query(alias="to", description="The last day, included; today by default.")] = None,
    by: Annotated[
        str, Query(description=f"One or more of {', '.join(BY)}, with commas; {GROUPS_MAX_COUNT} items at most.")
    ] = ",".join(BY_DEFAULT),
    time_zone: Annotated[
        str | None, Query(description="Whose days; by default the one in which the gateway is billed, or UTC.")
    ] = None,
) -> dict[str, Any]:
    """What the calling gateway used, added up. An invoice is made of the payments themselves; these are their sums."""
    async with wired.engine.connect() as connection:
        zone = time_zone if time_zone is not None else await time_zone_of(connection, caller.gateway_id)
        now = await database_now(connection)
        asked = question(now=now, time_zone=zone, first=first, last=last, by=by.split(","))
        return usage_document(caller.gateway_id, await usage_of(connection, caller.gateway_id, asked))
