"""The cross-check: an orchestrator is asked itself whether it makes the offer that a caller presents as its own.

An OrchestratorInfo is anybody's claim (remote-signer protocol, section 10, A2 and A18). Before the first ticket of a
session the orchestrator under its `transcoder` URL is asked for its offer to our sender, and the two are compared. That
catches offers forged in the name of an honest orchestrator. Whoever runs one of his own lets it answer as he likes and
is not caught: for that there is `policy.recipients`.

The URL is the caller's too. public_hosts.py says where it may lead; here is how much of our time and attention a caller
can take with it: one question at a time for each orchestrator, few for each gateway, a bounded number in all, and an
answer or its absence is remembered.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections import defaultdict
from collections.abc import Callable, Coroutine, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from time import monotonic
from typing import Any, Final, Literal, NamedTuple
from uuid import UUID

import structlog

from chain import shallow_json
from chain.fees import LV2V, UNTYPED
from chain.messages import MessageError, OrchestratorInfo, Price, decode_orchestrator_info
from chain.pb import lp_rpc_pb2 as pb
from chain.signatures import checksum_address
from chain.tickets import WIN_PROB_CERTAIN
from clearinghouse.bounded import Bounded
from clearinghouse.errors import LimitReached, OrchestratorUnknown, Refusal, SignersUnavailable, TicketNotAllowed
from clearinghouse.ids import show
from clearinghouse.metrics import CrossCheckOutcome, Metrics
from clearinghouse.policy import Rule
from clearinghouse.public_hosts import (
    Endpoint,
    HostRefused,
    IPAddress,
    Resolver,
    https_endpoint,
    resolve,
    system_resolver,
)
from clearinghouse.request_rates import Rate, RequestRates
from clearinghouse.requests import PaymentRequest
from clearinghouse.rpc.unary_call import CallFailed, unary_call, unverified_tls
from clearinghouse.signers.base import Signer
from clearinghouse.turns import Turns

log = structlog.get_logger(__name__)

Mode = Literal["warn", "refuse"]

ASKED_AT_ONCE_MAX_COUNT: Final = 32
ASKED_AT_ONCE_PER_GATEWAY_MAX_COUNT: Final = 4
#: Nobody makes us knock at doors all over the Internet.
ASKED_PER_GATEWAY: Final = Rate(per_s=10, burst_count=50)
#: How long an orchestrator that gave no answer, or another one than was claimed, is not asked again.
ASKED_AGAIN_AFTER_S: Final = 10
ADDRESSES_TRIED_MAX_COUNT: Final = 2
REMEMBERED_MAX_COUNT: Final = 10_000
#: An orchestrator's price follows the price of ETH and of gas, and an offer may be minutes old: a quarter up or down.
PRICE_TOLERANCE: Final = (3, 4, 5)  # from 3/4 to 5/4 of what is told
#: The expected value of a ticket hardly changes; face value and win probability do, by the balance of the sender.
EV_TOLERANCE_FACTOR: Final = 4
#: GetOrchestrator tells a price per pixel. What other types cost is told where their jobs are begun.
_PRICED_PER_PIXEL: Final = frozenset({LV2V, UNTYPED})
_RATE_NAME: Final = "crosschecks_per_s"
_METHOD: Final = "/net.Orchestrator/GetOrchestrator"


class Terms(NamedTuple):
    """An offer, as far as it is compared."""

    address: bytes
    recipient: bytes
    price: Price
    #: Of one ticket, as face value x win probability: over 2^256 - 1.
    ev_numerator: int


class _Reply(NamedTuple):
    """`told` is None where there was no answer, for the reason given."""

    told: Terms | None
    reason: str
    outcome: CrossCheckOutcome
    asked_at_s: float


class CrossCheck:
    """For one event loop. `private_hosts_allowed`, `resolver` and `now_s` are for networks and tests of one's own."""

    def __init__(
        self,
        signer: Signer,
        *,
        mode: Mode,
        timeout_s: float,
        remember_s: int,
        private_hosts_allowed: bool,
        metrics: Metrics,
        resolver: Resolver | None = None,
        now_s: Callable[[], float] = monotonic,
    ) -> None:
        self._signer = signer
        self._mode = mode
        self._timeout_s = timeout_s
        self._remember_s = remember_s
        self._private_allowed = private_hosts_allowed
        self._metrics = metrics
        self._now_s = now_s
        self._threads = ThreadPoolExecutor(ASKED_AT_ONCE_MAX_COUNT, thread_name_prefix="resolver")
        self._resolver = resolver or system_resolver(self._threads)
        self._tls = unverified_tls()
        self._turns = Turns()
        self._places = asyncio.Semaphore(ASKED_AT_ONCE_MAX_COUNT)
        #: As many as there are gateways.
        self._places_of: defaultdict[UUID, asyncio.Semaphore] = defaultdict(
            lambda: asyncio.Semaphore(ASKED_AT_ONCE_PER_GATEWAY_MAX_COUNT)
        )
        self._rates = RequestRates(now_s=now_s)
        self._replies: Bounded[tuple[str, bytes], _Reply] = Bounded(REMEMBERED_MAX_COUNT)
        self._signature = b""

    async def require(self, request: PaymentRequest, gateway_id: UUID) -> None:
        """Of a session's first request: its orchestrator makes this offer, as far as can be told.

        In mode `refuse` raises TicketNotAllowed where it does not, OrchestratorUnknown (503) where it gave no answer;
        in mode `warn` these are counted and logged, and the call goes on. SignersUnavailable in both.
        """
        reply = self._remembered(request)
        difference = _difference(request, reply)
        if reply is None or (difference and self._may_be_outdated(reply)):
            reply = await self._asked(request, gateway_id)
            difference = _difference(request, reply)
        outcome = reply.outcome if not difference else CrossCheckOutcome.DIFFERED
        self._metrics.cross_checked(outcome)
        if outcome is CrossCheckOutcome.AGREED:
            return
        url, reason = request.info.transcoder, difference or reply.reason
        log.warning("crosscheck_failed", outcome=outcome, reason=reason, url=url, gateway_id=show("gw", gateway_id))
        if self._mode == "refuse":
            raise _refusal(outcome, url, difference)

    def close(self) -> None:
        """A name that is still being looked up is not waited for."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    def _remembered(self, request: PaymentRequest) -> _Reply | None:
        reply = self._replies.get(_key(request))
        if reply is None:
            return None
        lasts_s = self._remember_s if reply.told is not None else ASKED_AGAIN_AFTER_S
        return reply if self._now_s() - reply.asked_at_s < lasts_s else None

    def _may_be_outdated(self, reply: _Reply) -> bool:
        return self._now_s() - reply.asked_at_s >= ASKED_AGAIN_AFTER_S

    async def _asked(self, request: PaymentRequest, gateway_id: UUID) -> _Reply:
        """A reply of now, or of a moment ago where somebody else asked while this call waited for its turn.

        Waiting counts towards the time-out, and what was only waited for in vain is not remembered: nobody's
        congestion speaks against an orchestrator.
        """
        came_at_s = self._now_s()
        try:
            endpoint = https_endpoint(request.info.transcoder)
        except HostRefused as refused:
            return _Reply(None, str(refused), CrossCheckOutcome.URL_REFUSED, came_at_s)
        await self._sign()
        is_asking = False
        try:
            async with asyncio.timeout(self._timeout_s), _Place(self._places_of[gateway_id]) as place:
                await self._turns.take(endpoint)
                try:
                    reply = self._replies.get(_key(request))
                    if reply is not None and reply.asked_at_s >= came_at_s:
                        return reply
                    self._rates.require(_RATE_NAME, gateway_id.int, ASKED_PER_GATEWAY)
                    self._rates.take(_RATE_NAME, gateway_id.int, ASKED_PER_GATEWAY)
                    async with self._places:
                        is_asking = True
                        reply = await self._answer(endpoint, request, place)
                finally:
                    self._turns.give(endpoint)
        except LimitReached:
            return _unanswered("the gateway had too many orchestrators asked", self._now_s())
        except TimeoutError:
            reply = _unanswered(f"none within {self._timeout_s} s", self._now_s())
        if is_asking:
            self._replies.remember(_key(request), reply)
        return reply

    async def _answer(self, endpoint: Endpoint, request: PaymentRequest, place: _Place) -> _Reply:
        message = pb.OrchestratorRequest(
            address=self._signer.address,
            sig=self._signature,
            capabilities=request.decoded_capabilities(),
            ignoreCapacityCheck=True,
        )
        try:
            found = resolve(endpoint.host, self._resolver, private_allowed=self._private_allowed)
            addresses = await place.hold_during(found)
            encoded = await self._call(addresses[:ADDRESSES_TRIED_MAX_COUNT], endpoint, message.SerializeToString())
            told = terms_of(decode_orchestrator_info(encoded))
        except HostRefused as refused:
            return _Reply(None, str(refused), CrossCheckOutcome.HOST_REFUSED, self._now_s())
        except (OSError, CallFailed, MessageError) as error:
            return _unanswered(str(error) or type(error).__name__, self._now_s())
        if told is None:
            return _unanswered("the orchestrator has no offer for this sender", self._now_s())
        return _Reply(told, "", CrossCheckOutcome.AGREED, self._now_s())

    async def _call(self, addresses: Sequence[IPAddress], endpoint: Endpoint, message: bytes) -> bytes:
        """Of the first address that can be connected to. Raises OSError or CallFailed."""
        *others, last = addresses
        for address in others:
            with suppress(OSError):
                return await self._call_at(address, endpoint, message)
        return await self._call_at(last, endpoint, message)

    async def _call_at(self, address: IPAddress, endpoint: Endpoint, message: bytes) -> bytes:
        return await unary_call(
            str(address),
            endpoint.port,
            tls=self._tls,
            host=endpoint.host,
            authority=endpoint.authority,
            method=_METHOD,
            message=message,
        )

    async def _sign(self) -> None:
        """The sender's signature, without which no orchestrator makes an offer. It never changes."""
        if self._signature:
            return
        answer = await self._signer.sign_orchestrator_info()
        try:
            self._signature = bytes.fromhex(shallow_json.loads(answer.body)["signature"].removeprefix("0x"))
        except (ValueError, KeyError, TypeError, AttributeError):
            raise SignersUnavailable("The signer has no signature to show to orchestrators.", retry_after_s=1) from None


class _Place:
    """One of the places that a gateway has. It is given back once the look-up begun in it has ended, which no time-out
    can end: name servers that hang hold up their own gateway and no other."""

    def __init__(self, places: asyncio.Semaphore) -> None:
        self._places = places
        self._lookup: asyncio.Future[Sequence[IPAddress]] | None = None

    async def __aenter__(self) -> _Place:
        await self._places.acquire()
        return self

    async def hold_during(self, lookup: Coroutine[Any, Any, Sequence[IPAddress]]) -> Sequence[IPAddress]:
        self._lookup = asyncio.ensure_future(lookup)
        return await asyncio.shield(self._lookup)

    async def __aexit__(self, *_: object) -> None:
        if self._lookup is None or self._lookup.done():
            self._places.release()
        else:
            self._lookup.add_done_callback(self._give_back)

    def _give_back(self, lookup: asyncio.Future[Sequence[IPAddress]]) -> None:
        self._places.release()
        if not lookup.cancelled():
            lookup.exception()  # too late for anybody to hear of


def terms_of(info: OrchestratorInfo) -> Terms | None:
    """What is compared of an offer. None where it cannot be paid by."""
    params, price = info.ticket_params, info.price
    if params is None or price is None or price.price_per_unit <= 0 or price.pixels_per_unit <= 0:
        return None
    return Terms(info.address, params.recipient, price, params.face_value_wei * params.win_prob)


def difference_of(claimed: Terms, told: Terms, job_type: str) -> str:
    """The first thing in which an offer is not the orchestrator's, as a clause for people; "" where there is none."""
    if claimed.address != told.address:
        return f"its address is {checksum_address(told.address)} and not {checksum_address(claimed.address)}"
    if claimed.recipient != told.recipient:
        return f"its recipient is {checksum_address(told.recipient)} and not {checksum_address(claimed.recipient)}"
    if job_type in _PRICED_PER_PIXEL and not _is_near(claimed.price, told.price):
        return f"its price is {_shown(told.price)} wei per pixel and not {_shown(claimed.price)}"
    low, high = sorted((claimed.ev_numerator, told.ev_numerator))
    if high > low * EV_TOLERANCE_FACTOR:
        claimed_wei, told_wei = claimed.ev_numerator // WIN_PROB_CERTAIN, told.ev_numerator // WIN_PROB_CERTAIN
        return f"its tickets are worth {told_wei} wei on average and not {claimed_wei}"
    return ""


def _difference(request: PaymentRequest, reply: _Reply | None) -> str:
    """ "" also where there is nothing to compare with."""
    claimed = terms_of(request.info)
    assert claimed is not None, "offers that cannot be paid by are refused when decoded"
    return difference_of(claimed, reply.told, request.type) if reply is not None and reply.told is not None else ""


def _is_near(claimed: Price, told: Price) -> bool:
    low, unit, high = PRICE_TOLERANCE
    claimed_n = claimed.price_per_unit * told.pixels_per_unit * unit
    told_n = told.price_per_unit * claimed.pixels_per_unit
    return low * told_n <= claimed_n <= high * told_n


def _shown(price: Price) -> str:
    return f"{price.price_per_unit}/{price.pixels_per_unit}"


def _key(request: PaymentRequest) -> tuple[str, bytes]:
    """A price may depend on what is to be run. A digest, because a caller could fill the memory with capabilities."""
    return request.info.transcoder, hashlib.sha256(request.capabilities).digest()


def _unanswered(reason: str, now_s: float) -> _Reply:
    return _Reply(None, reason, CrossCheckOutcome.UNANSWERED, now_s)


def _refusal(outcome: CrossCheckOutcome, url: str, difference: str) -> Refusal:
    if difference:
        return TicketNotAllowed(
            f"The orchestrator at {url} does not make this offer: {difference}.", rule=Rule.CROSSCHECK
        )
    if outcome is CrossCheckOutcome.URL_REFUSED:
        return TicketNotAllowed(
            f"{url} is not the https URL of an orchestrator, which could confirm its offer.", rule=Rule.CROSSCHECK
        )
    return OrchestratorUnknown(
        f"The orchestrator at {url} could not be asked whether it makes this offer.",
        retry_after_s=ASKED_AGAIN_AFTER_S,
        rule=Rule.CROSSCHECK,
    )
