"""The signer is checked, not trusted: its answer must be what was asked for, to the ticket.

Whatever does not fit is thrown away before it is charged or released.
"""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

from chain import shallow_json
from chain.expected_payment import ExpectedPayment, expected_payment
from chain.messages import (
    REMEMBERED_OFFER_BYTES_MAX,
    REMEMBERED_OFFERS_MAX_COUNT,
    MessageError,
    OrchestratorInfo,
    Payment,
    TicketParams,
    decode_base64,
    decode_orchestrator_info,
    decode_payment_bytes,
)
from chain.payment_state import PaymentState, StateError, decode_state_text, read_state
from chain.signatures import SignatureError, recover_eth_signer
from chain.tickets import Ticket, batch_ev_wei, ticket_hash
from clearinghouse.derivation import (
    CLOCK_SKEW_MAX_NS,
    TICKETS_MAX_COUNT,
    DerivationError,
    fee_of,
    require_clock,
    require_follows,
    work_of,
)
from clearinghouse.errors import SignerAnswerInvalid
from clearinghouse.rates.usage import Work
from clearinghouse.requests import PaymentRequest, offered_params

#: An answer is stored with its session and remembered; one of 100 tickets and large capabilities has about 50 kB.
ANSWER_MAX_BYTES = 64 * 1024
_NO_ROUND = (0, bytes(32))


class AnswerParts(NamedTuple):
    """A signer's answer taken apart. `state` and `sig` are base64, as the body has them."""

    payment: str
    seg_creds: str
    state: str
    sig: str


class SignedPayment(NamedTuple):
    """A signer's answer that passed every check."""

    parts: AnswerParts
    payment: Payment
    state: PaymentState
    state_hash: bytes
    num_tickets: int
    #: n·EV of all tickets together, rounded up once.
    ev_wei: int
    #: What the work costs by the signer's clock and the session's first price, rounded as the signer's own reports do.
    fee_wei: int
    work: Work


def verify_answer(
    body: bytes,
    request: PaymentRequest,
    *,
    sender: bytes,
    auth_id: str,
    base: PaymentState | None,
    first_nonce: int,
    recover_signatures: bool,
    now_unix_ns: int,
    clock_skew_max_ns: int = CLOCK_SKEW_MAX_NS,
) -> SignedPayment:
    """Decodes the body of a 200 and compares it with the request. Raises SignerAnswerInvalid, saying what differs.

    The state must follow from `base`, to the last fraction of a wei. The time billed is the signer's: ours,
    `now_unix_ns`, only bounds how far off that clock may be.
    `recover_signatures`: whether those of a ticket and of the state are recovered too. That costs more than all else
    together, so the caller does it for the first answer of a session and for a sample of the others.
    """
    if len(body) > ANSWER_MAX_BYTES:
        raise SignerAnswerInvalid(f"The signer's answer is larger than {ANSWER_MAX_BYTES} bytes.")
    try:
        document = shallow_json.loads(body)
        payment, is_as_asked = _read_payment(decode_base64(document["payment"]), request, sender, first_nonce)
        state_bytes = decode_state_text(document["state"]["State"])
        state, state_hash = read_state(state_bytes)
        state_sig = decode_base64(document["state"]["Sig"])
    except StateError as error:
        raise SignerAnswerInvalid(f"The signer's state cannot be read: {error}.") from error
    except (ValueError, KeyError, TypeError, MessageError) as error:
        raise SignerAnswerInvalid(f"The signer's answer cannot be read: {type(error).__name__}.") from error
    if not isinstance(seg_creds := document.get("segCreds"), str) or not seg_creds:
        raise SignerAnswerInvalid("The signer's answer has no segCreds.")
    if not is_as_asked:
        _require_terms(payment, request.info, sender=sender)
    _require_nonces(payment, first_nonce)
    _require_state(state, payment, request, auth_id=auth_id, base=base)
    count = len(payment.nonces)
    ev_wei = batch_ev_wei(payment.face_value_wei, payment.win_prob, count)
    if ev_wei == 0:
        raise SignerAnswerInvalid("The signer issued tickets without value.")
    try:
        require_clock(state, now_unix_ns=now_unix_ns, clock_skew_max_ns=clock_skew_max_ns)
        work = work_of(state, base, in_pixels=request.in_pixels)
        fee = fee_of(state, work)
        require_follows(
            state,
            base,
            fee=fee,
            num_tickets=count,
            face_value_wei=payment.face_value_wei,
            win_prob=payment.win_prob,
        )
    except DerivationError as error:
        raise SignerAnswerInvalid(f"The signer's state {error}") from error
    if recover_signatures:
        _require_ticket_signature(payment)
        _require_signed_by(sender, "The state", state_bytes, state_sig)
    signed_state = document["state"]
    return SignedPayment(
        parts=AnswerParts(document["payment"], seg_creds, signed_state["State"], signed_state["Sig"]),
        payment=payment,
        state=state,
        state_hash=state_hash,
        num_tickets=count,
        ev_wei=ev_wei,
        fee_wei=fee.wei,
        work=work,
    )


def _read_payment(data: bytes, request: PaymentRequest, sender: bytes, first_nonce: int) -> tuple[Payment, bool]:
    """The payment, and whether it is known to be on the terms that were asked for."""
    info = request.info
    if _names_round(request.params) and len(info.encoded) <= REMEMBERED_OFFER_BYTES_MAX:
        payment = _expected(info.encoded, sender).read(data, first_nonce)
        if payment is not None:
            return payment, True
    return decode_payment_bytes(data), False


@lru_cache(REMEMBERED_OFFERS_MAX_COUNT)  # 2 to 4 kB each: by the bytes, as a decoded offer may have many times that
def _expected(encoded_info: bytes, sender: bytes) -> ExpectedPayment:
    """What is known by its bytes from then on is compared here once."""
    info = decode_orchestrator_info(encoded_info)
    asked = offered_params(info)
    expected = expected_payment(
        info,
        sender=sender,
        creation_round=asked.creation_round,
        creation_round_block_hash=asked.creation_round_block_hash,
    )
    _require_terms(expected.sample, info, sender=sender)
    return expected


def _names_round(asked: TicketParams) -> bool:
    """Without a round or its hash the signer takes the last initialised round it knows (spec 4.4)."""
    return asked.creation_round != _NO_ROUND[0] and asked.creation_round_block_hash != _NO_ROUND[1]


def _require_terms(payment: Payment, info: OrchestratorInfo, *, sender: bytes) -> None:
    asked = offered_params(info)
    got = (
        payment.sender, payment.recipient, payment.face_value_wei, payment.win_prob, payment.recipient_rand_hash,
        payment.seed, payment.expiration_block, payment.expected_price,
    )  # fmt: skip
    wanted = (
        sender, asked.recipient, asked.face_value_wei, asked.win_prob, asked.recipient_rand_hash, asked.seed,
        asked.expiration_block, info.price,
    )  # fmt: skip
    if got != wanted:
        name = _first_difference(_PAYMENT_PARTS, got, wanted)
        raise SignerAnswerInvalid(f"The signer's tickets have another {name} than was asked for.")
    asked_round = (asked.creation_round, asked.creation_round_block_hash)
    if _names_round(asked) and (payment.creation_round, payment.creation_round_block_hash) != asked_round:
        raise SignerAnswerInvalid("The signer's tickets have another creation round than was asked for.")


def _require_nonces(payment: Payment, first_nonce: int) -> None:
    count = len(payment.nonces)
    if not 1 <= count <= TICKETS_MAX_COUNT:
        raise SignerAnswerInvalid(f"The signer issued {count} tickets; 1 to {TICKETS_MAX_COUNT} are possible.")
    if payment.nonces != tuple(range(first_nonce, first_nonce + count)):
        raise SignerAnswerInvalid(f"The signer's nonces are not consecutive from {first_nonce}.")


def _require_state(
    state: PaymentState, payment: Payment, request: PaymentRequest, *, auth_id: str, base: PaymentState | None
) -> None:
    got = (
        state.auth_id, state.pm_session_id, state.sender_nonce, state.orchestrator_address, state.app, state.type,
        state.sequence_number, state.state_id, state.initial_price, state.auth_expiry_unix_s,
    )  # fmt: skip
    wanted = (
        auth_id, payment.recipient_rand_hash, payment.nonces[-1], request.info.address, request.app, request.type,
        *_kept(state, request, base),
    )  # fmt: skip
    if got != wanted:
        name = _first_difference(_STATE_PARTS, got, wanted)
        raise SignerAnswerInvalid(f"The signer's state has another {name} than follows from the request.")


def _kept(state: PaymentState, request: PaymentRequest, base: PaymentState | None) -> tuple[object, ...]:
    """What a session keeps, its sequence one further; a first call chooses the StateID alone.

    An AuthExpiry would let the signer skip its webhook for that long (spec 10-A6): none of ours has one.
    """
    if base is None:
        return (0, state.state_id, request.price, 0)
    return (base.sequence_number + 1, base.state_id, base.initial_price, base.auth_expiry_unix_s)


#: In the order of the comparisons above.
_PAYMENT_PARTS = (
    "sender", "recipient", "face value", "win probability", "recipientRandHash", "seed", "expiration block",
    "expected price",
)  # fmt: skip
_STATE_PARTS = (
    "AuthID", "PMSessionID", "SenderNonce", "OrchestratorAddress", "App", "Type", "SequenceNumber", "StateID",
    "InitialPrice", "AuthExpiry",
)  # fmt: skip


def _first_difference(names: tuple[str, ...], got: tuple[object, ...], wanted: tuple[object, ...]) -> str:
    return next(name for name, mine, theirs in zip(names, got, wanted, strict=True) if mine != theirs)


def _require_ticket_signature(payment: Payment) -> None:
    """Of the last ticket: a wrong key shows in any of them."""
    ticket = Ticket(
        recipient=payment.recipient,
        sender=payment.sender,
        face_value_wei=payment.face_value_wei,
        win_prob=payment.win_prob,
        sender_nonce=payment.nonces[-1],
        recipient_rand_hash=payment.recipient_rand_hash,
        creation_round=payment.creation_round,
        creation_round_block_hash=payment.creation_round_block_hash,
    )
    _require_signed_by(payment.sender, "A ticket", ticket_hash(ticket), payment.signatures[-1])


def _require_signed_by(sender: bytes, what: str, message: bytes, signature: bytes) -> None:
    try:
        signer = recover_eth_signer(message, signature)
    except SignatureError as error:
        raise SignerAnswerInvalid(f"{what} has a malformed signature: {error}.") from error
    if signer != sender:
        raise SignerAnswerInvalid(f"{what} is signed by another key than the sender's.")
