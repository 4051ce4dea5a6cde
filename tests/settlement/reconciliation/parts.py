"""What the tests of the report have in common: the report of today, and what it says in few words."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy.ext.asyncio import AsyncEngine

from clearinghouse.config import Settings
from clearinghouse.ledger.money import show_amount
from settlement.reconciliation.report import Period, Report, Section
from settlement.reconciliation.run import reconciled
from tests.parts.stripe import LinkedStripe

DAY = timedelta(days=1)


async def report_of(engine: AsyncEngine, stripe: LinkedStripe | None = None, **settings: Any) -> Report:
    """Over yesterday, today and tomorrow; at once, also of what signers reported just now."""
    now = datetime.now(UTC)
    chosen = Settings(signer_events={"grace_s": 0}, **settings)
    if stripe is not None:
        chosen = chosen.model_copy(update={"stripe": stripe.settings})
    return await reconciled(engine, chosen, Period(now - DAY, now + DAY))


def section(report: Report, name: str) -> Section:
    (found,) = [one for one in report.sections if one.name == name]
    return found


def differences(report: Report) -> set[tuple[str, str, str]]:
    """(name, amount, unit) of all."""
    return {
        (one.name, show_amount(one.amount.value), one.amount.unit) if one.amount is not None else (one.name, "", "")
        for part in report.sections
        for one in part.differences
    }


def compared(of: Section) -> dict[str, tuple[int, list[str]]]:
    """What was compared: how many, and what they sum up to."""
    return {
        one.what: (one.count, [f"{show_amount(sum_.value)} {sum_.unit}" for sum_ in one.sums]) for one in of.compared
    }
