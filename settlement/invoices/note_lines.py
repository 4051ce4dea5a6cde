"""Which of an invoice's lines a credit note is of, so that Stripe takes their tax back with them. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from clearinghouse.errors import InvalidRequest


@dataclass(frozen=True, slots=True)
class Tax:
    """On top of a line, in minor units. `rate_id`: Stripe's; None where it cannot be told another amount of it."""

    rate_id: str | None
    amount_minor: int


@dataclass(frozen=True, slots=True)
class Chargeable:
    """A line of an invoice at Stripe. Amounts in minor units: `left_minor` of it is not credited yet.

    `taxes` are those on top of it. `position` is that of our own line.
    """

    id: str
    position: int | None
    amount_minor: int
    left_minor: int
    taxes: tuple[Tax, ...]


@dataclass(frozen=True, slots=True)
class Part:
    """What a credit note has of a line. Stripe reckons `taxes` itself, unless they are stated."""

    line_id: str
    amount_minor: int
    taxes: tuple[Tax, ...]
    is_stated: bool = False

    @property
    def tax_minor(self) -> int:
        return sum(tax.amount_minor for tax in self.taxes)

    @property
    def row(self) -> dict[str, Any]:
        """As it is kept until Stripe was asked for it."""
        row: dict[str, Any] = {"line": self.line_id, "amount": self.amount_minor}
        return row | ({"taxes": [[tax.rate_id, tax.amount_minor] for tax in self.taxes]} if self.is_stated else {})


def chosen(lines: Sequence[Chargeable], position: int | None) -> Sequence[Chargeable]:
    """All, or the one. Raises InvalidRequest where there is none to be credited."""
    if position is None:
        return lines
    found = [line for line in lines if line.position == position]
    if not found:
        raise InvalidRequest(f"the invoice has no line {position}: `clearinghouse invoices show` has them")
    if found[0].amount_minor <= 0:
        raise InvalidRequest(f"line {position} asks for nothing: there is nothing to be credited of it")
    return found


def parts(lines: Sequence[Chargeable], amount_minor: int) -> list[Part]:
    """From the first on, of each as much as is left. Raises InvalidRequest where that is not enough."""
    found, rest = [], amount_minor
    for line in lines:
        part = min(rest, line.left_minor)
        if part > 0:
            taxes = tuple(replace(tax, amount_minor=_share(tax.amount_minor, part, line.amount_minor))
                          for tax in line.taxes)  # fmt: skip
            found.append(Part(line.id, part, taxes))
            rest -= part
    if rest:
        raise InvalidRequest("that is more than what is left to be credited of these lines")
    return found


def with_all_tax(found: Sequence[Part], lines: Sequence[Chargeable], tax_left_minor: int) -> list[Part]:
    """The parts that take back all that is left, with all of the tax that is left: each part is rounded for itself, and
    so was every part before it, so that their taxes may come to some units less, or more, than the tax of the whole.
    What differs is stated for the last of them, of no tax less than nothing or more than its line has.

    As they were where Stripe cannot be told. Raises InvalidRequest where the difference finds no room.
    """
    rest = tax_left_minor - sum(part.tax_minor for part in found)
    if not rest or any(tax.rate_id is None for part in found for tax in part.taxes):
        return list(found)
    wholes = {line.id: line.taxes for line in lines}
    stated: list[Part] = []
    for part in reversed(found):
        taxes = []
        for tax, whole in zip(part.taxes, wholes[part.line_id], strict=True):
            amount_minor = min(max(0, tax.amount_minor + rest), whole.amount_minor)
            rest -= amount_minor - tax.amount_minor
            taxes.append(replace(tax, amount_minor=amount_minor))
        is_stated = tuple(taxes) != part.taxes
        stated.append(replace(part, taxes=tuple(taxes), is_stated=is_stated))
    if rest:
        raise InvalidRequest(
            f"{tax_left_minor} minor units of tax are left, and the lines that are left cannot have {rest} of them: "
            "say an amount instead of all"
        )
    return stated[::-1]


def _share(tax_minor: int, part_minor: int, whole_minor: int) -> int:
    """Half away from zero, as Stripe rounds."""
    return (2 * tax_minor * part_minor + whole_minor) // (2 * whole_minor)
