"""Bank transfers into the cash balance, and the payments that wait for them.

A transfer pays what it is exactly enough for, then the oldest that it is enough for. Money that is enough for nothing
waits in the cash balance until the rest comes: here no payment is ever funded in part.
"""

from __future__ import annotations

from typing import Final

from settlement.stripe_local import cash
from settlement.stripe_local.customers import live
from settlement.stripe_local.description import Json
from settlement.stripe_local.desk import Desk, Handler
from settlement.stripe_local.errors import StripeError
from settlement.stripe_local.lists import listed
from settlement.stripe_local.parameters import Params
from settlement.stripe_local.payment_intents import OPEN, pay_from_cash


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
    _reconcile(desk, customer, currency)
    return moved


def retrieve(desk: Desk, _params: Params, customer_id: str) -> Json:
    """GET /v1/customers/{customer}/cash_balance."""
    return cash.shown(live(desk, customer_id))


def list_movements(desk: Desk, params: Params, customer_id: str) -> Json:
    """GET /v1/customers/{customer}/cash_balance_transactions."""
    url = f"/v1/customers/{customer_id}/cash_balance_transactions"
    return listed(desk, params, "customer_cash_balance_transaction", url, customer=customer_id)


def _reconcile(desk: Desk, customer: Json, currency: str) -> None:
    waiting = [
        intent
        for intent in desk.changes.each("payment_intent", customer=customer["id"])
        if "_transfer" in intent and intent["status"] in OPEN and intent["currency"] == currency
    ]
    there = cash.available(customer, currency)
    for intent in sorted(waiting, key=lambda one: one["amount"] != there):  # the order of creation is kept
        pay_from_cash(desk, desk.get("payment_intent", intent["id"]))


HANDLERS: Final[dict[str, Handler]] = {
    "POST /v1/test_helpers/customers/{customer}/fund_cash_balance": fund,
    "GET /v1/customers/{customer}/cash_balance": retrieve,
    "GET /v1/customers/{customer}/cash_balance_transactions": list_movements,
}
