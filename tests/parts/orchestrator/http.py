"""The orchestrator's HTTP routes, as the official client uses them.

POST /payment                    pay for a job begun over /live-video-to-video; answers PaymentResult
POST /live-video-to-video        begin such a job, with its first payment in the headers
POST /apps/{live|fixed|lv2v}     a job behind a 402: without payment the answer is the challenge, with it the work
POST /sessions/{id}/payment      the challenge's payment_url: keep a session funded
POST /sessions/{id}/stop         end a session; from then on its payment_url is gone (404)
POST /refresh-payment            {sender, manifest_id} -> fresh payment_params for a session
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import secrets
from fractions import Fraction
from typing import Any

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from chain.pb import lp_rpc_pb2 as pb
from tests.parts.orchestrator.books import AcceptedPayment, PaymentRefused
from tests.parts.orchestrator.lottery import NoTicketFits
from tests.parts.orchestrator.node import Orchestrator


def http_application(orchestrator: Orchestrator) -> Starlette:
    routes = _Routes(orchestrator)
    return Starlette(
        routes=[
            Route("/payment", routes.payment, methods=["POST"]),
            Route("/live-video-to-video", routes.start_live_video, methods=["POST"]),
            Route("/apps/{job_type}", routes.app, methods=["POST"]),
            Route("/sessions/{session_id}/payment", routes.session_payment, methods=["POST"]),
            Route("/sessions/{session_id}/stop", routes.session_stop, methods=["POST"]),
            Route("/refresh-payment", routes.refresh_payment, methods=["POST"]),
        ],
        exception_handlers={PaymentRefused: _refused, NoTicketFits: _no_ticket_fits},
    )


class _Routes:
    def __init__(self, orchestrator: Orchestrator) -> None:
        self._orchestrator = orchestrator
        self._open_sessions: dict[str, str] = {}  # kind of job by session id, which is also the manifest id

    async def payment(self, request: Request) -> Response:
        accepted = self._receive(request)
        info = self._quote(accepted.sender, "lv2v", accepted.manifest_id, route="/payment")
        return Response(pb.PaymentResult(info=info).SerializeToString())

    async def start_live_video(self, request: Request) -> Response:
        manifest_id = secrets.token_hex(4)
        self._receive(request, credit_to=manifest_id)
        return JSONResponse({"manifest_id": manifest_id})

    async def app(self, request: Request) -> Response:
        """With `work_s` in the body the work takes that long, and is funded meanwhile over the session's route."""
        job_type: str = request.path_params["job_type"]
        if job_type not in self._orchestrator.settings.prices:
            return _error(404, "no such app")
        if not request.headers.get("livepeer-payment"):
            return self._challenge(request, job_type)
        accepted = self._receive(request)
        if self._open_sessions.get(accepted.manifest_id) != job_type:
            return _error(404, "no such session")
        if not self._spend_unit(accepted, job_type):
            return _error(402, "the payment does not cover the work")
        await asyncio.sleep((await request.json()).get("work_s", 0))
        return JSONResponse({"session_id": accepted.manifest_id, "result": "done"})

    async def session_payment(self, request: Request) -> Response:
        session_id: str = request.path_params["session_id"]
        job_type = self._open_sessions.get(session_id)
        if job_type is None:
            return _error(404, "no such session")
        if job_type == "fixed":
            return _error(409, "a fixed price is paid once")
        self._receive(request, must_be_for=session_id)
        return Response()

    async def session_stop(self, request: Request) -> Response:
        gone = self._open_sessions.pop(request.path_params["session_id"], None) is None
        return _error(404, "no such session") if gone else Response()

    async def refresh_payment(self, request: Request) -> Response:
        body = await request.json()
        job_type = self._open_sessions.get(body["manifest_id"])
        sender = _address(body["sender"])
        if job_type is None or sender is None:
            return _error(404, "no such session")
        return JSONResponse(
            {"payment_params": self._payment_params(sender, job_type, body["manifest_id"], route="/refresh-payment")}
        )

    def _challenge(self, request: Request, job_type: str) -> Response:
        sender = _address(request.headers.get("livepeer-payer-address", ""))
        if sender is None:
            return _error(400, "Livepeer-Payer-Address is missing")
        session_id = secrets.token_hex(8)
        payment_params = self._payment_params(sender, job_type, session_id, route="challenge")
        self._open_sessions[session_id] = job_type
        challenge = {
            "payment_params": payment_params,
            "orchestrator": self._orchestrator.url,
            "manifest_id": session_id,
            "payment_url": f"{self._orchestrator.url}/sessions/{session_id}/payment",
        }
        return JSONResponse(challenge, status_code=402)

    def _payment_params(self, sender: bytes, job_type: str, session_id: str, *, route: str) -> str:
        info = self._quote(sender, job_type, session_id, route=route)
        return base64.b64encode(info.SerializeToString()).decode()

    def _quote(self, sender: bytes, job_type: str, session_id: str, *, route: str) -> pb.OrchestratorInfo:
        return self._orchestrator.quote(sender, job_type=job_type, session_id=session_id, route=route)

    def _receive(self, request: Request, **session: str) -> AcceptedPayment:
        headers = request.headers
        return self._orchestrator.receive(
            headers.get("livepeer-payment", ""), headers.get("livepeer-segment", ""), **session
        )

    def _spend_unit(self, accepted: AcceptedPayment, job_type: str) -> bool:
        wei, units = self._orchestrator.settings.prices[job_type]
        return self._orchestrator.spend(accepted.sender, accepted.manifest_id, Fraction(wei, units))


def _address(text: Any) -> bytes | None:
    try:
        address = binascii.unhexlify(str(text).removeprefix("0x"))
    except binascii.Error:
        return None
    return address if len(address) == 20 else None


def _error(status: int, message: str) -> Response:
    return JSONResponse({"error": {"message": message}}, status_code=status)


async def _refused(_request: Request, error: Exception) -> Response:
    assert isinstance(error, PaymentRefused)
    return _error(error.http_status, str(error))


async def _no_ticket_fits(_request: Request, error: Exception) -> Response:
    return _error(400, str(error))
