"""What the orchestrator promises: ticket terms bound to its secret number, and auth tokens that only it can make."""

from __future__ import annotations

import hashlib
import hmac
import secrets
from fractions import Fraction

from chain.pb import lp_rpc_pb2 as pb
from tests.parts.orchestrator import lottery
from tests.parts.orchestrator.settings import Settings


def new_terms(sender: bytes, price_wei_per_unit: Fraction, settings: Settings) -> lottery.Terms:
    """Terms for `sender` with a fresh seed, so a fresh secret number. Raises lottery.NoTicketFits."""
    face_value_wei = lottery.quoted_face_value_wei(
        ticket_ev_wei=settings.ticket_ev_wei,
        max_float_wei=settings.max_float_wei,
        gas_price_wei=settings.gas_price_wei,
        face_value_per_cost=settings.face_value_per_cost,
    )
    return lottery.Terms(
        sender=sender,
        face_value_wei=face_value_wei,
        win_prob=lottery.quoted_win_prob(face_value_wei=face_value_wei, ticket_ev_wei=settings.ticket_ev_wei),
        expiration_block=settings.last_seen_l1_block + settings.params_valid_blocks,
        price_wei_per_unit=price_wei_per_unit,
        creation_round=settings.last_initialized_round,
        creation_round_block_hash=settings.last_initialized_round_block_hash,
        seed=secrets.randbits(256),
    )


def params_message(terms: lottery.Terms, *, recipient: bytes, rand_hash: bytes) -> pb.TicketParams:
    return pb.TicketParams(
        recipient=recipient,
        face_value=lottery.minimal_bytes(terms.face_value_wei),
        win_prob=lottery.minimal_bytes(terms.win_prob),
        recipient_rand_hash=rand_hash,
        seed=lottery.minimal_bytes(terms.seed),
        expiration_block=lottery.minimal_bytes(terms.expiration_block),
        expiration_params=pb.TicketExpirationParams(
            creation_round=terms.creation_round, creation_round_block_hash=terms.creation_round_block_hash
        ),
    )


def auth_token(secret: bytes, session_id: str, expiration_unix_s: int) -> pb.AuthToken:
    message = session_id.encode() + lottery.minimal_bytes(expiration_unix_s)
    token = hmac.new(secret, message, hashlib.sha256).digest()
    return pb.AuthToken(token=token, session_id=session_id, expiration=expiration_unix_s)
