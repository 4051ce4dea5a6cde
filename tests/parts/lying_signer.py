"""A remote signer that has the right key and does the wrong thing: it answers honestly, and then tampers with it.

    async with lying_signer() as liar:
        liar.lie = with_payment(lambda payment: payment.ClearField("sender"))

What it signs anew it signs with the pool's own key, so that only the content can give it away.
"""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

from chain.escrow import EscrowView
from chain.messages import decode_base64, encode_base64
from chain.payment_state import PaymentState, decode_state, encode_state
from chain.pb import lp_rpc_pb2 as net
from clearinghouse.requests import PaymentRequest
from clearinghouse.signers.base import Signer, SignerAnswer
from clearinghouse.signers.server import signer_served
from tests.parts.stack import SIGNER_KEY, Clock, native_signer

Lie = Callable[[bytes], bytes]


class LyingSigner:
    """Honest until told otherwise. `asked` counts the payments it was asked for."""

    def __init__(self, escrow: EscrowView | None = None) -> None:
        self._honest: Signer = native_signer(Clock(), escrow=escrow)
        self.url = ""
        self.asked = 0
        self.lie: Lie = lambda body: body
        self.auth_id: Callable[[str], str] = lambda auth_id: auth_id
        self.request: Callable[[PaymentRequest], PaymentRequest] = lambda request: request
        #: While it is clear, answers that are already signed are held back.
        self.may_answer = asyncio.Event()
        self.may_answer.set()

    @property
    def address(self) -> bytes:
        return self._honest.address

    async def generate_payment(self, request: PaymentRequest, *, auth_id: str) -> SignerAnswer:
        self.asked += 1
        answer = await self._honest.generate_payment(self.request(request), auth_id=self.auth_id(auth_id))
        await self.may_answer.wait()
        return answer._replace(body=self.lie(answer.body)) if answer.status == 200 else answer

    async def sign_orchestrator_info(self) -> SignerAnswer:
        return await self._honest.sign_orchestrator_info()

    async def discover_orchestrators(self, query: str) -> SignerAnswer:
        return await self._honest.discover_orchestrators(query)


@asynccontextmanager
async def lying_signer(escrow: EscrowView | None = None) -> AsyncIterator[LyingSigner]:
    liar = LyingSigner(escrow)
    async with signer_served(liar) as url:
        liar.url = url
        yield liar
        liar.may_answer.set()


def with_document(change: Callable[[dict[str, Any]], None]) -> Lie:
    def lie(body: bytes) -> bytes:
        document = json.loads(body)
        change(document)
        return json.dumps(document).encode()

    return lie


def with_payment(change: Callable[[net.Payment], object]) -> Lie:
    """The tickets changed, their signatures as they were."""

    def change_document(document: dict[str, Any]) -> None:
        payment = net.Payment.FromString(base64.b64decode(document["payment"]))
        change(payment)
        document["payment"] = base64.b64encode(payment.SerializeToString()).decode()

    return with_document(change_document)


def with_state(**changes: Any) -> Lie:
    """Another state, signed by the pool's own key. A value may be a function of the honest state."""

    def change_document(document: dict[str, Any]) -> None:
        honest = decode_state(decode_base64(document["state"]["State"]))
        values = {name: value(honest) if callable(value) else value for name, value in changes.items()}
        state = encode_state(_replaced(honest, values))
        document["state"] = {"State": encode_base64(state), "Sig": encode_base64(SIGNER_KEY.eth_sign(state))}

    return with_document(change_document)


def _replaced(state: PaymentState, values: dict[str, Any]) -> PaymentState:
    return state._replace(**values)
