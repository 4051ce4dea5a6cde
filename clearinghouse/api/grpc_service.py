"""The calls of livepeer.clearinghouse.v1.Clearinghouse: bytes in, the shared flow, a message or a status out.

Handlers get the encoded request and decode it themselves: what does not decode is a refusal like any other.
A caller that hangs up cancels its handler. That stops work not yet committed; a commit under way is carried out by the
batcher all the same, and the identical request then gets the stored answer (promise 3).
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Final
from urllib.parse import urlencode
from uuid import UUID, uuid4

import structlog
from google.protobuf.message import Message
from sqlalchemy.ext.asyncio import AsyncEngine

from clearinghouse.api.cold_reads import reading
from clearinghouse.api.grpc_messages import (
    balance_message,
    decode,
    orchestrator_info_message,
    page_message,
    payment_request_of,
    signed_message,
)
from clearinghouse.api.grpc_refusals import internal_refusal, internal_status, refusal_message, refusal_status
from clearinghouse.api.grpc_stream import AnsweredStream
from clearinghouse.api.pb import clearinghouse_pb2 as pb
from clearinghouse.errors import (
    InvalidRequest,
    NotFound,
    Refusal,
    SignerAnswerInvalid,
    SignersUnavailable,
    Unauthenticated,
)
from clearinghouse.identity.authenticate import Authenticator, Caller
from clearinghouse.ids import parse
from clearinghouse.issuances import PAGE_SIZE_DEFAULT, list_issuances
from clearinghouse.ledger.accounts import standing
from clearinghouse.metrics import Metrics, Route
from clearinghouse.rpc.call import Call
from clearinghouse.rpc.port import Method
from clearinghouse.rpc.status import Status
from clearinghouse.signers.base import Signer
from clearinghouse.signing import Asked, SignCall, SignedAnswer, Signing

log = structlog.get_logger(__name__)

SERVICE_NAME: Final = pb.DESCRIPTOR.services_by_name["Clearinghouse"].full_name
DISCOVERY_QUERY_MAX_BYTES: Final = 8192
#: How long a stream that is refused may take for its first request, which has usually been sent.
FIRST_REQUEST_TIMEOUT_S: Final = 1.0


class ClearinghouseService:
    """Methods for a gRPC port. `close_streams` is for one that stops."""

    def __init__(
        self,
        *,
        signing: Signing,
        authenticator: Authenticator,
        signer: Signer,
        engine: AsyncEngine,
        metrics: Metrics,
    ) -> None:
        self._signing = signing
        self._authenticator = authenticator
        self._signer = signer
        self._engine = engine
        self._metrics = metrics
        self._streams: set[AnsweredStream] = set()
        self._is_closing = False

    def methods(self) -> dict[str, Method]:
        """By name."""
        return {
            "SignTicket": self._unary(Route.GRPC_SIGN_TICKET, self._sign_ticket),
            "SignTickets": Method(self._sign_tickets, partial(self._status, Route.GRPC_SIGN_TICKETS), True),
            "SignOrchestratorInfo": self._unary(Route.GRPC_SIGN_ORCHESTRATOR_INFO, self._sign_orchestrator_info),
            "DiscoverOrchestrators": self._unary(Route.GRPC_DISCOVER_ORCHESTRATORS, self._discover_orchestrators),
            "GetBalance": self._unary(Route.GRPC_GET_BALANCE, self._get_balance),
            "ListIssuances": self._unary(Route.GRPC_LIST_ISSUANCES, self._list_issuances),
        }

    def close_streams(self) -> None:
        """Streams accept nothing more, answer what they accepted, and end."""
        self._is_closing = True
        for stream in self._streams:
            stream.close()

    # --- the calls ----------------------------------------------------------------------------------------------------

    async def _sign_ticket(self, encoded: bytes, call: Call) -> pb.SignTicketResponse:
        started_at_s = self._metrics.now_s()
        message = decode(pb.SignTicketRequest, encoded)
        signed = await self._sign(message, authorization_of(call), started_at_s)
        call.trailing_metadata = _cost_metadata(signed)
        return signed_message(signed)

    async def _sign_tickets(self, call: Call) -> None:
        try:
            authorization = await self._let_in(call)
            stream = AnsweredStream(call, lambda encoded: self._answer_in_stream(encoded, authorization))
            with self._counted(stream):
                await stream.run()
            call.succeed()
        except Exception as error:  # noqa: BLE001 - the edge
            call.fail(self._status(Route.GRPC_SIGN_TICKETS, error))

    async def _let_in(self, call: Call) -> str:
        """The authorization of a stream, with which its requests are signed. Raises Unauthenticated and the like."""
        try:
            authorization = authorization_of(call)
            await self._authenticator.authenticate(authorization)
        except Refusal:
            await call.hear_out(FIRST_REQUEST_TIMEOUT_S)
            raise
        return authorization

    async def _answer_in_stream(self, encoded: bytes, authorization: str) -> bytes:
        """Never raises: one request's trouble is not its neighbours'."""
        started_at_s = self._metrics.now_s()
        request_id = ""
        try:
            message = decode(pb.SignTicketsRequest, encoded)
            request_id = message.request_id
            signed = await self._sign(message.request, authorization, started_at_s)
            answer = pb.SignTicketsResponse(
                request_id=request_id,
                response=signed_message(signed),
                replayed=signed.replayed,
                overhead_ms=signed.overhead_s * 1000,
            )
        except Exception as error:  # noqa: BLE001 - the edge
            refusal = self._refusal(Route.GRPC_SIGN_TICKETS, error)
            return pb.SignTicketsResponse(request_id=request_id, refusal=refusal).SerializeToString()
        self._metrics.answered(Route.GRPC_SIGN_TICKETS)
        return answer.SerializeToString()

    async def _sign_orchestrator_info(self, encoded: bytes, call: Call) -> pb.SignOrchestratorInfoResponse:
        decode(pb.SignOrchestratorInfoRequest, encoded)
        await self._caller(call)
        return orchestrator_info_message(await self._signer.sign_orchestrator_info())

    async def _discover_orchestrators(self, encoded: bytes, call: Call) -> pb.DiscoverOrchestratorsResponse:
        caps = decode(pb.DiscoverOrchestratorsRequest, encoded).caps
        await self._caller(call)
        query = urlencode([("caps", cap) for cap in caps])
        if len(query) > DISCOVERY_QUERY_MAX_BYTES:
            raise InvalidRequest("The capabilities asked for are too many or too long.")
        answer = await self._signer.discover_orchestrators(query)
        if answer.status == 404:
            raise NotFound("The signer offers no discovery of orchestrators.")
        if answer.status == 503:
            raise SignersUnavailable("The signer cannot tell orchestrators at present.")
        if answer.status != 200:
            raise SignerAnswerInvalid(f"The signer answered {answer.status} instead of a list of orchestrators.")
        try:
            return pb.DiscoverOrchestratorsResponse(orchestrators_json=answer.body.decode())
        except UnicodeDecodeError:
            raise SignerAnswerInvalid("The signer's list of orchestrators is not text.") from None

    async def _get_balance(self, encoded: bytes, call: Call) -> pb.GetBalanceResponse:
        decode(pb.GetBalanceRequest, encoded)
        caller = await self._caller(call, may_be_suspended=True)
        async with reading(self._engine) as connection:
            return balance_message(await standing(connection, caller.gateway_id))

    async def _list_issuances(self, encoded: bytes, call: Call) -> pb.ListIssuancesResponse:
        message = decode(pb.ListIssuancesRequest, encoded)
        caller = await self._caller(call, may_be_suspended=True)
        session_id = _session_id(message.session_id) if message.session_id else None
        async with reading(self._engine) as connection:
            page = await list_issuances(
                connection,
                caller.gateway_id,
                limit=message.page_size or PAGE_SIZE_DEFAULT,
                cursor=message.cursor or None,
                session_id=session_id,
            )
        return page_message(page)

    # --- what they share ----------------------------------------------------------------------------------------------

    async def _sign(self, message: pb.SignTicketRequest, authorization: str, started_at_s: float) -> SignedAnswer:
        def asked() -> Asked:
            return Asked(payment_request_of(message), message.idempotency_key, message.end_user)

        call = SignCall(authorization, asked, started_at_s)
        return await self._signing.sign_ticket(call)

    async def _caller(self, call: Call, *, may_be_suspended: bool = False) -> Caller:
        """A suspended gateway may still look at what is its own."""
        return await self._authenticator.authenticate(authorization_of(call), may_be_suspended=may_be_suspended)

    def _unary(self, route: Route, answer: Callable[[bytes, Call], Awaitable[Message]]) -> Method:
        async def work(call: Call) -> None:
            try:
                encoded = (await answer(call.take(), call)).SerializeToString()
            except Exception as error:  # noqa: BLE001 - the edge
                call.fail(self._status(route, error))
                return
            self._metrics.answered(route)
            call.answer(encoded)

        return Method(work, partial(self._status, route))

    @contextmanager
    def _counted(self, stream: AnsweredStream) -> Iterator[None]:
        """While it runs, a stream can be closed."""
        self._streams.add(stream)
        if self._is_closing:
            stream.close()
        try:
            yield
        finally:
            self._streams.discard(stream)

    def _status(self, route: Route, error: Exception) -> Status:
        """What a failed call ends with. Tells the log and the metrics."""
        if isinstance(error, Refusal):
            self._note(route, error)
            return refusal_status(error)
        return internal_status(self._note_bug(route, error))

    def _refusal(self, route: Route, error: Exception) -> pb.Refusal:
        """The same for a request in a stream."""
        if isinstance(error, Refusal):
            self._note(route, error)
            return refusal_message(error)
        return internal_refusal(self._note_bug(route, error))

    def _note(self, route: Route, refusal: Refusal) -> None:
        self._metrics.refused(route, refusal.code, rule=refusal.facts.get("rule"))
        log.info("refused", route=route, code=refusal.code, reason=refusal.message, **refusal.facts)

    def _note_bug(self, route: Route, error: Exception) -> str:
        """Returns the incident's id: with it the trace is found in the log, and a stranger may know no more."""
        incident = uuid4().hex
        self._metrics.refused(route, "internal_error")
        log.error("bug", route=route, incident=incident, exc_info=error)
        return incident


def authorization_of(call: Call) -> str:
    """The metadata `authorization`, "" when absent. Two of them: two readers could take different ones."""
    values = call.metadata(b"authorization")
    if len(values) > 1:
        raise Unauthenticated("There is more than one authorization in the metadata.")
    return values[0] if values else ""


def _cost_metadata(signed: SignedAnswer) -> tuple[tuple[str, str], ...]:
    overhead = ("clearinghouse-overhead-ms", f"{signed.overhead_s * 1000:.3f}")
    return (overhead, ("clearinghouse-replayed", "true")) if signed.replayed else (overhead,)


def _session_id(text: str) -> UUID:
    try:
        return parse("ses", text)
    except ValueError as error:
        raise InvalidRequest(f"session_id: {error}") from error
