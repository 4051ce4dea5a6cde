"""Jobs that stand for nothing outside: the books are checked, and the record of runs is kept short.

What the services tidy up by themselves, they go on tidying up: they must do without a worker.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Final

from sqlalchemy import text

from clearinghouse.ledger.verify import Report, verify
from settlement.schedule import Job, JobFailed, Tick

_DAY_S: Final = 86_400
#: When the fewest are up: a check of large books reads all of them.
_VERIFY_AT_S: Final = 3 * 3600
_FORGET_AT_S: Final = 2 * 3600
_FORGOTTEN_AT_ONCE_COUNT: Final = 10_000
_DESCRIBED_MAX_COUNT: Final = 3


class LedgerNotInOrder(JobFailed):
    """The books contradict themselves: somebody has to look at once. `clearinghouse ledger verify` tells all of it."""


def ledger_verify() -> Job:
    """Every claim about the books, every day."""
    return Job("ledger-verify", _DAY_S, _verify, offset_s=_VERIFY_AT_S)


def forget_job_runs(*, kept: timedelta) -> Job:
    """Runs that ended longer ago than `kept`, but for the last ones of each job: what is due goes by them."""
    return forgetting("forget-job-runs", _FORGET, "runs", kept=kept)


def forgetting(name: str, statement: str, what: str, *, kept: timedelta) -> Job:
    """Every day deletes what is older than `kept`. `statement` deletes up to :count of what was before :before."""

    async def tick(tick: Tick) -> str:
        forgotten = 0
        while True:
            async with tick.transaction() as connection:
                values = {"before": tick.now - kept, "count": _FORGOTTEN_AT_ONCE_COUNT}
                count = (await connection.execute(text(statement), values)).rowcount
            forgotten += count
            if count < _FORGOTTEN_AT_ONCE_COUNT:
                return f"{forgotten} {what} forgotten"

    return Job(name, _DAY_S, tick, offset_s=_FORGET_AT_S)


_FORGET: Final = """
    DELETE FROM job_run WHERE id IN (
        SELECT old.id FROM job_run AS old WHERE old.ended_at < :before
           AND EXISTS (
             SELECT FROM job_run AS newer
              WHERE newer.job = old.job AND newer.outcome = old.outcome
                AND newer.id > old.id
           ) LIMIT :count
    )
"""


async def _verify(tick: Tick) -> str:
    report = await verify(tick.engine)
    looked_at = ", ".join(f"{count} {name.replace('_', ' ')}" for name, count in report.counts.items())
    if not report.is_clean:
        raise LedgerNotInOrder(_violations(report))
    return f"the books are in order: {looked_at}"


def _violations(report: Report) -> str:
    counts = ", ".join(f"{each.claim}: {each.violations}" for each in report.verdicts if each.violations)
    described = "; ".join(f"{each.subject}: {each.detail}" for each in report.findings[:_DESCRIBED_MAX_COUNT])
    return f"violations of {counts}; {described}"
