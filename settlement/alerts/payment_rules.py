"""Rules about money that comes in and goes back: banks that want an answer, requests that nobody answers. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from clearinghouse.instants import rfc3339
from settlement.alerts.conditions import Condition, Group, Severity
from settlement.alerts.observed import Observed
from settlement.alerts.words import span

PAYMENT_RULES: Final = ("dispute_open", "payments_waiting")
#: A request is answered within a second or two; Stripe itself may be away for minutes.
WAITING_MAX_S: Final = 600


def payment_conditions(observed: Observed) -> Iterator[Condition]:
    payments = observed.payments
    if payments is None:
        return
    if payments.disputes_count:
        due = rfc3339(payments.dispute_due_by) if payments.dispute_due_by is not None else "unknown"
        yield Condition(
            "dispute_open", Group.BOOKS, Severity.WARNING,
            f"{payments.disputes_count} disputes wait for an answer, the first until {due}",
            news=payments.dispute_newest,
            facts=(("disputes", str(payments.disputes_count)), ("due by", due), ("newest", payments.dispute_newest)),
            advice="`clearinghouse payments disputes` lists them. Answer in Stripe's dashboard: without evidence the "
            "money is lost. Nothing is signed meanwhile for a gateway whose bank has taken money.",
        )  # fmt: skip
    if payments.unanswered_since is None:
        return
    waits_s = int((observed.now - payments.unanswered_since).total_seconds())
    if waits_s > WAITING_MAX_S:
        yield Condition(
            "payments_waiting", Group.BOOKS, Severity.WARNING,
            f"{payments.unanswered_count} payments or refunds wait for {span(waits_s)} to be asked of Stripe",
            facts=(("waiting", str(payments.unanswered_count)), ("for", span(waits_s))),
            advice="`clearinghouse payments list --state requested` says what is in the way. Does a `clearinghouse "
            "work` run with stripe.api_key_file?",
        )  # fmt: skip
