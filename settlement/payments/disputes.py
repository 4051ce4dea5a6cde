"""Disputes and chargebacks: the bank has the money at once, and may give it back. Until then nothing is signed."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, Final

from clearinghouse.ids import uuid7
from settlement.payments.amounts import amount_of
from settlement.payments.fetched import fetch, id_of
from settlement.payments.intents import intent_changed
from settlement.payments.record import ACTOR
from settlement.payments.refunds import note, noted, owner_of
from settlement.stripe_link.desk import Desk, Park

#: Those whose meaning for the money is known: the database's dispute_rank has the same.
STATUSES: Final = frozenset(
    (
        "warning_needs_response", "warning_under_review", "warning_closed", "prevented", "needs_response",
        "under_review", "won", "lost",
    )
)  # fmt: skip


async def dispute_changed(desk: Desk, dispute_id: str) -> str:
    """Handler of disputes. An inquiry takes no money, and holds nothing up."""
    dispute = await fetch(desk, desk.link.client.v1.disputes.retrieve_async, dispute_id)
    charge_id = id_of(dispute.charge)
    if dispute.status not in STATUSES or charge_id is None:
        raise Park(f"{dispute_id} is {dispute.status}: what that means for the money is not known here")
    owner = await owner_of(desk, charge_id)
    if owner is None:
        return "not of a gateway's payment"
    due_by_s = dispute.evidence_details.due_by
    values: dict[str, Any] = {
        **owner.values(), "id": dispute.id, "charge": charge_id,
        "amount": amount_of(dispute.amount, dispute.currency), "currency": dispute.currency.upper(),
        "status": dispute.status, "reason": dispute.reason,
        "due_by": datetime.fromtimestamp(due_by_s, UTC) if due_by_s is not None else None,
        "taken": uuid7(), "back": uuid7(), "actor": ACTOR,
    }  # fmt: skip
    changed = await noted(desk, _NOTE, values)
    return f"dispute {dispute.id} is {dispute.status}" if changed else "nothing new"


_NOTE: Final = """
    SELECT note_dispute(:id, :gateway, :payment, :charge, :amount, :currency, :status, :reason, :due_by, :taken, :back,
                        :actor, :invoice, :gross, :net)
"""


async def charge_changed(desk: Desk, charge_id: str) -> str:
    """Handler of charges: its payment, and what went back or was taken back of it.

    One that is pending or has failed brought no money: nothing of it can be in the books, and what it means for a
    payment of ours its intent says.
    """
    charge = await fetch(desk, desk.link.client.v1.charges.retrieve_async, charge_id)
    if charge.status != "succeeded":
        intent_id = id_of(charge.payment_intent)
        said = await intent_changed(desk, intent_id) if intent_id is not None else "of no intent"
        return f"{charge_id} is {charge.status}: {said}"
    owner = await owner_of(desk, charge_id)
    if owner is None:
        return "not of a gateway's payment"
    done = ["its payment is up to date"]
    if charge.amount_refunded:
        refunds = desk.link.client.v1.refunds
        async for one in desk.link.each(refunds.list_async, params={"charge": charge_id}):
            done.append(await note(desk, one))
    if charge.disputed:
        disputes = desk.link.client.v1.disputes
        async for one in desk.link.each(disputes.list_async, params={"charge": charge_id}):
            done.append(await dispute_changed(desk, one.id))
    return "; ".join(done)
