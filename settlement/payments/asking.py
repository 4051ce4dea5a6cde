"""Asks Stripe for what a payment needs: a page, a charge, a bank transfer. Once, however often it is tried.

    our row ─▶ note_asked (with what, under which key: durable) ─▶ Stripe ─▶ adopted: the row says what is there

A crash between any two of these is answered by the next attempt: under the same key Stripe gives the same object; and
from the second attempt on it is looked for first, since Stripe forgets keys after a day.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final
from uuid import UUID

import stripe

from clearinghouse.config_payments import PaymentSettings
from clearinghouse.errors import Refusal
from settlement.payments import store
from settlement.payments.bank_transfers import CASH_BALANCE, transfer_options
from settlement.payments.cards import card_of
from settlement.payments.declines import words_of_decline
from settlement.payments.fetched import fetch
from settlement.payments.intents import cancel, settle
from settlement.payments.looked_up import found_intent, found_session
from settlement.payments.page_methods import fitting, page_takes
from settlement.payments.record import Payment
from settlement.payments.sessions import settle_session
from settlement.payments.telling import tell_failed
from settlement.stripe_link.client import StripeAway, StripeRefused
from settlement.stripe_link.desk import Desk, Park

#: Stripe keeps a key for at least a day. From this age on it counts for nothing.
KEY_VALID: Final = timedelta(hours=20)
_PAGES: Final = frozenset(("checkout", "setup"))
_BY_CARD: Final = frozenset(("card", "automatic"))

#: The id of a gateway's customer at Stripe, made where there is none. Raises a Refusal where nobody is known to pay.
Customers = Callable[[Desk, UUID], Awaitable[str]]


class CannotBePaid(Exception):
    """It was refused, here or by Stripe, and would be again. `code` and the text are for the gateway."""

    def __init__(self, code: str, said: str) -> None:
        super().__init__(said)
        self.code = code


@dataclass(frozen=True, slots=True)
class Asking:
    """`pursue` brings a payment from requested to whatever comes next."""

    desk: Desk
    customers: Customers
    settings: PaymentSettings

    async def pursue(self, payment: Payment) -> str:
        """One line of what was done. Raises StripeAway where nobody knows: then it is to be tried again."""
        try:
            noted = await self._noted(payment)
            return await self._asked(noted)
        except CannotBePaid as refused:
            async with self.desk.transaction() as connection:
                if await store.ended(connection, payment, "failed", failure=refused.code, said=str(refused)):
                    await tell_failed(connection, payment, refused.code, str(refused))
            return f"{payment.shown_id} is failed: {refused.code}"

    async def _noted(self, payment: Payment) -> Payment:
        """What it is asked with is written down before it is asked. Raises CannotBePaid."""
        if payment.amount is not None:
            _judged(lambda: payment.amount_minor)
        if payment.method in _PAGES and self.settings.return_url is None:
            raise CannotBePaid(
                "not_set_up", "Stripe's page cannot be used: the operator has not set payments.return_url."
            )
        if payment.method == "checkout" and not fitting(self.settings.checkout_methods, payment.currency):
            raise CannotBePaid(
                "not_set_up", f"Nothing that Stripe's page takes here (payments.checkout_methods) is in "
                f"{payment.currency}: use method bank_transfer, or ask the operator.",
            )  # fmt: skip
        try:
            customer_id = payment.stripe_customer_id or await self.customers(self.desk, payment.gateway_id)
        except (Refusal, StripeRefused) as refused:
            raise CannotBePaid("no_customer", f"Who pays is not known: {refused}") from refused
        async with self.desk.transaction() as connection:
            method_id = await self._method(connection, payment) if payment.method in _BY_CARD else None
            return await store.note_asked(
                connection, payment, customer_id=customer_id, method_id=method_id, renews=False
            )

    async def _method(self, connection: Any, payment: Payment) -> str:
        card = await card_of(connection, payment.gateway_id)
        if card is None:
            raise CannotBePaid("no_card", words_of_decline("no_card"))
        return card.payment_method_id

    async def _asked(self, payment: Payment) -> str:
        """Looks first where it was tried before. A key that can bring nothing about any more gets a successor."""
        if payment.attempts_count > 1:
            if (done := await self._adopted(payment)) is not None:
                return done
            if payment.asked_at is not None and await self.desk.now() - payment.asked_at > KEY_VALID:
                payment = await self._renewed(payment)
        try:
            return await self._made(payment)
        except StripeAway as away:
            if not away.key_is_spent:
                raise
            if (done := await self._adopted(payment)) is None:
                await self._renewed(payment)
                raise
            return done
        except StripeRefused as refused:
            return await self._refused(payment, refused)

    async def _renewed(self, payment: Payment) -> Payment:
        async with self.desk.transaction() as connection:
            return await store.note_asked(
                connection, payment, customer_id=payment.stripe_customer_id or "", method_id=None, renews=True
            )

    async def _adopted(self, payment: Payment) -> str | None:
        """What is there already; None where nothing is."""
        if payment.method in _PAGES:
            session = await found_session(self.desk, payment)
            return await settle_session(self.desk, payment, session) if session is not None else None
        intent = await found_intent(self.desk, payment)
        return await self._taken(payment, intent) if intent is not None else None

    async def _refused(self, payment: Payment, refused: StripeRefused) -> str:
        """A declined card leaves an intent that says why; whatever else was refused has left nothing, or we look."""
        if refused.payment_intent_id is not None:
            intents = self.desk.link.client.v1.payment_intents
            return await settle(
                self.desk, payment, await fetch(self.desk, intents.retrieve_async, refused.payment_intent_id)
            )
        if (done := await self._adopted(payment)) is not None:
            return done
        raise CannotBePaid(refused.code or "refused_by_stripe", f"Stripe refused it: {refused.message}") from refused

    async def _made(self, payment: Payment) -> str:
        link, key = self.desk.link, payment.idempotency_key
        if payment.method in _PAGES:
            params = self._page_params(payment)
            session = await link.call(link.client.v1.checkout.sessions.create_async, params=params, idempotency_key=key)
            return await settle_session(self.desk, payment, session)
        params = self._charge_params(payment) if payment.method in _BY_CARD else self._transfer_params(payment)
        intent = await link.call(link.client.v1.payment_intents.create_async, params=params, idempotency_key=key)
        return await self._taken(payment, intent)

    async def _taken(self, payment: Payment, intent: stripe.PaymentIntent) -> str:
        """An intent that is there. What was to be paid out of a cash balance and is not has gone another way."""
        if payment.method == "cash_balance" and intent.status not in {"succeeded", "canceled"}:
            if not await cancel(self.desk, intent.id):
                raise StripeAway(f"{intent.id} is about to be paid", may_pass=False)
            intents = self.desk.link.client.v1.payment_intents
            intent = await fetch(self.desk, intents.retrieve_async, intent.id)
        if payment.method == "bank_transfer" and intent.status == "requires_action":
            return await self._instructed(payment, intent)
        return await settle(self.desk, payment, intent)

    async def _instructed(self, payment: Payment, intent: stripe.PaymentIntent) -> str:
        said = intent.next_action.display_bank_transfer_instructions if intent.next_action is not None else None
        if said is None:
            raise Park(f"{intent.id} waits for a transfer, and does not say where to")
        async with self.desk.transaction() as connection:
            until = payment.created_at + timedelta(days=self.settings.transfer_days)
            await store.opened(
                connection, payment, intent_id=intent.id, url=said.hosted_instructions_url,
                instructions=said.to_dict(), expires_at=until,
            )  # fmt: skip
        return f"{payment.shown_id} is open: a transfer is awaited"

    # --- what Stripe is asked for; of one payment always the same -----------------------------------------------------

    def _page_params(self, payment: Payment) -> dict[str, Any]:
        common: dict[str, Any] = {
            "customer": payment.stripe_customer_id, "client_reference_id": payment.shown_id,
            "metadata": payment.metadata, "success_url": self.settings.return_url,
            "cancel_url": self.settings.return_url,
        }  # fmt: skip
        if payment.method == "setup":
            setup = {"metadata": payment.metadata}
            return {**common, "mode": "setup", "allowed_payment_method_types": ["card"], "setup_intent_data": setup}
        price = {
            "currency": payment.currency.lower(),
            "unit_amount": payment.amount_minor,
            "product_data": {"name": self.settings.product_name},
        }
        takes = page_takes(self.settings.checkout_methods, payment.currency, saves_card=payment.saves_card)
        return {
            **common, **takes, "mode": "payment", "line_items": [{"price_data": price, "quantity": 1}],
            "payment_intent_data": {"metadata": payment.metadata},
        }  # fmt: skip

    def _charge_params(self, payment: Payment) -> dict[str, Any]:
        return {
            **self._intent_params(payment), "allowed_payment_method_types": ["card"], "off_session": True,
            "payment_method": payment.stripe_method_id,
        }  # fmt: skip

    def _transfer_params(self, payment: Payment) -> dict[str, Any]:
        """Raises CannotBePaid."""
        options = transfer_options(payment.currency, self.settings)
        if options is None:
            raise CannotBePaid("not_set_up", f"No bank transfers are taken in {payment.currency}: use method checkout.")
        return {
            **self._intent_params(payment), "allowed_payment_method_types": [CASH_BALANCE],
            "payment_method_data": {"type": CASH_BALANCE},
            "payment_method_options": {CASH_BALANCE: options},
        }  # fmt: skip

    def _intent_params(self, payment: Payment) -> dict[str, Any]:
        return {
            "amount": payment.amount_minor, "currency": payment.currency.lower(), "confirm": True,
            "customer": payment.stripe_customer_id, "metadata": payment.metadata,
            "description": f"{self.settings.product_name} ({payment.shown_id})",
        }  # fmt: skip


def _judged(judge: Callable[[], object]) -> None:
    try:
        judge()
    except Refusal as refused:
        raise CannotBePaid("invalid_amount", refused.message) from refused
