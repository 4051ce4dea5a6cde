"""What is read of payments, invoices, periods and holds. docs/monitoring.md says what each number means.

Each query goes by an index over what is not final, or over a day: none gets slower as the books grow. Ages are the
database's, so that they are the same wherever they are read.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import timedelta
from decimal import Decimal
from itertools import product
from typing import Final, NamedTuple

from sqlalchemy import String, TextClause, bindparam, text
from sqlalchemy.ext.asyncio import AsyncConnection

from clearinghouse.dunning_steps import OPEN_STATES, Policy
from clearinghouse.payments import METHODS
from settlement.invoices.store import NOT_FINAL
from settlement.payments.operators import RECEIPT_METHODS

_METHODS: Final = (*METHODS, "automatic", "cash_balance", *RECEIPT_METHODS)
_ENDS: Final = ("succeeded", "failed", "expired", "canceled")
#: Of disputes, in Stripe's words; what is new there is `other`.
_DISPUTED: Final = ("needs_response", "under_review", "warning_needs_response", "warning_under_review", "other")
#: How far dunning has come with an invoice; the last two hold back its gateway.
STAGES: Final = ("not_due", "overdue", "new_sessions", "signing")
_SOURCES: Final = ("dunning", "dispute", "operator")
_HOLDS: Final = ("new_sessions", "signing")

Labels = tuple[str, ...]
#: By labels, one value for each name of the figure.
Rows = Mapping[Labels, Sequence[int | Decimal]]


class Figure(NamedTuple):
    """One query: columns of labels, then one value for each name. `known`: labels that are 0 where there is no row."""

    names: tuple[tuple[str, str], ...]
    labels: tuple[str, ...]
    known: tuple[Labels, ...]
    query: str


def _each(*labels: Sequence[str]) -> tuple[Labels, ...]:
    return tuple(product(*labels))


FIGURES: Final = (
    Figure(
        (("payments_ended_day", "Payments that ended within 24 hours, by how."),),
        ("method", "outcome"), _each(_METHODS, _ENDS),
        "SELECT method, state, count(*) FROM payment WHERE ended_at > now() - interval '24 hours' GROUP BY 1, 2",
    ),
    Figure(
        (("payments_open", "Payments that Stripe knows of, and that wait for who pays or for a bank."),),
        ("method",), _each(_METHODS),
        "SELECT method, count(*) FROM payment WHERE ended_at IS NULL AND state IN ('open', 'processing') GROUP BY 1",
    ),
    Figure(
        (("payments_waiting", "Payments and refunds still to be asked of Stripe, and receipts still to be approved."),
         ("payments_oldest_seconds", "How long the oldest of them has waited; 0 without one.")),
        ("kind",), _each(("payment", "refund", "receipt")),
        """SELECT kind, count(*), extract(epoch FROM now() - min(created_at)) FROM (
               SELECT CASE WHEN method IN :receipts THEN 'receipt' ELSE 'payment' END AS kind, created_at
                 FROM payment WHERE state = 'requested'
                UNION ALL SELECT 'refund', created_at FROM refund WHERE state = 'requested') AS waiting GROUP BY 1""",
    ),
    Figure(
        (("refunds_under_way", "Refunds that banks have not confirmed."),), ("state",), _each(("requested", "pending")),
        "SELECT state, count(*) FROM refund WHERE state IN ('requested', 'pending') GROUP BY 1",
    ),
    Figure(
        (("refunds_ended_day", "Refunds that ended within 24 hours, by how."),),
        ("outcome",), _each(("succeeded", "failed", "canceled")),
        "SELECT state, count(*) FROM refund WHERE ended_at > now() - interval '24 hours' GROUP BY 1",
    ),
    Figure(
        (("disputes_open", "Disputes that have not ended, by Stripe's word for how they stand."),),
        ("status",), _each(_DISPUTED),
        """SELECT CASE WHEN status IN :disputed THEN status ELSE 'other' END, count(*)
             FROM dispute WHERE ended_at IS NULL GROUP BY 1""",
    ),
    Figure(
        (("invoices", "Invoices that are not final, by state."),
         ("invoices_oldest_seconds", "How long the oldest has been in this state; 0 without one.")),
        ("state",), _each(NOT_FINAL),
        """SELECT state, count(*), extract(epoch FROM now() - min(state_at)) FROM invoice
            WHERE state IN :not_final GROUP BY 1""",
    ),
    Figure(
        (("invoices_held", "Invoices that do not go on because of a problem."),), (), ((),),
        "SELECT count(*) FROM invoice WHERE state IN :not_final AND problem IS NOT NULL",
    ),
    Figure(
        (("invoices_due", "What invoices still ask for, by currency, for curves."),), ("currency",), (),
        """SELECT currency, sum(remaining_minor / power(10::numeric, decimals)) FROM invoice
             WHERE state IN :owed AND remaining_minor > 0 GROUP BY 1""",
    ),
    Figure(
        (("invoices_unpaid", "Invoices that are not paid, by how far dunning has come."),),
        ("stage",), _each(STAGES),
        """SELECT CASE WHEN due_at > now() THEN 'not_due' WHEN due_at > now() - :new_sessions THEN 'overdue'
                        WHEN due_at > now() - :signing THEN 'new_sessions' ELSE 'signing' END, count(*)
              FROM invoice WHERE state IN :owed AND remaining_minor > 0 GROUP BY 1""",
    ),
    Figure(
        (("billing_holds", "Gateways that something is not signed for, by who says so."),),
        ("source", "hold"), _each(_SOURCES, _HOLDS),
        "SELECT source, hold, count(*) FROM billing_hold GROUP BY 1, 2",
    ),
    Figure(
        (("billing_periods_lag_seconds", "Since a period ended that is not closed: the longest; 0 where all are."),),
        (), ((),),
        # A calendar that was not reckoned since its period ended is late by itself.
        """SELECT coalesce(extract(epoch FROM now() - min(due_at)), 0)
             FROM (SELECT CASE WHEN coalesce(closed.until, gateway.created_at) < period.begins_at
                               THEN period.begins_at ELSE period.ends_at END AS due_at
                     FROM current_period AS period JOIN gateway ON gateway.id = period.gateway_id
                     CROSS JOIN LATERAL (SELECT max(ends_at) AS until FROM billing_period
                                          WHERE gateway_id = period.gateway_id) AS closed) AS calendar
            WHERE due_at < now()""",
    ),
)  # fmt: skip


async def read(connection: AsyncConnection, figure: Figure, policy: Policy) -> Rows:
    """As it is now, with 0 for what there is nothing of."""
    query, width = bound(figure.query, policy), len(figure.labels)
    found: dict[Labels, Sequence[int | Decimal]] = {labels: (0,) * len(figure.names) for labels in figure.known}
    for row in await connection.execute(query):
        found[tuple(row[:width])] = tuple(row[width:])
    return found


def bound(query: str, policy: Policy) -> TextClause:
    """With its values. Words are written into it: only by constants the indexes over what is not final are found."""
    clause = text(query)
    words = {"receipts": RECEIPT_METHODS, "disputed": _DISPUTED, "not_final": NOT_FINAL, "owed": OPEN_STATES}
    # In hours: a day of the database's time zone may have another length.
    spans = {
        "new_sessions": timedelta(hours=24 * policy.new_sessions_days),
        "signing": timedelta(hours=24 * policy.signing_days),
    }
    for name in clause.compile().params:
        if name in words:
            value = bindparam(name, words[name], String(), expanding=True, literal_execute=True)
        else:
            value = bindparam(name, spans[name])
        clause = clause.bindparams(value)
    return clause
