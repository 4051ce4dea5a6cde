"""Probabilistic micropayment tickets: hash, expected value, winning test (remote-signer protocol, section 4.1 to 4.3).

The preimage of a ticket's hash, 168 bytes and the auxiliary data:

    0          20       40           72        104            136                 168
    | recipient | sender | face value | winProb | sender nonce | recipientRandHash | auxData (0 or 64)
                                        unsigned, 32 bytes, big-endian each

auxData is creation round (32) | creation round's block hash (32), and empty where both are zero.
Tickets of one batch differ in the nonce alone, so everything around it is built once.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from typing import Final

from chain.signatures import keccak

#: The win probability of a ticket that always wins, which is also the protocol's denominator.
WIN_PROB_CERTAIN: Final = 2**256 - 1
NONCE_MAX: Final = 2**32 - 1

ZERO_HASH: Final = bytes(32)
_NONCE_PADDING: Final = bytes(28)  # the nonce is 4 bytes in a field of 32


@dataclass(frozen=True, slots=True)
class BatchPreimage:
    """The preimage of tickets that differ in the nonce alone: up to the nonce's four bytes, and from behind them."""

    before: bytes
    after: bytes

    def hashes(self, first_nonce: int, count: int) -> list[bytes]:
        """The hashes of the tickets with `count` nonces from `first_nonce` on. ValueError for nonces beyond 32 bits."""
        if not 0 <= first_nonce <= first_nonce + count - 1 <= NONCE_MAX:
            raise ValueError(f"{count} nonces from {first_nonce} on do not fit 32 bits")
        before, after = self.before, self.after
        return [keccak(before + nonce.to_bytes(4, "big") + after) for nonce in range(first_nonce, first_nonce + count)]


@dataclass(frozen=True, slots=True)
class Ticket:
    """One ticket, unsigned. Addresses have 20 bytes, hashes 32; `win_prob` is in units of 1 / WIN_PROB_CERTAIN."""

    recipient: bytes
    sender: bytes
    face_value_wei: int
    win_prob: int
    sender_nonce: int
    recipient_rand_hash: bytes
    creation_round: int
    creation_round_block_hash: bytes


def aux_data(creation_round: int, block_hash: bytes) -> bytes:
    """64 bytes, or none where round and hash are both zero. The contract redeems only tickets that have 64.

    Raises ValueError for a negative round (go-livepeer would encode its absolute value) or a hash not of 32 bytes.
    """
    if not 0 <= creation_round <= WIN_PROB_CERTAIN:
        raise ValueError(f"creation round {creation_round} is not an unsigned 256-bit number")
    if len(block_hash) != 32:
        raise ValueError(f"a block hash has 32 bytes, not {len(block_hash)}")
    if creation_round == 0 and block_hash == ZERO_HASH:
        return b""
    return creation_round.to_bytes(32, "big") + block_hash


def ticket_hash(t: Ticket) -> bytes:
    """What the sender signs for this ticket. Raises ValueError for a field out of its range."""
    return batch_preimage(t).hashes(t.sender_nonce, 1)[0]


def batch_preimage(ticket: Ticket) -> BatchPreimage:
    """What tickets like `ticket` share; its own nonce is not looked at. Raises ValueError for a field out of range."""
    if len(ticket.recipient) != 20 or len(ticket.sender) != 20 or len(ticket.recipient_rand_hash) != 32:
        raise ValueError("a ticket needs addresses of 20 bytes and a recipientRandHash of 32")
    _require_amounts(ticket.face_value_wei, ticket.win_prob)
    before = b"".join(
        (
            ticket.recipient,
            ticket.sender,
            ticket.face_value_wei.to_bytes(32, "big"),
            ticket.win_prob.to_bytes(32, "big"),
            _NONCE_PADDING,
        )
    )
    after = ticket.recipient_rand_hash + aux_data(ticket.creation_round, ticket.creation_round_block_hash)
    return BatchPreimage(before, after)


@lru_cache(4096)  # the same ticket parameters come back with every payment of a session
def ticket_ev(face_value_wei: int, win_prob: int) -> Fraction:
    """Expected value of one ticket in wei, exactly (section 3.4). Raises ValueError for a value beyond 256 bits."""
    _require_amounts(face_value_wei, win_prob)
    return Fraction(face_value_wei * win_prob, WIN_PROB_CERTAIN)


def batch_ev_wei(face_value_wei: int, win_prob: int, num_tickets: int) -> int:
    """Expected value of a batch, rounded up once to whole wei: never below the exposure, less than one wei above it.

    Raises ValueError for a value beyond 256 bits or a negative number of tickets.
    """
    _require_amounts(face_value_wei, win_prob)
    if num_tickets < 0:
        raise ValueError(f"{num_tickets} is not a number of tickets")
    return -(-num_tickets * face_value_wei * win_prob // WIN_PROB_CERTAIN)


def is_winning(signature: bytes, recipient_rand: int, win_prob: int) -> bool:
    """Whether the ticket signed so wins, once the recipient's secret is known (section 4.2)."""
    return int.from_bytes(keccak(signature + recipient_rand.to_bytes(32, "big")), "big") < win_prob


def recipient_rand_hash(recipient_rand: int) -> bytes:
    """The commitment to the recipient's secret that stands in the ticket."""
    return keccak(recipient_rand.to_bytes(32, "big"))


def _require_amounts(face_value_wei: int, win_prob: int) -> None:
    if not 0 <= face_value_wei <= WIN_PROB_CERTAIN:
        raise ValueError(f"face value {face_value_wei} wei is not an unsigned 256-bit number")
    if not 0 <= win_prob <= WIN_PROB_CERTAIN:
        raise ValueError(f"win_prob {win_prob} is not a probability")
