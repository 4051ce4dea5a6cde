"""A call of /generate-live-payment that succeeds, in parts that a test may break one by one."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from fractions import Fraction
from typing import Any

from chain.escrow import EscrowReading, EscrowUnknown
from chain.messages import Price
from chain.payment_state import PaymentState, decode_state, encode_state
from chain.pb import lp_rpc_pb2 as pb
from chain.signatures import SigningKey, keccak
from chain.tickets import WIN_PROB_CERTAIN, recipient_rand_hash
from clearinghouse.errors import Refusal
from clearinghouse.requests import decode_payment_request
from clearinghouse.signers.base import SignerAnswer
from clearinghouse.signers.envelope import refusal_answer
from clearinghouse.signers.native import NativeSigner, SignerLimits

KEY = SigningKey(keccak(b"the signer of the tests"))
OTHER_KEY = SigningKey(keccak(b"somebody else"))
ORCHESTRATOR = bytes(19) + b"\x01"
RECIPIENT = keccak(b"recipient")[:20]
NOW_UNIX_NS = 1_775_592_000_123_456_789
SECOND_NS = 10**9
L1_BLOCK = 20_000_000


def info(
    *, price: tuple[int, int] = (1, 1), ev_wei: int = 1, expires_in_s: int = 1800, recipient_rand: int = 10
) -> pb.OrchestratorInfo:
    """An offer whose tickets win one time in five: 2^256 - 1 is divisible by 5, so the expected value is exact."""
    return pb.OrchestratorInfo(
        transcoder="http://orch.example",
        address=ORCHESTRATOR,
        ticket_params=pb.TicketParams(
            recipient=RECIPIENT,
            face_value=minimal(5 * ev_wei),
            win_prob=minimal(WIN_PROB_CERTAIN // 5),
            recipient_rand_hash=recipient_rand_hash(recipient_rand),
            seed=minimal(7777),
            expiration_block=minimal(L1_BLOCK + 40),
            expiration_params=pb.TicketExpirationParams(
                creation_round=3500, creation_round_block_hash=keccak(b"round 3500")
            ),
        ),
        price_info=pb.PriceInfo(pricePerUnit=price[0], pixelsPerUnit=price[1]),
        auth_token=pb.AuthToken(
            token=b"tok", session_id="deadbeef", expiration=NOW_UNIX_NS // SECOND_NS + expires_in_s
        ),
    )


def minimal(number: int) -> bytes:
    return number.to_bytes((number.bit_length() + 7) // 8, "big")


def b64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def body(offer: pb.OrchestratorInfo | bytes, **fields: Any) -> bytes:
    """A request as the Go gateway orders it; `fields` replace or add, None stays null."""
    encoded = offer if isinstance(offer, bytes) else offer.SerializeToString()
    return json.dumps({"state": {"State": None, "Sig": None}, "orchestrator": b64(encoded), **fields}).encode()


ESCROW = EscrowReading(
    sender=KEY.address,
    deposit_wei=10**18,
    reserve_wei=10**18,
    claimed_in_round_wei=0,
    withdraw_round=0,
    last_initialized_round=3501,
    last_initialized_round_block_hash=keccak(b"round 3501"),
    last_seen_l1_block=L1_BLOCK,
    observed_at_unix_s=NOW_UNIX_NS // SECOND_NS,
    simulated=True,
    previous_initialized_round=3500,
    previous_initialized_round_block_hash=keccak(b"round 3500"),
)


@dataclass
class Escrow:
    """An EscrowView whose reading a test may change, or take away."""

    reading: EscrowReading | None = ESCROW

    def read(self) -> EscrowReading:
        if self.reading is None:
            raise EscrowUnknown("no reading yet")
        return self.reading


@dataclass
class Clock:
    unix_ns: int = NOW_UNIX_NS

    def __call__(self) -> int:
        return self.unix_ns

    def advance(self, seconds: int) -> None:
        self.unix_ns += seconds * SECOND_NS


@dataclass
class Bench:
    """A native signer with its world in the test's hands."""

    limits: SignerLimits = field(default_factory=SignerLimits)
    clock: Clock = field(default_factory=Clock)
    escrow: Escrow = field(default_factory=Escrow)

    def signer(self) -> NativeSigner:
        return NativeSigner(key=KEY, escrow=self.escrow, limits=self.limits, now_unix_ns=self.clock)

    def post(self, request_body: bytes, *, auth_id: str = "") -> SignerAnswer:
        """As the server answers, without the server."""
        try:
            request = decode_payment_request(request_body)
        except Refusal as refusal:
            return refusal_answer(refusal)
        return asyncio.run(self.signer().generate_payment(request, auth_id=auth_id))

    def pay(self, offer: pb.OrchestratorInfo, *, auth_id: str = "", **fields: Any) -> Paid:
        answer = self.post(body(offer, **fields), auth_id=auth_id)
        assert answer.status == 200, answer
        return Paid(answer)


@dataclass
class Paid:
    """A 200, taken apart."""

    answer: SignerAnswer

    def __post_init__(self) -> None:
        document = json.loads(self.answer.body)
        self.signed_state: dict[str, str] = document["state"]
        self.state = decode_state(base64.b64decode(self.signed_state["State"]))
        self.payment = pb.Payment.FromString(base64.b64decode(document["payment"]))
        self.segment = pb.SegData.FromString(base64.b64decode(document["segCreds"]))

    @property
    def nonces(self) -> list[int]:
        return [ticket.sender_nonce for ticket in self.payment.ticket_sender_params]


def message(answer: SignerAnswer) -> str:
    text = json.loads(answer.body)["error"]["message"]
    assert isinstance(text, str)
    return text


@dataclass
class Call:
    """The second call of a live session, five seconds after the first; it succeeds until a test breaks it."""

    offer: pb.OrchestratorInfo = field(default_factory=info)
    state: PaymentState = field(
        default_factory=lambda: PaymentState(
            state_id="00ff",
            pm_session_id=recipient_rand_hash(10),
            last_update_unix_ns=NOW_UNIX_NS - 5 * SECOND_NS,
            orchestrator_address=ORCHESTRATOR,
            app="",
            auth_expiry_unix_s=0,
            sender_nonce=7,
            balance=Fraction(0),
            initial_price=Price(1, 1),
            type="live",
            sequence_number=3,
            auth_id="tenant",
        )
    )
    fields: dict[str, Any] = field(default_factory=lambda: {"ManifestID": "manifest", "type": "live"})
    bench: Bench = field(default_factory=Bench)
    auth_id: str = "tenant"
    state_bytes: bytes | None = None
    signed_by: SigningKey = KEY
    offer_bytes: bytes | None = None
    offer_tail: bytes = b""
    body_head: bytes = b""

    def change_state(self, **changes: Any) -> None:
        self.state = self.state._replace(**changes)

    def change_escrow(self, **changes: Any) -> None:
        self.bench.escrow.reading = replace(ESCROW, **changes)

    def body(self) -> bytes:
        state = encode_state(self.state) if self.state_bytes is None else self.state_bytes
        offer = self.offer.SerializeToString() + self.offer_tail if self.offer_bytes is None else self.offer_bytes
        signed = {"State": b64(state), "Sig": b64(self.signed_by.eth_sign(state))}
        return self.body_head + body(offer, **{"state": signed, **self.fields})

    def post(self) -> SignerAnswer:
        return self.bench.post(self.body(), auth_id=self.auth_id)


Break = Callable[[Call], object]
