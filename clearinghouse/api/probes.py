"""What machines ask about the service: is it alive, is it ready, how does it do?"""

from __future__ import annotations

from fastapi import APIRouter, Depends, Response
from prometheus_client import generate_latest
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4

from clearinghouse.api.described import refusals
from clearinghouse.api.shapes import HealthAnswer, ReadyAnswer, ready_answer
from clearinghouse.api.wiring import Wired, require_scraper

router = APIRouter(tags=["Operation"])


@router.get("/healthz")
async def healthz() -> HealthAnswer:
    """200 as long as the process answers. Depends on nothing: a restart would not bring a lost database back."""
    return HealthAnswer(status="ok")


@router.get("/readyz", responses={503: {"model": ReadyAnswer, "description": "Not ready: `checks` says why."}})
async def readyz(wired: Wired, response: Response) -> ReadyAnswer:
    """Whether calls may be sent here: every check, with what was found or what is wrong and what to do about it."""
    answer = ready_answer(await wired.readiness.checks())
    response.status_code = 200 if answer.ready else 503
    return answer


@router.get(
    "/metrics",
    dependencies=[Depends(require_scraper)],
    response_class=Response,
    responses={
        200: {"description": "Prometheus text format.", "content": {"text/plain": {"schema": {"type": "string"}}}},
        **refusals(401),
    },
)
async def metrics(wired: Wired) -> Response:
    """All metrics, for Prometheus. Asks for the metrics token where one is configured."""
    return Response(generate_latest(wired.metrics.registry), headers={"content-type": CONTENT_TYPE_PLAIN_0_0_4})
