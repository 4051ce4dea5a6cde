"""A live video job paid by the official client: GetOrchestrator over gRPC, start_lv2v, then payment after payment.

Job: {orchestrator_url, signer_url, signer_headers, model_id, payments, interval_s}
"""

from __future__ import annotations

import time

from driver import read_job, report, report_error
from livepeer_gateway.control import ControlConfig, ControlMode
from livepeer_gateway.errors import LivepeerGatewayError, SkipPaymentCycle
from livepeer_gateway.lv2v import StartJobRequest, start_lv2v
from livepeer_gateway.orch_info import get_orch_info
from livepeer_gateway.remote_signer import PaymentSession


def main() -> None:
    job = read_job()
    signer = {"signer_url": job["signer_url"], "signer_headers": job["signer_headers"]}
    try:
        info = get_orch_info(job["orchestrator_url"], **signer)
        report("info", transcoder=info.transcoder, recipient=info.ticket_params.recipient.hex())
        video = start_lv2v(
            job["orchestrator_url"],
            StartJobRequest(model_id=job["model_id"]),
            start_payments=False,  # its own loop follows the segments of a video; here the payments alone matter
            control_config=ControlConfig(mode=ControlMode.DISABLED),
            **signer,
        )
    except LivepeerGatewayError as error:
        report_error("not started", error)
        return
    report("started", manifest_id=video.manifest_id)
    for _ in range(job["payments"]):
        time.sleep(job["interval_s"])
        _pay(video.payment_session)


def _pay(session: PaymentSession) -> None:
    try:
        session.send_payment()
    except SkipPaymentCycle as error:
        report_error("skipped", error)
    except LivepeerGatewayError as error:
        report_error("not paid", error)
    else:
        report("paid")


if __name__ == "__main__":
    main()
