"""What gateways are told of charges that nobody sat before, and of debits that a bank refused days later."""

from __future__ import annotations

from typing import NamedTuple

from sqlalchemy.ext.asyncio import AsyncConnection

from clearinghouse.ledger.money import show_amount
from settlement.delivery.message import Level
from settlement.notices.telling import Told, tell
from settlement.payments.cards import note_refused
from settlement.payments.declines import FINAL
from settlement.payments.record import Payment

SUBJECT = "automatic-topup"


class Words(NamedTuple):
    """Of one notice: `subject` is what it is of, the rest is for people."""

    subject: str
    level: Level
    title: str
    body: str


async def tell_failed(connection: AsyncConnection, payment: Payment, failure: str, said: str) -> None:
    """Of an automatic top-up: whoever asked for a charge has the answer. A card that only its holder can mend rests."""
    if payment.method != "automatic" or payment.amount is None:
        return
    if failure in FINAL and payment.stripe_method_id is not None:
        await note_refused(connection, payment.gateway_id, payment.stripe_method_id, failure)
    title = "{name}: the automatic top-up failed"
    amount = f"{show_amount(payment.amount)} {payment.currency}"
    body = f"The saved card of gateway {{name}} could not be charged with {amount}. {said}"
    await _tell(connection, payment, failure, said, Words(SUBJECT, "critical", title, body))


async def tell_refused_late(connection: AsyncConnection, payment: Payment, failure: str, said: str) -> None:
    """Of a page that was done days ago."""
    title = "{name}: a top-up failed at the bank"
    body = f"The top-up {payment.shown_id} of gateway {{name}} was not paid by the bank. {said}"
    await _tell(connection, payment, failure, said, Words(payment.shown_id, "warning", title, body))


async def _tell(connection: AsyncConnection, payment: Payment, failure: str, said: str, words: Words) -> None:
    assert payment.amount is not None, "what only saves a card is not told of"
    data = {
        "topup_id": payment.shown_id, "amount": show_amount(payment.amount), "currency": payment.currency,
        "failure": failure, "said": said,
    }  # fmt: skip
    told = Told("topup.failed", words.subject, words.level, words.title, words.body, data)
    await tell(connection, payment.gateway_id, told)
