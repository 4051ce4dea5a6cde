"""What may be agreed on with a gateway: terms as they are typed, made of the ones before them. Nothing here reads or
writes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Final

from clearinghouse.errors import InvalidRequest
from clearinghouse.instants import parse_rfc3339, parse_span
from clearinghouse.ledger.money import parse_amount, show_amount
from settlement.cadence import parse_cadence
from settlement.customers.terms import Refill, Subscription, Terms
from settlement.periods import Way
from settlement.time_zones import time_zone

#: The amount that was typed under a name, or else the other.
_Amount = Callable[[str, Decimal | None], Decimal | None]

_REFILL: Final = ("refill_below", "refill_to", "refill_day_max", "refill_month_max")
_COOLDOWN_MIN: Final = timedelta(minutes=1)
_COOLDOWN_MAX: Final = timedelta(days=366)
_COOLDOWN_DEFAULT_S: Final = 3600
#: What may be said of each way, beside cadence and time zone.
_OF_WAY: Final[Mapping[Way, frozenset[str]]] = {
    Way.PREPAID: frozenset(),
    Way.AUTOMATIC: frozenset({*_REFILL, "refill_cooldown"}),
    Way.POSTPAID: frozenset({"credit_limit"}),
    Way.SUBSCRIPTION: frozenset({"fee", "included", "credit_limit", *_REFILL, "refill_cooldown"}),
    Way.FREE: frozenset({"ends_at"}),
}


def agree(before: Terms, given: Mapping[str, str], *, currency: str, begins_at: datetime) -> Terms:
    """The terms from `begins_at` on: as `before`, but for what was typed. Another way begins with nothing of the old.

    InvalidRequest says what is missing, what the way does not have, and what cannot be.
    """
    way = _way(given["way"]) if "way" in given else before.way
    if foreign := sorted(given.keys() - _OF_WAY[way] - {"way", "cadence", "time_zone"}):
        raise InvalidRequest(f"{way} billing has no {', '.join(map(_called, foreign))}")
    kept = before if before.way == way else None
    zone = given.get("time_zone", before.zone)
    time_zone(zone)

    def amount(name: str, otherwise: Decimal | None) -> Decimal | None:
        return parse_amount(given[name], currency=currency, may_be_zero=True) if name in given else otherwise

    terms = Terms(
        way=way,
        cadence=parse_cadence(given["cadence"]) if "cadence" in given else before.cadence,
        zone=zone,
        credit_limit=amount("credit_limit", kept.credit_limit if kept else None) or Decimal(0),
        refill=_refill(given, kept.refill if kept else None, amount),
        subscription=_subscription(kept.subscription if kept else None, amount),
        ends_at=_ends_at(given, kept),
        begins_at=begins_at,
    )
    _require_whole(terms)
    return terms


def _way(text: str) -> Way:
    if text not in set(Way):
        raise InvalidRequest(f"a way to be billed is {', '.join(Way)}, not {text[:64]!r}")
    return Way(text)


def _ends_at(given: Mapping[str, str], kept: Terms | None) -> datetime | None:
    """Typed as "" it is none."""
    if "ends_at" not in given:
        return kept.ends_at if kept else None
    return parse_rfc3339(given["ends_at"]) if given["ends_at"] else None


def _refill(given: Mapping[str, str], kept: Refill | None, amount: _Amount) -> Refill | None:
    if kept is None and not given.keys() & {*_REFILL, "refill_cooldown"}:
        return None
    below = amount("refill_below", kept.below if kept else None)
    to = amount("refill_to", kept.to if kept else None)
    day_max = amount("refill_day_max", kept.day_max if kept else None)
    month_max = amount("refill_month_max", kept.month_max if kept else None)
    if below is None or to is None or day_max is None or month_max is None:
        raise InvalidRequest(f"an automatic top-up needs {', '.join(map(_called, _REFILL))}")
    if not below < to:
        raise InvalidRequest(f"a top-up goes up: to more than {show_amount(below)}, not {show_amount(to)}")
    if not 0 < day_max <= month_max:
        raise InvalidRequest("the most in a day is more than nothing, and at most the most in a month")
    cooldown = timedelta(seconds=kept.cooldown_s if kept else _COOLDOWN_DEFAULT_S)
    if "refill_cooldown" in given:
        cooldown = parse_span(given["refill_cooldown"])
    if not _COOLDOWN_MIN <= cooldown <= _COOLDOWN_MAX:
        raise InvalidRequest("between two automatic top-ups lie 1m to 366d")
    return Refill(below, to, int(cooldown.total_seconds()), day_max, month_max)


def _subscription(kept: Subscription | None, amount: _Amount) -> Subscription | None:
    fee = amount("fee", kept.fee if kept else None)
    included = amount("included", kept.included if kept else None)
    if fee is None and included is None:
        return None
    if fee is None or included is None:
        raise InvalidRequest(f"a subscription needs {_called('fee')} and {_called('included')}; 0 is an amount")
    return Subscription(fee, included)


def _require_whole(terms: Terms) -> None:
    if terms.way is Way.POSTPAID and not terms.credit_limit:
        raise InvalidRequest(f"whoever pays afterwards needs {_called('credit_limit')}: without one nothing is signed")
    if terms.way is Way.AUTOMATIC and terms.refill is None:
        raise InvalidRequest(f"an automatic top-up needs {', '.join(map(_called, _REFILL))}")
    if terms.way is Way.SUBSCRIPTION and terms.subscription is None:
        raise InvalidRequest(f"a subscription needs {_called('fee')} and {_called('included')}; 0 is an amount")
    if terms.ends_at is not None and terms.begins_at is not None and terms.ends_at <= terms.begins_at:
        raise InvalidRequest(f'free terms end after they begin: say {_called("ends_at")}, or "" for no end')


def _called(name: str) -> str:
    """As it is said over HTTP, and as a command has it: whoever is refused may have used either."""
    return f"{name} (--{name.replace('_', '-')})"
