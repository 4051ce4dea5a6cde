"""Ledger ↔ issuances: what every issuance is charged, and what the accounts say of them together.

Whether it adds up is asked by the claims of `clearinghouse ledger verify` that are about amounts: over all of the books
and not over the period, since a balance follows from all that ever was. What was issued and booked in the period is
summed up beside it.
"""

from __future__ import annotations

from decimal import Decimal
from typing import Any, Final

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from clearinghouse.ids import made_between
from clearinghouse.ledger.claims import CLAIMS, Claim
from settlement.reconciliation.report import Amount, Compared, Difference, Period, Section, by_unit, wei

NAME: Final = "ledger_issuances"
TITLE: Final = "Ledger ↔ issuances"
OF_AMOUNTS: Final = tuple(claim for claim in CLAIMS if claim.is_of_amounts)
_LINK: Final = "clearinghouse ledger verify"


async def compare(connection: AsyncConnection, period: Period) -> Section:
    """`connection` is in a snapshot."""
    section = Section(NAME, TITLE)
    first_id, end_id = made_between(*period)
    values = {**period._asdict(), "first_id": first_id, "end_id": end_id}
    issued = (await connection.execute(text(_ISSUED), values)).all()
    section.compared += [
        Compared("issuances of the period", sum(row.found_count for row in issued),
                 by_unit((row.currency, row.charge) for row in issued)),
        Compared("their expected value", sum(row.found_count for row in issued),
                 (wei(sum((row.ev_wei for row in issued), Decimal(0))),)),
        *await _entries(connection, values),
        Compared(f"accounts of gateways, by {len(OF_AMOUNTS)} claims over all of the books",
                 (await connection.execute(text(_ACCOUNTS))).scalar_one()),
    ]  # fmt: skip
    for claim in OF_AMOUNTS:
        await _check(connection, section, claim)
    return section


async def _entries(connection: AsyncConnection, values: dict[str, Any]) -> list[Compared]:
    rows = (await connection.execute(text(_BOOKED), values)).all()
    kinds = dict.fromkeys(row.kind for row in rows)
    return [
        Compared(f"entries of kind {kind}", sum(row.found_count for row in rows if row.kind == kind),
                 by_unit((row.currency, row.amount) for row in rows if row.kind == kind))
        for kind in kinds
    ]  # fmt: skip


async def _check(connection: AsyncConnection, section: Section, claim: Claim) -> None:
    """All violations are read, and as they come: the section describes a few, and counts and sums every one."""
    query = f"""SELECT subject, detail, amount, unit FROM ({claim.violations}) AS violation
                 ORDER BY subject, detail"""  # noqa: S608
    async for row in await connection.stream(text(query)):
        amount = Amount(row.amount, row.unit) if row.unit is not None else None
        section.differs(Difference(claim.name, row.subject, amount, row.detail, _LINK))


_ISSUED: Final = """
    SELECT issued.currency, count(*) AS found_count, sum(charge) AS charge, sum(ev_wei) AS ev_wei
      FROM gateway
      JOIN LATERAL (SELECT currency, charge, ev_wei::numeric AS ev_wei FROM issuance
                     WHERE gateway_id = gateway.id AND id >= :first_id AND id < :end_id
                       AND created_at >= :begins_at AND created_at < :ends_at OFFSET 0) AS issued ON true
     GROUP BY issued.currency ORDER BY 1
"""
#: What enters accounts of gateways is above 0, what leaves them below.
_BOOKED: Final = """
    SELECT kind, transfer.currency, count(*) AS found_count,
           sum(CASE WHEN destination = gateway.id THEN amount ELSE -amount END) AS amount
      FROM transfer JOIN gateway ON gateway.id IN (source, destination)
     WHERE transfer.created_at >= :begins_at AND transfer.created_at < :ends_at GROUP BY 1, 2 ORDER BY 1, 2
"""
_ACCOUNTS: Final = "SELECT count(*) FROM account WHERE gateway_id IS NOT NULL"
