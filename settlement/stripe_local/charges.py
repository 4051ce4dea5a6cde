"""Charges, and the movements of the account's own balance that every one of them causes."""

from __future__ import annotations

from typing import Any, Final

from settlement.stripe_local.cards import decline_message
from settlement.stripe_local.description import Json
from settlement.stripe_local.desk import Desk, Handler, with_metadata
from settlement.stripe_local.lists import getter, lister
from settlement.stripe_local.parameters import Params

_FEE_PER_MILLE: Final = 29
_FEE_FIXED: Final = 30
_AVAILABLE_AFTER_S: Final = 2 * 24 * 3600


def charge(
    desk: Desk, intent: Json, method: Json, decline: tuple[str, str | None] | None, amount: int, *, said: str = ""
) -> Json:
    """One attempt to take `amount` minor units, which succeeds unless it is declined. `said`: why, if no card was."""
    made = _attempt(desk, intent, method, amount)
    answered(desk, made, decline, said=said)
    return made


def pending_charge(desk: Desk, intent: Json, method: Json, amount: int) -> Json:
    """An attempt that is answered in days, by `answered`: until then no money has moved."""
    made = _attempt(desk, intent, method, amount)
    desk.tell("charge.pending", made)
    return made


def answered(desk: Desk, made: Json, decline: tuple[str, str | None] | None, *, said: str = "") -> None:
    """What has become of an attempt."""
    amount = made["amount"]
    if decline is not None:
        code, decline_code = decline
        made.update(amount_captured=0, captured=False, status="failed", outcome=_outcome(decline), failure_code=code)
        made["failure_message"] = said or decline_message(code, decline_code)
        desk.tell("charge.failed", made)
        return
    is_card = made["payment_method_details"]["type"] == "card"
    fee = (amount * _FEE_PER_MILLE + 500) // 1000 + _FEE_FIXED if is_card else 0
    made.update(paid=True, status="succeeded", balance_transaction=move(desk, "charge", made, amount, fee=fee)["id"])
    desk.tell("charge.succeeded", made)


def _attempt(desk: Desk, intent: Json, method: Json, amount: int) -> Json:
    """Tells nobody yet."""
    return desk.new(
        "charge",
        amount=amount,
        amount_captured=amount,
        amount_refunded=0,
        billing_details=method["billing_details"],
        captured=True,
        currency=intent["currency"],
        customer=intent["customer"],
        description=intent["description"],
        metadata=dict(intent["metadata"]),
        paid=False,
        payment_intent=intent["id"],
        payment_method=method["id"],
        payment_method_details=_details(method),
        receipt_email=intent["receipt_email"],
        status="pending",
        outcome=_outcome(None),
    )


def move(desk: Desk, kind: str, source: Json, amount: int, *, fee: int = 0, **more: Any) -> Json:
    """A movement of the account's balance in minor units, with what Stripe keeps of it."""
    fees = [
        {
            "amount": fee,
            "application": None,
            "currency": source["currency"],
            "description": "Stripe processing fees",
            "type": "stripe_fee",
        }
    ]
    return desk.new(
        "balance_transaction",
        amount=amount,
        available_on=desk.now_s + _AVAILABLE_AFTER_S,
        balance_type="payments",
        currency=source["currency"],
        fee=fee,
        fee_details=fees if fee else [],
        net=amount - fee,
        reporting_category=more.pop("reporting_category", kind),
        source=source["id"],
        status="pending",
        type=kind,
        **more,
    )


def update(desk: Desk, params: Params, charge_id: str) -> Json:
    """POST /v1/charges/{charge}."""
    found = desk.get("charge", charge_id)
    found.update(params.only("description", "receipt_email"))
    with_metadata(found, params.get("metadata"))
    desk.tell("charge.updated", found)
    return found


def _details(method: Json) -> Json:
    if method["type"] != "card":
        return {"type": method["type"], method["type"]: {}}
    card = method["card"]
    shown = {
        name: card[name]
        for name in ("brand", "checks", "country", "exp_month", "exp_year", "fingerprint", "funding", "last4", "wallet")
    }
    return {
        "type": "card",
        "card": {**shown, "network": card["brand"], "installments": None, "mandate": None, "three_d_secure": None},
    }


def _outcome(decline: tuple[str, str | None] | None) -> Json:
    return {
        "advice_code": None,
        "network_advice_code": None,
        "network_decline_code": None,
        "network_status": "approved_by_network" if decline is None else "declined_by_network",
        "reason": None if decline is None else decline[1] or decline[0],
        "risk_level": "normal",
        "seller_message": "Payment complete." if decline is None else "The bank did not accept the payment.",
        "type": "authorized" if decline is None else "issuer_declined",
    }


HANDLERS: Final[dict[str, Handler]] = {
    "GET /v1/charges": lister("charge", "/v1/charges", "customer", "payment_intent"),
    "GET /v1/charges/{charge}": getter("charge"),
    "POST /v1/charges/{charge}": update,
}
