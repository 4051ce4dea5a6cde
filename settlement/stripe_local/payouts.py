"""The account's balance, and payouts of it: what has become available is paid out at once, by currency."""

from __future__ import annotations

from typing import Final

from settlement.stripe_local.charges import move
from settlement.stripe_local.description import Json
from settlement.stripe_local.desk import Desk, Handler
from settlement.stripe_local.errors import StripeError
from settlement.stripe_local.lists import getter, listed, lister
from settlement.stripe_local.parameters import Params


def pay_out(desk: Desk) -> None:
    """Pays out the movements that are available by now. What is below zero together waits for more to come."""
    due: dict[str, list[str]] = {}
    for moved in desk.changes.each("balance_transaction"):
        if "_payout" not in moved and moved["available_on"] <= desk.now_s:
            due.setdefault(moved["currency"], []).append(moved["id"])
    for currency, ids in due.items():
        movements = [desk.get("balance_transaction", one) for one in ids]
        for moved in movements:
            moved["status"] = "available"
        amount = sum(moved["net"] for moved in movements)
        if amount > 0:
            _paid(desk, currency, amount, movements)


def list_movements(desk: Desk, params: Params) -> Json:
    """GET /v1/balance_transactions; with `payout`, those that a payout is made of, and itself."""
    payout = params.get("payout")
    return listed(
        desk,
        params,
        "balance_transaction",
        "/v1/balance_transactions",
        "currency",
        "source",
        "type",
        keep=lambda one: payout is None or one.get("_payout") == payout,
    )


def fail(desk: Desk, payout_id: str) -> Json:
    """The bank does not take it: the balance has it again, and it is part of the next one."""
    payout = desk.get("payout", payout_id)
    if payout["status"] != "paid":
        raise StripeError(f"Payout {payout_id} is {payout['status']}.")
    back = move(desk, "payout_failure", payout, payout["amount"])
    back["available_on"] = desk.now_s
    payout.update(
        status="failed",
        failure_balance_transaction=back["id"],
        failure_code="account_closed",
        failure_message="The bank account has been closed.",
    )
    desk.tell("payout.failed", payout)
    return payout


def _paid(desk: Desk, currency: str, amount: int, movements: list[Json]) -> None:
    payout = desk.new(
        "payout",
        amount=amount,
        arrival_date=desk.now_s,
        automatic=True,
        currency=currency,
        metadata={},
        method="standard",
        reconciliation_status="completed",
        source_type="card",
        status="paid",
        type="bank_account",
    )
    own = move(desk, "payout", payout, -amount)
    own.update(status="available", available_on=desk.now_s)
    payout["balance_transaction"] = own["id"]
    for moved in (*movements, own):
        moved["_payout"] = payout["id"]
    desk.tell("payout.created", payout)
    desk.tell("payout.paid", payout)


HANDLERS: Final[dict[str, Handler]] = {
    "GET /v1/balance_transactions": list_movements,
    "GET /v1/balance_transactions/{id}": getter("balance_transaction"),
    "GET /v1/payouts": lister("payout", "/v1/payouts", "status"),
    "GET /v1/payouts/{payout}": getter("payout"),
}
