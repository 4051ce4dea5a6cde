"""Sessions as a correct signer lives them: every type, refreshes, falling prices, clocks that stand still or drift.

for call in history_of(plan): verify, derive, compare
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from fractions import Fraction

from hypothesis import strategies as st

from chain.fees import LV2V_PRELOAD_PIXELS
from chain.messages import decode_base64, encode_base64
from chain.payment_state import PaymentState, decode_state
from chain.signatures import keccak
from chain.tickets import WIN_PROB_CERTAIN
from clearinghouse.requests import PaymentRequest, decode_payment_request
from clearinghouse.signers.native import SignerLimits
from tests.clearinghouse.signers.calls import KEY, Bench, body, info, minimal

AUTH_ID = "gw_0/ses_0"
#: Wide, so that the histories are varied; what the signer still refuses is no payment and is left out.
LIMITS = SignerLimits(max_ticket_ev_wei=10**18, max_total_ev_wei=10**20)


@dataclass(frozen=True)
class Step:
    """One call, and what happened before it."""

    elapsed_ns: int
    in_pixels: int
    refreshes: bool
    price_percent: int
    #: What the signer's local time is ahead of UTC, as go-livepeer writes it into its states.
    zone_min: int


@dataclass(frozen=True)
class Plan:
    job_type: str
    price: tuple[int, int]
    #: Tickets that the first call should need, in tenths: below 10 one ticket is worth more than the fee.
    first_tickets_tenths: int
    face_value_wei: int
    steps: tuple[Step, ...]


@dataclass(frozen=True)
class Answered:
    """A call that was paid for, with what the front knew about it."""

    request: PaymentRequest
    body: bytes
    base: PaymentState | None
    first_nonce: int
    now_unix_ns: int


STEPS = st.builds(
    Step,
    elapsed_ns=st.one_of(st.integers(0, 60 * 10**9), st.sampled_from([0, 1, 36, 37, 10**9, 5_123_456_789])),
    in_pixels=st.integers(1, 10**6),
    refreshes=st.booleans(),
    price_percent=st.integers(1, 100),
    zone_min=st.sampled_from([0, 0, 120, -330, 765]),
)
PLANS = st.builds(
    Plan,
    job_type=st.sampled_from(["live", "lv2v", "fixed", ""]),
    price=st.tuples(st.integers(1, 10**12), st.integers(1, 10**6)),
    first_tickets_tenths=st.integers(1, 900),
    face_value_wei=st.integers(10**15, 10**18),
    steps=st.lists(STEPS, min_size=1, max_size=8).map(tuple),
)


def history_of(plan: Plan) -> Iterator[Answered]:
    """The plan's payments, one after the other; a 482 or another refusal leaves the state as it was."""
    bench = Bench(limits=LIMITS)
    offer = info(price=plan.price)
    units = {"live": 10, "lv2v": LV2V_PRELOAD_PIXELS, "fixed": 1, "": 500_000}[plan.job_type]
    ev_wei = Fraction(units * plan.price[0] * 10, plan.price[1] * plan.first_tickets_tenths)
    win_prob = int(ev_wei * WIN_PROB_CERTAIN / plan.face_value_wei)
    offer.ticket_params.face_value = minimal(plan.face_value_wei)
    offer.ticket_params.win_prob = minimal(max(1, min(win_prob, WIN_PROB_CERTAIN - 1)))
    signed: dict[str, str] | None = None
    base: PaymentState | None = None
    for number, step in enumerate(plan.steps):
        bench.clock.unix_ns += step.elapsed_ns
        offer.price_info.pricePerUnit = max(1, plan.price[0] * (step.price_percent if base else 100) // 100)
        if step.refreshes:
            offer.ticket_params.recipient_rand_hash = keccak(b"%d" % number)
        call = body(offer, state=signed, ManifestID="m", type=plan.job_type, inPixels=step.in_pixels)
        answer = bench.post(call, auth_id=AUTH_ID)
        if answer.status != 200:
            continue
        told = in_zone(answer.body, step.zone_min)
        request = decode_payment_request(call)
        params = request.info.ticket_params
        assert params is not None, "it was just paid by them"
        continues = base is not None and base.pm_session_id == params.recipient_rand_hash
        yield Answered(
            request, told, base, base.sender_nonce + 1 if base is not None and continues else 1, bench.clock.unix_ns
        )
        signed = json.loads(told)["state"]
        base = decode_state(decode_base64(signed["State"]))


def in_zone(answer: bytes, zone_min: int) -> bytes:
    """The same answer by a signer whose clock shows local time."""
    if not zone_min:
        return answer
    document = json.loads(answer)
    state = json.loads(decode_base64(document["state"]["State"]))
    second, _, decimals = state["LastUpdate"].removesuffix("Z").partition(".")
    local = (datetime.fromisoformat(second) + timedelta(minutes=zone_min)).isoformat()
    local += f".{decimals}" if decimals else ""
    hours, minutes = divmod(abs(zone_min), 60)
    state["LastUpdate"] = f"{local}{'+' if zone_min > 0 else '-'}{hours:02d}:{minutes:02d}"
    encoded = json.dumps(state, separators=(",", ":")).encode()
    document["state"] = {"State": encode_base64(encoded), "Sig": encode_base64(KEY.eth_sign(encoded))}
    return json.dumps(document).encode()
