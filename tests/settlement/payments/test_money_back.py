"""Money that goes back: refunds, disputes, and what is signed meanwhile."""

from __future__ import annotations

from decimal import Decimal
from typing import Any
from uuid import UUID

import psycopg
import pytest
import stripe

from clearinghouse.errors import InvalidRequest
from clearinghouse.ids import show
from settlement.payments.operators import NothingLeft, refund
from settlement.payments.refunds import note
from tests.parts.paying import Till

USD_40 = ("payment", Decimal(40))


async def paid_by(till: Till, card: str = "pm_card_visa", amount: str = "40") -> tuple[UUID, UUID]:
    """A gateway, and what it paid."""
    gateway = await till.new_gateway()
    payment_id = await till.asked_at_stripe(gateway, "checkout", amount)
    await till.pay_page(payment_id, card)
    await till.hear()
    return gateway, payment_id


async def refunded(till: Till, payment_id: UUID, amount: str | None, **how: Any) -> UUID:
    async with till.engine.begin() as connection:
        exact = Decimal(amount) if amount is not None else None
        return await refund(connection, payment_id, exact, reason="a mistake", actor="cli:ann", **how)


def the_refund(till: Till, refund_id: UUID) -> dict[str, Any]:
    (row,) = till.rows("SELECT * FROM refund WHERE id = %s", refund_id)
    return row


async def test_a_refund_leaves_the_account_when_stripe_confirms_it_and_not_before(till: Till) -> None:
    gateway, payment_id = await paid_by(till)
    refund_id = await refunded(till, payment_id, "15")
    assert till.entries(gateway) == [USD_40]
    await till.work()
    assert the_refund(till, refund_id)["state"] == "succeeded"
    await till.hear(repeat=3)
    assert till.entries(gateway) == [USD_40, ("refund", Decimal(-15))]
    await refunded(till, payment_id, None)
    await till.work()
    assert till.entries(gateway)[2:] == [("refund", Decimal(-25))]
    assert till.balance(gateway) == 0


async def test_no_more_goes_back_than_came(till: Till) -> None:
    _, payment_id = await paid_by(till)
    await refunded(till, payment_id, "15")
    with pytest.raises(NothingLeft, match="25"):
        await refunded(till, payment_id, "25.01")
    await refunded(till, payment_id, "25")
    with pytest.raises(NothingLeft):
        await refunded(till, payment_id, None)


async def test_little_goes_back_too_and_what_is_finer_than_money_does_not(till: Till) -> None:
    gateway, payment_id = await paid_by(till)
    with pytest.raises(InvalidRequest, match="smallest unit"):
        await refunded(till, payment_id, "0.001")
    await refunded(till, payment_id, "0.01")
    await till.work()
    assert till.entries(gateway) == [USD_40, ("refund", Decimal("-0.01"))]


async def test_the_same_key_is_one_refund(till: Till) -> None:
    gateway, payment_id = await paid_by(till)
    first = await refunded(till, payment_id, "15", key="case-1")
    assert await refunded(till, payment_id, "15", key="case-1") == first
    await till.work()
    assert till.entries(gateway) == [USD_40, ("refund", Decimal(-15))]


async def test_a_refund_that_somebody_else_makes_at_stripe_is_booked_too(till: Till) -> None:
    gateway, payment_id = await paid_by(till)
    charge_id = till.payment(payment_id)["stripe_charge_id"]
    await till.sdk.v1.refunds.create_async({"charge": charge_id, "amount": 1000})
    await till.hear(repeat=2)
    assert till.entries(gateway) == [USD_40, ("refund", Decimal(-10))]
    with pytest.raises(NothingLeft):
        await refunded(till, payment_id, "30.01")


async def test_credit_that_was_spent_leaves_the_account_below_its_limit(till: Till) -> None:
    gateway, payment_id = await paid_by(till)
    till.rows("SELECT withdraw_credit(gen_random_uuid(), %s, 35, NULL, 'spent', 'test')", gateway)
    await refunded(till, payment_id, None)
    await till.work()
    assert till.balance(gateway) == -35
    assert till.rows("SELECT overdrawn FROM account WHERE id = %s", gateway)[0]["overdrawn"] == 35


async def test_a_refund_that_the_bank_sends_back_is_credit_again(till: Till) -> None:
    gateway, payment_id = await paid_by(till, "pm_card_refundFail")
    refund_id = await refunded(till, payment_id, "15")
    await till.work()
    await till.stripe.control("clock", advance_s=3600)
    await till.hear(repeat=3)
    assert the_refund(till, refund_id)["state"] == "failed"
    assert till.entries(gateway) == [USD_40, ("refund", Decimal(-15)), ("payment", Decimal(15))]
    assert till.balance(gateway) == 40


def as_refund(till: Till, payment_id: UUID, status: str) -> stripe.Refund:
    """As Stripe shows one of all of a payment."""
    paid = till.payment(payment_id)
    values = {
        "id": "re_of_a_transfer", "object": "refund", "amount": int(paid["amount"] * 100), "currency": "usd",
        "charge": paid["stripe_charge_id"], "payment_intent": paid["stripe_intent_id"], "metadata": {},
        "reason": None, "status": status,
    }  # fmt: skip
    return stripe.Refund.construct_from(values, None)


async def test_what_is_on_its_way_back_is_no_credit_meanwhile(till: Till) -> None:
    gateway, payment_id = await paid_by(till)
    for _ in range(2):
        await note(till.desk, as_refund(till, payment_id, "pending"))
        assert till.entries(gateway) == [USD_40, ("refund", Decimal(-40))]
    await note(till.desk, as_refund(till, payment_id, "succeeded"))
    assert till.balance(gateway) == 0
    await note(till.desk, as_refund(till, payment_id, "failed"))
    assert till.balance(gateway) == 40


@pytest.mark.parametrize("heard", [["requires_action", "canceled"], ["canceled"]])
async def test_a_transfer_whose_refund_nobody_collects_is_credit_once(till: Till, heard: list[str]) -> None:
    gateway = await till.new_gateway()
    payment_id = await till.asked_at_stripe(gateway, "bank_transfer", "50")
    await till.transferred(gateway, 5000)
    await till.hear()
    for status in heard:
        await note(till.desk, as_refund(till, payment_id, status))
    assert till.balance(gateway) == 0
    await till.transferred(gateway, 5000)  # what Stripe does with it then: it is in the cash balance again
    await till.hear()
    await till.work()
    assert till.balance(gateway) == 50


async def test_what_was_paid_a_second_time_goes_back_without_touching_the_first(till: Till) -> None:
    gateway, payment_id = await paid_by(till)
    paid = till.payment(payment_id)
    charge: Any = {
        "amount": 4000, "currency": "usd", "customer": paid["stripe_customer_id"], "confirm": True,
        "payment_method": "pm_card_visa", "metadata": {"clearinghouse_payment": show("pay", payment_id)},
        "allowed_payment_method_types": ["card"],
    }  # fmt: skip
    second = await till.sdk.v1.payment_intents.create_async(charge)
    await till.hear()
    assert "was paid twice" in till.parked[0]
    await till.sdk.v1.refunds.create_async({"payment_intent": second.id})  # as the parked event says
    await till.hear(repeat=2)
    assert till.entries(gateway) == [USD_40]
    assert "was refunded" in str(await till.handle("payment_intent", second.id))  # done again, it is parked no more


async def test_what_a_customer_paid_for_otherwise_takes_nothing_when_it_goes_back(till: Till) -> None:
    gateway, payment_id = await paid_by(till)
    charge: Any = {
        "amount": 3000, "currency": "usd", "customer": till.payment(payment_id)["stripe_customer_id"],
        "confirm": True, "payment_method": "pm_card_visa", "allowed_payment_method_types": ["card"],
    }  # fmt: skip
    advice = await till.sdk.v1.payment_intents.create_async(charge)  # in the dashboard, and not as credit
    await till.sdk.v1.refunds.create_async({"payment_intent": advice.id})
    await till.hear()
    assert till.entries(gateway) == [USD_40]


async def test_what_is_returned_from_a_cash_balance_was_no_credit_yet(till: Till) -> None:
    gateway, payment_id = await paid_by(till)
    returned = as_refund(till, payment_id, "succeeded").to_dict() | {"charge": None, "payment_intent": None}
    assert "no credit yet" in await note(till.desk, stripe.Refund.construct_from(returned, None))
    assert till.entries(gateway) == [USD_40]


async def test_a_refund_that_stripe_refuses_says_why_and_moves_nothing(till: Till) -> None:
    gateway, payment_id = await paid_by(till, "pm_card_createDispute")
    till.rows("UPDATE dispute SET status = 'won' RETURNING 1")  # our side believes that there is something left
    refund_id = await refunded(till, payment_id, "15")
    await till.work()
    ended = the_refund(till, refund_id)
    assert (ended["state"], "charged back" in ended["said"]) == ("failed", True)
    assert ("refund", Decimal(-15)) not in till.entries(gateway)


async def test_a_dispute_takes_the_money_at_once_and_nothing_is_signed_until_it_is_won(till: Till) -> None:
    gateway, payment_id = await paid_by(till)
    await till.stripe.control(f"charges/{till.payment(payment_id)['stripe_charge_id']}/dispute")
    await till.hear(repeat=3)
    assert till.entries(gateway) == [USD_40, ("dispute", Decimal(-40))]
    assert till.hold(gateway) == "signing"
    (dispute,) = till.rows("SELECT * FROM dispute")
    assert (dispute["status"], dispute["payment_id"], dispute["reason"]) == ("needs_response", payment_id, "fraudulent")
    await till.sdk.v1.disputes.update_async(
        dispute["id"], {"evidence": {"uncategorized_text": "winning_evidence"}, "submit": True}
    )
    await till.hear(repeat=3)
    assert till.entries(gateway) == [USD_40, ("dispute", Decimal(-40)), ("dispute_won", Decimal(40))]
    assert till.hold(gateway) == "none"


async def test_a_dispute_that_is_lost_stays_gone_and_an_operator_lets_the_gateway_sign_again(till: Till) -> None:
    from settlement.payments.operators import forgive_disputes

    gateway, _ = await paid_by(till, "pm_card_createDispute")
    (dispute,) = till.rows("SELECT * FROM dispute")
    await till.sdk.v1.disputes.close_async(dispute["id"])
    await till.hear(repeat=2)
    assert till.entries(gateway) == [USD_40, ("dispute", Decimal(-40))]
    assert till.hold(gateway) == "signing"
    async with till.engine.begin() as connection:
        assert await forgive_disputes(connection, gateway, reason="paid by wire", actor="cli:ann") == 1
    assert till.hold(gateway) == "none"
    for event in await till.events():  # old news changes nothing
        await till.handled(event)
    assert (till.hold(gateway), till.balance(gateway)) == ("none", 0)


async def test_a_bank_that_changes_its_mind_is_heard(till: Till) -> None:
    gateway, payment_id = await paid_by(till)
    charge_id = till.payment(payment_id)["stripe_charge_id"]

    def told(status: str) -> None:
        query = """SELECT note_dispute('du_1', %s, %s, %s, 40, 'USD', %s, 'fraudulent', NULL, gen_random_uuid(),
                                       gen_random_uuid(), 'test')"""
        till.rows(query, gateway, payment_id, charge_id, status)

    told("lost")
    assert (till.balance(gateway), till.hold(gateway)) == (0, "signing")
    told("won")
    told("under_review")  # old news
    assert (till.balance(gateway), till.hold(gateway)) == (40, "none")
    with pytest.raises(psycopg.errors.CheckViolation, match="lost after all"):
        told("lost")


async def test_an_inquiry_takes_nothing_and_holds_nothing_up(till: Till) -> None:
    gateway, _ = await paid_by(till, "pm_card_createDisputeInquiry")
    assert till.entries(gateway) == [USD_40]
    assert till.hold(gateway) == "none"
    assert [row["status"] for row in till.rows("SELECT status FROM dispute")] == ["warning_needs_response"]


async def test_a_dispute_heard_of_only_when_it_was_won_leaves_all_of_it_in_the_books(till: Till) -> None:
    gateway = await till.new_gateway()
    payment_id = await till.asked_at_stripe(gateway, "checkout", "40")
    await till.pay_page(payment_id, "pm_card_createDispute")
    (dispute,) = (await till.sdk.v1.disputes.list_async()).data
    evidence: Any = {"evidence": {"uncategorized_text": "winning_evidence"}, "submit": True}
    await till.sdk.v1.disputes.update_async(dispute.id, evidence)
    await till.handle("dispute", dispute.id)  # before the payment itself was heard of
    assert till.entries(gateway) == [USD_40, ("dispute", Decimal(-40)), ("dispute_won", Decimal(40))]
    assert till.hold(gateway) == "none"
    await till.hear()
    assert till.balance(gateway) == 40


async def test_dunnings_hold_is_not_lifted_by_a_dispute_that_is_won(till: Till) -> None:
    gateway, _ = await paid_by(till, "pm_card_createDispute")
    till.rows("SELECT set_billing_hold(%s, 'new_sessions', 'invoice 7 is overdue', 'dunning')", gateway)
    (dispute,) = till.rows("SELECT id FROM dispute")
    evidence: Any = {"evidence": {"uncategorized_text": "winning_evidence"}, "submit": True}
    await till.sdk.v1.disputes.update_async(dispute["id"], evidence)
    await till.hear()
    assert till.hold(gateway) == "new_sessions"
