"""Jobs behind a 402, paid by the official client: a fixed price once, a live one for as long as the work runs.

Job: {orchestrator_url, signer_url, signer_headers, prices: {type: wei per unit}, work_s, pause_s}
"""

from __future__ import annotations

import asyncio
import json
from typing import Any

from driver import read_job, report, report_error
from livepeer_gateway.errors import LivepeerGatewayError, LivepeerHTTPError
from livepeer_gateway.http import post_json
from livepeer_gateway.live_runner import LiveRunnerInstance, LiveRunnerPriceInfo, LiveRunnerSession, call_runner
from livepeer_gateway.remote_signer import LivePaymentChallenge, LivePaymentSession, get_signer_info

UNITS = {"fixed": "fixed", "live": "seconds"}
CALL_TIMEOUT_S = 60


async def main() -> None:
    job = read_job()
    try:
        await asyncio.gather(pay_fixed(job), pay_live(job))
    except LivepeerGatewayError as error:
        report_error("not paid", error)


async def pay_fixed(job: dict[str, Any]) -> None:
    """One call, one payment; a loop that goes on paying is told by a 409 that nothing more is due."""
    result = await call_runner(runner=_runner(job, "fixed"), payload={}, **_signer(job))
    report("fixed done", session_id=result.session_id, keeps_paying=result.payment_session is not None)
    session = await _session_of_a_challenge(job, "fixed")
    payment = await session.get_payment()
    report("fixed payment", has_seg_creds=bool(payment.seg_creds))
    report("fixed payments ended", session_gone=await session.run_payments())


async def pay_live(job: dict[str, Any]) -> None:
    """Paid up front, then by the client's own loop during the work, then once more after a pause, until stopped."""
    result = await call_runner(
        runner=_runner(job, "live"), payload={"work_s": job["work_s"]}, timeout=CALL_TIMEOUT_S, **_signer(job)
    )
    report("live done", session_id=result.session_id)
    await asyncio.sleep(job["pause_s"])
    await result.payment_session.send_payment()
    report("live paid again")
    control_url = f"{job['orchestrator_url']}/sessions/{result.session_id}"
    await LiveRunnerSession(result.session_id, "", "", control_url).aclose()
    report("live payments ended", session_gone=await result.payment_session.run_payments())


async def _session_of_a_challenge(job: dict[str, Any], job_type: str) -> LivePaymentSession:
    signer_headers = frozenset(job["signer_headers"].items())
    payer = await get_signer_info(job["signer_url"], signer_headers)
    try:
        await post_json(_runner(job, job_type).url, {}, headers={"Livepeer-Payer-Address": payer.address})
    except LivepeerHTTPError as error:
        report("challenged", status=error.status_code)
        challenge = _challenge(error)
        return LivePaymentSession(type=job_type, challenge=challenge, **_signer(job))
    raise LivepeerGatewayError("an unpaid call was served")


def _challenge(error: LivepeerHTTPError) -> LivePaymentChallenge:
    body = json.loads(error.body)
    return LivePaymentChallenge(body["payment_params"], body["manifest_id"], body["payment_url"])


def _runner(job: dict[str, Any], job_type: str) -> LiveRunnerInstance:
    """As discovery would list it; from the price the client makes the ceiling it sends, 1.2 % above."""
    return LiveRunnerInstance(
        url=f"{job['orchestrator_url']}/apps/{job_type}",
        app=f"tests/{job_type}",
        runner_id=job_type,
        mode="single-shot",
        orchestrator_url=job["orchestrator_url"],
        raw={},
        price_info=LiveRunnerPriceInfo(job["prices"][job_type], currency="wei", unit=UNITS[job_type]),
    )


def _signer(job: dict[str, Any]) -> dict[str, Any]:
    return {"signer_url": job["signer_url"], "signer_headers": job["signer_headers"]}


if __name__ == "__main__":
    asyncio.run(main())
