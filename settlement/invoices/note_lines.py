"""Which of an invoice's lines a credit note is of, so that Stripe takes their tax back with them. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from clearinghouse.errors import InvalidRequest


@dataclass(frozen=True, slots=True)
class Chargeable:
    """A line of an invoice at Stripe. Amounts in minor units: `left_minor` of it is not credited yet.

    `taxes_minor` are those on top of it. `position` is that of our own line.
    """

    id: str
    position: int | None
    amount_minor: int
    left_minor: int
    taxes_minor: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Part:
    line_id: str
    amount_minor: int
    tax_minor: int


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
            found.append(Part(line.id, part, sum(_share(tax, part, line.amount_minor) for tax in line.taxes_minor)))
            rest -= part
    if rest:
        raise InvalidRequest("that is more than what is left to be credited of these lines")
    return found


def _share(tax_minor: int, part_minor: int, whole_minor: int) -> int:
    """Half away from zero, as Stripe rounds."""
    return (2 * tax_minor * part_minor + whole_minor) // (2 * whole_minor)
