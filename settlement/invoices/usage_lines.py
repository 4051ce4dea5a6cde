"""Usage as an invoice shows it: what it was for, how much it was, and what it cost on average. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Final

from clearinghouse.ledger.money import EXACT, exact_sum, show_amount
from clearinghouse.rates.units import Per
from settlement.currencies import Currency
from settlement.rounding import average_rate, rounded
from settlement.units import CALL, TICKET, UNITS, Unit

#: Stripe takes 250 items. What is more than this goes into one line.
LINES_MAX_COUNT: Final = 200
_NAME_CHARS_MAX: Final = 60
_FACT_CHARS_MAX: Final = 450
_ETH: Final = "ETH"
_ETH_SHOWN_DECIMALS: Final = 9


@dataclass(frozen=True, slots=True)
class Usage:
    """What one application used of one pipeline and model, at one markup. `quantity` and `unit` by a rate card's rule;
    `unit` is one of settlement.units.UNITS, and None where what is sold is what tickets cost.

    `others_count`: it stands for so many lines, which had no place.
    """

    app: str
    pipeline: str
    model: str
    markup_bps: int
    calls_count: int
    tickets_count: int
    ev_wei: int
    charge: Decimal
    rate_rule: str | None = None
    quantity: Decimal | None = None
    unit: str | None = None
    others_count: int = 0


def fewer(usage: Sequence[Usage]) -> Sequence[Usage]:
    """As many as an invoice takes: the largest charges, and one line of all others. The sum is the same, exactly."""
    if len(usage) <= LINES_MAX_COUNT:
        return usage
    by_charge = sorted(usage, key=lambda each: each.charge, reverse=True)
    rest = by_charge[LINES_MAX_COUNT - 1 :]
    kept = {id(each) for each in by_charge[: LINES_MAX_COUNT - 1]}
    others = Usage(
        app="", pipeline="", model="", markup_bps=0, others_count=len(rest),
        calls_count=sum(each.calls_count for each in rest), tickets_count=sum(each.tickets_count for each in rest),
        ev_wei=sum(each.ev_wei for each in rest), charge=exact_sum(each.charge for each in rest),
    )  # fmt: skip
    return [*(each for each in usage if id(each) in kept), others]


def described(usage: Usage, currency: Currency) -> str:
    """For people: `live-video-to-video, diffusion (app): 12 calls, 60 tickets, EV 0.5 ETH at 2100 USD per ETH …`, or
    `text-to-image (app): 12 requests at 1.19291 USD per request on average, 11 calls, …`.
    """
    sold, per = _sold(usage)
    rate = average_rate(usage.charge, sold)
    at = f" at {show_amount(rate)} {currency.code} per {per} on average" if rate is not None else ""
    used = [f"{usage.calls_count:,} {_of(CALL, usage.calls_count)}"]
    used.append(f"{usage.tickets_count:,} {_of(TICKET, usage.tickets_count)}")
    used.append(f"EV {show_amount(rounded(_eth(usage), _ETH_SHOWN_DECIMALS))} ETH")
    if usage.unit is not None:
        used.insert(0, f"{show_amount(sold)} {_of(UNITS[Per(usage.unit)], sold)}{at}")
    else:
        used[-1] += at
    return f"{_name(usage)}: {', '.join(used)}"


def facts_of(usage: Usage) -> dict[str, str]:
    """For machines: exact but for the average rate, and all of it texts. What is empty is left out.

    `average_rate` is `charge` per `average_rate_per`: the `unit`, or ETH of `ev_wei` where there is none.
    """
    sold, _ = _sold(usage)
    rate = average_rate(usage.charge, sold)
    facts = {
        "app": usage.app, "pipeline": usage.pipeline, "model": usage.model, "markup_bps": str(usage.markup_bps),
        "calls": str(usage.calls_count), "tickets": str(usage.tickets_count), "ev_wei": str(usage.ev_wei),
        "charge": show_amount(usage.charge), "rate_rule": usage.rate_rule or "", "unit": usage.unit or "",
        "quantity": show_amount(usage.quantity) if usage.quantity is not None else "",
        "average_rate": show_amount(rate) if rate is not None else "",
        "average_rate_per": (usage.unit or _ETH) if rate is not None else "",
    }  # fmt: skip
    if usage.others_count:
        facts |= {"markup_bps": "", "others": str(usage.others_count)}
    return {name: value[:_FACT_CHARS_MAX] for name, value in facts.items() if value}


def _sold(usage: Usage) -> tuple[Decimal, str]:
    """How much of what it is charged by, and one of it in words: of a rate card's unit, else what its tickets cost."""
    if usage.quantity is not None and usage.unit is not None:
        return usage.quantity, UNITS[Per(usage.unit)].one
    return _eth(usage), _ETH


def _eth(usage: Usage) -> Decimal:
    return EXACT.scaleb(Decimal(usage.ev_wei), -18)


def _of(unit: Unit, count: Decimal | int) -> str:
    return unit.one if count == 1 else unit.many


def _name(usage: Usage) -> str:
    if usage.others_count:
        return f"{usage.others_count:,} other applications, pipelines and models"
    work = ", ".join(_short(part) for part in (usage.pipeline, usage.model) if part) or "usage"
    return f"{work} ({_short(usage.app)})" if usage.app else work


def _short(name: str) -> str:
    shown = "".join(mark if mark.isprintable() else "?" for mark in name)
    return shown if len(shown) <= _NAME_CHARS_MAX else shown[: _NAME_CHARS_MAX - 1] + "…"
