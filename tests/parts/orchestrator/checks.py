"""What the orchestrator holds against a payment (protocol 4.8), each check in the field's order."""

from __future__ import annotations

import hmac
from collections.abc import Set
from fractions import Fraction

from chain.pb import lp_rpc_pb2 as pb
from chain.signatures import SignatureError, keccak, recover_eth_signer
from tests.parts.orchestrator import lottery
from tests.parts.orchestrator.books import NONCES_MAX, PaymentRefused, Reason, Ticket
from tests.parts.orchestrator.quotes import auth_token
from tests.parts.orchestrator.settings import Settings

EMPTY_SEGMENT_HASH = keccak(b"")


def is_signed_by(address: bytes, message: bytes, signature: bytes) -> bool:
    try:
        return recover_eth_signer(message, signature) == address
    except SignatureError:
        return False


def require_credentials(segment: pb.SegData, sender: bytes, *, token_secret: bytes, now_unix_s: float) -> None:
    """The segment credentials carry the sender's signature and an auth token of ours; raises PaymentRefused(403)."""
    flat = segment.manifestId + segment.seq.to_bytes(32, "big") + segment.hash  # no profiles: nothing follows
    if segment.hash != EMPTY_SEGMENT_HASH or not is_signed_by(sender, keccak(flat), segment.sig):
        raise PaymentRefused(403, Reason.BAD_SEGMENT_SIGNATURE)
    token = segment.auth_token
    if token.expiration < 0 or not hmac.compare_digest(
        auth_token(token_secret, token.session_id, token.expiration).token, token.token
    ):
        raise PaymentRefused(403, Reason.BAD_AUTH_TOKEN)
    if token.expiration < now_unix_s:
        raise PaymentRefused(403, Reason.EXPIRED_AUTH_TOKEN)


def payment_terms(payment: pb.Payment) -> lottery.Terms:
    """What the payment claims we quoted; raises PaymentRefused(400) where it claims no complete quote."""
    price, params, expiration = payment.expected_price, payment.ticket_params, payment.expiration_params
    if not payment.HasField("expected_price") or price.pixelsPerUnit == 0:
        raise PaymentRefused(400, Reason.NO_PRICE)
    if not payment.ticket_sender_params:
        raise PaymentRefused(400, Reason.NO_TICKETS)
    if price.pricePerUnit <= 0 or price.pixelsPerUnit < 0 or expiration.creation_round < 0:
        raise PaymentRefused(400, Reason.BAD_RECIPIENT_RAND)  # we never quote these, so they match no secret number
    return lottery.Terms(
        sender=payment.sender,
        face_value_wei=int.from_bytes(params.face_value, "big"),
        win_prob=int.from_bytes(params.win_prob, "big"),
        expiration_block=int.from_bytes(params.expiration_block, "big"),
        price_wei_per_unit=Fraction(price.pricePerUnit, price.pixelsPerUnit),
        creation_round=expiration.creation_round,
        creation_round_block_hash=expiration.creation_round_block_hash,
        seed=int.from_bytes(params.seed, "big"),
    )


def why_worthless(ticket: Ticket, recipient: bytes, unlocking_senders: Set[bytes]) -> Reason | None:
    """The contract's conditions: a ticket that fails one can never be redeemed."""
    if ticket.terms.sender in unlocking_senders:
        return Reason.SENDER_UNLOCKING
    if ticket.recipient != recipient:
        return Reason.FOREIGN_RECIPIENT
    if not any(ticket.terms.sender):
        return Reason.NULL_SENDER
    if lottery.commitment(ticket.recipient_rand) != ticket.recipient_rand_hash:
        return Reason.BAD_RECIPIENT_RAND
    signed = lottery.ticket_hash(
        ticket.terms, recipient=recipient, rand_hash=ticket.recipient_rand_hash, nonce=ticket.nonce
    )
    if not is_signed_by(ticket.terms.sender, signed, ticket.signature):
        return Reason.BAD_TICKET_SIGNATURE
    return None


def why_not_credited(ticket: Ticket, nonces_seen: Set[int], settings: Settings) -> Reason | None:
    """The orchestrator's own conditions: each nonce once, so many at most, and only while the parameters hold."""
    if ticket.nonce in nonces_seen:
        return Reason.NONCE_SEEN
    if len(nonces_seen) >= NONCES_MAX:
        return Reason.TOO_MANY_NONCES
    if ticket.terms.expiration_block <= settings.last_seen_l1_block:
        return Reason.PARAMS_EXPIRED
    return None
