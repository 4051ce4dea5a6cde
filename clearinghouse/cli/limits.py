"""Limits on the command line: the options that set them, and how they are shown."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterable
from typing import Annotated, Any

import typer

from clearinghouse.cli.output import print_table

#: What was written, by the limit's name; None is what was not.
Wanted = dict[str, str | None]


def _option(flag: str, metavar: str, explanation: str) -> Any:
    return Annotated[str | None, typer.Option(flag, metavar=metavar, help=f"{explanation} `none`: no limit.")]


_KEY_OPTIONS = {
    "requests_per_s": _option("--requests-s", "COUNT", "Requests per second on average."),
    "burst_count": _option("--burst", "COUNT", "Requests at once."),
    "calls_per_day": _option("--calls-day", "COUNT", "Paid calls per day, UTC."),
    "spend_per_day": _option("--spend-day", "AMOUNT", "Spend per day, UTC, in the account's currency."),
    "spend_per_month": _option("--spend-month", "AMOUNT", "Spend per calendar month, UTC."),
    "ev_open": _option("--ev-open", "WEI", "Expected value of the tickets of today and the two days before."),
    "sessions_open": _option("--sessions-open", "COUNT", "Open sessions at once."),
}
_GATEWAY_OPTIONS = _KEY_OPTIONS | {
    "sessions_open_per_orchestrator": _option(
        "--sessions-open-per-orchestrator", "COUNT", "Open sessions at once with one orchestrator."
    ),
    "price_live": _option("--price-live", "WEI", "Highest price of live jobs, per second."),
    "price_lv2v": _option("--price-lv2v", "WEI", "Highest price of lv2v jobs, per pixel."),
    "price_fixed": _option("--price-fixed", "WEI", "Highest price of fixed jobs, per call."),
    "price_untyped": _option("--price-untyped", "WEI", "Highest price of jobs without a type, per pixel."),
}


def key_limit_options(command: Callable[..., None]) -> Callable[..., None]:
    """Gives a command an option for every limit that a key can have, in place of its parameter `wanted`."""
    return _with_options(command, _KEY_OPTIONS)


def gateway_limit_options(command: Callable[..., None]) -> Callable[..., None]:
    """The same of what a gateway and a plan can have."""
    return _with_options(command, _GATEWAY_OPTIONS)


def _with_options(command: Callable[..., None], options: dict[str, Any]) -> Callable[..., None]:
    @functools.wraps(command)
    def with_options(**arguments: Any) -> None:
        wanted: Wanted = {name: arguments.pop(name) for name in options}
        command(wanted=wanted, **arguments)

    signature = inspect.signature(command, eval_str=True)
    parameters = []
    for parameter in signature.parameters.values():
        if parameter.name != "wanted":
            parameters.append(parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY))
            continue
        parameters += [
            inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=annotation)
            for name, annotation in options.items()
        ]
    with_options.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
    with_options.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    return with_options


def print_limits(document: dict[str, Any]) -> None:
    """The limits of a gateway, and of those of its keys that have any: what is used of what is allowed, and by whom."""
    rows = list(_rows("gateway", document, _set_by(document)))
    rows += [
        ["gateway", ceiling["ceiling"], "", ceiling["allowed"], ceiling["unit"], _whose(ceiling, document), ""]
        for ceiling in document["ceilings"]
        if ceiling["allowed"] is not None
    ]
    for key in document["keys"]:
        rows += _rows(key["public_id"], key, lambda _: "key")
    columns = ("of", "limit", "used", "allowed", "unit", "set by", "begins anew")
    print_table(columns, rows, right=[2, 3], if_empty="")


def _whose(ceiling: dict[str, Any], document: dict[str, Any]) -> str:
    return "gateway" if ceiling["set_by"] == "gateway" else f"plan {document['plan']}"


def _set_by(document: dict[str, Any]) -> Callable[[str], str]:
    own, plan = document["own_limits"], f"plan {document['plan']}"
    return lambda limit: "gateway" if limit in own else plan


def _rows(whose: str, document: dict[str, Any], set_by: Callable[[str], str]) -> Iterable[list[str]]:
    for name in ("requests_per_s", "burst_count"):
        if document[name] is not None:
            yield [whose, name, "", str(document[name]), "requests", set_by(name), ""]
    for use in document["limits"]:
        allowed = use["allowed"] or "none"
        yield [whose, use["limit"], use["used"], allowed, use["unit"], set_by(use["limit"]), use["resets_at"] or ""]
