"""Ledger ↔ Stripe: invoices, credit notes, payments, refunds and disputes, one by one; fees and payouts in sum.

Stripe's side is in the temporary tables of stripe_copies.py, ours in the snapshot. A charge that the books do not know
and that was given back in full is nobody's loss, and no difference: so ends a payment that somebody made twice. What
Stripe keeps for its services, and what it pays out, is in no entry of the books: it is summed up, for whoever has the
account of the bank.
"""

from __future__ import annotations

from collections.abc import Callable
from decimal import Decimal
from typing import Any, Final

from psycopg.errors import InsufficientPrivilege
from sqlalchemy import text
from sqlalchemy.exc import ProgrammingError
from sqlalchemy.ext.asyncio import AsyncConnection

from clearinghouse.config_stripe import StripeSettings
from settlement.payments.amounts import amount_of
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
#: (of which, its type) -> how many, sums by what.
_Sums = dict[tuple[str, str], tuple[int, dict[str, Decimal]]]


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
            moved = await _moved(section, copies)
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


async def _moved(section: Section, copies: StripeCopies) -> list[Compared]:
    """The account's balance at Stripe: what moved by its type, what Stripe kept of it, and what was paid out. Nothing,
    where Stripe does not show it: the section says so.
    """
    sums: _Sums = {}
    try:
        async for movement in copies.movements():
            _add(sums, "movements at Stripe of type", movement.type, movement.currency, movement.amount)
            if movement.fee:
                _add(sums, "fees kept by Stripe of movements of type", movement.type, movement.currency, -movement.fee)
        async for payout in copies.payouts():
            _add(sums, "payouts that are", payout.status, payout.currency, payout.amount)
    except (StripeAway, StripeRefused) as reason:
        section.leave_out(f"fees and payouts: Stripe does not show them, nor what else moved its balance: {reason}")
        return []
    if not sums:
        return [Compared("movements of the balance at Stripe", 0)]
    return [
        Compared(f"{what} {kind}", count, by_unit(sorted(amounts.items())))
        for (what, kind), (count, amounts) in sorted(sums.items(), reverse=True)
    ]


def _add(sums: _Sums, what: str, kind: str, currency: str, minor: int) -> None:
    count, amounts = sums.get((what, kind), (0, {}))
    unit = currency.upper()
    amounts[unit] = amounts.get(unit, Decimal(0)) + amount_of(minor, currency)
    sums[what, kind] = count + 1, amounts
