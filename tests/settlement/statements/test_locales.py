"""Numbers are written as CLDR says, and lose nothing."""

from __future__ import annotations

from decimal import Decimal
from fractions import Fraction

import pytest
from babel import Locale
from hypothesis import given
from hypothesis import strategies as st

from settlement.statements.locales import FORMATS, number_format
from tests.settlement.statements.examples import amounts


@pytest.mark.parametrize("name", FORMATS)
def test_a_format_is_what_cldr_has(name: str) -> None:
    found, ours = Locale.parse(name, sep="-"), FORMATS[name]
    symbols = found.number_symbols["latn"]
    assert (ours.decimal, ours.group, ours.minus) == (symbols["decimal"], symbols["group"], symbols["minusSign"])
    assert (3, ours.later_groups) == found.decimal_formats[None].grouping
    assert ours.currency_first == found.currency_formats["standard"].pattern.startswith("¤")


@given(st.sampled_from(sorted(FORMATS)), amounts)
def test_every_digit_can_be_read_back(name: str, amount: Decimal) -> None:
    ours = FORMATS[name]
    written = ours.number(amount).replace(ours.group, "").replace(ours.decimal, ".").replace(ours.minus, "-")
    assert Fraction(written) == Fraction(amount)


@pytest.mark.parametrize(
    ("locale", "written"),
    [
        ("en", "-1,234,567.50"),
        ("de", "-1.234.567,50"),
        ("de_CH", "-1’234’567.50"),
        ("fr-FR", "-1\u202f234\u202f567,50"),
        ("hi-IN", "-12,34,567.50"),
        ("sv-SE", "−1\u00a0234\u00a0567,50"),
        ("zh-Hans-CN", "-1,234,567.50"),
        ("x-unknown", "-1,234,567.50"),
        ("", "-1,234,567.50"),
    ],
)
def test_a_number_where_its_reader_lives(locale: str, written: str) -> None:
    assert number_format(locale).number(Decimal("-1234567.5"), 2) == written


def test_some_group_only_from_five_digits_on() -> None:
    assert [number_format("es").number(Decimal(number)) for number in (999, 1234, 12345)] == ["999", "1234", "12.345"]
    assert number_format("es-AR").number(Decimal(1234)) == "1.234"


def test_money_has_its_code_where_the_symbol_would_be() -> None:
    assert number_format("en").money(Decimal("-87.5"), "USD", 2) == "USD\u00a0-87.50"
    assert number_format("de").money(Decimal(87), "JPY", 0) == "87\u00a0JPY"


def test_a_number_is_never_cut_off() -> None:
    with pytest.raises(ValueError, match="more than 2 decimals"):
        number_format("en").number(Decimal("1.005"), 2)
