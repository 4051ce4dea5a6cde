"""Stripe's pages: a Checkout session that takes a payment or saves a card."""

from __future__ import annotations

from datetime import UTC, datetime

import stripe

from clearinghouse.ids import show
from settlement.payments import store
from settlement.payments.cards import setup_changed
from settlement.payments.fetched import fetch, id_of, named_in
from settlement.payments.intents import intent_changed, settle, settle_other
from settlement.payments.late import settle_late
from settlement.payments.looked_up import found_session
from settlement.payments.pages import REFUSED
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
    if session.status == "open":
        return await _opened(desk, payment, session)
    first_id = await _first_id(desk, payment, session)
    if first_id != session.id:
        return await _beside(desk, payment, session, first_id)
    if session.status == "complete":
        return await settle_late(desk, payment, session)
    return await settle_other(desk, payment, session.id) or await _expired(desk, payment)


async def _opened(desk: Desk, payment: Payment, session: stripe.checkout.Session) -> str:
    async with desk.transaction() as connection:
        opened = await store.opened(
            connection, payment, session_id=session.id, url=session.url,
            expires_at=datetime.fromtimestamp(session.expires_at, UTC),
        )  # fmt: skip
    if opened.stripe_session_id != session.id and opened.ended_at is None:
        raise Park(f"{payment.shown_id} has two pages, {opened.stripe_session_id} and {session.id}: expire the second")
    return f"{payment.shown_id} is {opened.state}"


async def _expired(desk: Desk, payment: Payment) -> str:
    async with desk.transaction() as connection:
        said = "The link was not used in time: ask for another."
        changed = await store.ended(connection, payment, "expired", said=said)
    return f"{payment.shown_id} {'is expired' if changed else 'had ended'}"


async def _first_id(desk: Desk, payment: Payment, session: stripe.checkout.Session) -> str:
    """Of the page that the gateway has the link of, or will have: of `session`, where that is the one."""
    if payment.stripe_session_id is not None:
        return payment.stripe_session_id
    first = await found_session(desk, payment)
    return first.id if first is not None else session.id


async def _beside(desk: Desk, payment: Payment, session: stripe.checkout.Session, first_id: str) -> str:
    """Of a second page, which was done or has expired, and not paid: it ends nothing, since the first may be paid.
    Parks where money may come by it, too."""
    intent_id = id_of(session.payment_intent)
    if intent_id is not None:
        intent = await fetch(desk, desk.link.client.v1.payment_intents.retrieve_async, intent_id)
        if intent.status not in {*REFUSED, "succeeded"}:
            raise Park(
                f"{payment.shown_id} has two pages, {first_id} and {session.id}: at the second a bank is being asked "
                f"({intent.id} is {intent.status}). What pays first is credited: where both do, refund the other"
            )
        if intent.status == "succeeded":
            return await settle(desk, payment, intent)
    if payment.ended_at is not None or payment.stripe_session_id is None:
        return f"{session.id} came to nothing, and {payment.shown_id} has another page: {first_id}"
    first = await fetch(desk, desk.link.client.v1.checkout.sessions.retrieve_async, first_id)
    return await settle_session(desk, payment, first)  # it may have waited for this one


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
