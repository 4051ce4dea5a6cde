"""`clearinghouse coverage simulate`: what deposit and reserve would have to carry."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from clearinghouse.cli import quantities
from clearinghouse.cli.output import AsJson, print_details, print_json, print_table, write_file

if TYPE_CHECKING:
    from chain.forecast import AmountBeside, Beside, Emptying, Forecast, Question
    from chain.simulation import AmountEstimate, Estimate, Progress

#: About 3 US cents an hour of 720p30, at 3,000 USD an ETH; as much for a second, and for a call.
_DEFAULT_PRICES = {"lv2v": "100", "live": "2764800000", "fixed": "2764800000"}
#: Pixels of 1280 x 720 at 30 frames, a second, and a call, per second.
_DEFAULT_UNITS = {"lv2v": "27648000", "live": "1", "fixed": "1"}
#: By which the question's fields are set, for whoever is told what is wrong with one.
_OPTIONS = {
    "gateways_count": "--gateways", "sessions_count": "--sessions", "session_s": "--session-duration",
    "price_wei_per_unit": "--price", "units_per_s": "--units-per-s", "redemption_s": "--redemption",
    "demand_variation": "--demand-variation", "pool_size_count": "--pool-size", "divisor_count": "--divisor",
    "orchestrators_count": "--orchestrators", "deposit_wei": "--deposit", "reserve_wei": "--reserve",
}  # fmt: skip


def _option(flag: str, metavar: str, explanation: str) -> Any:
    return typer.Option(flag, metavar=metavar, help=explanation)


def simulate(  # noqa: PLR0917 - an option each
    gateways: Annotated[int, _option("--gateways", "N", "Gateways, alike.")] = 10,
    sessions: Annotated[int, _option("--sessions", "M", "Sessions open at once, on average.")] = 1_000,
    session_duration: Annotated[str, _option("--session-duration", "TIME", "Of a session, on average.")] = "30m",
    job: Annotated[str, _option("--job", "TYPE", "lv2v (per pixel), live (per second) or fixed (per call).")] = "lv2v",
    price: Annotated[
        str | None, _option("--price", "WEI", "Per pixel, second or call. Default: 100, or as much for the others.")
    ] = None,
    units_per_s: Annotated[
        str | None, _option("--units-per-s", "COUNT", "Of a session: pixels (default 27648000), seconds or calls (1).")
    ] = None,
    variation: Annotated[
        str, _option("--demand-variation", "RATIO", "A gateway's demand of a day: its deviation over its mean.")
    ] = "0.5",
    face_value: Annotated[str, _option("--face-value", "AMOUNT", "Of a ticket.")] = "0.012eth",
    ticket_ev: Annotated[str, _option("--ticket-ev", "AMOUNT", "A ticket's expected value.")] = "8gwei",
    redemption: Annotated[
        str, _option("--redemption", "TIME", "From when a winner may be redeemed (40 L1 blocks), on average.")
    ] = "1h",
    orchestrators: Annotated[int, _option("--orchestrators", "N", "Among whom the traffic is divided.")] = 20,
    pool_size: Annotated[int, _option("--pool-size", "N", "Active orchestrators: they divide the reserve.")] = 100,
    divisor: Annotated[int, _option("--divisor", "N", "A face value may be this part of the deposit.")] = 50,
    deposit: Annotated[str | None, _option("--deposit", "AMOUNT", "To judge. Default: the recommended one.")] = None,
    reserve: Annotated[str | None, _option("--reserve", "AMOUNT", "To judge. Default: the recommended one.")] = None,
    horizon: Annotated[str, _option("--horizon", "TIME", "How long it must last without a top-up.")] = "7d",
    ruin_probability: Annotated[
        str, _option("--ruin-probability", "P", "How probable it may be that it does not.")
    ] = "0.001",
    runs: Annotated[int, _option("--runs", "COUNT", "Futures to play.")] = 20_000,
    seed: Annotated[int, _option("--seed", "NUMBER", "The same seed plays the same futures.")] = 1,
    plot: Annotated[Path | None, _option("--plot", "FILE.svg", "Draw the deposit over time.")] = None,
    as_json: AsJson = False,
) -> None:
    """What deposit and reserve would a plan of traffic need, and how long would given ones last?

    Plays the future many times over (tickets win or lose, winners are redeemed later, the deposit falls) and sets the
    closed computation beside it. Reads and changes nothing. docs/coverage.md explains the numbers.

    \b
      clearinghouse coverage simulate --gateways 10 --sessions 1000 --price 100
      clearinghouse coverage simulate --sessions 100000 --deposit 150eth --horizon 5d --plot deposit.svg
      clearinghouse coverage simulate --job live --price 3gwei --ruin-probability 0.01 --json | jq .recommended
    """
    _require(job, plot)
    question = _question(
        traffic={
            "gateways_count": gateways,
            "sessions_count": sessions,
            "session_s": quantities.duration_s(session_duration),
            "job_type": job,
            "price_wei_per_unit": quantities.price_wei(price or _DEFAULT_PRICES[job]),
            "units_per_s": quantities.number(units_per_s or _DEFAULT_UNITS[job]),
            "face_value_wei": quantities.amount_wei(face_value),
            "ticket_ev_wei": quantities.amount_wei(ticket_ev),
            "redemption_s": quantities.duration_s(redemption),
            "demand_variation": quantities.number(variation),
        },
        deposit_wei=None if deposit is None else quantities.amount_wei(deposit),
        reserve_wei=None if reserve is None else quantities.amount_wei(reserve),
        pool_size_count=pool_size,
        divisor_count=divisor,
        orchestrators_count=orchestrators,
        horizon_s=quantities.duration_s(horizon),
        ruin_probability=float(quantities.number(ruin_probability)),
        runs_count=runs,
        seed=seed,
    )
    _tell(question, _forecast(question), plot=plot, as_json=as_json)


def _tell(question: Question, answer: Forecast, *, plot: Path | None, as_json: bool) -> None:
    if plot is not None:
        from clearinghouse.cli.coverage_plot import deposit_svg

        write_file(plot, deposit_svg(answer.funds.deposit_wei, answer.drawn_wei, answer.step_s).encode())
    if as_json:
        print_json(_document(question, answer))
    else:
        _print(question, answer)


def _require(job: str, plot: Path | None) -> None:
    """What is said before the play, which takes a while."""
    if job not in _DEFAULT_PRICES:
        raise typer.BadParameter(f"{job!r} is none of the job types {', '.join(_DEFAULT_PRICES)}")
    if plot is not None and plot.suffix.lower() != ".svg":
        raise typer.BadParameter(f"{plot} does not end in .svg, which is all it can draw")
    if plot is not None and not plot.parent.is_dir():
        raise typer.BadParameter(f"{plot} cannot be written: there is no directory {plot.parent}")


def _question(*, traffic: dict[str, Any], **asked: Any) -> Question:
    from chain.forecast import Question
    from chain.traffic import Traffic

    try:
        return Question(traffic=Traffic(**traffic), **asked)
    except ValueError as error:
        raise _bad_parameter(error) from error


def _forecast(question: Question) -> Forecast:
    from chain.forecast import forecast

    try:
        return forecast(question, _progress() if sys.stderr.isatty() else None)
    except ValueError as error:
        raise _bad_parameter(error) from error


def _bad_parameter(error: ValueError) -> typer.BadParameter:
    """With options where the question has fields."""
    return typer.BadParameter(re.sub(r"\w+", lambda word: _OPTIONS.get(word[0], word[0]), str(error)))


def _progress() -> Progress:
    """One line on a terminal that is written over, and gone at the end."""

    def show(done: int, in_all: int) -> None:
        line = f"played {done:,} of {in_all:,} futures" if done < in_all else ""
        typer.echo(f"\r\x1b[K{line}", nl=False, err=True)

    return show


def _print(question: Question, answer: Forecast) -> None:
    traffic, days = question.traffic, question.horizon_s / 86_400
    typer.echo(
        f"{traffic.gateways_count:,} gateways, {traffic.sessions_count:,} sessions of {traffic.session_s:,} s at once; "
        f"tickets of {quantities.eth(traffic.face_value_wei)} that win with {traffic.win_probability:.3g}; "
        f"{question.runs_count:,} futures of {days:g} days.\n"
    )
    print_details(
        [
            ("recommended deposit", quantities.eth(answer.recommended.deposit_wei)),
            ("recommended reserve", quantities.eth(answer.recommended.reserve_wei)),
            ("judged below: deposit", quantities.eth(answer.funds.deposit_wei)),
            ("judged below: reserve", quantities.eth(answer.funds.reserve_wei)),
        ]
    )
    typer.echo()
    print_table(
        ["", "computed", "played, steady demand", "played, demand varies"],
        [
            [f"deposit for a ruin of {question.ruin_probability:g}", *_amounts(answer.needed)],
            [f"deposit exhausted in {days:g} days", *_chances(answer.ruin)],
            [f"signing refused in {days:g} days", *_chances(answer.refusing)],
            ["empty after, half of the time", *_times(answer.empty_median)],
            ["empty after, 1 in 20 times", *_times(answer.empty_pessimistic)],
            ["drawn per day", quantities.eth(answer.burn_per_day_wei), "", _interval(answer.burn_per_day)],
            ["open tickets", f"{answer.open_tickets_count:,}", "", f"{answer.open_tickets_played_count:,}"],
            ["winners not yet redeemed", quantities.eth(answer.waiting_wei), "", _interval(answer.waiting)],
        ],
        if_empty="",
    )
    typer.echo()
    print_details(_more(question, answer))


def _more(question: Question, answer: Forecast) -> list[tuple[str, str]]:
    after = answer.after_ruin
    ruined = (
        f"{after.runs_count:,} futures: {quantities.eth(after.from_reserve_wei)} from the reserve, "
        f"{quantities.eth(after.unpaid_wei)} unpaid on average; somebody unpaid in {after.unpaid_runs_count:,}"
    )
    face_wei, quoted_wei = question.traffic.face_value_wei, answer.quoted_face_value_max_wei
    short = f", less than the plan's {quantities.eth(face_wei)}"
    shrunk = short if quoted_wei < face_wei else ""
    refused = short if answer.signed_face_value_max_wei < face_wei else ""
    return [
        ("computed and played agree", "yes" if answer.do_agree else "NO: see docs/coverage.md"),
        ("needed if any open ticket may still win", quantities.eth(answer.needed_by_book_wei)),
        ("expected liability of open tickets", quantities.eth(answer.expected_liability_wei)),
        ("fees per day", quantities.eth(answer.fees_per_day_wei)),
        ("winners per day", f"{answer.winners_per_day:.1f}"),
        ("largest face value orchestrators quote", quantities.eth(quoted_wei) + shrunk),
        ("largest face value the signer lets pass", quantities.eth(answer.signed_face_value_max_wei) + refused),
        ("once the deposit is exhausted", ruined if after.runs_count else "did not happen"),
    ]


def _interval(amounts: AmountEstimate) -> str:
    error_wei = max(amounts.high_wei - amounts.wei, amounts.wei - amounts.low_wei)
    return f"{quantities.eth(amounts.wei)} ± {quantities.eth(error_wei).removesuffix(' ETH')}"


def _amounts(beside: AmountBeside) -> list[str]:
    return [quantities.eth(beside.computed_wei), _interval(beside.steady), _interval(beside.played)]


def _chances(beside: Beside) -> list[str]:
    return [f"{beside.computed:.2g}", _chance(beside.steady), _chance(beside.played)]


def _chance(estimate: Estimate) -> str:
    return f"{estimate.value:.2g} ({estimate.low:.2g} to {estimate.high:.2g})"


def _times(emptying: Emptying) -> list[str]:
    return [_days(emptying.computed_s), "", _days(emptying.played_s)]


def _days(time_s: int | None) -> str:
    return "more than a year" if time_s is None else f"{time_s / 86_400:.2f} days"


def _document(question: Question, answer: Forecast) -> dict[str, Any]:
    """Amounts as decimal strings of wei, as everywhere."""
    after, traffic = answer.after_ruin, question.traffic
    return {
        "seed": question.seed,
        "runs": question.runs_count,
        "horizon_s": question.horizon_s,
        "ruin_probability": question.ruin_probability,
        "face_value_wei": str(traffic.face_value_wei),
        "win_probability": traffic.win_probability,
        "recommended": _funds_document(answer.recommended),
        "funds": _funds_document(answer.funds),
        "needed": {
            "computed_wei": str(answer.needed.computed_wei),
            "played_steady": _amounts_document(answer.needed.steady),
            "played": _amounts_document(answer.needed.played),
            "computed_with_open_tickets_wei": str(answer.needed_by_book_wei),
        },
        "ruin": _beside_document(answer.ruin),
        "refusing": _beside_document(answer.refusing),
        "do_computed_and_played_agree": answer.do_agree,
        "after_ruin": {
            "runs": after.runs_count,
            "from_reserve_wei": str(after.from_reserve_wei),
            "unpaid_wei": str(after.unpaid_wei),
            "runs_with_unpaid": after.unpaid_runs_count,
        },
        "empty_after_s": {
            "median": answer.empty_median._asdict(),
            "pessimistic": answer.empty_pessimistic._asdict(),
        },
        "burn_per_day": {
            "computed_wei": str(answer.burn_per_day_wei),
            "played": _amounts_document(answer.burn_per_day),
        },
        "fees_per_day_wei": str(answer.fees_per_day_wei),
        "winners_per_day": answer.winners_per_day,
        "open_tickets": {"computed": answer.open_tickets_count, "played": answer.open_tickets_played_count},
        "expected_liability_wei": str(answer.expected_liability_wei),
        "waiting": {"computed_wei": str(answer.waiting_wei), "played": _amounts_document(answer.waiting)},
        "quoted_face_value_max_wei": str(answer.quoted_face_value_max_wei),
        "signed_face_value_max_wei": str(answer.signed_face_value_max_wei),
    }


def _funds_document(funds: Any) -> dict[str, str]:
    return {"deposit_wei": str(funds.deposit_wei), "reserve_wei": str(funds.reserve_wei)}


def _amounts_document(amounts: AmountEstimate) -> dict[str, str]:
    return {name: str(wei) for name, wei in amounts._asdict().items()}


def _beside_document(beside: Beside) -> dict[str, Any]:
    return {
        "computed": beside.computed,
        "played_steady": beside.steady._asdict(),
        "played": beside.played._asdict(),
    }
