"""Parts of lines: however a taxed invoice is credited bit by bit, all that is left goes with all of its tax."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from settlement.invoices.note_lines import Chargeable, Part, Tax, parts, with_all_tax

amounts = st.integers(1, 10**6)
percents = st.integers(1, 40)


def line(at: int, amount_minor: int, percent: int) -> Chargeable:
    """Taxed as Stripe does: half away from zero."""
    tax = Tax("txr_1", (2 * amount_minor * percent + 100) // 200)
    return Chargeable(f"il_{at}", at, amount_minor, amount_minor, (tax,))


def left_of(lines: list[Chargeable], notes: list[list[Part]]) -> list[Chargeable]:
    credited = Counter[str]()
    for part in (part for note in notes for part in note):
        credited[part.line_id] += part.amount_minor
    return [replace(each, left_minor=each.amount_minor - credited[each.id]) for each in lines]


@given(st.lists(amounts, min_size=1, max_size=5), percents, st.lists(st.floats(0, 1), max_size=6))
def test_parts_and_then_all_come_to_the_tax_of_the_whole(
    wholes: list[int], percent: int, portions: list[float]
) -> None:
    lines = [line(at, amount_minor, percent) for at, amount_minor in enumerate(wholes)]
    tax_minor = sum(tax.amount_minor for each in lines for tax in each.taxes)
    notes: list[list[Part]] = []
    for portion in portions:
        left = left_of(lines, notes)
        amount_minor = int(sum(each.left_minor for each in left) * portion)
        tax_left_minor = tax_minor - sum(part.tax_minor for note in notes for part in note)
        found = parts(left, amount_minor)
        if found and sum(part.tax_minor for part in found) <= tax_left_minor:  # more than that Stripe refuses
            notes.append(found)
    left = left_of(lines, notes)
    rest_minor = sum(each.left_minor for each in left)
    tax_left_minor = tax_minor - sum(part.tax_minor for note in notes for part in note)
    last = parts(left, rest_minor)
    if not last:
        return  # nothing is left that could carry a tax
    reckoned = sum(part.tax_minor for part in last)
    if tax_left_minor > sum(tax.amount_minor for part in last for each in lines if each.id == part.line_id
                            for tax in each.taxes):  # fmt: skip
        return  # their lines have less tax than that: it is said, and nothing is credited
    stated = with_all_tax(last, left, tax_left_minor)
    assert sum(part.tax_minor for part in stated) == tax_left_minor
    assert [part.amount_minor for part in stated] == [part.amount_minor for part in last]
    assert any(part.is_stated for part in stated) == (reckoned != tax_left_minor)
