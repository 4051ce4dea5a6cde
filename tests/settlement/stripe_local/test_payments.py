"""Money from cards, by the official SDK: payment methods, intents, refunds, disputes, and the movements they leave."""

from __future__ import annotations

from typing import Any

import pytest
import stripe

from tests.settlement.stripe_local.parts import Running

OFF_SESSION: dict[str, Any] = {"amount": 5000, "currency": "usd", "confirm": True, "off_session": True}


async def customer_with(local: Running, card: str = "pm_card_visa") -> tuple[str, str]:
    """A customer with a saved card: both ids."""
    customer = await local.client.v1.customers.create_async({"email": "a@example.org"})
    method = await local.client.v1.payment_methods.attach_async(card, {"customer": customer.id})
    return customer.id, method.id


async def charged(local: Running, card: str = "pm_card_visa") -> stripe.PaymentIntent:
    customer, method = await customer_with(local, card)
    return await local.client.v1.payment_intents.create_async(
        {**OFF_SESSION, "customer": customer, "payment_method": method, "metadata": {"topup": "7"}}
    )


async def event_types(local: Running) -> list[str]:
    events = await local.client.v1.events.list_async({"limit": 100})
    return [event.type for event in reversed(events.data)]


async def test_a_saved_card_is_charged_off_session_and_leaves_charge_movement_and_events(local: Running) -> None:
    intent = await charged(local)
    assert (intent.status, intent.amount_received, intent.metadata["topup"]) == ("succeeded", 5000, "7")
    found = await local.client.v1.payment_intents.retrieve_async(
        intent.id, {"expand": ["latest_charge.balance_transaction"]}
    )
    charge = found.latest_charge
    assert isinstance(charge, stripe.Charge)
    movement = charge.balance_transaction
    assert isinstance(movement, stripe.BalanceTransaction)
    assert (charge.paid, charge.amount, charge.customer) == (True, 5000, intent.customer)
    assert (movement.amount, movement.fee, movement.net) == (5000, 175, 4825)
    types = await event_types(local)
    assert types[-3:] == ["payment_intent.created", "charge.succeeded", "payment_intent.succeeded"]


@pytest.mark.parametrize(
    ("card", "code", "decline_code"),
    [
        ("pm_card_chargeCustomerFail", "card_declined", "generic_decline"),
        ("pm_card_authenticationRequired", "authentication_required", "authentication_required"),
    ],
)
async def test_a_refused_off_session_payment_is_a_402_that_leaves_the_failed_attempt(
    local: Running, card: str, code: str, decline_code: str
) -> None:
    customer, method = await customer_with(local, card)
    with pytest.raises(stripe.CardError) as caught:
        await local.client.v1.payment_intents.create_async(
            {**OFF_SESSION, "customer": customer, "payment_method": method}
        )
    assert caught.value.http_status == 402
    assert caught.value.code == code
    error = caught.value.json_body["error"]
    assert error["decline_code"] == decline_code
    intent = await local.client.v1.payment_intents.retrieve_async(error["payment_intent"]["id"])
    assert (intent.status, intent.amount_received) == ("requires_payment_method", 0)
    assert "payment_intent.payment_failed" in await event_types(local)


@pytest.mark.parametrize(
    ("card", "code"),
    [
        ("pm_card_chargeDeclined", "card_declined"),
        ("pm_card_chargeDeclinedInsufficientFunds", "card_declined"),
        ("pm_card_chargeDeclinedExpiredCard", "expired_card"),
    ],
)
async def test_a_card_that_is_declined_cannot_be_saved_either(local: Running, card: str, code: str) -> None:
    with pytest.raises(stripe.CardError) as caught:
        await customer_with(local, card)
    assert caught.value.code == code


async def test_an_intent_on_session_waits_for_the_customers_consent_and_goes_on_from_it(local: Running) -> None:
    customer, method = await customer_with(local, "pm_card_authenticationRequired")
    wanted: Any = {"amount": 900, "currency": "eur", "customer": customer, "payment_method": method, "confirm": True}
    for succeeds, status in ((True, "succeeded"), (False, "requires_payment_method")):
        intent = await local.client.v1.payment_intents.create_async(wanted)
        assert intent.status == "requires_action"
        assert intent.next_action is not None
        await local.control(f"payment_intents/{intent.id}/authenticate", succeeds=succeeds)
        assert (await local.client.v1.payment_intents.retrieve_async(intent.id)).status == status


async def test_an_intent_goes_through_its_states_and_no_others(local: Running) -> None:
    intents = local.client.v1.payment_intents
    intent = await intents.create_async({"amount": 100, "currency": "usd"})
    assert intent.status == "requires_payment_method"
    with pytest.raises(stripe.InvalidRequestError) as caught:
        await intents.confirm_async(intent.id)
    assert caught.value.code == "payment_intent_unexpected_state"
    assert (await intents.update_async(intent.id, {"amount": 200, "payment_method": "pm_card_visa"})).amount == 200
    assert (await intents.confirm_async(intent.id)).status == "succeeded"
    for call in (intents.confirm_async, intents.cancel_async):
        with pytest.raises(stripe.InvalidRequestError, match="status of succeeded"):
            await call(intent.id)
    other = await intents.create_async({"amount": 100, "currency": "usd"})
    assert (await intents.cancel_async(other.id)).status == "canceled"
    with pytest.raises(stripe.InvalidRequestError, match="status of canceled"):
        await intents.confirm_async(other.id, {"payment_method": "pm_card_visa"})


async def test_an_amount_that_no_card_is_charged_with_is_refused(local: Running) -> None:
    for amount, code in ((49, "amount_too_small"), (100_000_000, "amount_too_large")):
        with pytest.raises(stripe.InvalidRequestError) as caught:
            await local.client.v1.payment_intents.create_async({"amount": amount, "currency": "usd"})
        assert caught.value.code == code


async def test_another_customers_card_cannot_be_used(local: Running) -> None:
    _, method = await customer_with(local)
    other, _ = await customer_with(local)
    with pytest.raises(stripe.InvalidRequestError, match="belongs to a customer"):
        await local.client.v1.payment_intents.create_async({**OFF_SESSION, "customer": other, "payment_method": method})


async def test_a_detached_card_is_never_of_use_again(local: Running) -> None:
    customer, method = await customer_with(local)
    await local.client.v1.customers.update_async(customer, {"invoice_settings": {"default_payment_method": method}})
    await local.client.v1.payment_methods.detach_async(method)
    left = await local.client.v1.customers.retrieve_async(customer)
    assert left.invoice_settings is not None
    assert left.invoice_settings.default_payment_method is None
    assert (await local.client.v1.customers.payment_methods.list_async(customer)).data == []
    with pytest.raises(stripe.InvalidRequestError, match="previously used or detached"):
        await local.client.v1.payment_intents.create_async(
            {**OFF_SESSION, "customer": customer, "payment_method": method}
        )


async def test_refunds_add_up_to_the_charge_and_never_to_more(local: Running) -> None:
    intent = await charged(local)
    refunds = local.client.v1.refunds
    first = await refunds.create_async({"payment_intent": intent.id, "amount": 2000, "metadata": {"case": "1"}})
    assert (first.status, first.amount) == ("succeeded", 2000)
    with pytest.raises(stripe.InvalidRequestError, match="greater than unrefunded amount"):
        await refunds.create_async({"payment_intent": intent.id, "amount": 3001})
    rest = await refunds.create_async({"payment_intent": intent.id})
    assert rest.amount == 3000
    with pytest.raises(stripe.InvalidRequestError) as caught:
        await refunds.create_async({"payment_intent": intent.id})
    assert caught.value.code == "charge_already_refunded"
    charge = await local.client.v1.charges.retrieve_async(str(intent.latest_charge), {"expand": ["refunds"]})
    assert (charge.amount_refunded, charge.refunded) == (5000, True)
    assert charge.refunds is not None
    assert {one.id for one in charge.refunds.data} == {first.id, rest.id}
    moved = await local.client.v1.balance_transactions.list_async({"type": "refund"})
    assert sorted(one.amount for one in moved.data) == [-3000, -2000]


async def test_a_refund_that_the_bank_does_not_take_fails_later_and_the_money_is_back(local: Running) -> None:
    intent = await charged(local, "pm_card_refundFail")
    refund = await local.client.v1.refunds.create_async({"payment_intent": intent.id})
    assert refund.status == "succeeded"
    await local.control("clock", advance_s=60)
    assert (await local.client.v1.refunds.retrieve_async(refund.id)).status == "failed"
    charge = await local.client.v1.charges.retrieve_async(str(intent.latest_charge))
    assert (charge.amount_refunded, charge.refunded) == (0, False)
    assert "refund.failed" in await event_types(local)


@pytest.mark.parametrize(
    ("evidence", "status", "left"), [("winning_evidence", "won", 0), ("losing_evidence", "lost", -6500)]
)
async def test_a_dispute_takes_the_money_and_gives_it_back_when_it_is_won(
    local: Running, evidence: str, status: str, left: int
) -> None:
    intent = await charged(local, "pm_card_createDispute")
    (dispute,) = (await local.client.v1.disputes.list_async({"payment_intent": intent.id})).data
    assert (dispute.status, dispute.amount, dispute.reason) == ("needs_response", 5000, "fraudulent")
    with pytest.raises(stripe.InvalidRequestError) as caught:
        await local.client.v1.refunds.create_async({"payment_intent": intent.id})
    assert caught.value.code == "charge_disputed"
    done = await local.client.v1.disputes.update_async(dispute.id, {"evidence": {"uncategorized_text": evidence}})
    assert done.status == status
    assert sum(one.net for one in done.balance_transactions) == left
    types = [kind for kind in await event_types(local) if kind.startswith("charge.dispute")]
    assert types[:2] == ["charge.dispute.created", "charge.dispute.funds_withdrawn"]
    assert ("charge.dispute.funds_reinstated" in types) == (status == "won")


async def test_an_inquiry_takes_nothing_however_it_ends(local: Running) -> None:
    intent = await charged(local, "pm_card_createDisputeInquiry")
    (inquiry,) = (await local.client.v1.disputes.list_async({"payment_intent": intent.id})).data
    assert (inquiry.status, inquiry.balance_transactions) == ("warning_needs_response", [])
    refund = await local.client.v1.refunds.create_async({"payment_intent": intent.id, "amount": 1})
    assert refund.status == "succeeded"
    closed = await local.client.v1.disputes.close_async(inquiry.id)
    assert (closed.status, closed.balance_transactions) == ("warning_closed", [])


async def test_any_charge_can_be_disputed_by_a_test_but_only_once(local: Running) -> None:
    intent = await charged(local)
    dispute = await local.control(f"charges/{intent.latest_charge}/dispute", reason="duplicate")
    assert dispute["reason"] == "duplicate"
    again = await local.http.post(f"{local.base_url}/_control/charges/{intent.latest_charge}/dispute", json={})
    assert again.status_code == 400
    assert (await local.client.v1.disputes.close_async(dispute["id"])).status == "lost"


@pytest.mark.parametrize(
    "wanted",
    [
        {},
        {"charge": "ch_none"},
        {"payment_intent": "pi_none"},
        {"charge": "ch_none", "payment_intent": "pi_none"},
    ],
    ids=str,
)
async def test_a_refund_needs_one_payment_that_there_is(local: Running, wanted: Any) -> None:
    with pytest.raises(stripe.InvalidRequestError):
        await local.client.v1.refunds.create_async(wanted)


async def test_what_was_not_paid_is_not_refunded(local: Running) -> None:
    intent = await local.client.v1.payment_intents.create_async({"amount": 100, "currency": "usd"})
    with pytest.raises(stripe.InvalidRequestError, match="does not have a successful charge"):
        await local.client.v1.refunds.create_async({"payment_intent": intent.id})
    with pytest.raises(stripe.CardError) as caught:
        await local.client.v1.payment_intents.confirm_async(intent.id, {"payment_method": "pm_card_chargeDeclined"})
    with pytest.raises(stripe.InvalidRequestError, match="did not succeed"):
        await local.client.v1.refunds.create_async({"charge": caught.value.json_body["error"]["charge"]})


async def test_notes_on_charges_and_refunds_can_be_changed(local: Running) -> None:
    intent = await charged(local)
    charge = await local.client.v1.charges.update_async(
        str(intent.latest_charge), {"description": "top-up", "metadata": {"a": "1"}}
    )
    assert charge.description == "top-up"
    refund = await local.client.v1.refunds.create_async({"charge": charge.id, "amount": 1})
    assert (await local.client.v1.refunds.update_async(refund.id, {"metadata": {"a": "2"}})).metadata is not None


@pytest.mark.parametrize(
    ("wanted", "code"),
    [
        ({"capture_method": "manual"}, "stripe_local_unsupported"),
        ({"allowed_payment_method_types": ["klarna"]}, "stripe_local_unsupported"),
        ({"off_session": True}, None),
        ({"customer": "cus_none"}, "resource_missing"),
    ],
    ids=str,
)
async def test_an_intent_that_cannot_be_is_refused(local: Running, wanted: dict[str, Any], code: str | None) -> None:
    with pytest.raises(stripe.InvalidRequestError) as caught:
        await local.client.v1.payment_intents.create_async(
            stripe.params.PaymentIntentCreateParams(amount=100, currency="usd", **wanted)
        )
    assert caught.value.code == code


async def test_a_payout_is_the_sum_of_what_became_available_less_the_fees(local: Running) -> None:
    first, second = await charged(local), await charged(local)
    await local.client.v1.refunds.create_async({"payment_intent": first.id, "amount": 1000})
    await local.control("clock", advance_s=86_400)
    assert (await local.client.v1.payouts.list_async()).data == []
    await local.control("clock", advance_s=86_400)
    (payout,) = (await local.client.v1.payouts.list_async()).data
    assert (payout.amount, payout.status, payout.currency) == (2 * 4825 - 1000, "paid", "usd")
    parts = (await local.client.v1.balance_transactions.list_async({"payout": payout.id})).data
    assert sum(one.net for one in parts) == 0
    assert sorted(one.type for one in parts) == ["charge", "charge", "payout", "refund"]
    assert {one.status for one in parts} == {"available"}
    await local.control("clock", advance_s=10 * 86_400)
    assert len((await local.client.v1.payouts.list_async()).data) == 1
    assert "payout.paid" in await event_types(local)
    assert (await local.client.v1.payouts.retrieve_async(payout.id)).balance_transaction in {one.id for one in parts}
    assert second.status == "succeeded"


async def test_a_payout_that_the_bank_sends_back_is_part_of_the_next_one(local: Running) -> None:
    await charged(local)
    await local.control("clock", advance_s=2 * 86_400)
    (payout,) = (await local.client.v1.payouts.list_async()).data
    failed = await local.control(f"payouts/{payout.id}/fail")
    assert (failed["status"], failed["failure_code"]) == ("failed", "account_closed")
    await local.control("clock", advance_s=60)
    again, _ = (await local.client.v1.payouts.list_async()).data
    assert (again.amount, again.status) == (payout.amount, "paid")
    parts = (await local.client.v1.balance_transactions.list_async({"payout": again.id})).data
    assert sorted(one.type for one in parts) == ["payout", "payout_failure"]
    assert "payout.failed" in await event_types(local)


async def test_what_is_owed_to_stripe_is_taken_from_what_comes_later(local: Running) -> None:
    lost = await charged(local, "pm_card_createDispute")
    await local.control("clock", advance_s=2 * 86_400)
    assert lost.status == "succeeded"
    assert (await local.client.v1.payouts.list_async()).data == []
    await charged(local)
    await local.control("clock", advance_s=2 * 86_400)
    (payout,) = (await local.client.v1.payouts.list_async()).data
    assert payout.amount == (5000 - 175) - (5000 + 1500) + (5000 - 175)
