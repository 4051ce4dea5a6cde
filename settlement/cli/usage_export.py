"""`clearinghouse usage export`: what was used, issuance by issuance, as a file."""

from __future__ import annotations

import sys
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from clearinghouse.cli.context import ConfigFile, DataDir, settings_of, with_engine
from clearinghouse.cli.gateways import GatewayName
from clearinghouse.cli.output import replacing
from clearinghouse.errors import InvalidRequest
from settlement.cli.spans import From, PeriodName, To, chooser
from settlement.exports.forms import Form

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from sqlalchemy.ext.asyncio import AsyncEngine

    from settlement.exports.reading import Exported


def export(
    gateway: GatewayName,
    *,
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="FILE", help="Where to. It takes this name once it is complete.")
    ],
    form: Annotated[Form, typer.Option("--format", help="What the file is.")] = Form.CSV,
    period: PeriodName = None,
    begin: From = None,
    end: To = None,
    config: ConfigFile = None,
    data_dir: DataDir = None,
) -> None:
    """Write every issuance of a period, or of a time, to a file: as CSV, JSON lines or Parquet.

    The columns are those of GET /v1/issuances. It may be of any length: it is read and written piece by piece, in one
    snapshot, while the service works on. A period that has ended gives the same bytes every time.

    \b
    Examples:
      clearinghouse usage export acme --period 2026-10 --format csv -o acme-2026-10.csv
      clearinghouse usage export acme --from 2026-10-01 --to 2026-10-07 --format parquet -o week.parquet
    """
    from clearinghouse.identity import gateways
    from settlement.exports.parquet import NoArrow
    from settlement.exports.reading import export_usage

    choose = chooser(period, begin, end)

    async def work(engine: AsyncEngine) -> Exported:
        async with engine.connect() as connection:
            found = await gateways.find(connection, gateway)
        with replacing(output) as file, _progress() as progress:
            return await export_usage(engine, found.id, choose, form, file, progress=progress)

    try:
        done = with_engine(settings_of(data_dir, config=config), work)
    except NoArrow as missing:
        raise InvalidRequest(str(missing)) from None
    if not done.is_final:
        typer.echo("It is not complete: the time has not ended, and more may come.", err=True)
    typer.echo(f"{done.rows} issuances written to {output}", err=True)


@contextmanager
def _progress() -> Iterator[Callable[[int, int], None]]:
    """A bar on standard error where that is a terminal; a function that is told how many of how many are done."""
    if not sys.stderr.isatty():
        yield lambda _done, _total: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeRemainingColumn

    with Progress(BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(), console=Console(stderr=True)) as bar:
        task = bar.add_task("")
        yield lambda done, total: bar.update(task, completed=done, total=total)
