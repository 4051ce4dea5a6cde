"""A claim about the books, and how its findings name things."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class Claim:
    """`sentence` is true where `violations` selects nothing. `name` is what scripts look for.

    With `is_of_amounts` there are two further columns: `amount`, which the books have too much (below 0: too little),
    and its `unit`, wei or a currency.
    """

    name: str
    sentence: str
    violations: str
    is_of_amounts: bool = False


def shown(kind: str, column: str) -> str:
    """SQL for an id as clearinghouse.ids.show gives it."""
    return f"'{kind}_' || replace({column}::text, '-', '')"


def shown_or_none(column: str) -> str:
    return f"coalesce({shown('iss', column)}, 'none')"


def amount(expression: str) -> str:
    return f"trim_scale({expression})"


ACCOUNT: Final = f"CASE WHEN account.gateway_id IS NULL THEN account.name ELSE {shown('gw', 'account.id')} END"
TRANSFER: Final = shown("tr", "transfer.id")
ISSUANCE: Final = shown("iss", "issuance.id")
SESSION: Final = shown("ses", "session.id")
