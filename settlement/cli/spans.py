"""Which time a command is over: the options `--period` or `--month`, `--from` and `--to`, and what they mean."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from clearinghouse.errors import InvalidRequest

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime

    from settlement.periods import Timeline
    from settlement.statements.choice import Chosen

PeriodName = Annotated[
    str | None,
    typer.Option(
        "--period",
        metavar="PERIOD",
        help="The billing period that begins in 2026-10 or on 2026-10-05; or current. Default: last, which has ended.",
    ),
]
From = Annotated[
    str | None,
    typer.Option("--from", metavar="TIME", help="A day by the gateway's clocks, or an instant: 2026-10-05T12:00:00Z."),
]
Month = Annotated[
    str | None, typer.Option(metavar="MONTH", help="A calendar month by UTC: 2026-10. Default: the last whole one.")
]
UtcFrom = Annotated[
    str | None, typer.Option("--from", metavar="TIME", help="A day by UTC, or an instant: 2026-10-05T12:00:00Z.")
]
To = Annotated[
    str | None, typer.Option("--to", metavar="TIME", help="As --from. A day is included, an instant is not.")
]


def chooser(period: str | None, begin: str | None, end: str | None) -> Callable[[Timeline, datetime], Chosen]:
    """InvalidRequest where both a period and times are given, or one time alone."""
    from settlement.statements import choice

    if begin is None and end is None:
        return lambda timeline, now: choice.chosen_period(period or choice.LAST, timeline, now=now)
    if period is not None:
        raise InvalidRequest("give --period, or --from and --to")
    if begin is None or end is None:
        raise InvalidRequest("--from and --to need each other")
    return lambda timeline, now: choice.chosen_span(begin, end, timeline, now=now)
