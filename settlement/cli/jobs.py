"""`clearinghouse jobs`: what is done on a schedule, how it went, and doing it now."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from clearinghouse.cli.context import DataDir, database, database_explained, settings_of, with_engine
from clearinghouse.cli.output import AsJson, print_json, print_table
from clearinghouse.errors import Conflict, NotFound
from settlement.cli.stripe_of_dev import settings_with_stripe

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncEngine

    from clearinghouse.config import Settings
    from clearinghouse.job_runs import Run
    from settlement.schedule import Job

_HELP = """What `clearinghouse work` does on a schedule. Alone it shows every job: its last run and its next, how long
it took, how often it failed, and what is late.

\b
Examples:
  clearinghouse jobs
  clearinghouse jobs run ledger-verify
"""
_EXIT_FAILED = 1

app = typer.Typer(invoke_without_command=True, help=_HELP)


class JobRunning(Conflict):
    """Somebody is at it: a job is run once at a time, whoever starts it."""

    what_next = "Wait until it has ended; `clearinghouse jobs` shows when."


@app.callback()
def show(context: typer.Context, data_dir: DataDir = None, as_json: AsJson = False) -> None:
    """Replaced by _HELP."""
    if context.invoked_subcommand is None:
        _show(settings_of(data_dir), as_json)


@app.command("run")
def run_job(
    name: Annotated[str, typer.Argument(metavar="NAME", help="As `clearinghouse jobs` has it.")],
    data_dir: DataDir = None,
    as_json: AsJson = False,
) -> None:
    """Run a job now, here, whether it is due or not; exit status 1 if it fails. Refused while it runs elsewhere.

    It is recorded as any other run, and the schedule does not do again what it did. Needs a login with the rights of
    clearinghouse_work.

    \b
    Example: clearinghouse jobs run ledger-verify
    """
    import asyncio

    from clearinghouse.config import LogSettings
    from clearinghouse.job_runs import Outcome, run_document
    from clearinghouse.log import configure_logging

    settings = settings_with_stripe(data_dir)
    job = _job_of(settings, name)
    configure_logging(LogSettings(format="console", level="warning"))
    with database_explained(), database(settings) as conninfo:
        run = asyncio.run(_run(conninfo, job))
    if as_json:
        print_json({"name": job.name, **run_document(run)})
    else:
        typer.echo(f"{job.name}: {_told(run_document(run))}")
    if run.outcome is not Outcome.OK:
        raise typer.Exit(_EXIT_FAILED)


def _job_of(settings: Settings, name: str) -> Job:
    from prometheus_client import CollectorRegistry

    from settlement.jobs import jobs_of

    jobs = jobs_of(settings, CollectorRegistry())
    for job in jobs:
        if job.name == name:
            return job
    raise NotFound(f"There is no job {name!r}; there are {', '.join(sorted(job.name for job in jobs))}.")


async def _run(conninfo: str, job: Job) -> Run:
    from settlement.lease import Lease
    from settlement.runs import Runner, RunsElsewhere, process_name, tick_engine

    engine = tick_engine(conninfo)
    try:
        async with await Lease.connected(conninfo) as lease:
            run = await Runner(lease, engine, process_name(), lease.now).run(job, by_hand=True)
            assert run is not None, "by hand it is always due"
            return run
    except RunsElsewhere as reason:
        raise JobRunning(f"{reason}.") from reason
    finally:
        await engine.dispose()


def _show(settings: Settings, as_json: bool) -> None:
    from clearinghouse.database.connect import database_now
    from clearinghouse.job_runs import jobs_document, lead, standings

    async def look(engine: AsyncEngine) -> dict[str, Any]:
        async with engine.connect() as connection:
            return jobs_document(await standings(connection), await lead(connection), await database_now(connection))

    document = with_engine(settings, look)
    if as_json:
        print_json(document)
        return
    columns = ("job", "every", "last run", "took", "what came of it", "failures", "next run")
    rows = [[each["name"], _span(each["every_s"]), *_last(each), str(each["failures_count"]), _next(each)] for each in
            document["items"]]  # fmt: skip
    print_table(columns, rows, right=[3, 5], if_empty="No worker has registered a job yet: run `clearinghouse work`.")
    leader = document["leader"]
    typer.echo(f"\nled by {leader} since {document['leads_since']}" if leader else "\nNOBODY LEADS: no worker runs.")


def _last(item: dict[str, Any]) -> list[str]:
    if (last := item["last"]) is None:
        return ["never", "", ""]
    return [last["started_at"], f"{last['duration_ms']} ms", _told(last)]


def _told(run: dict[str, Any]) -> str:
    return f"{run['outcome']}: {run['said'] or run['error'] or run['error_kind'] or 'its process was given up'}"


def _next(item: dict[str, Any]) -> str:
    running = "running, then " if item["running_since"] else ""
    late = f" LATE: {item['late']}" if item["late"] else ""
    return f"{running}{item['next_at']}{late}"


def _span(seconds: int) -> str:
    for unit_s, unit in ((86_400, "d"), (3600, "h"), (60, "m")):
        if seconds % unit_s == 0:
            return f"{seconds // unit_s}{unit}"
    return f"{seconds}s"
