"""The card that a gateway has saved at Stripe: one, the newest. What is here names it and holds no number."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, Final, NamedTuple
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from settlement.payments import store
from settlement.payments.fetched import fetch, id_of, named_in
from settlement.payments.record import PAYMENT_KEY, Payment
from settlement.stripe_link.client import StripeRefused
from settlement.stripe_link.desk import Desk, Park

#: Stripe's codes for what it does not know, and for what was detached and may not be used again.
_IS_GONE: Final = frozenset({"resource_missing", "payment_method_unexpected_state"})


class SavedCard(NamedTuple):
    """`refused`: why automatic top-ups do not charge it any more; None where nothing is wrong with it. Invoices try it
    all the same: each has a few attempts of its own."""

    payment_method_id: str
    brand: str
    last4: str
    exp_month: int
    exp_year: int
    refused: str | None


async def card_of(connection: AsyncConnection, gateway_id: UUID) -> SavedCard | None:
    query = text(
        "SELECT payment_method_id, brand, last4, exp_month, exp_year, refused FROM saved_card WHERE gateway_id = :id"
    )
    row = (await connection.execute(query, {"id": gateway_id})).one_or_none()
    return SavedCard(*row) if row is not None else None


async def save_card(desk: Desk, gateway_id: UUID, method_id: str, *, only_if_none: bool = False) -> None:
    """Takes the place of one that its holder entered before it; not of a newer one, whichever is heard of first.

    `only_if_none`: what was heard of before must not bring a card back.
    """
    if only_if_none:
        async with desk.engine.connect() as connection:
            if await card_of(connection, gateway_id) is not None:
                return
    method = await fetch(desk, desk.link.client.v1.payment_methods.retrieve_async, method_id)
    if method.type != "card" or method.card is None or id_of(method.customer) is None:
        return
    values: dict[str, Any] = {
        "gateway": gateway_id, "method": method.id, "brand": method.card.brand, "last4": method.card.last4,
        "month": method.card.exp_month, "year": method.card.exp_year,
        "made_at": datetime.fromtimestamp(method.created, UTC),
    }  # fmt: skip
    async with desk.transaction() as connection:
        await connection.execute(text(_SAVE), values)


_SAVE: Final = """
    INSERT INTO saved_card (gateway_id, payment_method_id, brand, last4, exp_month, exp_year, made_at)
    VALUES (:gateway, :method, :brand, :last4, :month, :year, :made_at)
    ON CONFLICT (gateway_id) DO UPDATE
       SET payment_method_id = :method, brand = :brand, last4 = :last4, exp_month = :month, exp_year = :year,
           made_at = :made_at,
           saved_at = CASE WHEN saved_card.payment_method_id = :method THEN saved_card.saved_at
                           ELSE clock_timestamp() END,
           refused = CASE WHEN saved_card.payment_method_id = :method THEN saved_card.refused END
     WHERE saved_card.payment_method_id = :method OR saved_card.made_at <= :made_at
"""


async def note_refused(connection: AsyncConnection, gateway_id: UUID, method_id: str, why: str) -> None:
    """Automatic top-ups do not charge it until another one is saved."""
    query = text("UPDATE saved_card SET refused = :why WHERE gateway_id = :gateway AND payment_method_id = :method")
    await connection.execute(query, {"gateway": gateway_id, "method": method_id, "why": why})


async def setup_changed(desk: Desk, setup_id: str) -> str:
    """Handler of setup intents: the card that was saved at Stripe's page."""
    setup = await fetch(desk, desk.link.client.v1.setup_intents.retrieve_async, setup_id)
    payment_id = named_in(setup, PAYMENT_KEY)
    if payment_id is None:
        return "not asked for by us"
    async with desk.engine.connect() as connection:
        payment = await store.find_payment(connection, payment_id)
    if payment is None or payment.method != "setup":
        raise Park(f"{setup_id} was made for a card that nobody asked us to save")
    method_id = id_of(setup.payment_method)
    if setup.status != "succeeded" or method_id is None:
        return f"{payment.shown_id}: the card is not saved yet"
    return await card_saved(desk, payment, setup_id, method_id)


async def card_saved(desk: Desk, payment: Payment, setup_id: str, method_id: str) -> str:
    """Once for each time that it was asked for: an old event does not bring an old card back."""
    if payment.ended_at is not None:
        return f"{payment.shown_id} was {payment.state} before"
    await save_card(desk, payment.gateway_id, method_id)
    async with desk.transaction() as connection:
        await store.ended(connection, payment, "succeeded", intent_id=setup_id)
    return f"{payment.shown_id}: the card is saved"


async def method_changed(desk: Desk, method_id: str) -> str:
    """Handler of payment methods: a card that was renewed, or taken away at Stripe."""
    async with desk.engine.connect() as connection:
        query = text("SELECT gateway_id FROM saved_card WHERE payment_method_id = :id")
        gateway_id = (await connection.execute(query, {"id": method_id})).scalar_one_or_none()
    if gateway_id is None:
        return "not a card that is used here"
    if await forgotten_if_gone(desk, method_id):
        return "the card is not saved any more"
    await save_card(desk, gateway_id, method_id)
    return "the saved card is up to date"


async def forgotten_if_gone(desk: Desk, method_id: str) -> bool:
    """Whether it was taken away at Stripe: then it is nobody's saved card any more."""
    if await _is_saved_at_stripe(desk, method_id):
        return False
    async with desk.transaction() as connection:
        query = text("DELETE FROM saved_card WHERE payment_method_id = :id")
        await connection.execute(query, {"id": method_id})
    return True


async def _is_saved_at_stripe(desk: Desk, method_id: str) -> bool:
    """One that is nobody's any more may not even be shown. Another refusal says nothing of the card: it is kept."""
    try:
        method = await desk.link.call(desk.link.client.v1.payment_methods.retrieve_async, method_id)
    except StripeRefused as refused:
        return refused.code not in _IS_GONE
    return id_of(method.customer) is not None
