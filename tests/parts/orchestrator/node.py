"""The orchestrator itself: what it quotes, what it accepts, what it remembers. No sockets; `server` adds the wire."""

from __future__ import annotations

import secrets
import threading
import time
from fractions import Fraction

from chain.pb import lp_rpc_pb2 as pb
from chain.signatures import checksum_address, keccak
from tests.parts.orchestrator import checks, lottery, quotes
from tests.parts.orchestrator.books import (
    AcceptedPayment,
    Books,
    PaymentRefused,
    Quote,
    Reason,
    RefusedPayment,
    Ticket,
)
from tests.parts.orchestrator.messages import read_payment, read_segment
from tests.parts.orchestrator.settings import Settings


class NotTheSender(Exception):
    """Whoever asked for ticket parameters did not prove that it signs for the address."""


class Orchestrator:
    """One orchestrator. Methods may be called from any thread; read `books` once the calls you wait for have returned.

    `url` is its own address, https://host:port, under which it serves gRPC and HTTP alike.
    """

    def __init__(self, url: str, settings: Settings | None = None) -> None:
        self.url = url
        self.settings = settings or Settings()
        self.books = Books()
        self.address = secrets.token_bytes(20)  # also the recipient of its tickets
        self._rand_secret = secrets.token_bytes(32)
        self._token_secret = secrets.token_bytes(32)
        self._lock = threading.Lock()

    def answer_request(self, request: pb.OrchestratorRequest) -> pb.OrchestratorInfo:
        """GetOrchestrator. Raises NotTheSender, or lottery.NoTicketFits."""
        sender = request.address
        if len(sender) != 20 or not checks.is_signed_by(sender, keccak(checksum_address(sender).encode()), request.sig):
            raise NotTheSender("sig check failed")
        return self.quote(sender, job_type="lv2v", session_id=secrets.token_hex(4), route="GetOrchestrator")

    def quote(self, sender: bytes, *, job_type: str, session_id: str, route: str) -> pb.OrchestratorInfo:
        """Fresh ticket parameters, price and auth token for `sender`. Raises lottery.NoTicketFits."""
        wei, units = self.settings.prices[job_type]
        terms = quotes.new_terms(sender, Fraction(wei, units), self.settings)
        rand_hash = lottery.commitment(lottery.recipient_rand(self._rand_secret, terms))
        expiration_unix_s = int(time.time()) + self.settings.auth_token_valid_s
        with self._lock:
            self.books.quotes.append(Quote(route, sender, session_id, rand_hash))
        return pb.OrchestratorInfo(
            transcoder=self.url,
            address=self.address,
            price_info=pb.PriceInfo(pricePerUnit=wei, pixelsPerUnit=units),
            ticket_params=quotes.params_message(terms, recipient=self.address, rand_hash=rand_hash),
            auth_token=quotes.auth_token(self._token_secret, session_id, expiration_unix_s),
        )

    def receive(
        self, payment_header: str, segment_header: str, *, must_be_for: str = "", credit_to: str = ""
    ) -> AcceptedPayment:
        """Check one payment and credit its tickets; raises PaymentRefused with the first reason against it.

        One bad ticket makes the answer a refusal, yet the good ones are credited, as in the field. The credit goes to
        the session that the credentials name, which has to be `must_be_for` where that is given, or to `credit_to`:
        the first payment of a job is made before the sender knows the session's name.
        """
        with self._lock:
            try:
                payment, segment = self._read(payment_header, segment_header, must_be_for)
                tickets = self._tickets(payment, credit_to or segment.manifestId.decode())
            except PaymentRefused as refusal:
                self.books.refused.append(RefusedPayment(refusal.reason, must_be_for, None))
                raise
            refusals = [reason for ticket in tickets if (reason := self._take(ticket))]
            if refusals:
                raise PaymentRefused(400, refusals[0])
            capabilities = segment.capabilities if segment.HasField("capabilities") else None
            accepted = AcceptedPayment(payment.sender, tickets[0].manifest_id, tickets, capabilities)
            self.books.payments.append(accepted)
            return accepted

    def spend(self, sender: bytes, manifest_id: str, amount_wei: Fraction) -> bool:
        """Use up credit for work done; False, and nothing used, when there is too little."""
        with self._lock:
            if self.books.credit_wei[sender, manifest_id] < amount_wei:
                return False
            self.books.credit_wei[sender, manifest_id] -= amount_wei
            return True

    def _read(self, payment_header: str, segment_header: str, must_be_for: str) -> tuple[pb.Payment, pb.SegData]:
        payment, segment = read_payment(payment_header), read_segment(segment_header)
        checks.require_credentials(segment, payment.sender, token_secret=self._token_secret, now_unix_s=time.time())
        if must_be_for and segment.manifestId != must_be_for.encode():
            raise PaymentRefused(403, Reason.FOREIGN_MANIFEST)
        return payment, segment

    def _tickets(self, payment: pb.Payment, manifest_id: str) -> tuple[Ticket, ...]:
        """The payment's tickets, one or more, none of them checked yet."""
        terms = checks.payment_terms(payment)
        rand = lottery.recipient_rand(self._rand_secret, terms)
        params = payment.ticket_params
        return tuple(
            Ticket(terms, params.recipient, one.sender_nonce, one.sig, rand, params.recipient_rand_hash, manifest_id)
            for one in payment.ticket_sender_params
        )

    def _take(self, ticket: Ticket) -> Reason | None:
        """Credit one ticket, or record and return the reason against it. The lottery is drawn in between."""
        reason = checks.why_worthless(ticket, self.address, self.settings.unlocking_senders)
        if reason is None and lottery.wins(ticket.signature, ticket.recipient_rand, ticket.terms.win_prob):
            self.books.winners.append(ticket)  # it can be redeemed whatever the next check says
        reason = reason or checks.why_not_credited(ticket, self.books.nonces[ticket.recipient_rand_hash], self.settings)
        if reason:
            self.books.refused.append(RefusedPayment(reason, ticket.manifest_id, ticket.nonce))
        else:
            self.books.accept(ticket)
        return reason
