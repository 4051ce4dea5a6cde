"""`clearinghouse doctor`: looks at everything a service needs, and says what to fix."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from clearinghouse.cli.context import BadConfiguration, DataDir, settings_of
from clearinghouse.cli.output import AsJson, print_json

if TYPE_CHECKING:
    from collections.abc import Sequence

    from clearinghouse.checkup.findings import Finding

_EXIT_ERRORS: Final = 1


def doctor(
    config: Annotated[
        Path | None,
        typer.Option(
            "--config", help="Settings in TOML. Default: the file CLEARINGHOUSE_CONFIG names.", show_default=False
        ),
    ] = None,
    data_dir: DataDir = None,
    as_json: AsJson = False,
) -> None:
    """Check configuration, database, worker, signers, chain, prices, TLS, clock and a running service; say what to fix.

    It reads only and starts nothing, so it may be run at any time. Exit status 1 if there is an error.

    \b
      clearinghouse doctor --config /etc/clearinghouse/clearinghouse.toml
      clearinghouse doctor --json | jq '.[] | select(.status != "ok")'
    """
    findings = _findings(config, data_dir)
    if as_json:
        print_json(
            [
                {"name": each.name, "status": each.status.value, "detail": each.detail, "what_to_do": each.what_to_do}
                for each in findings
            ]
        )
    else:
        _print(findings)
    if any(each.status == "error" for each in findings):
        raise typer.Exit(_EXIT_ERRORS)


def _findings(config: Path | None, data_dir: Path | None) -> list[Finding]:
    import asyncio

    from clearinghouse.checkup import configuration
    from clearinghouse.checkup.findings import error
    from clearinghouse.checkup.run import examine
    from clearinghouse.config_sources import CONFIG_VARIABLE

    try:
        settings = settings_of(data_dir, config=config)
    except BadConfiguration as refusal:
        return [error(configuration.NAME, refusal.message, "Correct it, then look again: the rest depends on it.")]
    named = os.environ.get(CONFIG_VARIABLE)
    config_file = config or (Path(named) if named else None)
    return asyncio.run(examine(settings, config_file=config_file))


def _print(findings: Sequence[Finding]) -> None:
    """A line for each; under what is not ok a line that says what to do."""
    width = max(len(each.name) for each in findings)
    for each in findings:
        mark = f"{each.status:<8}"
        typer.echo(f"{typer.style(mark, fg=_COLOURS[each.status])} {each.name:<{width}}  {each.detail}")
        if each.what_to_do:
            typer.echo(f"{'':<{9 + width}}  → {each.what_to_do}")
    counts = {status: sum(each.status == status for each in findings) for status in ("error", "warning")}
    shown = ", ".join(f"{count} {status}{'s' if count > 1 else ''}" for status, count in counts.items() if count)
    typer.echo(f"\n{shown or 'Everything is in order'}.")


_COLOURS: Final = {"ok": typer.colors.GREEN, "warning": typer.colors.YELLOW, "error": typer.colors.RED}
