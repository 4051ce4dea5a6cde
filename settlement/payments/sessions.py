"""Stripe's pages: a Checkout session that takes a payment or saves a card."""

from __future__ import annotations

from datetime import UTC, datetime

import stripe

from clearinghouse.ids import show
from settlement.payments import store
from settlement.payments.cards import setup_changed
from settlement.payments.fetched import fetch, id_of, named_in
from settlement.payments.intents import intent_changed
from settlement.payments.late import settle_late
from settlement.payments.looked_up import found_session
from settlement.payments.record import PAYMENT_KEY, Payment
from settlement.stripe_link.desk import Desk, Park


async def session_changed(desk: Desk, session_id: str) -> str:
    """Handler of Checkout sessions."""
    session = await fetch(desk, desk.link.client.v1.checkout.sessions.retrieve_async, session_id)
    payment_id = named_in(session, PAYMENT_KEY)
    if payment_id is None:
        return "not asked for by us"
    async with desk.engine.connect() as connection:
        payment = await store.find_payment(connection, payment_id)
    if payment is None:
        raise Park(f"{session_id} says that it is of {show('pay', payment_id)}, which is not in these books")
    return await settle_session(desk, payment, session)


async def settle_session(desk: Desk, payment: Payment, session: stripe.checkout.Session) -> str:
    """Brings the payment forward to what its page says; whether money came, its intent says."""
    _require_same(payment, session)
    intent_id, setup_id = id_of(session.payment_intent), id_of(session.setup_intent)
    if session.status == "complete" and setup_id is not None:
        return await setup_changed(desk, setup_id)
    if intent_id is not None and session.payment_status == "paid":
        return await intent_changed(desk, intent_id)
    if session.status == "expired":
        if (first := await _other_page(desk, payment, session)) is not None:
            return f"{session.id} is expired, and {payment.shown_id} has another page: {first}"
        async with desk.transaction() as connection:
            said = "The link was not used in time: ask for another."
            changed = await store.ended(connection, payment, "expired", said=said)
        return f"{payment.shown_id} {'is expired' if changed else 'had ended'}"
    if session.status == "complete":
        return await settle_late(desk, payment, session)
    async with desk.transaction() as connection:
        opened = await store.opened(
            connection, payment, session_id=session.id, url=session.url,
            expires_at=datetime.fromtimestamp(session.expires_at, UTC),
        )  # fmt: skip
    if opened.stripe_session_id != session.id and opened.ended_at is None:
        raise Park(f"{payment.shown_id} has two pages, {opened.stripe_session_id} and {session.id}: expire the second")
    return f"{payment.shown_id} is {opened.state}"


async def _other_page(desk: Desk, payment: Payment, session: stripe.checkout.Session) -> str | None:
    """The page of which the gateway has the link, or will have it, where that is not this one: it may still be paid."""
    first_id = payment.stripe_session_id
    if first_id is None and (first := await found_session(desk, payment)) is not None:
        first_id = first.id
    return first_id if first_id != session.id else None


def _require_same(payment: Payment, session: stripe.checkout.Session) -> None:
    """Parks where Stripe's page is not the one that was asked for."""
    is_setup = payment.method == "setup"
    asked = (
        "setup" if is_setup else "payment", payment.stripe_customer_id,
        None if is_setup else payment.amount_minor, None if is_setup else payment.currency,
    )  # fmt: skip
    there = (
        session.mode, id_of(session.customer), session.amount_total if not is_setup else None,
        (session.currency or "").upper() if not is_setup else None,
    )  # fmt: skip
    if asked != there:
        raise Park(f"{session.id} is of {there}, and {payment.shown_id} was asked for as {asked}")
