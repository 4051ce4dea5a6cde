"""Ledger ↔ Stripe: invoices, credit notes, payments, refunds and disputes, one by one; fees and payouts by what they
were taken and made of (stripe_balance.py).

Stripe's side is in the temporary tables of stripe_copies.py, ours in the snapshot. A charge that the books do not know
and that was given back in full is nobody's loss, and no difference: so ends a payment that somebody made twice.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from psycopg.errors import InsufficientPrivilege
from sqlalchemy import text
from sqlalchemy.exc import ProgrammingError
from sqlalchemy.ext.asyncio import AsyncConnection

from clearinghouse.config_stripe import StripeSettings
from settlement.reconciliation import stripe_balance
from settlement.reconciliation import stripe_queries as queries
from settlement.reconciliation.report import Amount, Compared, Difference, Period, Section, by_unit
from settlement.reconciliation.stripe_copies import StripeCopies
from settlement.stripe_link.client import StripeAway, StripeRefused, stripe_link

NAME: Final = "stripe"
TITLE: Final = "Ledger ↔ Stripe"
_NO_TABLES: Final = (
    "no temporary tables may be made in this database: `GRANT TEMPORARY ON DATABASE … TO clearinghouse_admin`, as "
    "deploy/roles.sql does"
)


def begun() -> Section:
    return Section(NAME, TITLE)


async def copied(
    section: Section, connection: AsyncConnection, settings: StripeSettings, period: Period, tell: Callable[[str], None]
) -> bool:
    """Reads Stripe's side, before the books are seen. False where it could not be read: the section says why."""
    if settings.api_key is None:
        section.leave_out("no key of Stripe's is set (stripe.api_key_file)")
        return False
    tell("reading what Stripe has")
    async with stripe_link(settings) as link:
        copies = StripeCopies(connection, link, period, tell)
        try:
            await copies.prepare()
        except ProgrammingError as error:
            if not isinstance(error.orig, InsufficientPrivilege):
                raise
            await connection.rollback()
            section.leave_out(_NO_TABLES)
            return False
        try:
            await copies.copy_lists()
            moved = await stripe_balance.compare(section, copies, lambda path: _address(path, settings))
            await copies.copy_others()
        except (StripeAway, StripeRefused) as reason:
            await connection.rollback()
            section.leave_out(f"Stripe does not show it: {reason}")
            return False
        section.compared += moved
    return True


async def compare(section: Section, connection: AsyncConnection, settings: StripeSettings, period: Period) -> None:
    """`connection` is in the snapshot, and has the tables."""
    values = period._asdict()
    compared = []
    for what, query in queries.COMPARED.items():
        rows = (await connection.execute(text(query), values)).all()
        sums = by_unit((row.unit, row.amount) for row in rows if row.unit is not None)
        compared.append(Compared(what, sum(row.found_count for row in rows), sums))
    section.compared[:0] = compared
    for name, query in queries.DIFFERENCES.items():
        async for row in await connection.stream(text(query), values):
            section.differs(_difference(name, row, settings))


def _difference(name: str, row: Any, settings: StripeSettings) -> Difference:
    link = row.link if row.link.startswith("clearinghouse ") else _address(row.link, settings)
    return Difference(name, row.subject, Amount(row.amount, row.unit), row.detail, link)


def _address(path: str, settings: StripeSettings) -> str:
    """Where a person sees it: in Stripe's dashboard, or at the API of another Stripe."""
    if settings.api_url != "https://api.stripe.com":
        return f"{settings.api_url}/v1/{path}"
    mode = "" if settings.livemode else "test/"
    kind, _, id_ = path.partition("/")
    pages = {"charges": "payments", "credit_notes": "credit_notes"}
    return f"https://dashboard.stripe.com/{mode}{pages.get(kind, kind)}/{id_}"
