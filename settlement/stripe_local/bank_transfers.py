"""Bank transfers into the cash balance, and the payments that wait for them.

In Stripe's order (docs.stripe.com/payments/customer-balance/reconciliation): what its reference names, if it is enough;
up to five that it is exactly enough for; then invoices, the oldest first, then payment intents. Money that is enough
for nothing waits in the cash balance until the rest comes: here no payment is ever funded in part, as no invoice is at
Stripe. An invoice that has been overdue for a month takes nothing by itself: `apply` gives it the money.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations
from typing import Final

from settlement.stripe_local import cash
from settlement.stripe_local.customers import live
from settlement.stripe_local.description import Json
from settlement.stripe_local.desk import Desk, Handler
from settlement.stripe_local.errors import StripeError, unsupported
from settlement.stripe_local.lists import listed
from settlement.stripe_local.parameters import Params
from settlement.stripe_local.payment_intents import OPEN, pay_from_cash

#: An invoice that has been overdue for longer is paid by nobody but who says so.
_OVERDUE_MAX_S: Final = 30 * 24 * 3600
_GROUP_MAX_COUNT: Final = 5


def fund(desk: Desk, params: Params, customer_id: str) -> Json:
    """POST /v1/test_helpers/customers/{customer}/fund_cash_balance: a transfer arrives."""
    customer = live(desk, customer_id)
    amount, currency = params.get("amount"), params.get("currency").lower()
    if amount <= 0:
        raise StripeError("Amount must be greater than 0.", param="amount")
    way = cash.way_of(currency)
    source = {"type": way, way: {}, "reference": params.get("reference")}
    moved = cash.move(desk, customer, currency, amount, "funded", funded={"bank_transfer": source})
    desk.tell("cash_balance.funds_available", cash.shown(customer))
    if not cash.is_applied_by_hand(customer):
        _reconcile(desk, customer, currency, amount, params.get("reference") or "")
    return moved


def retrieve(desk: Desk, _params: Params, customer_id: str) -> Json:
    """GET /v1/customers/{customer}/cash_balance."""
    return cash.shown(live(desk, customer_id))


def set_mode(desk: Desk, params: Params, customer_id: str) -> Json:
    """POST /v1/customers/{customer}/cash_balance: whether what comes pays by itself what waits for it."""
    customer = live(desk, customer_id)
    mode = (params.get("settings") or {}).get("reconciliation_mode")
    if mode == "merchant_default":
        customer.pop("_reconciliation_mode", None)
    elif mode is not None:
        customer["_reconciliation_mode"] = mode
    return cash.shown(customer)


def list_movements(desk: Desk, params: Params, customer_id: str) -> Json:
    """GET /v1/customers/{customer}/cash_balance_transactions."""
    url = f"/v1/customers/{customer_id}/cash_balance_transactions"
    return listed(desk, params, "customer_cash_balance_transaction", url, customer=customer_id)


def apply(desk: Desk, params: Params, intent_id: str) -> Json:
    """POST /v1/payment_intents/{intent}/apply_customer_balance: what is in the cash balance pays this one, in whole."""
    intent = desk.get("payment_intent", intent_id)
    if "_transfer" not in intent or intent["status"] not in OPEN:
        text = f"The customer's cash balance cannot be applied to this PaymentIntent, which is {intent['status']}."
        raise StripeError(text, code="payment_intent_unexpected_state")
    if params.get("currency", intent["currency"]).lower() != intent["currency"]:
        raise StripeError("The currency is not that of the PaymentIntent.", param="currency")
    if "_invoice" not in intent and params.get("amount", intent["amount"]) != intent["amount"]:
        raise unsupported("payment intents that are funded in part")
    pay_from_cash(desk, intent)
    if intent["status"] in OPEN:
        raise StripeError("The customer's cash balance is not enough for this PaymentIntent.", param="amount")
    return intent


def _reconcile(desk: Desk, customer: Json, currency: str, amount: int, reference: str) -> None:
    waiting = [
        intent
        for intent in desk.changes.each("payment_intent", customer=customer["id"])
        if "_transfer" in intent and intent["status"] in OPEN and intent["currency"] == currency
        if "_invoice" not in intent or _takes_transfers(desk, desk.get("invoice", intent["_invoice"]))
    ]
    invoices = sorted((one for one in waiting if "_invoice" in one), key=lambda one: _finalized_at(desk, one))
    others = [one for one in waiting if "_invoice" not in one]  # the order of creation is kept
    named = [one for one in (*invoices, *others) if _is_named(desk, one, reference)]
    for intent in (*named[:1], *_exactly(invoices, others, amount), *invoices, *others):
        current = desk.get("payment_intent", intent["id"])
        if current["status"] in OPEN:
            pay_from_cash(desk, current)


def _exactly(invoices: Sequence[Json], others: Sequence[Json], amount: int) -> Sequence[Json]:
    """The smallest group that this is exactly enough for, with the most invoices in it, the oldest first."""
    for count in range(1, _GROUP_MAX_COUNT + 1):
        groups = [
            group
            for group in combinations((*invoices, *others), count)
            if sum(one["amount"] for one in group) == amount
        ]
        if groups:
            return max(groups, key=lambda group: sum("_invoice" in one for one in group))
    return ()


def _is_named(desk: Desk, intent: Json, reference: str) -> bool:
    """By an invoice's number, or by what the instructions say is to be written."""
    if "_invoice" in intent:
        return str(desk.get("invoice", intent["_invoice"])["number"]) in reference
    asked = intent["next_action"]
    return asked is not None and asked["display_bank_transfer_instructions"]["reference"] in reference


def _takes_transfers(desk: Desk, invoice: Json) -> bool:
    return bool(invoice["status"] == "open" and desk.now_s <= invoice["due_date"] + _OVERDUE_MAX_S)


def _finalized_at(desk: Desk, intent: Json) -> int:
    return int(desk.get("invoice", intent["_invoice"])["status_transitions"]["finalized_at"])


HANDLERS: Final[dict[str, Handler]] = {
    "POST /v1/payment_intents/{intent}/apply_customer_balance": apply,
    "POST /v1/test_helpers/customers/{customer}/fund_cash_balance": fund,
    "GET /v1/customers/{customer}/cash_balance": retrieve,
    "POST /v1/customers/{customer}/cash_balance": set_mode,
    "GET /v1/customers/{customer}/cash_balance_transactions": list_movements,
}
