"""The orchestrator's half of the ticket lottery (protocol 4.1-4.3), as functions of values.

The orchestrator commits to a secret number with its hash; the sender signs tickets against the hash; a ticket wins when
the hash of signature and number falls below the win probability. The number is not stored: it is derived again from
everything the orchestrator quoted, so a sender that changes one quoted value breaks the commitment.
"""

from __future__ import annotations

import hashlib
import hmac
from dataclasses import dataclass
from fractions import Fraction

from chain.signatures import keccak

CERTAIN = 2**256 - 1  # the denominator of every win probability
REDEEM_GAS = 1_200_000
REDEEM_GAS_PRICE_WEI_MIN = 3 * 10**9  # a face value that covers redemption at 3 gwei is never too small


class NoTicketFits(Exception):
    """The sender's reserve is too small for a ticket that is worth redeeming."""


@dataclass(frozen=True, slots=True)
class Terms:
    """What the orchestrator quoted to one sender, and therefore what its secret number depends on."""

    sender: bytes
    face_value_wei: int
    win_prob: int
    expiration_block: int
    price_wei_per_unit: Fraction
    creation_round: int
    creation_round_block_hash: bytes
    seed: int

    @property
    def ev_wei(self) -> Fraction:
        return Fraction(self.face_value_wei * self.win_prob, CERTAIN)


def minimal_bytes(number: int) -> bytes:
    """Big-endian without leading zeros; zero is empty."""
    return number.to_bytes((number.bit_length() + 7) // 8, "big")


def quoted_face_value_wei(
    *,
    ticket_ev_wei: int,
    max_float_wei: int,
    gas_price_wei: int,
    face_value_per_cost: int,
    redeem_gas: int = REDEEM_GAS,
) -> int:
    """Large enough to be worth redeeming, never above what the sender's reserve covers. Raises NoTicketFits."""
    cost_wei = redeem_gas * gas_price_wei
    wanted_wei = cost_wei * face_value_per_cost
    if wanted_wei < ticket_ev_wei:
        wanted_wei = ticket_ev_wei * face_value_per_cost
    face_value_wei = min(wanted_wei, max_float_wei)
    if face_value_wei < ticket_ev_wei:
        raise NoTicketFits("insufficient sender reserve")
    if face_value_wei < cost_wei and face_value_wei < redeem_gas * REDEEM_GAS_PRICE_WEI_MIN:
        raise NoTicketFits("insufficient sender reserve")
    return face_value_wei


def quoted_win_prob(*, face_value_wei: int, ticket_ev_wei: int) -> int:
    """The probability at which a ticket of `face_value_wei` is worth `ticket_ev_wei`, rounded as they round."""
    if face_value_wei == 0:
        return 0
    if face_value_wei == ticket_ev_wei:
        return CERTAIN
    quotient, rest = divmod(CERTAIN, face_value_wei)
    rounds_up = rest % 2**64 != 0  # the field's code looks at the low 64 bits of the rest only
    return ticket_ev_wei * (quotient + 1 if rounds_up else quotient)


def recipient_rand(secret: bytes, terms: Terms) -> int:
    """The secret number behind `terms`."""
    quoted = (
        minimal_bytes(terms.seed),
        terms.sender,
        minimal_bytes(terms.face_value_wei),
        minimal_bytes(terms.win_prob),
        minimal_bytes(terms.expiration_block),
        minimal_bytes(terms.price_wei_per_unit.numerator),
        minimal_bytes(terms.price_wei_per_unit.denominator),
        _auxiliary_data(terms),
    )
    return int.from_bytes(hmac.new(secret, b"".join(quoted), hashlib.sha256).digest(), "big")


def commitment(rand: int) -> bytes:
    """recipientRandHash: what the sender and the contract see of the secret number."""
    return keccak(rand.to_bytes(32, "big"))


def ticket_hash(terms: Terms, *, recipient: bytes, rand_hash: bytes, nonce: int) -> bytes:
    """What the sender signs: the contract's packed encoding of one ticket."""
    words = (terms.face_value_wei, terms.win_prob, nonce)
    packed = recipient + terms.sender + b"".join(word.to_bytes(32, "big") for word in words) + rand_hash
    return keccak(packed + _auxiliary_data(terms))


def wins(signature: bytes, rand: int, win_prob: int) -> bool:
    return int.from_bytes(keccak(signature + rand.to_bytes(32, "big")), "big") < win_prob


def _auxiliary_data(terms: Terms) -> bytes:
    """Creation round and its block hash; empty, not zeros, when both are zero."""
    if terms.creation_round == 0 and not any(terms.creation_round_block_hash):
        return b""
    return terms.creation_round.to_bytes(32, "big") + terms.creation_round_block_hash
