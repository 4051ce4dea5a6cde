"""A remote signer of its own that asks the service's webhook, and gateways that pay through it: real ports throughout.

async with asking(service) as signer:
    answer = await signer.pay(gateway, stream)      # POST /generate-live-payment at the signer
"""

from __future__ import annotations

import json
import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from fractions import Fraction
from typing import Any
from urllib.parse import urlsplit

from chain.messages import Price
from chain.payment_state import PaymentState, encode_state
from clearinghouse.api.webhook import PATHS
from clearinghouse.signers.asking import AskingSigner, Webhook
from clearinghouse.signers.server import signer_served
from tests.parts import client
from tests.parts.client import Answer
from tests.parts.service import GO_LIVEPEER, Served
from tests.parts.stack import TICKET_EV_WEI, Clock, Stream, TestGateway, native_signer


@dataclass(frozen=True)
class Signer:
    """Where it listens, and the clock it goes by."""

    port: int
    clock: Clock

    async def sign(self, gateway: TestGateway, body: bytes, *headers: tuple[str, str]) -> Answer:
        """One call with the gateway's key, judged by nobody."""
        return await client.post(self.port, GO_LIVEPEER, body, ("Authorization", gateway.authorization), *headers)

    async def pay(self, gateway: TestGateway, stream: Stream, *headers: tuple[str, str]) -> Answer:
        """The stream's next payment, which must succeed; the stream then holds the newest state."""
        answer = await self.sign(gateway, stream.body(), *headers)
        assert answer.status == 200, (answer.status, answer.body)
        stream.learn(answer.body)
        return answer


@asynccontextmanager
async def asking(service: Served, *, secret: str = "", path: str = PATHS[0], url: str = "") -> AsyncIterator[Signer]:
    """A signer that asks `service`, or whoever answers at `url`."""
    secret = secret or await service.house.new_webhook_secret()
    clock = Clock()
    webhook = Webhook(url or f"http://127.0.0.1:{service.port}{path}", {"Authorization": f"Bearer {secret}"})
    try:
        async with signer_served(AskingSigner(native_signer(clock), webhook)) as signer_url:
            port = urlsplit(signer_url).port
            assert port is not None
            yield Signer(port, clock)
    finally:
        await webhook.close()


def first_state(**changes: Any) -> PaymentState:
    """What a signer shows of a first payment of type "fixed": one ticket of an offer of the stack."""
    fields: dict[str, Any] = {
        "state_id": secrets.token_hex(16),
        "pm_session_id": secrets.token_bytes(32),
        "last_update_unix_ns": Clock()(),
        "orchestrator_address": b"\x55" * 20,
        "app": "",
        "auth_expiry_unix_s": 0,
        "sender_nonce": 1,
        "balance": Fraction(0),
        "initial_price": Price(TICKET_EV_WEI, 1),
        "type": "fixed",
        "sequence_number": 0,
        "auth_id": "",
    }
    return PaymentState(**{**fields, **changes})


def question(gateway: TestGateway | None, state: PaymentState, **headers: Any) -> dict[str, Any]:
    """What a signer sends; `headers` replace its caller's, with `_` for `-`."""
    shown: dict[str, Any] = {"Content-Type": ["application/json"], "User-Agent": ["Go-http-client/1.1"]}
    if gateway is not None:
        shown["Authorization"] = [gateway.authorization]
    shown |= {name.replace("_", "-"): value for name, value in headers.items()}
    return {"headers": shown, "state": json.loads(encode_state(state))}


async def ask(service: Served, secret: str, body: Any, *, path: str = PATHS[0]) -> Answer:
    """The question as it is where it is bytes, and as JSON otherwise."""
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    return await client.post(service.port, path, data, ("Authorization", f"Bearer {secret}"))
