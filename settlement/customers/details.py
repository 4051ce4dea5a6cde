"""What is known of a customer: what may be typed, and what Stripe is told of it.

Nothing here reads or writes: `parse_details` judges what was typed, all of it before any of it is kept.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, Literal, get_args
from uuid import UUID

from clearinghouse.errors import InvalidRequest
from settlement.customers.vocabulary import LOCALES, TAX_ID_TYPES, countries

#: How what is owed is asked for: by Stripe, which charges a card or sends an invoice; or by us, without it.
Collection = Literal["charge_automatically", "send_invoice", "manual"]
MANUAL: Final = "manual"
#: From what was typed to columns and their values. Raises InvalidRequest.
_Reader = Callable[[object], dict[str, object]]

NET_DAYS_MAX: Final = 365
_EMAIL_CHARS_MAX: Final = 254  # RFC 5321: more than that no mail server takes
_EMAIL: Final = re.compile(
    r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+(\.[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+)*"
    r"@([A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?\.)+([A-Za-z]{2,63}|[Xx][Nn]--[A-Za-z0-9-]{1,59})",
    re.ASCII,
)
_SHOWN_CHARS: Final = 64


@dataclass(frozen=True, slots=True)
class Customer:
    """Who pays for a gateway, in `currency`, its account's. `version` counts changes; Stripe has `stripe_version`.

    `net_days`: from an invoice to when it is due. `is_taxed`: by Stripe Tax. `manual_until`: when `collection` was last
    changed from manual to another; what was owed by then is no further invoice of Stripe, but carried to its next one.
    """

    gateway_id: UUID
    currency: str
    name: str
    email: str
    line1: str
    line2: str
    city: str
    postal_code: str
    state: str
    country: str | None
    tax_id_type: str | None
    tax_id: str | None
    is_taxed: bool
    locale: str
    po_number: str
    collection: Collection
    net_days: int
    version: int
    stripe_customer_id: str | None
    stripe_version: int | None
    stripe_refusal: str | None
    stripe_attempts: int
    changed_at: datetime
    changed_by: str
    manual_until: datetime | None

    @property
    def is_in_step(self) -> bool:
        """Whether Stripe has been told all of it."""
        return self.stripe_customer_id is not None and self.stripe_version == self.version


def parse_details(given: Mapping[str, object]) -> dict[str, object]:
    """What was typed, by the names of columns; `tax_id` as `eu_vat:DE123456789`, "" for none. What is missing stays.

    InvalidRequest names everything that is wrong, so that nothing has to be typed twice.
    """
    parsed: dict[str, object] = {}
    wrong = []
    for name, value in given.items():
        try:
            parsed |= _READERS[name](value)
        except InvalidRequest as refused:
            wrong.append(refused.message)
    if wrong:
        raise InvalidRequest("; ".join(wrong))
    return parsed


def require_consistent(customer: Customer) -> None:
    """What details of one customer must be together. InvalidRequest."""
    if customer.is_taxed and customer.country is None:
        raise InvalidRequest("tax follows from where a customer is: name its country, too")


def _line(
    column: str, what: str, chars_max: int, *, may_be_empty: bool = True
) -> Callable[[object], dict[str, object]]:
    def read(value: object) -> dict[str, object]:
        text = str(value).strip()
        if not text and not may_be_empty:
            raise InvalidRequest(f"{what} cannot be empty")
        if len(text) > chars_max:
            raise InvalidRequest(f"{what} has at most {chars_max} characters, not {len(text)}")
        if not text.isprintable():
            raise InvalidRequest(f"{what} is one line of printable characters, not {_shown(text)}")
        return {column: text}

    return read


def _email(value: object) -> dict[str, object]:
    text = str(value).strip()
    if len(text) > _EMAIL_CHARS_MAX or _EMAIL.fullmatch(text) is None:
        raise InvalidRequest(f"an e-mail address is written billing@example.com, not {_shown(text)}")
    return {"email": text}


def _country(value: object) -> dict[str, object]:
    text = str(value).strip()
    if text in countries() or not text:
        return {"country": text or None}
    alike = [code for code, name in countries().items() if text.lower() in {code.lower(), name.lower()}]
    hint = f" (did you mean {alike[0]}?)" if alike else ""
    raise InvalidRequest(f"a country is two capital letters of ISO 3166, such as DE, not {_shown(text)}{hint}")


def _tax_id(value: object) -> dict[str, object]:
    text = str(value).strip()
    if not text:
        return {"tax_id_type": None, "tax_id": None}
    kind, colon, number = (part.strip() for part in text.partition(":"))
    if not colon:
        raise InvalidRequest(f"a tax id is written with its type, such as eu_vat:DE123456789, not {_shown(text)}")
    if kind not in TAX_ID_TYPES:
        here = sorted(known for known in TAX_ID_TYPES if known[:2] == kind[:2].lower())
        hint = f" (of {kind[:2].upper()} there are {', '.join(here)})" if here else ""
        raise InvalidRequest(f"{_shown(kind)} is no type of tax id that Stripe knows{hint}")
    if not 1 <= len(number) <= _SHOWN_CHARS or not (number.isascii() and number.isprintable()):
        raise InvalidRequest(f"a tax id has 1 to {_SHOWN_CHARS} printable ASCII characters, not {_shown(number)}")
    return {"tax_id_type": kind, "tax_id": number}


def _locale(value: object) -> dict[str, object]:
    text = str(value).strip()
    if text not in LOCALES:
        alike = [known for known in sorted(LOCALES) if known.lower() == text.lower().replace("_", "-")]
        hint = f" (did you mean {alike[0]}?)" if alike else ""
        raise InvalidRequest(f"Stripe does not write in {_shown(text)}{hint}; it does in {', '.join(sorted(LOCALES))}")
    return {"locale": text}


def _collection(value: object) -> dict[str, object]:
    if value not in get_args(Collection):
        raise InvalidRequest(
            f"an invoice is collected by charge_automatically, send_invoice or manual, not {_shown(str(value))}"
        )
    return {"collection": value}


def _net_days(value: object) -> dict[str, object]:
    if type(value) is not int or not 0 <= value <= NET_DAYS_MAX:
        raise InvalidRequest(f"an invoice is due after 0 to {NET_DAYS_MAX} days, not {_shown(str(value))}")
    return {"net_days": value}


def _is_taxed(value: object) -> dict[str, object]:
    if type(value) is not bool:
        raise InvalidRequest(f"a customer is taxed or not: true or false, not {_shown(str(value))}")
    return {"is_taxed": value}


def _shown(text: str) -> str:
    return repr(text if len(text) <= _SHOWN_CHARS else text[:_SHOWN_CHARS] + "…")


_READERS: Final[Mapping[str, _Reader]] = {
    "name": _line("name", "a customer's name", 256, may_be_empty=False),
    "email": _email,
    "line1": _line("line1", "an address line", 256),
    "line2": _line("line2", "an address line", 256),
    "city": _line("city", "a city", 256),
    "postal_code": _line("postal_code", "a postal code", 32),
    "state": _line("state", "a state", 256),
    "country": _country,
    "tax_id": _tax_id,
    "is_taxed": _is_taxed,
    "locale": _locale,
    "po_number": _line("po_number", "a purchase order number", 128),
    "collection": _collection,
    "net_days": _net_days,
}


def stripe_fields(customer: Customer, *, gateway: str) -> dict[str, Any]:
    """Of POST /v1/customers/{customer}: all of it, also what has not changed."""
    return {
        "name": customer.name,
        "email": customer.email,
        "address": stripe_address(customer) or "",
        "preferred_locales": [customer.locale],
        "metadata": {GATEWAY_KEY: gateway, VERSION_KEY: str(customer.version)},
    }


def stripe_address(customer: Customer) -> dict[str, str]:
    """What is known of it. Stripe takes no empty parts of an address, and only the whole of it can be taken away."""
    parts = {
        "line1": customer.line1,
        "line2": customer.line2,
        "city": customer.city,
        "postal_code": customer.postal_code,
        "state": customer.state,
        "country": customer.country,
    }
    return {part: value for part, value in parts.items() if value}


def has_left_over(there: Mapping[str, Any] | None, address: Mapping[str, str]) -> bool:
    """Whether an address at Stripe has parts that ours has not."""
    return any(value for part, value in (there or {}).items() if part not in address)


#: In the metadata of Stripe's customer: whose it is, as `gw_…`, and which version of ours it is a copy of.
GATEWAY_KEY: Final = "clearinghouse_gateway_id"
VERSION_KEY: Final = "clearinghouse_version"


def same_tax_id(first: tuple[str, str], second: tuple[str, str]) -> bool:
    """Type and number. Stripe may write the same number with other spaces, dots and capitals."""
    return first[0] == second[0] and _bare(first[1]) == _bare(second[1])


def _bare(number: str) -> str:
    return re.sub(r"[^0-9a-z]", "", number.lower())
