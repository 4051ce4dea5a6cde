"""What the twin and the world talk about: offers, states, calls, answers, and entries in the books. All frozen."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from fractions import Fraction

CERTAIN = 2**256 - 1  # the denominator of every win probability


class Way(StrEnum):
    """How a call comes in."""

    GO = "/generate-live-payment"
    OURS = "/v1/signTicket"
    GRPC = "SignTicket"


@dataclass(frozen=True)
class Offer:
    """Ticket parameters and price, as an orchestrator quoted them; `raw` is the whole OrchestratorInfo."""

    raw: bytes = field(repr=False)
    url: str
    orchestrator: bytes = field(repr=False)
    recipient: bytes = field(repr=False)
    rand: bytes = field(repr=False)
    face_value_wei: int
    win_prob: int = field(repr=False)
    #: Wei per unit of the job's type.
    price_wei: Fraction

    @property
    def ev_wei(self) -> Fraction:
        """Of one ticket."""
        return Fraction(self.face_value_wei * self.win_prob, CERTAIN)


@dataclass(frozen=True)
class State:
    """A signed state as a gateway holds it, with what it says. `receipt` is of the payment that it came with."""

    raw: bytes = field(repr=False)
    sig: bytes = field(repr=False)
    receipt: str
    auth_id: str
    rand: bytes = field(repr=False)
    nonce: int
    balance_wei: Fraction
    price_wei: Fraction
    sequence: int
    updated_unix_ns: int
    #: The signature was tampered with.
    is_forged: bool = False

    @property
    def gateway(self) -> str:
        return self.auth_id.partition("/")[0]

    @property
    def session(self) -> str:
        return self.auth_id.partition("/")[2]


def read_state(raw: bytes, sig: bytes, receipt: str) -> State:
    """A state's own words (remote-signer protocol, section 2)."""
    said = json.loads(raw)
    return State(
        raw=raw,
        sig=sig,
        receipt=receipt,
        auth_id=said["AuthID"],
        rand=bytes.fromhex(said["PMSessionID"].removeprefix("0x")),
        nonce=said["SenderNonce"],
        balance_wei=Fraction(said["Balance"]),
        price_wei=Fraction(said["InitialPricePerUnit"], said["InitialPixelsPerUnit"]),
        sequence=said["SequenceNumber"],
        updated_unix_ns=_unix_ns(said["LastUpdate"]),
    )


def _unix_ns(text: str) -> int:
    """RFC 3339 in UTC, with up to nine decimals of the second."""
    second, _, decimals = text.removesuffix("Z").partition(".")
    return int(datetime.fromisoformat(f"{second}+00:00").timestamp()) * 10**9 + int(decimals.ljust(9, "0") or 0)


@dataclass(frozen=True)
class Call:
    """One request for tickets: who asks, for what, and where."""

    gateway: str
    #: The public part of the API key.
    key: str
    offer: Offer
    state: State | None
    job_type: str
    manifest: str
    app: str = ""
    in_pixels: int = 0
    idempotency_key: str = ""
    service: int = 0
    way: Way = Way.GO

    @property
    def identity(self) -> tuple[object, ...]:
        """Requests that mean the same are equal, however they are spelled and wherever they are sent."""
        state = (self.state.raw, self.state.sig) if self.state is not None else None
        return (self.offer.raw, state, self.job_type, self.manifest, self.app, self.in_pixels)

    @property
    def first_nonce(self) -> int:
        """Nonces begin at 1 with every recipientRandHash, and go on where the state ends."""
        if self.state is not None and self.state.rand == self.offer.rand:
            return self.state.nonce + 1
        return 1

    def __str__(self) -> str:
        base = f"state {self.state.sequence} of {self.state.session[-6:]}" if self.state is not None else "no state"
        key = f" key {self.idempotency_key}" if self.idempotency_key else ""
        return (
            f"{self.gateway[-6:]} {self.job_type or 'untyped'} rand {self.offer.rand.hex()[:6]} {base}{key} "
            f"at {self.service} by {self.way}"
        )


@dataclass(frozen=True)
class Released:
    """A 200: tickets, the newest state, and what they cost."""

    receipt: str
    is_replay: bool
    payment: str = field(repr=False)
    seg_creds: str = field(repr=False)
    state: bytes = field(repr=False)
    sig: bytes = field(repr=False)
    charge: Fraction
    currency: str
    balance: Fraction


@dataclass(frozen=True)
class Refused:
    """A complete answer that is a no."""

    status: int
    code: str
    #: The limit that was reached, "" where the reason is another.
    limit: str = ""


@dataclass(frozen=True)
class Unheard:
    """No complete answer: the caller hung up, or the connection ended. `status` is what was heard of it, else 0."""

    status: int = 0


Answer = Released | Refused | Unheard


@dataclass(frozen=True)
class Entry:
    """A row of the books: one payment, as the database has it. `at` is the database's time of the commit."""

    receipt: str
    gateway: str
    session: str
    sequence: int
    key: str
    rand: bytes = field(repr=False)
    first_nonce: int
    num_tickets: int
    face_value_wei: int
    win_prob: int = field(repr=False)
    ev_wei: int
    fee_wei: int
    charge: Fraction
    currency: str
    price: Fraction
    markup_bps: int
    balance_after: Fraction
    at: datetime
    idempotency_key: str

    @property
    def nonces(self) -> range:
        return range(self.first_nonce, self.first_nonce + self.num_tickets)
