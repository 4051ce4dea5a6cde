"""What gateways are told of charges that nobody sat before."""

from __future__ import annotations

from sqlalchemy.ext.asyncio import AsyncConnection

from clearinghouse.ledger.money import show_amount
from settlement.notices.telling import Told, tell
from settlement.payments.cards import note_refused
from settlement.payments.declines import FINAL
from settlement.payments.record import Payment

SUBJECT = "automatic-topup"


async def tell_failed(connection: AsyncConnection, payment: Payment, failure: str, said: str) -> None:
    """Of an automatic top-up: whoever asked for a charge has the answer. A card that only its holder can mend rests."""
    if payment.method != "automatic" or payment.amount is None:
        return
    if failure in FINAL and payment.stripe_method_id is not None:
        await note_refused(connection, payment.gateway_id, payment.stripe_method_id, failure)
    amount = show_amount(payment.amount)
    data = {
        "topup_id": payment.shown_id, "amount": amount, "currency": payment.currency, "failure": failure, "said": said,
    }  # fmt: skip
    await tell(
        connection,
        payment.gateway_id,
        Told(
            type="topup.failed", subject=SUBJECT, level="critical", title="{name}: the automatic top-up failed",
            body=f"The saved card of gateway {{name}} could not be charged with {amount} {payment.currency}. {said}",
            data=data,
        ),
    )  # fmt: skip
