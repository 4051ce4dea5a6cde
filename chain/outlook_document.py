"""What `chain.outlook` is asked and what it answers, and the answer as JSON: it comes from a process of its own.

Amounts are decimal strings, times are seconds, probabilities are JSON numbers. A document with a field too many, too
few or of another type is refused.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple, TypeVar

from chain.coverage import AgedTickets, Funds, Thresholds, deposit_for_ok_wei
from chain.exposure import Delays, OpenTickets, TopUp, exposure, merged

#: No time to empty is looked for beyond this: a year.
HORIZON_MAX_S: Final = 366 * 86_400
T = TypeVar("T")


class Issued(NamedTuple):
    """The tickets that were issued lately, to go on from: of a window of `window_s`, which is the name it goes by.

    They are those of `period_s`, which may be longer: issue times are kept by the hour, and a period begins with one.
    """

    window_s: int
    period_s: int
    tickets: Sequence[OpenTickets]


@dataclass(frozen=True, slots=True)
class Question:
    """Raises ValueError for what cannot be asked."""

    funds: Funds
    divisor_count: int
    #: Face value at which orchestrators are to quote, at least; tickets that are larger count by themselves.
    face_value_wei: int
    #: A top-up leaves no smaller deposit, whatever the horizon needs.
    deposit_min_wei: int
    horizon_s: int
    #: The probability with which a top-up lasts for the horizon.
    confidence: float
    #: Every open ticket may still win.
    worst: Sequence[OpenTickets]
    #: The same tickets, knowing how long winners took to be redeemed.
    posterior: Sequence[OpenTickets]
    windows: Sequence[Issued]

    def __post_init__(self) -> None:
        if not 0 < self.horizon_s <= HORIZON_MAX_S:
            raise ValueError(f"a horizon must be within 1 and {HORIZON_MAX_S} s, got {self.horizon_s}")
        if not 0 < self.confidence < 1:
            raise ValueError(f"a confidence must be above 0 and below 1, got {self.confidence}")
        if self.divisor_count <= 0:
            raise ValueError(f"a face value is at most a part of the deposit, got 1 / {self.divisor_count}")
        for window in self.windows:
            if not 0 < window.window_s <= window.period_s:
                raise ValueError(f"tickets of {window.period_s} s do not tell the rate of {window.window_s} s")


class WindowOutlook(NamedTuple):
    """What comes of it if tickets go on being issued as in this window."""

    window_s: int
    #: Expected value of what is issued in a day, which is what the deposit pays for it in the long run.
    burn_wei_per_day: int
    #: That the deposit is exhausted within the horizon.
    exhausted_probability: float
    #: That deposit and reserve together would not do.
    reserve_exhausted_probability: float
    #: When it is exhausted as likely as not; None if not within a year.
    empty_median_s: int | None
    #: And with a probability of 5 %.
    empty_pessimistic_s: int | None


@dataclass(frozen=True, slots=True)
class Outlook:
    """What the chances are."""

    #: That the open tickets alone exhaust the deposit, if nothing is issued any more: every one may still win.
    exhausted_probability: float
    #: The same, knowing how long winners took to be redeemed.
    posterior_exhausted_probability: float
    horizon_s: int
    windows: tuple[WindowOutlook, ...]
    #: Of the windows, the one that counts; None where there is none.
    present: WindowOutlook | None
    #: What lasts for the horizon with the wanted confidence.
    top_up: TopUp


def asked(
    funds: Funds,
    tickets: Sequence[AgedTickets],
    delays: Delays,
    windows: Sequence[Issued],
    *,
    divisor_count: int,
    thresholds: Thresholds,
    horizon_s: int,
    confidence: float,
    face_value_wei: int = 0,
) -> Question:
    """The question about what `chain.coverage.assess` was given. A top-up is to bring the level back to ok as well."""
    worst = merged(each.tickets for each in tickets)
    return Question(
        funds=funds,
        divisor_count=divisor_count,
        face_value_wei=face_value_wei,
        deposit_min_wei=deposit_for_ok_wei(exposure(worst), thresholds),
        horizon_s=horizon_s,
        confidence=confidence,
        worst=worst,
        posterior=merged(delays.posterior(each.tickets, each.age_s) for each in tickets),
        windows=[window._replace(tickets=merged(window.tickets)) for window in windows],
    )


def outlook_json(outlook: Outlook) -> bytes:
    """As read_outlook reads it."""
    return _json(
        {
            "exhausted_probability": outlook.exhausted_probability,
            "posterior_exhausted_probability": outlook.posterior_exhausted_probability,
            "horizon_s": outlook.horizon_s,
            "windows": [_window_document(each) for each in outlook.windows],
            "present": _window_document(outlook.present) if outlook.present else None,
            "top_up": {
                "reserve_wei": str(outlook.top_up.reserve_wei),
                "deposit_wei": str(outlook.top_up.deposit_wei),
            },
        }
    )


def read_outlook(text: bytes) -> Outlook:
    """The reverse of outlook_json. Raises ValueError for anything else."""
    fields = _Fields(_parsed(text))
    outlook = Outlook(
        exhausted_probability=fields.take("exhausted_probability", _probability),
        posterior_exhausted_probability=fields.take("posterior_exhausted_probability", _probability),
        horizon_s=fields.take("horizon_s", _whole),
        windows=tuple(fields.take("windows", _list_of(_window))),
        present=fields.take("present", _optional(_window)),
        top_up=fields.take("top_up", _top_up),
    )
    fields.require_none_left()
    return outlook


class _Fields:
    """The fields of a JSON object, each taken once and with its type."""

    def __init__(self, value: object) -> None:
        if not isinstance(value, dict):
            raise ValueError(f"expected an object, got {type(value).__name__}")  # noqa: TRY004
        self._left: dict[str, object] = dict(value)

    def take(self, name: str, read: Callable[[object], T]) -> T:
        if name not in self._left:
            raise ValueError(f"{name} is missing")
        try:
            return read(self._left.pop(name))
        except ValueError as error:
            raise ValueError(f"{name}: {error}") from error

    def require_none_left(self) -> None:
        if self._left:
            raise ValueError(f"unknown fields: {', '.join(sorted(self._left))}")


def _json(document: dict[str, Any]) -> bytes:
    return json.dumps(document, allow_nan=False, separators=(",", ":")).encode()


def _parsed(text: bytes) -> object:
    def refuse(constant: str) -> object:
        raise ValueError(f"{constant} is no number")

    return json.loads(text, parse_constant=refuse)


def _window_document(window: WindowOutlook) -> dict[str, Any]:
    return window._asdict() | {"burn_wei_per_day": str(window.burn_wei_per_day)}


def _amount(value: object) -> int:
    if not isinstance(value, str) or not (value.isascii() and value.isdecimal()) or len(value) > 100:
        raise ValueError(f"expected a decimal string, got {value!r:.120}")
    return int(value)


def _whole(value: object) -> int:
    if type(value) is not int or not 0 <= value < 2**63:  # a bool is an int too, and no number
        raise ValueError(f"expected a whole number, got {value!r:.120}")
    return value


def _probability(value: object) -> float:
    if not isinstance(value, float | int) or isinstance(value, bool) or not 0 <= value <= 1:
        raise ValueError(f"expected a probability, got {value!r:.120}")
    return float(value)


def _optional(read: Callable[[object], T]) -> Callable[[object], T | None]:
    return lambda value: None if value is None else read(value)


def _list_of(read: Callable[[object], T]) -> Callable[[object], list[T]]:
    def read_all(value: object) -> list[T]:
        if not isinstance(value, list):
            raise ValueError(f"expected a list, got {type(value).__name__}")  # noqa: TRY004
        return [read(each) for each in value]

    return read_all


def _window(value: object) -> WindowOutlook:
    fields = _Fields(value)
    window = WindowOutlook(
        window_s=fields.take("window_s", _whole),
        burn_wei_per_day=fields.take("burn_wei_per_day", _amount),
        exhausted_probability=fields.take("exhausted_probability", _probability),
        reserve_exhausted_probability=fields.take("reserve_exhausted_probability", _probability),
        empty_median_s=fields.take("empty_median_s", _optional(_whole)),
        empty_pessimistic_s=fields.take("empty_pessimistic_s", _optional(_whole)),
    )
    fields.require_none_left()
    return window


def _top_up(value: object) -> TopUp:
    fields = _Fields(value)
    missing = TopUp(fields.take("reserve_wei", _amount), fields.take("deposit_wei", _amount))
    fields.require_none_left()
    return missing
