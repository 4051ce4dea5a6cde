"""What may be typed of a customer."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import stripe

from clearinghouse.errors import InvalidRequest
from settlement.customers.details import has_left_over, parse_details, same_tax_id
from settlement.customers.vocabulary import LOCALES, TAX_ID_TYPES, countries

SDK = Path(stripe.__file__).parent


def words_of_sdk(file: str, field: str) -> set[str]:
    """Of a parameter: what its annotation lists."""
    found = re.search(rf"    {field}: [^\[]*\[?\s*\"?'?Literal\[(.*?)\]", (SDK / file).read_text(), re.DOTALL)
    assert found is not None, field
    return set(re.findall(r"[a-zA-Z][\w-]+", found[1]))


def test_the_types_of_tax_ids_are_those_of_stripes_sdk() -> None:
    assert words_of_sdk("params/_tax_id_create_params.py", "type") == TAX_ID_TYPES


def test_the_languages_are_those_of_stripes_sdk() -> None:
    assert words_of_sdk("params/checkout/_session_create_params.py", "locale") - {"auto"} == LOCALES


def test_all_countries_are_known() -> None:
    assert len(countries()) == 249
    assert countries()["DE"] == "Germany"


@pytest.mark.parametrize(
    ("name", "typed", "kept"),
    [
        ("name", " Acme GmbH ", {"name": "Acme GmbH"}),
        ("email", "billing+eu@sub.acme.example", {"email": "billing+eu@sub.acme.example"}),
        ("country", "DE", {"country": "DE"}),
        ("country", "", {"country": None}),
        ("tax_id", "eu_vat:DE 123456789", {"tax_id_type": "eu_vat", "tax_id": "DE 123456789"}),
        ("tax_id", "", {"tax_id_type": None, "tax_id": None}),
        ("locale", "pt-BR", {"locale": "pt-BR"}),
        ("locale", "es-419", {"locale": "es-419"}),
        ("po_number", "", {"po_number": ""}),
        ("net_days", 0, {"net_days": 0}),
        ("net_days", 365, {"net_days": 365}),
        ("is_taxed", False, {"is_taxed": False}),
        ("collection", "charge_automatically", {"collection": "charge_automatically"}),
        ("collection", "manual", {"collection": "manual"}),
    ],
)
def test_what_is_right_is_kept(name: str, typed: object, kept: dict[str, object]) -> None:
    assert parse_details({name: typed}) == kept


@pytest.mark.parametrize(
    ("name", "typed", "said"),
    [
        ("name", "  ", "cannot be empty"),
        ("name", "x" * 257, "at most 256 characters, not 257"),
        ("name", "Acme\nGmbH", "one line of printable characters"),
        ("email", "billing@acme", "billing@example.com"),
        ("email", "bill ing@acme.example", "billing@example.com"),
        ("email", ".a@acme.example", "billing@example.com"),
        ("email", "a@-acme.example", "billing@example.com"),
        ("email", "a" * 255 + "@acme.example", "billing@example.com"),
        ("country", "de", "did you mean DE?"),
        ("country", "Germany", "did you mean DE?"),
        ("country", "XX", "ISO 3166"),
        ("tax_id", "DE123456789", "with its type"),
        ("tax_id", "de_vat:DE123456789", "of DE there are de_stn"),
        ("tax_id", "eu_vat:", "1 to 64 printable"),
        ("tax_id", "eu_vat:" + "9" * 65, "1 to 64 printable"),
        ("locale", "pt_br", "did you mean pt-BR?"),
        ("locale", "tlh", "does not write in 'tlh'"),
        ("po_number", "x" * 129, "at most 128"),
        ("net_days", -1, "0 to 365 days"),
        ("net_days", 366, "0 to 365 days"),
        ("net_days", True, "0 to 365 days"),
        ("is_taxed", "yes", "true or false"),
        ("collection", "by post", "charge_automatically, send_invoice or manual"),
    ],
)
def test_what_is_wrong_is_named(name: str, typed: object, said: str) -> None:
    with pytest.raises(InvalidRequest, match=re.escape(said)):
        parse_details({name: typed})


def test_everything_that_is_wrong_is_said_at_once() -> None:
    with pytest.raises(InvalidRequest, match=r"e-mail.*; .*country.*; .*days"):
        parse_details({"name": "Acme", "email": "x", "country": "Narnia", "net_days": 400})


def test_a_tax_id_is_the_same_whatever_its_spaces_dots_and_capitals() -> None:
    assert same_tax_id(("eu_vat", "DE 123.456-789"), ("eu_vat", "de123456789"))
    assert not same_tax_id(("eu_vat", "DE123456789"), ("de_stn", "DE123456789"))
    assert not same_tax_id(("eu_vat", "DE123456789"), ("eu_vat", "DE123456780"))


def test_a_part_of_an_address_that_is_left_over_at_stripe_is_seen() -> None:
    assert has_left_over({"city": "Hamburg", "line2": "c/o Bolt"}, {"city": "Bremen"})
    assert not has_left_over({"city": "Hamburg", "line2": None, "state": ""}, {"city": "Bremen", "country": "DE"})
    assert not has_left_over(None, {"city": "Bremen"})
