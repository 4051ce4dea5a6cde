"""What the orchestrator remembers: quotes given, tickets accepted, winners to redeem, payments refused, credit held."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from enum import StrEnum
from fractions import Fraction

from chain.pb import lp_rpc_pb2 as pb
from tests.parts.orchestrator.lottery import Terms

NONCES_MAX = 600  # an orchestrator remembers no more of them for one recipientRandHash


class Reason(StrEnum):
    """Why a payment or a ticket was refused, in the order in which the checks are made."""

    UNDECODABLE = "undecodable payment"
    BAD_SEGMENT = "undecodable segment credentials"
    BAD_SEGMENT_SIGNATURE = "segment credentials not signed by the sender"
    FOREIGN_MANIFEST = "segment credentials for another session"
    BAD_AUTH_TOKEN = "auth token not ours"
    EXPIRED_AUTH_TOKEN = "auth token expired"
    NO_PRICE = "no expected price"
    NO_TICKETS = "no tickets"
    SENDER_UNLOCKING = "sender is unlocking its deposit"
    FOREIGN_RECIPIENT = "ticket for another recipient"
    NULL_SENDER = "null sender"
    BAD_RECIPIENT_RAND = "recipientRand does not match recipientRandHash"
    BAD_TICKET_SIGNATURE = "ticket not signed by the sender"
    NONCE_SEEN = "nonce already seen"
    TOO_MANY_NONCES = "too many nonces for one recipientRandHash"
    PARAMS_EXPIRED = "ticket parameters expired"


class PaymentRefused(Exception):
    """`http_status` is what an orchestrator answers: 402 undecodable, 403 bad credentials, 400 bad tickets."""

    def __init__(self, http_status: int, reason: Reason) -> None:
        super().__init__(reason.value)
        self.http_status = http_status
        self.reason = reason


@dataclass(frozen=True, slots=True)
class Quote:
    """Ticket parameters handed to a sender, and over which route."""

    route: str
    sender: bytes
    session_id: str
    recipient_rand_hash: bytes


@dataclass(frozen=True, slots=True)
class Ticket:
    """A ticket and the secret number behind it: all that is needed to redeem a winner on chain."""

    terms: Terms
    recipient: bytes
    nonce: int
    signature: bytes
    recipient_rand: int
    recipient_rand_hash: bytes
    manifest_id: str


@dataclass(frozen=True, slots=True)
class RefusedPayment:
    reason: Reason
    manifest_id: str
    nonce: int | None


@dataclass(frozen=True, slots=True)
class AcceptedPayment:
    """One payment of which every ticket was accepted."""

    sender: bytes
    manifest_id: str
    tickets: tuple[Ticket, ...]
    capabilities: pb.Capabilities | None

    @property
    def ev_wei(self) -> Fraction:
        return sum((ticket.terms.ev_wei for ticket in self.tickets), Fraction(0))


@dataclass(slots=True)
class Books:
    """Append-only but for `credit_wei`, which work done for the sender uses up."""

    quotes: list[Quote] = field(default_factory=list)
    payments: list[AcceptedPayment] = field(default_factory=list)
    tickets: list[Ticket] = field(default_factory=list)
    winners: list[Ticket] = field(default_factory=list)
    refused: list[RefusedPayment] = field(default_factory=list)
    #: Expected value paid and not yet used up, by (sender, manifest).
    credit_wei: defaultdict[tuple[bytes, str], Fraction] = field(default_factory=lambda: defaultdict(Fraction))
    nonces: defaultdict[bytes, set[int]] = field(default_factory=lambda: defaultdict(set))

    def accept(self, ticket: Ticket) -> None:
        self.tickets.append(ticket)
        self.nonces[ticket.recipient_rand_hash].add(ticket.nonce)
        self.credit_wei[ticket.terms.sender, ticket.manifest_id] += ticket.terms.ev_wei
