"""Disputes: money taken back by the cardholder's bank, until somebody shows that it was right to take it.

They are won and lost as in Stripe's test mode: by what is submitted as `evidence[uncategorized_text]`.
"""

from __future__ import annotations

from typing import Final

from settlement.stripe_local.charges import move
from settlement.stripe_local.description import Json
from settlement.stripe_local.desk import Desk, Handler, with_metadata
from settlement.stripe_local.errors import StripeError
from settlement.stripe_local.lists import getter, lister
from settlement.stripe_local.parameters import Params

_FEE: Final = 1500
_ANSWER_WITHIN_S: Final = 7 * 24 * 3600
_CLOSED: Final = frozenset(("won", "lost", "warning_closed"))
#: What Stripe's test mode takes for an answer.
_VERDICTS: Final = {"winning_evidence": "won", "losing_evidence": "lost"}


def dispute_charge(desk: Desk, charge: Json, reason: str, *, is_inquiry: bool = False) -> Json:
    """Takes what is left of a charge back, unless the bank only asks.

    Raises StripeError if nothing is left, or if it was disputed before.
    """
    amount = charge["amount"] - charge["amount_refunded"]
    if charge["disputed"] or charge["status"] != "succeeded" or amount <= 0:
        raise StripeError(f"Charge {charge['id']} cannot be disputed.", param="charge")
    dispute = desk.new(
        "dispute",
        amount=amount,
        charge=charge["id"],
        currency=charge["currency"],
        is_charge_refundable=is_inquiry,
        evidence_details={
            "due_by": desk.now_s + _ANSWER_WITHIN_S,
            "enhanced_eligibility": {},
            "has_evidence": False,
            "past_due": False,
            "submission_count": 0,
        },
        metadata={},
        payment_intent=charge["payment_intent"],
        reason=reason,
        status="warning_needs_response" if is_inquiry else "needs_response",
    )
    charge["disputed"] = True
    if not is_inquiry:
        charge["_charged_back"] = True
        taken = move(desk, "adjustment", dispute, -amount, fee=_FEE, reporting_category="dispute")
        dispute["balance_transactions"] = [taken]
    desk.tell("charge.dispute.created", dispute)
    if not is_inquiry:
        desk.tell("charge.dispute.funds_withdrawn", dispute)
    return dispute


def update(desk: Desk, params: Params, dispute_id: str) -> Json:
    """POST /v1/disputes/{dispute}: evidence, which the bank judges as soon as it is submitted."""
    dispute = _open(desk, dispute_id)
    given = {name: None if text == "" else text for name, text in (params.get("evidence") or {}).items()}
    dispute["evidence"].update(given)
    with_metadata(dispute, params.get("metadata"))
    if given and params.get("submit", True):
        dispute["evidence_details"].update(has_evidence=True, submission_count=1)
        dispute["status"] = "warning_under_review" if _is_inquiry(dispute) else "under_review"
    desk.tell("charge.dispute.updated", dispute)
    verdict = _VERDICTS.get(dispute["evidence"]["uncategorized_text"] or "")
    if dispute["status"].endswith("under_review") and verdict is not None:
        _end(desk, dispute, verdict)
    return dispute


def close(desk: Desk, _params: Params, dispute_id: str) -> Json:
    """POST /v1/disputes/{dispute}/close: given up."""
    dispute = _open(desk, dispute_id)
    _end(desk, dispute, "lost")
    return dispute


def _open(desk: Desk, dispute_id: str) -> Json:
    dispute = desk.get("dispute", dispute_id)
    if dispute["status"] in _CLOSED:
        raise StripeError("This dispute is already closed.")
    return dispute


def _is_inquiry(dispute: Json) -> bool:
    return bool(dispute["status"].startswith("warning_"))


def _end(desk: Desk, dispute: Json, verdict: str) -> None:
    status = "warning_closed" if _is_inquiry(dispute) else verdict
    dispute["status"] = status
    desk.tell("charge.dispute.closed", dispute)
    if status == "won":
        back = move(desk, "adjustment", dispute, dispute["amount"], fee=-_FEE, reporting_category="dispute_reversal")
        dispute["balance_transactions"].append(back)
        desk.tell("charge.dispute.funds_reinstated", dispute)


HANDLERS: Final[dict[str, Handler]] = {
    "GET /v1/disputes": lister("dispute", "/v1/disputes", "charge", "payment_intent"),
    "GET /v1/disputes/{dispute}": getter("dispute"),
    "POST /v1/disputes/{dispute}": update,
    "POST /v1/disputes/{dispute}/close": close,
}
