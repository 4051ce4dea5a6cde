"""A native signer that reports what it signs, as go-livepeer does to Kafka (remote-signer protocol, section 7).

async with reporting_signer() as signer:
    async with running(database, signer_urls=[signer.url]) as service: …
    signer.events            # one JSON text an event, in the order of signing
"""

from __future__ import annotations

import asyncio
import json
import time
import uuid
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from fractions import Fraction
from typing import Any

from chain.payment_state import decode_state
from chain.signatures import checksum_address
from chain.tickets import ticket_ev
from clearinghouse.errors import Refusal
from clearinghouse.requests import PaymentRequest
from clearinghouse.signers.base import SignerAnswer
from clearinghouse.signers.native import NativeSigner, PaymentDue
from clearinghouse.signers.server import signer_served
from tests.parts.stack import Clock, native_signer

PIPELINES = {"lv2v": "live-video-to-video", "live": "live", "fixed": "fixed", "": ""}


class ReportingSigner:
    """Signs honestly; every signature is an event before its answer leaves.

    `tamper` changes answers on their way out; while `may_answer` is clear, what is signed is held back.
    """

    def __init__(self) -> None:
        self._native: NativeSigner = native_signer(Clock())
        self.url = ""
        self.events: list[str] = []
        self.tamper: Callable[[SignerAnswer], SignerAnswer] = lambda answer: answer
        self.may_answer = asyncio.Event()
        self.may_answer.set()

    @property
    def address(self) -> bytes:
        return self._native.address

    async def generate_payment(self, request: PaymentRequest, *, auth_id: str) -> SignerAnswer:
        try:
            due = self._native.payment_due(request, auth_id)
        except Refusal:
            return await self._native.generate_payment(request, auth_id=auth_id)  # which says no in its own words
        answer = await self._native.sign_due(request, due)
        self.events += [envelope("create_new_payment", new_payment(request, due, self.address))]
        self.events += [envelope("create_signed_ticket", signed_ticket(request, due))]
        await self.may_answer.wait()
        return self.tamper(answer)

    async def sign_orchestrator_info(self) -> SignerAnswer:
        return await self._native.sign_orchestrator_info()

    async def discover_orchestrators(self, query: str) -> SignerAnswer:
        return await self._native.discover_orchestrators(query)

    @property
    def tickets(self) -> list[str]:
        """The events of type create_signed_ticket."""
        return [event for event in self.events if '"create_signed_ticket"' in event]


@asynccontextmanager
async def reporting_signer() -> AsyncIterator[ReportingSigner]:
    signer = ReportingSigner()
    async with signer_served(signer) as url:
        signer.url = url
        yield signer
        signer.may_answer.set()


def envelope(kind: str, data: dict[str, Any]) -> str:
    """As Go writes it: keys in the order of the alphabet, the time as a text of milliseconds."""
    fields = {
        "id": str(uuid.uuid4()), "type": kind, "timestamp": str(time.time_ns() // 10**6), "gateway": "", "data": data,
    }  # fmt: skip
    return json.dumps(fields, separators=(",", ":"), ensure_ascii=False)


def signed_ticket(request: PaymentRequest, due: PaymentDue) -> dict[str, Any]:
    state, params = due.next_state, request.params
    base = decode_state(request.state.state) if request.state is not None else None
    before = (base.balance if base is not None else None) or Fraction(0)
    after = state.balance or Fraction(0)
    fee = before + due.num_tickets * ticket_ev(params.face_value_wei, params.win_prob) - after
    now_ms = state.last_update_unix_ns // 10**6
    return {
        "app": request.app,
        "auth_id": state.auth_id,
        "billable_secs": 0.25,
        "computed_fee": str(rounded(fee)),
        "cost": "1.0000000000",
        "current_time": "2026-11-21T10:00:00.123456789Z",
        "current_time_unix": now_ms,
        "manifest_id": due.manifest_id,
        "num_tickets": due.num_tickets,
        "orch_address": checksum_address(request.info.address),
        "orch_url": request.info.transcoder,
        "pipeline": PIPELINES[request.type],
        "pixels": 0,
        "pm_session_id": state.pm_session_id.hex(),
        "previous_time": "2026-11-21T10:00:00.123456789Z",
        "previous_time_unix": now_ms,
        "request_id": "c0ffee00",
        "sequence_number": state.sequence_number,
        "session_balance": str(rounded(after)),
        "session_id": state.state_id,
        "session_status": "continuing" if state.sequence_number else "new",
    }


def new_payment(request: PaymentRequest, due: PaymentDue, sender: bytes) -> dict[str, str]:
    params = request.params
    return {
        "capability": "",
        "clientIP": "",
        "faceValue": f"{params.face_value_wei} WEI",
        "manifestID": due.manifest_id,
        "numTickets": str(due.num_tickets),
        "orchestrator": request.info.transcoder,
        "price": "1.000 wei/pixel",
        "recipient": checksum_address(params.recipient),
        "requestID": "",
        "sender": checksum_address(sender),
        "sessionID": "c0ffee",
        "winProb": "0.2000000000",
    }


def rounded(wei: Fraction) -> int:
    """To a whole wei, half away from zero, as Go's Rat.FloatString(0)."""
    whole = (2 * abs(wei.numerator) + wei.denominator) // (2 * wei.denominator)
    return whole if wei >= 0 else -whole
