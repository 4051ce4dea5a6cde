"""A payment and a refund as the database has them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from datetime import datetime
from decimal import Decimal
from typing import Any, Final
from uuid import UUID

from clearinghouse.ids import show
from settlement.customers.details import GATEWAY_KEY
from settlement.payments.amounts import minor_of

#: Whoever acts for the clearinghouse by itself, in what is recorded.
ACTOR: Final = "clearinghouse"
#: In the metadata of everything that is made at Stripe: by it, it is found again.
PAYMENT_KEY: Final = "clearinghouse_payment"
REFUND_KEY: Final = "clearinghouse_refund"


@dataclass(frozen=True, slots=True)
class Payment:
    """A row of `payment`. `amount` is None of a card that is only saved."""

    id: UUID
    gateway_id: UUID
    method: str
    state: str
    amount: Decimal | None
    currency: str
    saves_card: bool
    requested_by: str
    created_at: datetime
    attempts_count: int
    keys_count: int
    asked_at: datetime | None
    stripe_customer_id: str | None
    stripe_method_id: str | None
    stripe_session_id: str | None
    stripe_intent_id: str | None
    stripe_charge_id: str | None
    expires_at: datetime | None
    ended_at: datetime | None

    @property
    def shown_id(self) -> str:
        """`pay_…`."""
        return show("pay", self.id)

    @property
    def idempotency_key(self) -> str:
        """The newest: there is another one only once it is known that the last one brought nothing about."""
        return f"{self.shown_id}-{self.keys_count}"

    @property
    def amount_minor(self) -> int:
        """In Stripe's minor units. InvalidRequest where it cannot be paid like that."""
        assert self.amount is not None, "a card is saved without an amount"
        return minor_of(self.amount, self.currency)

    @property
    def metadata(self) -> dict[str, str]:
        """For what is made for it at Stripe."""
        return {PAYMENT_KEY: self.shown_id, GATEWAY_KEY: show("gw", self.gateway_id)}


@dataclass(frozen=True, slots=True)
class Refund:
    """A row of `refund`. `payment_id` is None of an invoice's."""

    id: UUID
    gateway_id: UUID
    payment_id: UUID | None
    state: str
    amount: Decimal
    currency: str
    reason: str
    attempts_count: int
    keys_count: int
    asked_at: datetime | None
    stripe_refund_id: str | None

    @property
    def shown_id(self) -> str:
        """`rfd_…`."""
        return show("rfd", self.id)

    @property
    def idempotency_key(self) -> str:
        """As of a payment."""
        return f"{self.shown_id}-{self.keys_count}"


def payment_of(row: Mapping[Any, Any]) -> Payment:
    return Payment(**{field.name: row[field.name] for field in fields(Payment)})


def refund_of(row: Mapping[Any, Any]) -> Refund:
    return Refund(**{field.name: row[field.name] for field in fields(Refund)})
