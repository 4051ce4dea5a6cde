"""What is due by time about payments: low balances, and transfers that did not come."""

from __future__ import annotations

from clearinghouse.config import Settings
from settlement.payments.refills import refills_job
from settlement.payments.transfers_due import transfers_due_job
from settlement.schedule import Job


def payment_jobs(settings: Settings) -> tuple[Job, ...]:
    """None of them without Stripe."""
    if settings.stripe.api_key is None:
        return ()
    return (refills_job(every_s=settings.payments.refills_every_s), transfers_due_job(settings.stripe))
