"""Every refusal the clearinghouse can give: one vocabulary for HTTP, gRPC and the CLI.

A `Refusal` is a "no" that we expect and explain; it never moves money. A bug is not a Refusal: it stays an ordinary
exception and becomes a 500. Codes are part of the API; sentences may be reworded.
Messages must never contain the phrases of the remote-signer protocol, section 9.1, that go-livepeer's gateways act
upon ("insufficient capacity", "invalid ticket sendernonce", "ticketparams expired"); a test walks all messages.
"""

from __future__ import annotations

from typing import ClassVar


class Refusal(Exception):
    """Base of all refusals. `facts` go to the log and into problem+json; amounts among them are decimal strings."""

    code: ClassVar[str]
    http_status: ClassVar[int]
    what_next: ClassVar[str]

    def __init__(self, message: str, *, retry_after_s: int | None = None, **facts: int | str) -> None:
        super().__init__(message)
        self.message = message
        self.retry_after_s = retry_after_s
        self.facts = facts
        #: The body a signer refused with, to be passed on unchanged where its own protocol is spoken.
        self.signer_answer: bytes | None = None


class InvalidRequest(Refusal):
    code, http_status = "invalid_request", 400
    what_next = "Correct the request; sending it again unchanged gives the same answer."


class RequestTooLarge(Refusal):
    code, http_status = "request_too_large", 413
    what_next = "Send a smaller body."


class NotFound(Refusal):
    code, http_status = "not_found", 404
    what_next = "Check the identifier; what belongs to another gateway is not found either."


class Unauthenticated(Refusal):
    code, http_status = "unauthenticated", 401
    what_next = "Send `Authorization: Bearer <api key>` with a valid, active key."


class OutOfCredit(Refusal):
    code, http_status = "out_of_credit", 402
    what_next = "Top up the account, then send the same request again: its state is still the newest."


class BillingHold(Refusal):
    """Something is owed, or what was free has ended. The fact `hold` says what is not signed: signing, new_sessions."""

    code, http_status = "billing_hold", 402
    what_next = (
        "See GET /v1/billing for what holds the gateway back, and pay what is open; within a second of that, send the "
        "same request again: its state is still the newest."
    )


class NotAllowed(Refusal):
    code, http_status = "not_allowed", 403
    what_next = "Ask the operator of the clearinghouse."


class Suspended(NotAllowed):
    code = "gateway_suspended"
    what_next = "Ask the operator of the clearinghouse why the gateway is suspended."


class SessionNotYours(NotAllowed):
    code = "session_not_yours"
    what_next = "Begin a new session: send no state."


class SessionMismatch(NotAllowed):
    code = "session_mismatch"
    what_next = "Keep the recipient, transcoder and manifest the session began with, or begin a new session."


class TicketNotAllowed(NotAllowed):
    """The clearinghouse's policy does not pay with such a ticket. The fact `rule` says which rule of it."""

    code = "ticket_not_allowed"
    what_next = (
        "Choose another orchestrator or smaller tickets, or ask the operator of the clearinghouse for its limits."
    )


class IdempotencyConflict(Refusal):
    code, http_status = "idempotency_conflict", 409
    what_next = "Use a new idempotency key for a new request."


class StateConflict(Refusal):
    """At the webhook: a payment that does not follow on the newest one approved, and is none that was lost."""

    code, http_status = "state_conflict", 409
    what_next = "Fetch a fresh OrchestratorInfo and send the newest state you have with it, or begin a new session."


class Conflict(Refusal):
    code, http_status = "conflict", 409
    what_next = "Choose another name or key."


class TooManyRequests(Refusal):
    code, http_status = "too_many_requests", 429
    what_next = "Wait, as long as Retry-After says where it is given, then try again."


class LimitReached(TooManyRequests):
    """A limit of the gateway or its key. The fact `rule` names it, `resets_at` is when it gives way by itself."""

    code = "limit_reached"
    what_next = "Wait until the limit begins anew, or ask the operator of the clearinghouse to raise it."


class RefreshSession(Refusal):
    """480: fresh ticket parameters are needed. `orchestrator_url` is where to ask for them."""

    code, http_status = "refresh_session", 480
    what_next = "Fetch a fresh OrchestratorInfo from the orchestrator and send the newest state you have with it."

    def __init__(self, message: str, *, orchestrator_url: str, **facts: int | str) -> None:
        super().__init__(message, retry_after_s=None, **facts)
        self.orchestrator_url = orchestrator_url


class PriceExceeded(Refusal):
    code, http_status = "price_exceeded", 481
    what_next = "Choose another orchestrator, or raise your own maxPrice where that is the limit."


class NoTickets(Refusal):
    code, http_status = "no_tickets", 482
    what_next = "Nothing is due yet: pay again in the next cycle. Nothing was charged."


class SignerFailed(Refusal):
    """The signer gave a complete answer, and it was an internal error of its own."""

    code, http_status = "signer_failed", 500
    what_next = "Try again later; nothing was charged."


class SignerAnswerInvalid(Refusal):
    """The signer's answer is not what was asked for. Its tickets are thrown away."""

    code, http_status = "signer_answer_invalid", 502
    what_next = "Try again; if it persists the operator must look at the signer. Nothing was charged."


class Unavailable(Refusal):
    """Fail closed: something a signature depends on is missing or too old."""

    code, http_status = "unavailable", 503
    what_next = "Try again later; nothing was charged."


class DatabaseUnavailable(Unavailable):
    code = "database_unavailable"
    what_next = "Try the same request again: if it was recorded, you get the recorded answer and no second charge."


class AccountBusy(DatabaseUnavailable):
    code = "account_busy"


class DeadlineExceeded(Unavailable):
    code = "deadline_exceeded"
    what_next = DatabaseUnavailable.what_next


class PriceStale(Unavailable):
    code = "price_stale"


class RateUnknown(Unavailable):
    """The gateway's rate card has no price for such a call, or none that holds now."""

    code = "rate_unknown"
    what_next = "Ask the operator of the clearinghouse for a price of such calls. Nothing was charged."


class RegistryUnknown(Unavailable):
    """Whether a recipient may be paid cannot be told at present."""

    code = "registry_unknown"


class CeilingReached(Unavailable):
    """All gateways together have used up what the clearinghouse allows itself. The fact `rule` says of what."""

    code = "ceiling_reached"


class CoverageUnknown(Unavailable):
    """Nobody has told lately how far the deposit covers the tickets that are open: nothing is signed blindly."""

    code = "coverage_unknown"
    what_next = "Try again in a few seconds; if it lasts, the operator must look at the coverage. Nothing was charged."


class CoverageLow(Unavailable):
    """The deposit covers too little of what is open to begin new sessions. Those that have begun go on."""

    code = "coverage_low"
    what_next = (
        "Sessions that have begun go on; begin new ones when the operator of the clearinghouse has added to the "
        "deposit or open tickets have expired. Nothing was charged."
    )


class CoverageCritical(Unavailable):
    """The gateway has used up its share of what the deposit still covers."""

    code = "coverage_critical"
    what_next = (
        "Try again when the operator of the clearinghouse has added to the deposit or open tickets have expired. "
        "Nothing was charged."
    )


class OrchestratorUnknown(Unavailable):
    """Whether an orchestrator makes the offer that was presented cannot be told at present."""

    code = "orchestrator_unknown"


class SignersUnavailable(Unavailable):
    code = "signers_unavailable"


class Overloaded(Unavailable):
    """There is no place for another connection or call, or not for one more from this address."""

    code = "overloaded"
    what_next = "Send the request again in a few seconds, on a connection that is kept. Nothing was charged."


class ShuttingDown(Unavailable):
    code = "shutting_down"
    what_next = "Send the request again, to another instance or in a few seconds. Nothing was charged."
