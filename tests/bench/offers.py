"""What callers send: OrchestratorInfo messages with fresh ticket parameters, and their encoding.

The price is the whole part of a ticket's expected value, so that every call of type "fixed" is due exactly one ticket:
the signer tops the balance up to one expected value, and a call leaves less than one wei of it.
"""

from __future__ import annotations

import base64
import os
import time

from chain.pb import lp_rpc_pb2 as pb
from chain.tickets import WIN_PROB_CERTAIN

FACE_VALUE_WEI = 10**16
#: About 8 in 10 million. Odd on purpose: real probabilities do not divide 2^256 - 1, and the arithmetic feels it.
WIN_PROB = 92_633_671_389_852_956_338_856_788_006_950_326_282_615_987_732_512_451_231_566_072_000_000_001
PRICE_WEI = FACE_VALUE_WEI * WIN_PROB // WIN_PROB_CERTAIN
#: Orchestrators refuse nonces from 600 on, so a stream asks them for fresh parameters in time.
TICKETS_PER_OFFER_MAX = 500
JOB_TYPE = "fixed"
ORCHESTRATOR = bytes(19) + b"\x01"

_RAND_PLACE = b"\xa5" * 32
_VALID_FOR_S = 86_400


class Offers:
    """Makes offers of one orchestrator that differ in their recipientRandHash. About 2 µs each."""

    def __init__(self) -> None:
        encoded = _orchestrator_info().SerializeToString()
        self._before, self._after = encoded.split(_RAND_PLACE)

    def fresh(self) -> bytes:
        """An encoded OrchestratorInfo that nobody has used."""
        return self._before + os.urandom(32) + self._after

    def fresh_base64(self) -> bytes:
        return base64.b64encode(self.fresh())


def _orchestrator_info() -> pb.OrchestratorInfo:
    """About as large as one that an orchestrator sends to a gateway that asks for no capabilities."""
    return pb.OrchestratorInfo(
        transcoder="https://orchestrator.example:8935",
        address=ORCHESTRATOR,
        ticket_params=pb.TicketParams(
            recipient=bytes(19) + b"\x02",
            face_value=_minimal(FACE_VALUE_WEI),
            win_prob=_minimal(WIN_PROB),
            recipient_rand_hash=_RAND_PLACE,
            seed=os.urandom(32),
            expiration_block=_minimal(20_000_040),
            expiration_params=pb.TicketExpirationParams(creation_round=3500, creation_round_block_hash=b"\x51" * 32),
        ),
        price_info=pb.PriceInfo(pricePerUnit=PRICE_WEI, pixelsPerUnit=1),
        auth_token=pb.AuthToken(
            token=os.urandom(32), session_id="deadbeef", expiration=int(time.time()) + _VALID_FOR_S
        ),
    )


def _minimal(number: int) -> bytes:
    return number.to_bytes((number.bit_length() + 7) // 8, "big")
