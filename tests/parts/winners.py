"""Tickets as the contract takes them: of a payment, or of the test orchestrator's lottery."""

from __future__ import annotations

from chain.messages import Payment
from chain.tickets import Ticket as ChainTicket
from tests.parts.orchestrator import Ticket


def redeemable(winner: Ticket) -> tuple[ChainTicket, bytes, int]:
    """The ticket, its signature and the secret number: what Devnet.redeem takes."""
    terms = winner.terms
    ticket = ChainTicket(
        recipient=winner.recipient, sender=terms.sender, face_value_wei=terms.face_value_wei, win_prob=terms.win_prob,
        sender_nonce=winner.nonce, recipient_rand_hash=winner.recipient_rand_hash, creation_round=terms.creation_round,
        creation_round_block_hash=terms.creation_round_block_hash,
    )  # fmt: skip
    return ticket, winner.signature, winner.recipient_rand


def ticket_of(payment: Payment, nonce: int) -> ChainTicket:
    """The one of a payment's tickets that has this nonce."""
    return ChainTicket(
        recipient=payment.recipient, sender=payment.sender, face_value_wei=payment.face_value_wei,
        win_prob=payment.win_prob, sender_nonce=nonce, recipient_rand_hash=payment.recipient_rand_hash,
        creation_round=payment.creation_round, creation_round_block_hash=payment.creation_round_block_hash,
    )  # fmt: skip
