"""A sender's coverage as text: one number on top, and below it where it comes from and what follows."""

from __future__ import annotations

from typing import Any

import typer

from clearinghouse.cli.output import print_details, print_table
from clearinghouse.cli.quantities import eth

#: What an operator should do about a level.
_ADVICE = {
    "ok": "",
    "watch": "top up in working hours",
    "low": "new sessions are refused",
    "critical": "gateways share what is left",
}
_WINDOWS = {3_600: "the last hour", 21_600: "6 hours", 86_400: "a day", 604_800: "a week"}


def print_coverage(document: dict[str, Any]) -> None:
    """Of coverage.documents.coverage_document."""
    snapshot = document["snapshot"]
    advice = _ADVICE[document["level"]]
    if snapshot is not None and not snapshot["is_enforced"] and document["level"] in {"low", "critical"}:
        advice = "not enforced"
    if not document["is_known"]:
        advice = f"NOT KNOWN: last evaluated {_time(document['age_s'])} ago"
    number = _times(snapshot["coverage_bps"]) if snapshot is not None else "–"
    head = [number, document["level"], *([advice] if advice else [])]
    typer.echo(f"{document['sender']}  {' · '.join(head)}{_simulated(snapshot)}")
    if snapshot is None:
        typer.echo("  The first snapshot is still to be taken.\n")
        return
    print_details([(f"  {name}", value) for name, value in _details(document, snapshot)])
    if snapshot["outlook"] is not None:
        typer.echo()
        _print_windows(snapshot["outlook"])
    if snapshot["orchestrators"]:
        typer.echo()
        _print_orchestrators(snapshot["orchestrators"])
    typer.echo()


def _simulated(snapshot: dict[str, Any] | None) -> str:
    return "  (SIMULATED: the escrow is declared)" if snapshot is not None and snapshot["simulated"] else ""


def _details(document: dict[str, Any], snapshot: dict[str, Any]) -> list[tuple[str, str]]:
    lock = "" if snapshot["lock"] == "locked" else f", {snapshot['lock'].upper()}: counts as gone"
    block = f"block {snapshot['block_number']}, " if snapshot["block_number"] is not None else ""
    cap = document["face_value_max_wei"]
    return [
        ("deposit", _eth(snapshot["deposit_wei"]) + lock),
        ("reserve", f"{_eth(snapshot['reserve_wei'])}, {_eth(snapshot['reserve_share_wei'])} for an orchestrator"),
        ("open tickets", f"{snapshot['open_tickets']:,}, the largest of {_eth(snapshot['largest_ticket_wei'])}"),
        ("liability, any may still win", _amount(snapshot["expected_wei"], snapshot["deviation_wei"])),
        *_outlook_details(snapshot["outlook"]),
        ("may still be released", f"{_eth(snapshot['remaining_ev_wei'])} of expected value"),
        ("largest ticket let through", _eth(cap) if cap is not None else "no cap"),
        ("largest ticket orchestrators quote", _eth(snapshot["issuable_face_value_wei"])),
        ("evaluated", f"{_time(document['age_s'])} ago"),
        ("snapshot", f"{_time(snapshot['age_s'])} ago, {block}round {snapshot['round']}"),
    ]


def _outlook_details(outlook: dict[str, Any] | None) -> list[tuple[str, str]]:
    if outlook is None:
        return [("outlook", "none: it did not come to an end in time")]
    days = outlook["horizon_s"] / 86_400
    top_up, burn = outlook["top_up"], _eth(outlook["burn_wei_per_day"])
    confidence = f"{top_up['confidence_bps'] / 100:g} %"
    return [
        (
            "liability, silence weighed",
            f"{_amount(outlook['posterior_expected_wei'], outlook['posterior_deviation_wei'])}, "
            f"{_times(outlook['posterior_coverage_bps'])}, by {outlook['delays_count']:,} redemptions",
        ),
        ("exhausted by open tickets alone", _chance(outlook["exhausted_probability"])),
        ("exhausted within the horizon", f"{_chance(outlook['exhausted_in_horizon_probability'])} in {days:g} days"),
        ("burn", f"{burn} per day"),
        ("advised top-up", f"{_eth(top_up['reserve_wei'])} to the reserve, {_eth(top_up['deposit_wei'])} to the "
                           f"deposit: lasts {days:g} days with {confidence}"),
    ]  # fmt: skip


def _print_windows(outlook: dict[str, Any]) -> None:
    rows = [
        [
            f"  {_WINDOWS.get(window['window_s'], _time(window['window_s']))}",
            _eth(window["burn_wei_per_day"]),
            _left(window["empty_median_s"]),
            _left(window["empty_pessimistic_s"]),
            _chance(window["exhausted_probability"]),
        ]
        for window in outlook["windows"]
    ]
    columns = ("  going on as in", "a day", "empty, half of the time", "1 in 20 times", "within the horizon")
    print_table(columns, rows, if_empty="", right=[1, 2, 3, 4])


def _print_orchestrators(orchestrators: list[dict[str, Any]]) -> None:
    rows = [
        [
            f"  {each['recipient']}",
            f"{'' if each['is_claim_exact'] else '≤ '}{_eth(each['claimed_in_round_wei'])}",
            _eth(each["reserve_share_wei"]),
            "not seen" if each["asked_face_value_wei"] is None else _eth(each["asked_face_value_wei"]),
            "too much" if each["asks_too_much"] else "",
        ]
        for each in orchestrators
    ]
    columns = ("  orchestrator", "claimed this round", "can quote", "asked last", "")
    print_table(columns, rows, if_empty="", right=[1, 2, 3])


def _eth(wei: str) -> str:
    return eth(int(wei))


def _amount(expected_wei: str, deviation_wei: str) -> str:
    return f"{_eth(expected_wei)} ± {_eth(deviation_wei)}"


def _times(bps: int | None) -> str:
    return "nothing is open" if bps is None else f"{bps / 10_000:,.2f} × covered"


def _chance(probability: float) -> str:
    return f"{probability:.2g}"


def _left(time_s: int | None) -> str:
    return "over a year" if time_s is None else f"{time_s / 3_600:,.1f} h"


def _time(time_s: int) -> str:
    if time_s < 120:
        return f"{time_s} s"
    return f"{time_s / 60:.0f} min" if time_s < 7_200 else f"{time_s / 3_600:.1f} h"
