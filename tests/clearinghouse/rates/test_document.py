"""A rate card in a file: what it says comes through exactly, and every mistake is told with its line and field."""

from __future__ import annotations

import json
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chain.shallow_json import TooDeep
from clearinghouse.rates.card import CardVersion, Floor, Tier
from clearinghouse.rates.document import CardInvalid, digest, document, read_json, read_toml
from clearinghouse.rates.lines import line_numbers, line_of
from clearinghouse.rates.units import Per
from tests.clearinghouse.rates.parts import NOW, cards

CARD = """\
card = "standard"
version = 3
currency = "USD"
effective_from = 2026-12-01T00:00:00Z
note = "winter [[rates]] = 'x' #"  # [no header]

[[rates]]
per = "cost"
markup_bps = 500

[[rates]]
application = "app"
"pipeline" = 'live-video-to-video'
per = "minute"
floor = "none"
minimum_charge = "0.01"

  [[rates.tiers]]
  up_to = "1000.5"
  price = "0.1"

  [[rates.tiers]]
  price = "0.0875"

[[rates]]
model = "m"
per = "request"
tiers = [
  {up_to = "10", price = "0"}, # ten for free
  {price = "2"},
]
"""


def toml(value: Any) -> str:
    """A value as TOML; whatever JSON writes of strings and whole numbers is TOML, too."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key} = {toml(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(toml, value)) + "]"
    return json.dumps(value)


def toml_document(card: CardVersion) -> str:
    return "\n".join(f"{key} = {toml(value)}" for key, value in document(card).items())


def test_a_card_is_what_its_file_says() -> None:
    card = read_toml(CARD)
    assert (card.card, card.version, card.currency, card.effective_from) == ("standard", 3, "USD", NOW)
    by_cost, by_minute, by_request = card.rates
    assert (by_cost.per, by_cost.tiers, by_cost.floor) == (Per.COST, (Tier(None, Decimal("1.05")),), Floor.PERIOD)
    assert by_minute.names == ("app", "live-video-to-video", None)
    assert (by_minute.floor, by_minute.minimum_charge) == (Floor.NONE, Decimal("0.01"))
    assert by_minute.tiers == (Tier(60_030 * 10**9, Decimal("0.1")), Tier(None, Decimal("0.0875")))
    assert (by_request.names, by_request.tiers) == ((None, None, "m"), (Tier(10, Decimal(0)), Tier(None, Decimal(2))))


@given(cards())
def test_a_card_written_and_read_is_the_same_card(card: CardVersion) -> None:
    assert read_json(json.dumps(document(card))) == card
    assert read_toml(toml_document(card)) == card
    assert digest(read_toml(toml_document(card))) == digest(card)


def test_a_digest_stays_what_it_was_when_it_was_stored() -> None:
    assert digest(read_toml(CARD)).hex() == "1c4c43166a0235ddcbab34b9fb7d93c19b99bc30f2f16e4ffeb3f7c419e4bda9"


def test_cards_that_say_the_same_have_the_same_digest_and_others_have_another() -> None:
    card = read_toml(CARD)
    same = CARD.replace("2026-12-01T00:00:00Z", "2026-12-01T02:00:00+02:00").replace('"0.1"', '"0.100"')
    assert digest(read_toml(same)) == digest(card)
    assert digest(read_toml(CARD.replace('"0.1"', '"0.10000000000000000001"'))) != digest(card)


@pytest.mark.parametrize(
    ("right", "wrong", "problems"),
    [
        ("version = 3", "version = 0", ["line 2: version is 1 to 2147483647, not 0"]),
        ("version = 3", "version = true", ["line 2: version is a whole number, not a boolean"]),
        ("version = 3", "versoin = 3", [
            "line 1: version is missing",
            "line 2: versoin is not a field here (did you mean version?)",
        ]),
        ('"USD"', '"usd"', [
            "line 3: currency is wrong: a currency is 3 to 8 capital letters, such as USD (did you mean USD?), "
            "not 'usd'"
        ]),
        ("00:00:00Z", "00:00:00", ["line 4: effective_from needs a time zone: add Z for UTC"]),
        ("2026-12-01T00:00:00Z", '"2026-12-01"', [
            "line 4: effective_from is wrong: a time is written 2026-04-07T20:00:00Z, with its zone, not '2026-12-01'"
        ]),
        ("standard", "Standard", [
            "line 1: card is wrong: a card is named with 1 to 64 small letters, digits, _ . and -, not 'Standard'"
        ]),
        ("markup_bps = 500", "markup_bps = -1", [
            'line 9: rates[0].markup_bps is below cost, which only floor = "none" may be'
        ]),
        ("markup_bps = 500", 'price = "1"', ["line 9: rates[0].price does not go with per = 'cost': give markup_bps"]),
        ("markup_bps = 500", "", ["line 7: rates[0] needs one of markup_bps and tiers: no price is given"]),
        ('floor = "none"', 'floor = "nil"', ["line 15: rates[1].floor is one of period, call, none, not 'nil'"]),
        ('per = "minute"', 'per = "minutes"', [
            "line 14: rates[1].per is one of cost, second, minute, 720p-pixel-second, request, not 'minutes' "
            "(did you mean minute?)"
        ]),
        ('"0.01"', '"0.0000000000001"', [
            "line 16: rates[1].minimum_charge is wrong: the amount 0.0000000000001 is too fine: "
            "USD has at most 12 decimals here"
        ]),
        ('"0.1"', "0.1", ['line 20: rates[1].tiers[0].price is a string, not a number: write "0.1"']),
        ('"0.1"', '"1e3"', [
            "line 20: rates[1].tiers[0].price is wrong: a plain decimal number such as 0.0125 has at most 15 digits "
            "before the point and 24 after it, no sign and no exponent; '1e3' is none"
        ]),
        ('"1000.5"', '"0"', ["line 19: rates[1].tiers[0].up_to is not above 0, where the tier before ends"]),
        ('  up_to = "1000.5"\n', "", [
            "line 18: rates[1].tiers[0].up_to is missing: only the last tier has no end"
        ]),
        ('price = "0.0875"', 'price = "0.0875"\n  up_to = "2000"', [
            "line 24: rates[1].tiers[1].up_to is on the last tier, which has no end"
        ]),
        ('{up_to = "10"', '{up_to = "10.5"', [
            "line 29: rates[2].tiers[0].up_to is wrong: 10.5 is finer than a request is measured"
        ]),
        ('{price = "2"},', '{price = "2", upto = "3"}, 7', [
            "line 28: rates[2].tiers is a list of tables: write [[tiers]]"
        ]),
        ('{price = "2"},', '{prize = "2"},', [
            "line 30: rates[2].tiers[1].price is missing",
            "line 30: rates[2].tiers[1].prize is not a field here (did you mean price?)",
        ]),
        ('model = "m"', "", ["line 25: rates[2] is for the same calls as rates[0]: keep one of them"]),
        ('model = "m"', 'model = ""', ["line 26: rates[2].model is empty: leave it out where any will do"]),
        ('model = "m"', 'model = "m"\nmodel = "n"', ["line 27: this is not TOML: Cannot overwrite a value"]),
        ("version = 3", "version = ", ["line 2: this is not TOML: Invalid value"]),
    ],
)  # fmt: skip
def test_a_mistake_is_told_with_its_line_and_field(right: str, wrong: str, problems: list[str]) -> None:
    assert CARD.count(right) == 1
    with pytest.raises(CardInvalid) as raised:
        read_toml(CARD.replace(right, wrong))
    assert str(raised.value).split("\n") == problems


def test_all_mistakes_are_told_at_once_in_the_order_of_their_lines() -> None:
    text = CARD.replace("version = 3", 'version = "3"').replace('"0.1"', '"x"').replace('"request"', '"call"')
    with pytest.raises(CardInvalid) as raised:
        read_toml(text)
    assert [(problem.line, problem.field) for problem in raised.value.problems] == [
        (2, "version"),
        (20, "rates[1].tiers[0].price"),
        (27, "rates[2].per"),
    ]


def test_lines_are_counted_through_strings_and_tables_of_tables() -> None:
    tiers = '[[rates.tiers]]\nup_to = "1"\nprice = "1"\n[[rates.tiers]]\nprice = "x"\n'
    rate = f'[[rates]]\nmodel = "m-%d"\nper = "second"\n{tiers}'
    text = CARD.replace('"winter [[rates]]', '"""\\\n\n winter""" #').split("[[rates]]", maxsplit=1)[0] + rate * 2
    with pytest.raises(CardInvalid) as raised:
        read_toml(text)
    lines = text.split("\n")
    assert [(problem.field, lines[problem.line - 1]) for problem in raised.value.problems] == [
        ("rates[0].tiers[1].price", 'price = "x"'),
        ("rates[1].tiers[1].price", 'price = "x"'),
    ]


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ('{"card": "a",\n "card": "b"}', "line 1: this is not JSON: 'card' is given twice in one object"),
        ('{"card": "a",\n "version": NaN}', "line 1: this is not JSON: NaN is no number"),
        ('{"card": "a",\n "version" 1}', "line 2: this is not JSON: Expecting ':' delimiter"),
        ("[]", "line 1: a rate card is an object with the fields card, version, currency and so on"),
        ("[" * 1_000_000, "line 1: the document is nested too deeply"),
        ('{"version":\n' + "9" * 5_000 + "}", "line 1: this is not JSON: Exceeds the limit"),
        (" " * 5_000_000, "line 1: the document is longer than 4194304 characters"),
    ],
    ids=range(7),
)
def test_what_is_no_json_document_is_refused(text: str, problem: str) -> None:
    with pytest.raises(CardInvalid) as raised:
        read_json(text)
    assert str(raised.value).startswith(problem)


@pytest.mark.parametrize(
    ("rates", "problem"),
    [
        ([{}] * 10_001, "rates has at most 10000 tables, not 10001"),
        ([{"per": "second", "tiers": [{}] * 101}], "rates[0].tiers has at most 100 tables, not 101"),
    ],
    ids=["rates", "tiers"],
)
def test_a_card_with_more_than_every_process_can_hold_is_refused(rates: list[dict[str, object]], problem: str) -> None:
    card = {"card": "a", "version": 1, "currency": "USD", "effective_from": "2026-01-01T00:00:00Z", "rates": rates}
    with pytest.raises(CardInvalid) as raised:
        read_json(json.dumps(card))
    assert str(raised.value) == f"line 1: {problem}"


@pytest.mark.parametrize(
    "text",
    ["a = " + "[" * 1_000_000, "a = " + "{b = " * 1_000_000, "a = 0x" + "f" * 1_000_000, "a = 2026-99-99", "a = nan"],
    ids=range(5),
)
def test_a_hostile_toml_document_is_refused_and_exhausts_nothing(text: str) -> None:
    with pytest.raises(CardInvalid):
        read_toml(text)
    with pytest.raises(CardInvalid):
        read_toml(text.replace("a =", "card ="))


MARK = "marked-value"


@settings(max_examples=50)
@given(cards(), st.data(), st.sampled_from([None, 0, 2]), st.booleans())
def test_lines_are_those_of_the_values(
    card: CardVersion, data: st.DataObject, indent: int | None, as_toml: bool
) -> None:
    """One value is marked, and the line of the mark is compared."""
    shown = document(card)
    holder: Any = shown
    path: list[str | int] = []
    while isinstance(holder, dict | list):
        key = data.draw(st.sampled_from(list(holder) if isinstance(holder, dict) else range(len(holder))))
        path.append(key)
        if not isinstance(holder[key], dict | list):
            holder[key] = MARK
            break
        holder = holder[key]
    if as_toml:
        text = "\n".join(f"{key} = {toml(value)}" for key, value in shown.items()).replace("{", "{\n# [it] 'is\n")
    else:
        text = json.dumps(shown, indent=indent)
    wanted = next(number for number, line in enumerate(text.split("\n"), 1) if MARK in line)
    assert line_of(tuple(path), line_numbers(text, is_toml=as_toml)) == wanted


@given(st.one_of(st.text(), st.lists(st.sampled_from([*CARD.split(), *'[]{}=,"\n#.']), max_size=40).map(" ".join)))
def test_whatever_the_document_it_is_a_card_or_invalid(text: str) -> None:
    for read in (read_toml, read_json):
        with pytest.raises(CardInvalid) as raised:
            read(text)
        assert all(1 <= problem.line <= text.count("\n") + 2 for problem in raised.value.problems)


@given(st.integers(0, len(CARD)), st.integers(0, 12), st.text(st.sampled_from('"[]{}=,\n1.az'), max_size=3))
def test_a_card_with_a_slip_of_the_pen_is_still_a_card_or_invalid(at: int, removed: int, put: str) -> None:
    text = CARD[:at] + put + CARD[at + removed :]
    try:
        card = read_toml(text)
    except CardInvalid as invalid:
        problems = invalid.problems
    else:
        problems = ()
        assert read_json(json.dumps(document(card))) == card
    assert all(1 <= problem.line <= text.count("\n") + 1 for problem in problems)


def test_depth_is_found_before_a_parser_descends() -> None:
    with pytest.raises(TooDeep):
        line_numbers("[" * 65, is_toml=False)
    assert line_numbers("a = " + "[" * 64, is_toml=True)[("a",)] == 1
