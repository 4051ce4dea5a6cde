"""How much the deposit covers: all of it for operators, what concerns them for gateways."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends

from clearinghouse.api.coverage_shapes import CoverageList, GatewayCoverage
from clearinghouse.api.described import described
from clearinghouse.api.wiring import Wired, operator_or_gateway
from clearinghouse.coverage.documents import coverage_document, read_all
from clearinghouse.identity.authenticate import Caller

router = APIRouter(prefix="/v1", tags=["Operation"])


@router.get("/coverage", response_model=GatewayCoverage | CoverageList, **described(None))
async def read_coverage(
    caller: Annotated[Caller | None, Depends(operator_or_gateway)], wired: Wired
) -> GatewayCoverage | CoverageList:
    """With the admin token, every sender's coverage. With an API key, the level and whether new sessions are taken."""
    if caller is not None:
        return _for_gateways(wired)
    async with wired.engine.connect() as connection:
        return CoverageList.model_validate({"items": [coverage_document(each) for each in await read_all(connection)]})


def _for_gateways(wired: Wired) -> GatewayCoverage:
    """From memory: a gateway may ask as often as it likes."""
    cover = wired.cover
    if cover is None:
        return GatewayCoverage(level=None, takes_new_sessions=True, age_s=None)
    level, age_s = cover.level(), cover.age_s(cover.sender)
    is_refused = cover.refusal(cover.sender, is_new_session=True, face_value_wei=None) is not None
    return GatewayCoverage(
        level=level.value if level is not None else None,
        takes_new_sessions=not is_refused,
        age_s=round(age_s) if age_s is not None else None,
    )
