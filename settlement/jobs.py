"""All jobs, by code: what `clearinghouse work` does, and when. docs/monitoring.md says which failure wakes someone."""

from __future__ import annotations

from datetime import timedelta

from prometheus_client import CollectorRegistry

from clearinghouse.config import Settings
from settlement.closing.close import closing_job
from settlement.closing.metrics import ClosingMetrics
from settlement.customers.jobs import customer_jobs
from settlement.customers.stripe_copy import ensure_customer
from settlement.dunning.holds import dunning_job
from settlement.invoices.jobs import invoice_jobs
from settlement.own_jobs import forget_job_runs, ledger_verify
from settlement.payments.jobs import payment_jobs
from settlement.schedule import Job
from settlement.stripe_link.stripe_jobs import stripe_jobs
from settlement.telling_jobs import telling_jobs
from settlement.topups.automatic import topups_job
from settlement.usage_job import usage_roll_up


def jobs_of(settings: Settings, registry: CollectorRegistry) -> tuple[Job, ...]:
    """The jobs that the settings ask for. Nothing connects here: a turn opens what it needs.

    `registry` takes the metrics of jobs that have some of their own.
    """
    return (
        ledger_verify(),
        usage_roll_up(),
        forget_job_runs(kept=timedelta(days=settings.work.runs_kept_days)),
        *telling_jobs(settings, registry),
        topups_job(settings),
        dunning_job(settings.dunning),
        *customer_jobs(settings),
        *stripe_jobs(settings.stripe),
        closing_job(ClosingMetrics(registry)),
        *invoice_jobs(settings, registry, customer_of=ensure_customer),
        *payment_jobs(settings),
    )
