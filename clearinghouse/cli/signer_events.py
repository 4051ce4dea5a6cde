"""`clearinghouse reconcile signer-events` and `signer-events`: is a signer used behind our back?"""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from clearinghouse.cli.context import (
    BadConfiguration,
    ConfigFile,
    DataDir,
    actor,
    embedded_database,
    in_transaction,
    settings_of,
    with_engine,
)
from clearinghouse.cli.output import AsJson, print_json, print_table

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable
    from datetime import datetime

    from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

    from clearinghouse.signer_events.reconcile import Finding, Report
    from clearinghouse.signer_events.store import Counts

_RECONCILE_HELP = """Compare the books with what others report.

\b
Example: clearinghouse reconcile signer-events --since 24h
"""
_EVENTS_HELP = """What signers report: read it from Kafka, and put findings aside.

\b
Example: clearinghouse signer-events consume --config /etc/clearinghouse/clearinghouse.toml
"""
_EXIT_CRITICAL: Final = 1
_FINDINGS_SHOWN_MAX: Final = 1000
_EVENTS_BETWEEN_LINES: Final = 50_000

reconcile_app = typer.Typer(no_args_is_help=True, help=_RECONCILE_HELP)
events_app = typer.Typer(no_args_is_help=True, help=_EVENTS_HELP)


@reconcile_app.command("signer-events")
def signer_events(
    file: Annotated[
        Path | None, typer.Option("--file", metavar="FILE", help="First record the events of this file, one a line.")
    ] = None,
    since: Annotated[
        str | None,
        typer.Option(metavar="SPAN", help="How far back to look. Default: the first event of --file, else 24h."),
    ] = None,
    config: ConfigFile = None,
    data_dir: DataDir = None,
    as_json: AsJson = False,
) -> None:
    """Compare what the signers report with what was issued; exit status 1 while a critical finding is open.

    A payment that a signer signed and the books do not have was signed behind our back. Nobody is charged by this
    command. Events younger than signer_events.grace_s are left for later.

    \b
    Examples:
      clearinghouse reconcile signer-events --since 24h
      clearinghouse reconcile signer-events --file events.jsonl --json
    """
    from datetime import UTC, datetime, timedelta

    from clearinghouse.configured import expected_payments
    from clearinghouse.instants import parse_span
    from clearinghouse.signer_events.reconcile import APART_MAX, open_findings, reconcile

    span = parse_span(since) if since is not None else None
    settings = settings_of(data_dir, config=config)

    async def work(engine: AsyncEngine) -> tuple[Report, Counts | None, list[Finding]]:
        counts = await _record(engine, file) if file is not None else None
        now = datetime.now(UTC)
        begins_at = now - (span or timedelta(hours=24))
        if span is None and counts is not None:
            begins_at = (counts.earliest or now) - APART_MAX
        report = await reconcile(
            engine,
            begins_at=begins_at,
            ends_at=now - timedelta(seconds=settings.signer_events.grace_s),
            expected=expected_payments(settings),
            on_window=_show_windows(),
        )
        async with engine.connect() as connection:
            return report, counts, await open_findings(connection, limit=_FINDINGS_SHOWN_MAX)

    report, counts, findings = with_engine(settings, work)
    if as_json:
        print_json(_document(report, counts, findings))
    else:
        _print(report, counts, findings)
    if any(finding.severity == "critical" for finding in findings):
        raise typer.Exit(_EXIT_CRITICAL)


@events_app.command()
def consume(config: ConfigFile = None, data_dir: DataDir = None) -> None:
    """Read the signers' events from Kafka, until SIGTERM or Ctrl-C.

    `serve` does this by itself where signer_events.kafka_bootstrap_servers is set; a process of its own keeps the work
    away from the calls. Comparing is done by `serve`, or by `clearinghouse reconcile signer-events`.

    \b
    Example: clearinghouse signer-events consume --config /etc/clearinghouse/clearinghouse.toml
    """
    from clearinghouse.configured import kafka_source
    from clearinghouse.database.connect import SERVE_ROLE, async_engine, in_role
    from clearinghouse.log import configure_logging
    from clearinghouse.process import run
    from clearinghouse.signer_events.kafka import KafkaIntake, KafkaNotInstalled
    from clearinghouse.signer_events.store import Intake, log_bad_event

    settings = settings_of(data_dir, config=config)
    if (source := kafka_source(settings.signer_events)) is None:
        raise BadConfiguration("signer_events.kafka_bootstrap_servers and signer_events.kafka_topic are needed.")
    configure_logging(settings.log)

    async def main(stop: asyncio.Event) -> None:
        engine = async_engine(in_role(conninfo, SERVE_ROLE, application_name="clearinghouse-events"), pool_size=1)
        try:
            consumer = KafkaIntake(source, Intake(engine, on_bad=log_bad_event))
            consumer.start()
            typer.echo(f"reading {source.topic} as {source.group}", err=True)
            await stop.wait()
            await consumer.stop()
        finally:
            await engine.dispose()

    try:
        with ExitStack() as stack:
            url = settings.database_url
            conninfo = url.get_secret_value() if url else stack.enter_context(embedded_database(settings))
            run(main)
    except KafkaNotInstalled as error:
        raise BadConfiguration(str(error)) from error


@events_app.command()
def accept(
    kind: Annotated[str, typer.Argument(metavar="KIND", help="As `reconcile signer-events` shows it.")],
    subject: Annotated[str, typer.Argument(metavar="SUBJECT", help="As `reconcile signer-events` shows it.")],
    reason: Annotated[str, typer.Option(help="What was found out. Kept with the finding.")],
    data_dir: DataDir = None,
    as_json: AsJson = False,
) -> None:
    """Put an open finding aside that somebody has looked into: it raises no alarm any more.

    \b
    Example: clearinghouse signer-events accept event_without_issuance 6e1b… --reason "our own test of 21 November"
    """
    from clearinghouse.errors import InvalidRequest
    from clearinghouse.signer_events.reconcile import accept_finding

    if not 1 <= len(reason) <= 1000:
        raise InvalidRequest("--reason must have 1 to 1000 characters")

    async def work(connection: AsyncConnection) -> None:
        await accept_finding(connection, kind, subject, reason=reason, actor=actor())

    in_transaction(settings_of(data_dir), work)
    if as_json:
        print_json({"kind": kind, "subject": subject, "reason": reason})
        return
    typer.echo(f"{kind} {subject} is put aside")


async def _record(engine: AsyncEngine, file: Path) -> Counts:
    from clearinghouse.errors import InvalidRequest
    from clearinghouse.signer_events.store import record_file

    try:
        return await record_file(engine, file, on_progress=_show_lines)
    except OSError as error:
        raise InvalidRequest(f"--file {file}: {error.strerror}") from error


def _show_lines(counts: Counts) -> None:
    if (lines := sum(counts.lines.values())) % _EVENTS_BETWEEN_LINES == 0:
        typer.echo(f"{lines} lines recorded …", err=True)


def _show_windows() -> Callable[[Report, datetime], None]:
    """A line for every so many events, however many windows they take."""
    shown = 0

    def show(report: Report, until: datetime) -> None:
        nonlocal shown
        if report.events - shown >= _EVENTS_BETWEEN_LINES:
            shown = report.events
            typer.echo(f"{shown} events compared, until {until:%Y-%m-%d %H:%M} UTC …", err=True)

    return show


def _document(report: Report, counts: Counts | None, findings: list[Finding]) -> dict[str, Any]:
    from datetime import datetime

    from clearinghouse.instants import rfc3339

    def shown(value: Any) -> Any:
        return rfc3339(value) if isinstance(value, datetime) else value

    return {
        "begins_at": rfc3339(report.begins_at),
        "ends_at": rfc3339(report.ends_at),
        "lines": {str(kind): count for kind, count in counts.lines.items()} if counts is not None else None,
        "bad_lines": [{"where": where, "why": why} for where, why in (counts.bad if counts is not None else [])],
        "events": report.events,
        "found": {str(kind): count for kind, count in report.found.items()},
        "open_findings": [
            {
                name: rfc3339(value) if isinstance(value, datetime) else value
                for name, value in finding._asdict().items()
            }
            for finding in findings
        ],
    }


def _print(report: Report, counts: Counts | None, findings: list[Finding]) -> None:
    if counts is not None:
        typer.echo(", ".join(f"{count} {kind}" for kind, count in counts.lines.items() if count) + " lines")
        for where, why in counts.bad:
            typer.echo(f"bad line {where}: {why}")
    rows = [
        [finding.severity, finding.kind, f"{finding.happened_at:%Y-%m-%d %H:%M:%S}", finding.subject, finding.detail]
        for finding in findings
    ]
    print_table(("severity", "kind", "happened (UTC)", "subject", "detail"), rows, if_empty="Nothing is open.")
    found = ", ".join(f"{count} {kind}" for kind, count in report.found.items() if count) or "nothing found"
    typer.echo(f"\n{report.events} events compared: {found}.")
