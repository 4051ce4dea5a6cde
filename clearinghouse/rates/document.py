"""A version of a rate card as its author writes it: TOML, or the same as JSON. Every mistake is told, with its line.

    card, version, currency, effective_from, note?
    rates[]: application?, pipeline?, model?, per, floor?, minimum_charge?, and one of
             price | markup_bps (per cost) | tiers[]: up_to? (all but the last), price | markup_bps

Amounts are strings, so that no parser makes binary numbers of them. docs/rates.md explains each field.
"""

from __future__ import annotations

import hashlib
import json
import re
import tomllib
from collections.abc import Callable, Sequence
from decimal import Decimal
from typing import Any, Final

from chain.shallow_json import TooDeep, require_shallow
from clearinghouse.instants import rfc3339
from clearinghouse.ledger.money import parse_amount, parse_currency, show_amount
from clearinghouse.pricing import BPS_DECIMALS, EXACT
from clearinghouse.rates.card import CardProblem, CardVersion, Floor, Rate, Tier
from clearinghouse.rates.lines import line_numbers
from clearinghouse.rates.reading import Problem, Reader
from clearinghouse.rates.units import UNIT_PRICE_DECIMALS_MAX, Per, from_base, show_fraction, to_base

CHARS_MAX: Final = 4 * 2**20
#: Every process reads all of them, in a tenth of a millisecond and 3 kB each.
RATES_MAX_COUNT: Final = 10_000
#: Every call walks through those of its rate.
TIERS_MAX_COUNT: Final = 100
#: A fee of a hundred times the cost; and nothing charged.
MARKUP_BPS_MAX: Final = 1_000_000
MARKUP_BPS_MIN: Final = -10_000
NOTE_CHARS_MAX: Final = 1_000

_CARD: Final = re.compile(r"[a-z0-9](?:[a-z0-9_.-]{0,62}[a-z0-9])?", re.ASCII)
_DECIMAL: Final = re.compile(rf"[0-9]{{1,15}}(?:\.[0-9]{{1,{UNIT_PRICE_DECIMALS_MAX}}})?", re.ASCII)
_TOML_PLACE: Final = re.compile(r" \(at (?:line (\d+), column \d+|end of document)\)\Z")


class CardInvalid(ValueError):
    """The document is no rate card. `problems` are all that were found, in the order of their lines."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        self.problems = tuple(sorted(problems))
        super().__init__("\n".join(map(str, self.problems)))


def read_toml(text: str) -> CardVersion:
    """Raises CardInvalid."""
    return _read(text, _toml, is_toml=True)


def read_json(text: str) -> CardVersion:
    """Raises CardInvalid."""
    return _read(text, _json, is_toml=False)


def document(card: CardVersion) -> dict[str, Any]:
    """What `read_json` makes the same card of. One spelling for each card: only what is not a default is written."""
    shown: dict[str, Any] = {
        "card": card.card,
        "version": card.version,
        "currency": card.currency,
        "effective_from": rfc3339(card.effective_from),
    }
    if card.note:
        shown["note"] = card.note
    return {**shown, "rates": [_rate_document(rate) for rate in card.rates]}


def summary(card: CardVersion) -> dict[str, Any]:
    """Without its rates; `rates` is how many."""
    return {
        "card": card.card,
        "version": card.version,
        "currency": card.currency,
        "effective_from": rfc3339(card.effective_from),
        "rates": len(card.rates),
    }


def digest(card: CardVersion) -> bytes:
    """SHA-256 of the document: two cards that read alike have the same. To be stored with a version that is in use."""
    canonical = json.dumps(document(card), sort_keys=True, ensure_ascii=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).digest()


def _rate_document(rate: Rate) -> dict[str, Any]:
    names = zip(("application", "pipeline", "model"), rate.names, strict=True)
    shown: dict[str, Any] = {name: value for name, value in names if value is not None}
    shown["per"] = rate.per.value
    if rate.floor is not Floor.PERIOD:
        shown["floor"] = rate.floor.value
    if rate.minimum_charge:
        shown["minimum_charge"] = show_amount(rate.minimum_charge)
    if len(rate.tiers) == 1:
        return {**shown, **_price_document(rate.tiers[0].price, rate.per)}
    tiers = []
    for tier in rate.tiers:
        end = {} if tier.up_to is None else {"up_to": show_fraction(from_base(tier.up_to, rate.per))}
        tiers.append({**end, **_price_document(tier.price, rate.per)})
    return {**shown, "tiers": tiers}


def _price_document(price: Decimal, per: Per) -> dict[str, Any]:
    if per is Per.COST:
        return {"markup_bps": int(EXACT.scaleb(price, BPS_DECIMALS)) - 10_000}
    return {"price": show_amount(price)}


# --- reading --------------------------------------------------------------------------------------------------------


def _read(text: str, parse: Callable[[str], Any], *, is_toml: bool) -> CardVersion:
    if len(text) > CHARS_MAX:
        raise CardInvalid([Problem(1, "", f"the document is longer than {CHARS_MAX} characters")])
    try:
        lines = line_numbers(text, is_toml=is_toml)  # before the parser, which would descend however deep it is
    except TooDeep as error:
        raise CardInvalid([Problem(1, "", f"the document is {error}")]) from None
    table = parse(text)
    problems: list[Problem] = []
    card = _card(Reader(table, (), lines, problems)) if isinstance(table, dict) else None
    if not isinstance(table, dict):
        problems.append(Problem(1, "", "a rate card is an object with the fields card, version, currency and so on"))
    if problems or card is None:
        raise CardInvalid(problems)
    return card


def _toml(text: str) -> Any:
    try:
        return tomllib.loads(text, parse_float=Decimal)
    except tomllib.TOMLDecodeError as error:
        place = _TOML_PLACE.search(str(error))
        line = int(place[1]) if place and place[1] else text.count("\n") + 1
        raise CardInvalid([Problem(line, "", f"this is not TOML: {_TOML_PLACE.sub('', str(error))}")]) from None
    except ValueError as error:  # a number of thousands of digits, a date outside the calendar
        raise CardInvalid([Problem(1, "", f"this is not TOML: {error}")]) from None


def _json(text: str) -> Any:
    try:
        require_shallow(text)
        return json.loads(text, object_pairs_hook=_without_duplicates, parse_float=Decimal, parse_constant=_no_constant)
    except json.JSONDecodeError as error:
        raise CardInvalid([Problem(error.lineno, "", f"this is not JSON: {error.msg}")]) from None
    except ValueError as error:
        raise CardInvalid([Problem(1, "", f"this is not JSON: {error}")]) from None


def _without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"{next(name for name in names if names.count(name) > 1)!r} is given twice in one object")
    return found


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is no number")


def _card(reader: Reader) -> CardVersion | None:
    fields: dict[str, Any] = {}
    with reader.noting():
        fields["card"] = reader.parsed("card", _card_name)
    with reader.noting():
        fields["version"] = reader.integer("version", low=1, high=2**31 - 1)
    with reader.noting():
        fields["currency"] = reader.parsed("currency", parse_currency)
    with reader.noting():
        fields["effective_from"] = reader.instant("effective_from")
    with reader.noting():
        fields["note"] = reader.text("note", chars_max=NOTE_CHARS_MAX) if reader.has("note") else ""
    with reader.noting():
        rates = [_rate(one, fields.get("currency", "USD")) for one in reader.tables("rates", count_max=RATES_MAX_COUNT)]
        if None not in rates:
            fields["rates"] = tuple(rates)
    reader.end()
    if len(fields) == 6:
        with reader.noting():
            return CardVersion(**fields)
    return None


def _rate(reader: Reader, currency: str) -> Rate | None:
    fields: dict[str, Any] = {}
    for name in ("application", "pipeline", "model"):
        with reader.noting():
            fields[name] = reader.text(name) if reader.has(name) else None
    with reader.noting():
        fields["floor"] = reader.choice("floor", Floor) if reader.has("floor") else Floor.PERIOD
    with reader.noting():
        fields["minimum_charge"] = Decimal(0)
        if reader.has("minimum_charge"):
            fields["minimum_charge"] = reader.parsed("minimum_charge", lambda text: _amount(text, currency))
    with reader.noting():
        fields["per"] = reader.choice("per", Per)
    prices = [name for name in ("price", "markup_bps", "tiers") if reader.has(name)]
    if "per" in fields:
        with reader.noting():
            fields["tiers"] = _tiers(reader, fields["per"], prices)
    reader.end()
    if len(fields) == 7 and None not in fields["tiers"]:
        with reader.noting():
            return _checked_rate(fields, is_tiered="tiers" in prices)
    return None


def _checked_rate(fields: dict[str, Any], *, is_tiered: bool) -> Rate:
    """A single price is a tier without an end; what is wrong with it is told of the field that was written."""
    try:
        return Rate(**fields)
    except CardProblem as problem:
        if is_tiered or problem.path[:2] != ("tiers", 0):
            raise
        name = "markup_bps" if fields["per"] is Per.COST else "price"
        raise CardProblem((name,), problem.message) from None


def _tiers(reader: Reader, per: Per, given: list[str]) -> tuple[Tier | None, ...]:
    """None for one that is wrong."""
    wanted = "markup_bps" if per is Per.COST else "price"
    if len(given) != 1:
        what = f"{' and '.join(given)} are given" if given else "no price is given"
        raise reader.note((), f"needs one of {wanted} and tiers: {what}")
    if given != ["tiers"]:
        return (Tier(None, _price(reader, per)),)
    return tuple(_tier(one, per) for one in reader.tables("tiers", count_max=TIERS_MAX_COUNT))


def _tier(reader: Reader, per: Per) -> Tier | None:
    fields: dict[str, Any] = {}
    with reader.noting():
        has_end = reader.has("up_to")
        fields["up_to"] = reader.parsed("up_to", lambda text: to_base(_decimal(text), per)) if has_end else None
    with reader.noting():
        fields["price"] = _price(reader, per)
    reader.end()
    return Tier(**fields) if len(fields) == 2 else None


def _price(reader: Reader, per: Per) -> Decimal:
    """Per unit; of cost what a unit is charged at."""
    wanted, other = ("markup_bps", "price") if per is Per.COST else ("price", "markup_bps")
    if reader.has(other):
        raise reader.note((other,), f"does not go with per = {per.value!r}: give {wanted}")
    if per is Per.COST:
        bps = reader.integer("markup_bps", low=MARKUP_BPS_MIN, high=MARKUP_BPS_MAX)
        return EXACT.scaleb(Decimal(10_000 + bps), -BPS_DECIMALS)
    return reader.parsed("price", _decimal)


# --- values ---------------------------------------------------------------------------------------------------------


def _card_name(text: str) -> str:
    if _CARD.fullmatch(text) is None:
        raise ValueError(f"a card is named with 1 to 64 small letters, digits, _ . and -, not {text[:64]!r}")
    return text


def _amount(text: str, currency: str) -> Decimal:
    return parse_amount(text, currency=currency, may_be_zero=True)


def _decimal(text: str) -> Decimal:
    """Finer than an amount may be: a pixel costs next to nothing."""
    if _DECIMAL.fullmatch(text) is None:
        raise ValueError(
            f"a plain decimal number such as 0.0125 has at most 15 digits before the point and "
            f"{UNIT_PRICE_DECIMALS_MAX} after it, no sign and no exponent; {text[:64]!r} is none"
        )
    return Decimal(text)
