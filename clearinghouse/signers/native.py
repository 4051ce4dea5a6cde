"""A remote signer in process: go-livepeer's `/generate-live-payment`, without go-livepeer.

`NativeSigner.payment_due` is section 1.2 of the remote-signer protocol read top to bottom: the numbers beside its lines
are the table's steps, and the first that fails answers. The helpers below it are pure functions of values. Where this
signer is stricter than the reference, section 10 of the protocol asks for it, and the line says which weakness (A…).

A session is what its signed state says (A16, A17). What is kept between calls follows from a call's own bytes and the
key, and only saves computing it again: another signer with the same key answers alike.
"""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from functools import lru_cache, partial
from types import MappingProxyType
from typing import Final

import structlog

from chain.escrow import EscrowReading, EscrowUnknown, EscrowView
from chain.fees import (
    MaxPrice,
    PriceFormatError,
    balance_after,
    billable_units,
    fee_wei,
    parse_max_price,
    tickets_needed,
)
from chain.messages import (
    REMEMBERED_OFFER_BYTES_MAX,
    REMEMBERED_OFFERS_MAX_COUNT,
    OrchestratorInfo,
    PaymentFrame,
    Price,
    TicketParams,
    decode_orchestrator_info,
    encode_base64,
    encode_payment,
    payment_frame,
)
from chain.payment_state import PaymentState, SignedState, StateError, encode_state, read_state
from chain.pb import lp_rpc_pb2 as pb
from chain.signatures import SignatureError, SigningKey, checksum_address, recover_eth_signer
from chain.tickets import BatchPreimage, Ticket, batch_preimage, ticket_ev
from clearinghouse.errors import (
    InvalidRequest,
    NoTickets,
    PriceExceeded,
    RefreshSession,
    Refusal,
    SignerFailed,
    SignersUnavailable,
)
from clearinghouse.policy import require_round
from clearinghouse.requests import MAX_STRING_CHARS, PaymentRequest, offered_params, require_manifest_and_capabilities
from clearinghouse.signers.base import SignerAnswer
from clearinghouse.signers.envelope import refusal_answer
from clearinghouse.signers.issued_states import IssuedStates
from clearinghouse.signers.segment_credentials import SegmentCredentials

NUM_TICKETS_MAX: Final = 100
#: The reference refreshes in the last tenth of an auth token's 30 minutes.
TOKEN_REFRESH_S: Final = 30 * 60 // 10
#: Signing takes about 30 µs a ticket: above this many the event loop would be held for longer than a call takes.
INLINE_TICKETS_MAX: Final = 10
_JOB_TYPES: Final = frozenset({"live", "lv2v", "fixed", ""})
_TIMED_TYPES: Final = frozenset({"live", "lv2v"})
_NS_PER_S: Final = 1_000_000_000
_ZERO_HASH: Final = bytes(32)
_NOTHING: Final = Fraction(0)

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class SignerLimits:
    """What the signer refuses to exceed; the defaults are go-livepeer's."""

    max_ticket_ev_wei: int = 3 * 10**12
    max_total_ev_wei: int = 2 * 10**13
    #: A ticket's face value is at most deposit / multiplier: with 50 or more one winner cannot empty the deposit (A3).
    deposit_multiplier: int = 1
    #: Ceiling in wei per unit, whatever the unit; None or 0: no ceiling.
    max_price_per_unit: Fraction | None = None
    #: Ceilings by (capability number, model id), with model "default" for the others of that capability.
    capability_max_prices: Mapping[tuple[int, str], Fraction] = field(default_factory=lambda: MappingProxyType({}))

    def __post_init__(self) -> None:
        if self.deposit_multiplier < 1:
            raise ValueError(f"deposit_multiplier must be at least 1, got {self.deposit_multiplier}")


@dataclass(frozen=True, slots=True)
class OfferForms:
    """What all payments by one offer have in common, whatever their nonces."""

    tickets: BatchPreimage
    payment: PaymentFrame


@dataclass(frozen=True, slots=True)
class PaymentDue:
    """What has been decided about a call before anything is signed."""

    num_tickets: int
    #: The others follow.
    first_nonce: int
    forms: OfferForms
    manifest_id: str
    #: The state to sign, as it will be after the tickets.
    next_state: PaymentState


class NativeSigner:
    """Signs payments for one key. Safe to call concurrently; signers with one key continue each other's sessions."""

    def __init__(
        self,
        *,
        key: SigningKey,
        escrow: EscrowView,
        limits: SignerLimits | None = None,
        now_unix_ns: Callable[[], int] = time.time_ns,
        new_state_id: Callable[[], str] = lambda: secrets.token_hex(16),  # 128 bits: the reference's 32 collide (A17)
    ) -> None:
        self._key = key
        self._escrow = escrow
        self._limits = limits or SignerLimits()
        self._now_unix_ns = now_unix_ns
        self._new_state_id = new_state_id
        self._orchestrator_info_answer = _orchestrator_info_answer(key)
        self._issued = IssuedStates()
        # About 1 kB each: by the offer's bytes, as a decoded one may have many times that.
        self._remembered_forms = lru_cache(REMEMBERED_OFFERS_MAX_COUNT)(partial(_encoded_offer_forms, key.address))
        self._seg_creds = SegmentCredentials(key)

    @property
    def address(self) -> bytes:
        return self._key.address

    async def sign_orchestrator_info(self) -> SignerAnswer:
        """Constant: the address and its signature over its own text."""
        return self._orchestrator_info_answer

    async def discover_orchestrators(self, query: str) -> SignerAnswer:
        """This signer knows no orchestrators: the answer of a go-livepeer without -remoteDiscovery."""
        return SignerAnswer(404, b"404 page not found\n", content_type="text/plain; charset=utf-8")

    async def generate_payment(self, request: PaymentRequest, *, auth_id: str) -> SignerAnswer:
        """Steps 7 to 29 of section 1.2. Raises SignersUnavailable where there is no escrow reading to sign by."""
        try:
            due = self.payment_due(request, auth_id)
        except SignersUnavailable:
            raise
        except Refusal as refusal:
            return not_signed(refusal)
        return await self.sign_due(request, due)

    async def sign_due(self, request: PaymentRequest, due: PaymentDue) -> SignerAnswer:
        """The tickets and the state that were decided on: the only place where a payment is released."""
        if due.num_tickets > INLINE_TICKETS_MAX:
            return await asyncio.to_thread(self._sign, request, due)
        return self._sign(request, due)

    def payment_due(self, request: PaymentRequest, auth_id: str) -> PaymentDue:
        """Steps 7 to 24 and 28, before anything is signed. Without an `auth_id` the state keeps the one it has.

        Raises a Refusal.
        """
        now_unix_ns, limits, info = self._now_unix_ns(), self._limits, request.info
        price, params = request.price, request.params
        state = self._continued_state(request)  # 7: 400
        require_manifest_and_capabilities(request)  # 8, 9: 400
        require_lasting_token(info, now_unix_ns)  # 10: 400, 11: 480
        escrow = self._read_escrow()
        require_unexpired_params(params, escrow, url=info.transcoder)  # 12: 480
        require_round(params, escrow, url=info.transcoder)  # 480 (A25)
        ev = require_acceptable_ticket(params, escrow, limits)  # 13: 400

        units = units_due(request, state, now_unix_ns)  # 14, 15: 400
        caller_ceiling = requested_ceiling(request.max_price, request.type)  # 16: 400
        initial_price = session_price(state, price)  # 17: 400
        require_price(  # 18: 481 (and 22, which positive prices never reach: the initial price is a ceiling)
            _per_unit(price.price_per_unit, price.pixels_per_unit),
            ("configured maximum price", configured_ceiling(limits, request.decoded_capabilities())),
            ("request maxPrice", caller_ceiling),
            ("initial session price", _initial_per_unit(state)),
        )

        fee = fee_wei(units, initial_price)
        balance = _balance(state)
        num_tickets = require_ticket_count(tickets_needed(balance=balance, fee=fee, ev=ev))  # 20: 482, 21: 400
        require_total_ev(num_tickets, ev, limits)  # 23: 500
        next_auth_id = continued_auth_id(state, auth_id)  # 28: 500 like 23, so the signatures can be saved

        nonce = first_nonce(state, params)
        next_state = PaymentState(
            state_id=state.state_id if state else self._new_state_id(),
            pm_session_id=params.recipient_rand_hash,
            last_update_unix_ns=now_unix_ns,
            orchestrator_address=info.address,
            app=request.app,
            auth_expiry_unix_s=state.auth_expiry_unix_s if state else 0,
            sender_nonce=nonce + num_tickets - 1,
            balance=balance_after(balance=balance, num_tickets=num_tickets, ev=ev, fee=fee),
            initial_price=initial_price,
            type=request.type,
            sequence_number=state.sequence_number + 1 if state else 0,
            auth_id=next_auth_id,
        )
        forms = self._forms(info, *creation_round_of(params, escrow))
        return PaymentDue(num_tickets, nonce, forms, request.manifest_id or secrets.token_hex(4), next_state)

    def _continued_state(self, request: PaymentRequest) -> PaymentState | None:
        """Step 7: the state is ours, readable, and of this orchestrator, app and type."""
        if request.state is None:
            return None
        state = self._issued.find(request.state)
        if state is None:
            state = verified_state(request.state, signer=self.address)
        require_continuity(state, request)
        return state

    def _forms(self, info: OrchestratorInfo, creation_round: int, block_hash: bytes) -> OfferForms:
        """Remembered by offer, round and hash: the round is the escrow's where the offer names none."""
        if len(info.encoded) > REMEMBERED_OFFER_BYTES_MAX:
            return offer_forms(self.address, info, creation_round, block_hash)
        return self._remembered_forms(info.encoded, creation_round, block_hash)

    def _read_escrow(self) -> EscrowReading:
        """Fail closed, and in a way that lets the caller ask another signer: nothing was released."""
        try:
            reading = self._escrow.read()
        except EscrowUnknown as error:
            raise SignersUnavailable(f"no escrow reading to sign by: {error}") from error
        if reading.sender != self.address:
            raise SignersUnavailable("the escrow reading is of another sender")
        return reading

    def _sign(self, request: PaymentRequest, due: PaymentDue) -> SignerAnswer:
        eth_sign, forms = self._key.eth_sign, due.forms
        payment = encode_payment(
            forms.payment,
            nonces=range(due.first_nonce, due.first_nonce + due.num_tickets),
            signatures=[eth_sign(digest) for digest in forms.tickets.hashes(due.first_nonce, due.num_tickets)],
        )
        seg_creds = self._seg_creds.of(due.manifest_id.encode(), request)
        state = encode_state(due.next_state)
        signed = SignedState(state=state, sig=eth_sign(state))
        self._issued.remember(signed, due.next_state)
        return SignerAnswer(200, _payment_body(payment, seg_creds, signed))


# --- the steps of section 1.2 -----------------------------------------------------------------------------------------


def verified_state(signed: SignedState, *, signer: bytes) -> PaymentState:
    """Steps 7a and 7b: the state is ours, and readable."""
    try:
        if recover_eth_signer(signed.state, signed.sig) != signer:
            raise InvalidRequest("invalid sig")
    except SignatureError as error:
        raise InvalidRequest("invalid sig") from error
    try:
        return read_state(signed.state).state
    except StateError as error:
        raise InvalidRequest(f"invalid state: {error}") from error


def require_continuity(state: PaymentState, request: PaymentRequest) -> None:
    """Steps 7c to 7e: the state is of this orchestrator, app and type."""
    if state.orchestrator_address != request.info.address:
        raise InvalidRequest("orchestratorAddress mismatch")
    if state.app != request.app:
        raise InvalidRequest("app mismatch")
    if state.type and state.type != request.type:
        raise InvalidRequest("job type mismatch")


def require_lasting_token(info: OrchestratorInfo, now_unix_ns: int) -> None:
    """Steps 10 and 11."""
    if info.auth_token_expiration_unix_s is None:
        raise _not_checked("missing auth token")
    if now_unix_ns // _NS_PER_S > info.auth_token_expiration_unix_s - TOKEN_REFRESH_S:
        raise _refresh(info.transcoder)


def require_unexpired_params(params: TicketParams, escrow: EscrowReading, *, url: str) -> None:
    """Step 12, and of step 13 what comes before it (section 3.6)."""
    if params.expiration_block % 2**64 == 0:  # the reference looks at the low 64 bits
        raise _not_checked("ticketParams expiration block is 0")
    if params.expiration_block - escrow.last_seen_l1_block <= 1:
        raise _refresh(url)


def require_acceptable_ticket(params: TicketParams, escrow: EscrowReading, limits: SignerLimits) -> Fraction:
    """Step 13: one ticket and its sender, in section 3.6's order. Returns the ticket's expected value in wei."""
    face_value_wei = params.face_value_wei
    ev = ticket_ev(face_value_wei, params.win_prob)
    ev_n, ev_d = ev.numerator, ev.denominator  # whole numbers compare in a fraction of a Fraction's time
    if ev_n == 0:
        return ev
    if ev_n >= face_value_wei * ev_d:
        raise _not_checked(f"ticket faceValue too low faceValue={face_value_wei}")
    if ev_n > limits.max_ticket_ev_wei * ev_d:
        raise _not_checked(f"ticket EV {_decimal(ev, 5)} > max ticket EV {_decimal(limits.max_ticket_ev_wei, 5)}")
    if 0 < escrow.withdraw_round <= escrow.last_initialized_round + 1:
        raise _not_checked("unable to validate sender: deposit and reserve is set to unlock soon")
    if escrow.reserve_wei == 0:
        raise _not_checked("no sender reserve")
    if escrow.deposit_wei == 0:
        raise _not_checked("no sender deposit")
    if ev_n > limits.max_total_ev_wei * ev_d:
        raise _not_checked(_total_ev_message(ev, limits))
    max_face_value_wei = escrow.deposit_wei // limits.deposit_multiplier
    if face_value_wei > max_face_value_wei:
        raise _not_checked(f"ticket faceValue {face_value_wei} > max faceValue {max_face_value_wei}")
    return ev


def units_due(request: PaymentRequest, state: PaymentState | None, now_unix_ns: int) -> int:
    """Steps 14 and 15: what this call is billed, in the units of its type."""
    if request.type not in _JOB_TYPES:
        raise InvalidRequest("invalid job type")
    last_unix_ns = state.last_update_unix_ns if state else None
    elapsed_ns = now_unix_ns - last_unix_ns if last_unix_ns is not None else 0
    if elapsed_ns < 0 and request.type in _TIMED_TYPES:
        # The reference would bill the first call's seconds once more (A22).
        raise InvalidRequest(f"state was updated {-elapsed_ns} ns after the signer's clock: the time due is unknown")
    units = billable_units(request.type, elapsed_ns, request.in_pixels)
    if units <= 0:
        raise InvalidRequest("missing billable unit or job type")
    return units


def requested_ceiling(max_price: MaxPrice | None, job_type: str) -> Fraction | None:
    """Step 16."""
    if max_price is None:
        return None
    try:
        return parse_max_price(max_price, job_type)
    except PriceFormatError as error:
        raise InvalidRequest(str(error)) from error


def session_price(state: PaymentState | None, current: Price) -> Price:
    """Step 17: the price the session began with, which is the current one in a new session."""
    if state is None:
        return current
    if state.initial_price.price_per_unit <= 0 or state.initial_price.pixels_per_unit <= 0:
        raise InvalidRequest("invalid initial price in state")
    return state.initial_price


def configured_ceiling(limits: SignerLimits, capabilities: pb.Capabilities | None) -> Fraction | None:
    """Section 3.3: the sum of what the asked-for models may cost; where none is priced, the global ceiling."""
    prices = limits.capability_max_prices
    if not prices or capabilities is None:
        return limits.max_price_per_unit or None
    total = Fraction(0)
    for capability, constraint in capabilities.constraints.PerCapability.items():
        for model in constraint.models:
            total += prices.get((capability, model), prices.get((capability, "default"), Fraction(0)))
    return total or limits.max_price_per_unit or None


def require_price(price: Fraction, *ceilings: tuple[str, Fraction | None]) -> None:
    """Step 18: the lowest ceiling decides; of equal ones the first is named."""
    source, lowest = "", None
    for name, ceiling in ceilings:
        if ceiling is not None and (lowest is None or ceiling < lowest):
            source, lowest = name, ceiling
    if lowest is not None and price > lowest:
        raise PriceExceeded(f"orchestrator price {_decimal(price, 3)} exceeds {source} ceiling {_decimal(lowest, 3)}")


def require_ticket_count(num_tickets: int) -> int:
    """Steps 20 and 21, on the unbounded number: the reference's 64 bits would wrap (A15)."""
    if num_tickets == 0:
        raise NoTickets("no tickets")
    if num_tickets > NUM_TICKETS_MAX:
        raise InvalidRequest(f"numTickets {num_tickets} exceeds maximum of {NUM_TICKETS_MAX}")
    return num_tickets


def require_total_ev(num_tickets: int, ev: Fraction, limits: SignerLimits) -> None:
    """Step 23."""
    if num_tickets * ev.numerator > limits.max_total_ev_wei * ev.denominator:
        raise SignerFailed(_total_ev_message(num_tickets * ev, limits))


def continued_auth_id(state: PaymentState | None, auth_id: str) -> str:
    """Step 28: a session belongs to the first caller who gave a name (section 6, "auth id")."""
    require_short_auth_id(auth_id)
    if state is None or not state.auth_id:
        return auth_id
    if auth_id and auth_id != state.auth_id:
        raise SignerFailed("auth id of the caller is not the session's")
    return state.auth_id


def require_short_auth_id(auth_id: str) -> None:
    """A longer one would make a state that is not read back."""
    if len(auth_id) > MAX_STRING_CHARS:
        raise InvalidRequest(f"Signer-Auth-Id is longer than {MAX_STRING_CHARS} characters")


def first_nonce(state: PaymentState | None, params: TicketParams) -> int:
    """Section 3.8: nonces begin at 1 with every recipientRandHash."""
    continues = state is not None and state.pm_session_id == params.recipient_rand_hash
    return state.sender_nonce + 1 if state is not None and continues else 1


def creation_round_of(params: TicketParams, escrow: EscrowReading) -> tuple[int, bytes]:
    """Section 4.4: where the parameters name no creation round and block hash, those of the last initialized one.

    On L2 some rounds have no hash, and tickets of them cannot be redeemed: then the round before it (section 4.3).
    """
    if params.creation_round == 0 or params.creation_round_block_hash == _ZERO_HASH:
        before, before_hash = escrow.previous_initialized_round, escrow.previous_initialized_round_block_hash
        if escrow.last_initialized_round_block_hash == _ZERO_HASH and before is not None and before_hash is not None:
            return before, before_hash
        return escrow.last_initialized_round, escrow.last_initialized_round_block_hash
    return params.creation_round, params.creation_round_block_hash


def offer_forms(sender: bytes, info: OrchestratorInfo, creation_round: int, block_hash: bytes) -> OfferForms:
    """The ticket and the payment around it that `sender` signs by this offer (sections 4.1 and 4.6)."""
    params = offered_params(info)
    ticket = Ticket(
        recipient=params.recipient,
        sender=sender,
        face_value_wei=params.face_value_wei,
        win_prob=params.win_prob,
        sender_nonce=0,  # each ticket's own comes later
        recipient_rand_hash=params.recipient_rand_hash,
        creation_round=creation_round,
        creation_round_block_hash=block_hash,
    )
    frame = payment_frame(info, sender=sender, creation_round=creation_round, creation_round_block_hash=block_hash)
    return OfferForms(batch_preimage(ticket), frame)


def _encoded_offer_forms(sender: bytes, encoded: bytes, creation_round: int, block_hash: bytes) -> OfferForms:
    return offer_forms(sender, decode_orchestrator_info(encoded), creation_round, block_hash)


def not_signed(refusal: Refusal) -> SignerAnswer:
    """The answer that a refused payment gets; where it is masked, the log has what the caller is not told."""
    if refusal.http_status == SignerFailed.http_status:
        _log.warning("payment_not_signed", reason=refusal.message)
    return refusal_answer(refusal)


# --- words and bytes --------------------------------------------------------------------------------------------------


def _not_checked(reason: str) -> InvalidRequest:
    return InvalidRequest(f"remote signer could not check whether to refresh session: {reason}")


def _refresh(url: str) -> RefreshSession:
    return RefreshSession("refresh session for remote signer", orchestrator_url=url)


def _total_ev_message(total_ev: Fraction, limits: SignerLimits) -> str:
    return f"total ticket EV {_decimal(total_ev, 5)} > max total ticket EV {_decimal(limits.max_total_ev_wei, 5)}"


@lru_cache(REMEMBERED_OFFERS_MAX_COUNT)  # few prices are asked, and again with every call
def _per_unit(price_per_unit: int, pixels_per_unit: int) -> Fraction:
    return Fraction(price_per_unit, pixels_per_unit)


def _initial_per_unit(state: PaymentState | None) -> Fraction | None:
    return _per_unit(state.initial_price.price_per_unit, state.initial_price.pixels_per_unit) if state else None


def _balance(state: PaymentState | None) -> Fraction:
    return state.balance if state is not None and state.balance is not None else _NOTHING


def _decimal(value: Fraction | int, places: int) -> str:
    """Go's Rat.FloatString for a value that is not negative: a half rounds up."""
    whole, rest = divmod((2 * value.numerator * 10**places + value.denominator) // (2 * value.denominator), 10**places)
    return f"{whole}.{rest:0{places}d}"


def _orchestrator_info_answer(key: SigningKey) -> SignerAnswer:
    """Section 1.1."""
    address = checksum_address(key.address)
    signature = key.bsign(address.encode()).hex()
    return SignerAnswer(200, f'{{"address":"{address}","signature":"0x{signature}"}}\n'.encode())


def _payment_body(payment: str, seg_creds: str, signed: SignedState) -> bytes:
    """The answer as Go's encoder writes it; base64 needs no escaping."""
    state, sig = encode_base64(signed.state), encode_base64(signed.sig)
    return f'{{"payment":"{payment}","segCreds":"{seg_creds}","state":{{"State":"{state}","Sig":"{sig}"}}}}\n'.encode()
