"""A signer's "no" in the vocabulary of refusals, with its own bytes kept for go-livepeer's routes."""

from __future__ import annotations

from chain import shallow_json
from clearinghouse.errors import (
    InvalidRequest,
    NotAllowed,
    NoTickets,
    PriceExceeded,
    RefreshSession,
    Refusal,
    SignerAnswerInvalid,
    SignerFailed,
    SignersUnavailable,
    TooManyRequests,
)
from clearinghouse.requests import PaymentRequest
from clearinghouse.signers.base import SignerAnswer

_BY_STATUS: dict[int, type[Refusal]] = {
    400: InvalidRequest,
    403: NotAllowed,
    429: TooManyRequests,
    481: PriceExceeded,
    482: NoTickets,
    500: SignerFailed,
    503: SignersUnavailable,
}


def refusal_of(answer: SignerAnswer, request: PaymentRequest) -> Refusal:
    """The refusal that a complete answer other than 200 stands for; `signer_answer` on it is that answer.

    An answer that a signer cannot give, in status or form, becomes SignerAnswerInvalid instead.
    """
    message = _message(answer.body)
    if message is None or (answer.status not in _BY_STATUS and answer.status != 480):
        return SignerAnswerInvalid(f"The signer answered with status {answer.status} in a form that is not its own.")
    if answer.status == 480:
        refusal: Refusal = RefreshSession(message, orchestrator_url=answer.orchestrator_url or request.info.transcoder)
    else:
        refusal = _BY_STATUS[answer.status](message)
    refusal.signer_answer = answer.body
    return refusal


def _message(body: bytes) -> str | None:
    """The text in go-livepeer's envelope, None when the body is something else."""
    try:
        message = shallow_json.loads(body)["error"]["message"]
    except (ValueError, KeyError, TypeError):
        return None
    return message if isinstance(message, str) else None
