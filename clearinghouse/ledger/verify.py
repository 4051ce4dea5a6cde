"""Checks the books: every claim of `clearinghouse.ledger.claims`, in one snapshot, while the service works on."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Final

from sqlalchemy import text

from clearinghouse.database.connect import snapshot
from clearinghouse.ledger.claims import CLAIMS, COST, Claim

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

#: Violations described per claim. Counted are all of them: a broken total must not hide behind a thousand broken rows.
FINDINGS_MAX_PER_CLAIM: Final = 100


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is wrong: `subject` is an id or a name, `detail` has the numbers."""

    claim: str
    subject: str
    detail: str


@dataclass(frozen=True, slots=True)
class Verdict:
    """How one claim fared. `violations` counts all, also those that are not described in the findings."""

    claim: str
    sentence: str
    violations: int


@dataclass(frozen=True, slots=True)
class Report:
    """The state of the books at `taken_at`. `counts` says how much was looked at."""

    taken_at: datetime
    counts: dict[str, int]
    verdicts: tuple[Verdict, ...]
    findings: tuple[Finding, ...]

    @property
    def is_clean(self) -> bool:
        return not any(verdict.violations for verdict in self.verdicts)


_COUNTS: Final = f"""
    SELECT (SELECT count(*) FROM gateway) AS gateways, (SELECT count(*) FROM account) AS accounts,
           (SELECT count(*) FROM transfer) AS transfers, (SELECT count(*) FROM credit_lot) AS credit_lots,
           (SELECT count(*) FROM session) AS sessions, (SELECT count(*) FROM issuance) AS issuances,
           (SELECT count(*) FROM issuance WHERE rate_rule IS NULL AND charge > {COST}) AS minimum_charges
"""  # noqa: S608


async def verify(engine: AsyncEngine, *, findings_max_per_claim: int = FINDINGS_MAX_PER_CLAIM) -> Report:
    """Check every claim, whatever the ones before it showed. Reads only; needs SELECT on the tables.

    All queries see one instant (REPEATABLE READ), so payments committed meanwhile do not look like errors.
    """
    async with snapshot(engine) as connection:
        await connection.execute(text("SET LOCAL work_mem = '64MB'"))  # large sorts should not go to disk at once
        taken_at = (await connection.execute(text("SELECT now()"))).scalar_one()
        counts = dict((await connection.execute(text(_COUNTS))).mappings().one())
        verdicts: list[Verdict] = []
        findings: list[Finding] = []
        for claim in CLAIMS:
            violations, described = await _check(connection, claim, findings_max_per_claim)
            verdicts.append(Verdict(claim.name, claim.sentence, violations))
            findings += described
    return Report(taken_at, counts, tuple(verdicts), tuple(findings))


async def _check(connection: AsyncConnection, claim: Claim, findings_max: int) -> tuple[int, list[Finding]]:
    """How many violations there are, and the first of them."""
    query = f"""SELECT subject, detail, count(*) OVER () AS violations
                  FROM ({claim.violations}) AS violation ORDER BY subject, detail LIMIT :findings_max"""  # noqa: S608
    rows = (await connection.execute(text(query), {"findings_max": max(findings_max, 1)})).all()
    described = [Finding(claim.name, row.subject, row.detail) for row in rows[:findings_max]]
    return (rows[0].violations if rows else 0), described
