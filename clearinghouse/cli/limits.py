"""Limits on the command line: the options that set them, and how they are shown."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Any

import typer

from clearinghouse.cli.output import print_table


def _option(flag: str, metavar: str, explanation: str) -> Any:
    return typer.Option(flag, metavar=metavar, help=f"{explanation} `none`: no limit.")


RequestsPerS = Annotated[
    str | None, _option("--requests-s", "COUNT", "Requests per second on average, in each serving process.")
]
Burst = Annotated[str | None, _option("--burst", "COUNT", "Requests at once.")]
CallsDay = Annotated[str | None, _option("--calls-day", "COUNT", "Paid calls per day, UTC.")]
SpendDay = Annotated[str | None, _option("--spend-day", "AMOUNT", "Spend per day, UTC, in the gateway's currency.")]
SpendMonth = Annotated[str | None, _option("--spend-month", "AMOUNT", "Spend per calendar month, UTC.")]
EvOpen = Annotated[
    str | None, _option("--ev-open", "WEI", "Expected value of the tickets of today and the two days before.")
]
SessionsOpen = Annotated[str | None, _option("--sessions-open", "COUNT", "Open sessions at once.")]
SessionsOpenPerOrchestrator = Annotated[
    str | None, _option("--sessions-open-per-orchestrator", "COUNT", "Open sessions at once with one orchestrator.")
]


def print_limits(document: dict[str, Any]) -> None:
    """The limits of a gateway, and of those of its keys that have any: what is used of what is allowed."""
    rows = list(_rows("gateway", document))
    for key in document["keys"]:
        rows += _rows(key["public_id"], key)
    print_table(("of", "limit", "used", "allowed", "unit", "begins anew"), rows, right=[2, 3], if_empty="")


def _rows(whose: str, document: dict[str, Any]) -> Iterable[list[str]]:
    for name in ("requests_per_s", "burst_count"):
        if document[name] is not None:
            yield [whose, name, "", str(document[name]), "requests", ""]
    for use in document["limits"]:
        yield [whose, use["limit"], use["used"], use["allowed"] or "none", use["unit"], use["resets_at"] or ""]
