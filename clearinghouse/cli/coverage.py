"""`clearinghouse coverage`: how much the deposit covers, now and over time."""

from __future__ import annotations

import time
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from clearinghouse.cli.context import BadConfiguration, DataDir, settings_of, with_engine
from clearinghouse.cli.coverage_simulate import simulate
from clearinghouse.cli.output import AsJson, print_json, write_file

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncEngine

    from clearinghouse.config import Settings
    from clearinghouse.coverage.snapshots import Point

_HELP = """How much the deposit covers. Alone it shows each sender's coverage, as `serve` and `dev` last found it.

Coverage is the deposit over what open tickets may take from it: 1.00 is just enough, and below 1.25 gateways share what
is left. docs/coverage.md explains every number.

\b
Examples:
  clearinghouse coverage
  clearinghouse coverage --watch --every 10
  clearinghouse coverage --plot coverage.svg --since 30d
  clearinghouse coverage simulate --sessions 1000
"""
_CLEAR: Final = "\x1b[H\x1b[2J"
#: Of a curve: more than there are pixels.
_POINTS_MAX_COUNT: Final = 1_000

app = typer.Typer(invoke_without_command=True, help=_HELP)
app.command()(simulate)


@app.callback()
def show(  # noqa: PLR0917 - an option each
    context: typer.Context,
    watch: Annotated[bool, typer.Option("--watch", help="Show it again and again, until Ctrl-C.")] = False,
    every: Annotated[float, typer.Option(metavar="SECONDS", min=0.5, help="How often, with --watch.")] = 5,
    plot: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Draw deposit and liability over time: an .svg, or a .png (extra `plot`)."),
    ] = None,
    since: Annotated[str, typer.Option(metavar="SPAN", help="How far back to draw: 12h, 7d.")] = "7d",
    sender: Annotated[str | None, typer.Option(metavar="ADDRESS", help="Only this sender's.")] = None,
    data_dir: DataDir = None,
    as_json: AsJson = False,
) -> None:
    """Replaced by _HELP."""
    if context.invoked_subcommand is not None:
        return
    if watch and plot is not None:
        raise typer.BadParameter("--watch and --plot do not go together")
    settings = settings_of(data_dir)
    if plot is not None:
        _draw(settings, plot, since, sender, as_json=as_json)
        return
    with suppress(KeyboardInterrupt):
        while True:
            shown = _documents(settings, sender)
            if watch and not as_json:
                typer.echo(_CLEAR, nl=False)
            _print(shown, as_json=as_json)
            if not watch:
                return
            time.sleep(every)


def _documents(settings: Settings, sender: str | None) -> list[dict[str, Any]]:
    from clearinghouse.coverage.documents import SenderCoverage, coverage_document, read_all

    async def read(engine: AsyncEngine) -> list[SenderCoverage]:
        async with engine.connect() as connection:
            return await read_all(connection)

    wanted = _address(sender)[1] if sender is not None else None
    found = [coverage_document(each) for each in with_engine(settings, read)]
    return [document for document in found if wanted in {None, document["sender"]}]


def _print(documents: list[dict[str, Any]], *, as_json: bool) -> None:
    from clearinghouse.cli.coverage_show import print_coverage

    if as_json:
        print_json({"items": documents})
    elif not documents:
        typer.echo("Nothing was evaluated yet: `clearinghouse serve` and `clearinghouse dev` do it.")
    for document in () if as_json else documents:
        print_coverage(document)


def _draw(settings: Settings, file: Path, since: str, sender: str | None, *, as_json: bool) -> None:
    from clearinghouse.cli.coverage_plot import coverage_png, coverage_svg
    from clearinghouse.cli.drawing import NoPillow
    from clearinghouse.instants import parse_span

    if file.suffix.lower() not in {".svg", ".png"}:
        raise typer.BadParameter(f"{file} ends in neither .svg nor .png")
    known = [_address(document["sender"]) for document in _documents(settings, sender)]
    if len(known) != 1:
        names = ", ".join(shown for _, shown in known)
        raise BadConfiguration(f"--sender is needed: there are {names}" if known else "no such sender was evaluated")
    ((address, shown),) = known
    begins_at = datetime.now(UTC) - parse_span(since)
    points = with_engine(settings, lambda engine: _history(engine, address, begins_at, settings))
    if not points:
        raise BadConfiguration(f"there is no snapshot of {shown} since {begins_at:%Y-%m-%d %H:%M} UTC")
    if file.suffix.lower() == ".svg":
        write_file(file, coverage_svg(points, shown).encode())
    else:
        try:
            write_file(file, coverage_png(points, shown))
        except NoPillow as error:
            raise BadConfiguration(str(error)) from error
    if as_json:
        print_json({"file": str(file), "sender": shown, "points": len(points)})
    else:
        typer.echo(f"{file} has {len(points)} snapshots of {shown}.")


async def _history(engine: AsyncEngine, sender: bytes, since: datetime, settings: Settings) -> list[Point]:
    from clearinghouse.coverage.snapshots import history

    async with engine.connect() as connection:
        return await history(
            connection,
            sender,
            since=since,
            sigmas=settings.coverage.sigmas_count,
            points_max_count=_POINTS_MAX_COUNT,
        )


def _address(text: str) -> tuple[bytes, str]:
    """As bytes, and as it is shown. typer.BadParameter."""
    from chain.signatures import checksum_address, parse_address

    try:
        address = parse_address(text)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from error
    return address, checksum_address(address)
