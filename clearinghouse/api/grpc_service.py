"""The calls of livepeer.clearinghouse.v1.Clearinghouse: bytes in, the shared flow, a message or a status out.

Handlers get the encoded request and decode it themselves: what does not decode is a refusal like any other.
A caller that hangs up cancels its handler. That stops work not yet committed; a commit under way is carried out by the
batcher all the same, and the identical request then gets the stored answer (promise 3).
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final, NoReturn
from urllib.parse import urlencode
from uuid import UUID, uuid4

import grpc
import structlog
from google.protobuf.message import Message
from sqlalchemy.ext.asyncio import AsyncEngine

from clearinghouse.api.cold_reads import reading
from clearinghouse.api.grpc_bounds import CallBounds
from clearinghouse.api.grpc_messages import (
    balance_message,
    decode,
    orchestrator_info_message,
    page_message,
    payment_request_of,
    signed_message,
)
from clearinghouse.api.grpc_refusals import internal_refusal, internal_status, refusal_message, refusal_status
from clearinghouse.api.grpc_stream import AnsweredStream, Context
from clearinghouse.api.pb import clearinghouse_pb2 as pb
from clearinghouse.api.rounds import Rounds
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
from clearinghouse.signers.base import Signer
from clearinghouse.signing import Asked, SignCall, SignedAnswer, Signing

log = structlog.get_logger(__name__)

SERVICE_NAME: Final = pb.DESCRIPTOR.services_by_name["Clearinghouse"].full_name
DISCOVERY_QUERY_MAX_BYTES: Final = 8192
#: Little beside the time a call takes when there is enough to do, and time enough for a round to be worked off.
ROUND_MAX_S: Final = 0.01
ROUND_CALLS_MAX_COUNT: Final = 64


class ClearinghouseService:
    """Handlers for a gRPC server. `close_streams` is for a server that stops."""

    def __init__(
        self,
        *,
        signing: Signing,
        authenticator: Authenticator,
        signer: Signer,
        engine: AsyncEngine,
        metrics: Metrics,
        bounds: CallBounds,
    ) -> None:
        self._signing = signing
        self._authenticator = authenticator
        self._signer = signer
        self._engine = engine
        self._metrics = metrics
        self._bounds = bounds
        self._streams: set[AnsweredStream] = set()
        self._is_closing = False
        self._rounds = Rounds(round_max_s=ROUND_MAX_S, calls_max_count=ROUND_CALLS_MAX_COUNT)

    def handlers(self) -> dict[str, grpc.RpcMethodHandler[Any, Any]]:
        """By method name."""
        unary = self._unary_handler
        return {
            "SignTicket": unary(Route.GRPC_SIGN_TICKET, self._sign_ticket),
            "SignTickets": grpc.stream_stream_rpc_method_handler(
                self._sign_tickets,
                response_serializer=pb.SignTicketsResponse.SerializeToString,
            ),
            "SignOrchestratorInfo": unary(Route.GRPC_SIGN_ORCHESTRATOR_INFO, self._sign_orchestrator_info),
            "DiscoverOrchestrators": unary(Route.GRPC_DISCOVER_ORCHESTRATORS, self._discover_orchestrators),
            "GetBalance": unary(Route.GRPC_GET_BALANCE, self._get_balance),
            "ListIssuances": unary(Route.GRPC_LIST_ISSUANCES, self._list_issuances),
        }

    def close_streams(self) -> None:
        """Streams accept nothing more, answer what they accepted, and end."""
        self._is_closing = True
        for stream in self._streams:
            stream.close()

    # --- the calls ----------------------------------------------------------------------------------------------------

    async def _sign_ticket(self, encoded: bytes, context: Context) -> pb.SignTicketResponse:
        started_at_s = self._metrics.now_s()
        message = decode(pb.SignTicketRequest, encoded)
        signed = await self._sign(message, authorization_of(context), started_at_s)
        context.set_trailing_metadata(_cost_metadata(signed))
        return signed_message(signed)

    async def _sign_tickets(self, _: object, context: Context) -> None:
        try:
            with self._bounds.place(context):
                authorization = authorization_of(context)
                await self._authenticator.authenticate(authorization)
                stream = AnsweredStream(context, lambda encoded: self._answer_in_stream(encoded, authorization))
                with self._counted(stream):
                    await stream.run()
        except Exception as error:  # noqa: BLE001 - the edge
            await _abort(context, self._status(Route.GRPC_SIGN_TICKETS, error))

    async def _answer_in_stream(self, encoded: bytes, authorization: str) -> pb.SignTicketsResponse:
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
            return pb.SignTicketsResponse(request_id=request_id, refusal=self._refusal(Route.GRPC_SIGN_TICKETS, error))
        self._metrics.answered(Route.GRPC_SIGN_TICKETS)
        return answer

    async def _sign_orchestrator_info(self, encoded: bytes, context: Context) -> pb.SignOrchestratorInfoResponse:
        decode(pb.SignOrchestratorInfoRequest, encoded)
        await self._caller(context)
        return orchestrator_info_message(await self._signer.sign_orchestrator_info())

    async def _discover_orchestrators(self, encoded: bytes, context: Context) -> pb.DiscoverOrchestratorsResponse:
        caps = decode(pb.DiscoverOrchestratorsRequest, encoded).caps
        await self._caller(context)
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

    async def _get_balance(self, encoded: bytes, context: Context) -> pb.GetBalanceResponse:
        decode(pb.GetBalanceRequest, encoded)
        caller = await self._caller(context, may_be_suspended=True)
        async with reading(self._engine) as connection:
            return balance_message(await standing(connection, caller.gateway_id))

    async def _list_issuances(self, encoded: bytes, context: Context) -> pb.ListIssuancesResponse:
        message = decode(pb.ListIssuancesRequest, encoded)
        caller = await self._caller(context, may_be_suspended=True)
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
        return await self._rounds.join(lambda: self._signing.sign_ticket(call))

    async def _caller(self, context: Context, *, may_be_suspended: bool = False) -> Caller:
        """A suspended gateway may still look at what is its own."""
        return await self._authenticator.authenticate(authorization_of(context), may_be_suspended=may_be_suspended)

    def _unary_handler(
        self, route: Route, call: Callable[[bytes, Context], Awaitable[Message]]
    ) -> grpc.RpcMethodHandler[Any, Any]:
        async def handle(_: object, context: Context) -> bytes:
            try:
                with self._bounds.place(context):
                    answer = (await call(await self._bounds.message(context), context)).SerializeToString()
            except Exception as error:  # noqa: BLE001 - the edge
                await _abort(context, self._status(route, error))
            self._metrics.answered(route)
            return answer

        return grpc.stream_unary_rpc_method_handler(handle)

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

    def _status(self, route: Route, error: Exception) -> grpc.Status:
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


def authorization_of(context: Context) -> str:
    """The metadata `authorization`, "" when absent. Two of them: two readers could take different ones."""
    values = [value for name, value in context.invocation_metadata() or () if name == "authorization"]
    if len(values) > 1:
        raise Unauthenticated("There is more than one authorization in the metadata.")
    return str(values[0]) if values else ""


async def _abort(context: Context, status: grpc.Status) -> NoReturn:
    await context.abort(status.code, status.details, status.trailing_metadata)


def _cost_metadata(signed: SignedAnswer) -> tuple[tuple[str, str], ...]:
    overhead = ("clearinghouse-overhead-ms", f"{signed.overhead_s * 1000:.3f}")
    return (overhead, ("clearinghouse-replayed", "true")) if signed.replayed else (overhead,)


def _session_id(text: str) -> UUID:
    try:
        return parse("ses", text)
    except ValueError as error:
        raise InvalidRequest(f"session_id: {error}") from error
