"""An orchestrator's offer to try signing with: in form and amounts what a real one sends, but nobody serves it.

Tickets for it cannot be redeemed by anybody: the recipient's number is made up here and forgotten.
"""

from __future__ import annotations

from typing import Final

from chain.fees import FIXED, LIVE, LV2V
from chain.go_duration import PIXELS_PER_SECOND
from chain.messages import Price
from chain.pb import lp_rpc_pb2 as pb
from chain.signatures import parse_address
from chain.tickets import WIN_PROB_CERTAIN, recipient_rand_hash

ORCHESTRATOR: Final = parse_address("0x525419ff5707190389bfb5c87c375d710f5fcb0e")
RECIPIENT: Final = parse_address("0x8b1f7e3a64d9c05b2ae87d134c60f9b25ee7a31d")
TRANSCODER: Final = "https://orchestrator.example:8935"

FACE_VALUE_WEI: Final = 10**16
TICKET_EV_WEI: Final = 8 * 10**9
#: Rounded down, so that tickets of n EV are charged as n · TICKET_EV_WEI and not as a wei more.
WIN_PROB: Final = WIN_PROB_CERTAIN * TICKET_EV_WEI // FACE_VALUE_WEI
#: Beyond any block of today: the demo must also pass where the signer knows the real chain.
EXPIRATION_BLOCK: Final = 99_999_999
#: As long as go-livepeer makes its tokens.
TOKEN_LIFETIME_S: Final = 30 * 60

#: About 0.04 USD an hour at 3,000 USD per ETH.
_WEI_PER_S: Final = 4 * 10**9 - 1
#: In wei per call, second or pixel; a wei below a whole number of tickets, which WIN_PROB, rounded down, would miss.
PRICES: Final = {
    FIXED: Price(price_per_unit=TICKET_EV_WEI - 1, pixels_per_unit=1),  # every call needs one ticket
    LIVE: Price(price_per_unit=_WEI_PER_S, pixels_per_unit=1),
    LV2V: Price(price_per_unit=_WEI_PER_S, pixels_per_unit=PIXELS_PER_SECOND),  # a second costs what one of LIVE does
}


def demo_orchestrator_info(job_type: str, *, recipient_rand: int, seed: int, session_id: str, now_unix_s: int) -> bytes:
    """An encoded net.OrchestratorInfo for a job of type fixed, live or lv2v (KeyError for another).

    `recipient_rand` and `seed` are below 2**256 and fresh for every session: tickets with one `recipient_rand` are
    counted by nonces. It names no creation round: the signer takes the last one it knows.
    """
    price = PRICES[job_type]
    info = pb.OrchestratorInfo(
        transcoder=TRANSCODER,
        address=ORCHESTRATOR,
        ticket_params=pb.TicketParams(
            recipient=RECIPIENT,
            face_value=_big_endian(FACE_VALUE_WEI),
            win_prob=_big_endian(WIN_PROB),
            recipient_rand_hash=recipient_rand_hash(recipient_rand),
            seed=_big_endian(seed),
            expiration_block=_big_endian(EXPIRATION_BLOCK),
        ),
        price_info=pb.PriceInfo(pricePerUnit=price.price_per_unit, pixelsPerUnit=price.pixels_per_unit),
        auth_token=pb.AuthToken(
            token=recipient_rand_hash(seed), session_id=session_id, expiration=now_unix_s + TOKEN_LIFETIME_S
        ),
    )
    return info.SerializeToString(deterministic=True)


def _big_endian(number: int) -> bytes:
    return number.to_bytes((number.bit_length() + 7) // 8, "big")
