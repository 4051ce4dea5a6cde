"""A call on the wire, each way in, and its answer as the twin understands it."""

from __future__ import annotations

import base64
import json
import re
from dataclasses import dataclass, field
from fractions import Fraction
from typing import TYPE_CHECKING, Any

import grpc
from google.rpc.error_details_pb2 import ErrorInfo
from grpc_status import rpc_status

from clearinghouse.api.pb import clearinghouse_pb2 as pb
from clearinghouse.api.pb.clearinghouse_pb2_grpc import ClearinghouseStub
from tests.parts import client
from tests.parts.service import our_body
from tests.storm.facts import Answer, Call, Refused, Released, Unheard, Way

if TYPE_CHECKING:
    from clearinghouse.api.pb.clearinghouse_pb2_grpc import ClearinghouseAsyncStub


@dataclass
class Line:
    """The way to one service. `grpc_port` 0: that service is only called over HTTP."""

    http_port: int
    grpc_port: int
    _channel: grpc.aio.Channel | None = field(default=None, repr=False)

    async def send(self, call: Call, authorization: str) -> Answer:
        """Unheard when there was no complete answer."""
        try:
            if call.way is Way.GRPC and self.grpc_port:
                return await self._by_grpc(call, authorization)
            path = Way.OURS if call.way is Way.OURS else Way.GO
            answer = await client.post(self.http_port, path, body_of(call, path), *headers_of(call, authorization))
        except (OSError, TimeoutError, EOFError):
            return Unheard()
        return _ours(answer) if path is Way.OURS else _go(answer)

    async def send_and_hang_up(self, call: Call, authorization: str, *, after_bytes: int) -> Unheard:
        body, headers = body_of(call, Way.GO), headers_of(call, authorization)
        try:
            heard = await client.abandoned(self.http_port, Way.GO, body, *headers, after_bytes=after_bytes)
        except (OSError, TimeoutError):
            return Unheard()
        return Unheard(int(heard[9:12])) if len(heard) >= 12 else Unheard()

    async def calls_in_flight(self) -> int:
        """What the service says it is working on."""
        metrics = await client.call(self.http_port, "GET", "/metrics")
        found = re.search(r"^clearinghouse_calls_in_flight (\d+)", metrics.body.decode(), re.MULTILINE)
        assert found is not None, "the metric has another name"
        return int(found[1])

    async def close(self) -> None:
        if self._channel is not None:
            await self._channel.close(None)
            self._channel = None

    async def _by_grpc(self, call: Call, authorization: str) -> Answer:
        if self._channel is None:
            self._channel = grpc.aio.insecure_channel(f"127.0.0.1:{self.grpc_port}")
        stub: ClearinghouseAsyncStub = ClearinghouseStub(self._channel)
        asking = stub.SignTicket(
            message_of(call), metadata=(("authorization", authorization),), timeout=client.CLIENT_TIMEOUT_S
        )
        try:
            response = await asking
        except grpc.aio.AioRpcError as error:
            return _refused_by_grpc(error)
        trailers = {str(key): value for key, value in (await asking.trailing_metadata() or ())}
        return _released(
            payment=response.payment,
            seg_creds=response.seg_creds,
            state=response.state.state,
            sig=response.state.sig,
            receipt=response.receipt.issuance_id,
            charge=f"{response.receipt.charge} {response.receipt.currency}",
            balance=response.receipt.balance,
            is_replay=trailers.get("clearinghouse-replayed") == "true",
        )


def headers_of(call: Call, authorization: str) -> list[tuple[str, str]]:
    key = [("Idempotency-Key", call.idempotency_key)] if call.idempotency_key else []
    return [("Authorization", authorization), *key]


def body_of(call: Call, way: Way) -> bytes:
    document = _document(call)
    return json.dumps(our_body(document) if way is Way.OURS else document).encode()


def _document(call: Call) -> dict[str, Any]:
    fields: dict[str, Any] = {
        "orchestrator": _b64(call.offer.raw),
        "ManifestID": call.manifest or None,
        "app": call.app or None,
        "type": call.job_type or None,
        "inPixels": call.in_pixels or None,
    }
    if call.state is not None:
        fields["state"] = {"State": _b64(call.state.raw), "Sig": _b64(call.state.sig)}
    return {name: value for name, value in fields.items() if value is not None}


def message_of(call: Call) -> pb.SignTicketRequest:
    message = pb.SignTicketRequest(
        orchestrator=call.offer.raw,
        manifest_id=call.manifest,
        app=call.app,
        type=call.job_type,
        in_pixels=call.in_pixels,
        idempotency_key=call.idempotency_key,
    )
    if call.state is not None:
        message.state.state, message.state.sig = call.state.raw, call.state.sig
    return message


def _go(answer: client.Answer) -> Answer:
    if answer.status != 200:
        return _refused(answer)
    document = answer.json
    return _released(
        payment=document["payment"],
        seg_creds=document["segCreds"],
        state=base64.b64decode(document["state"]["State"]),
        sig=base64.b64decode(document["state"]["Sig"]),
        receipt=answer.header("clearinghouse-receipt") or "",
        charge=answer.header("clearinghouse-charge") or "",
        balance=(answer.header("clearinghouse-balance") or "").split(" ")[0],
        is_replay=answer.header("clearinghouse-replayed") == "true",
    )


def _ours(answer: client.Answer) -> Answer:
    if answer.status != 200:
        return _refused(answer)
    document = answer.json
    receipt = document["receipt"]
    return _released(
        payment=document["payment"],
        seg_creds=document["seg_creds"],
        state=base64.b64decode(document["state"]["state"]),
        sig=base64.b64decode(document["state"]["sig"]),
        receipt=receipt["issuance_id"],
        charge=f"{receipt['charge']} {receipt['currency']}",
        balance=receipt["balance"],
        is_replay=answer.header("clearinghouse-replayed") == "true",
    )


def _released(
    *, payment: str, seg_creds: str, state: bytes, sig: bytes, receipt: str, charge: str, balance: str, is_replay: bool
) -> Released:
    amount, _, currency = charge.partition(" ")
    return Released(receipt, is_replay, payment, seg_creds, state, sig, Fraction(amount), currency, Fraction(balance))


def _refused(answer: client.Answer) -> Refused:
    return Refused(answer.status, answer.code, answer.header("clearinghouse-limit") or "")


def _refused_by_grpc(error: grpc.aio.AioRpcError) -> Answer:
    status, info = rpc_status.from_call(error), ErrorInfo()  # type: ignore[arg-type]
    if status is None or not status.details or not status.details[0].Unpack(info):
        return Unheard()  # from the transport: no connection, or no time left
    limit = info.metadata["rule"] if info.reason == "limit_reached" else ""
    return Refused(int(info.metadata["http_status"]), info.reason, limit)


def _b64(data: bytes) -> str:
    return base64.b64encode(data).decode()
