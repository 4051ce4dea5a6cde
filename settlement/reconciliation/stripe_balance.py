"""What moved the balance at Stripe: charges and refunds, what Stripe kept of them, and what it paid out to the bank.

Fees and payouts are in no entry of the books. They are held against each other: a payout is what was charged and not
given back, which the books have one by one, less the fees.
"""

from __future__ import annotations

from collections.abc import Callable
from decimal import Decimal
from typing import Final

import stripe

from settlement.payments.amounts import amount_of
from settlement.reconciliation.report import Amount, Compared, Difference, Section, by_unit
from settlement.reconciliation.stripe_copies import StripeCopies
from settlement.stripe_link.client import StripeAway, StripeRefused

#: Stripe knows what a payout is made of.
_COMPLETED: Final = "completed"
_NOT_ARRIVED: Final = frozenset({"failed", "canceled"})


class _Sums:
    """How many of what, and what they sum up to, by currency."""

    def __init__(self) -> None:
        self._sums: dict[str, tuple[int, dict[str, Decimal]]] = {}

    def add(self, what: str, currency: str, minor: int) -> None:
        count, amounts = self._sums.get(what, (0, {}))
        unit = currency.upper()
        amounts[unit] = amounts.get(unit, Decimal(0)) + amount_of(minor, currency)
        self._sums[what] = count + 1, amounts

    def compared(self) -> list[Compared]:
        return [
            Compared(what, count, by_unit(sorted(amounts.items())))
            for what, (count, amounts) in sorted(self._sums.items(), reverse=True)
        ]


async def compare(section: Section, copies: StripeCopies, address_of: Callable[[str], str]) -> list[Compared]:
    """What moved by its type, the fees, and the payouts against their parts; nothing that Stripe does not show."""
    sums = _Sums()
    try:
        async for movement in copies.movements():
            sums.add(f"movements at Stripe of type {movement.type}", movement.currency, movement.amount)
            if movement.fee:
                what = f"fees kept by Stripe of movements of type {movement.type}"
                sums.add(what, movement.currency, -movement.fee)
        unknown_count = 0
        async for payout in copies.payouts():
            sums.add(f"payouts that are {payout.status}", payout.currency, payout.amount)
            link = address_of(f"payouts/{payout.id}")
            if payout.status in _NOT_ARRIVED:
                section.differs(_not_arrived(payout, link))
            elif payout.reconciliation_status == _COMPLETED:
                await _compare_parts(section, sums, copies, payout, link)
            else:
                unknown_count += 1
    except (StripeAway, StripeRefused) as reason:
        section.leave_out(f"fees and payouts: Stripe does not show them, nor what else moved its balance: {reason}")
        return []
    if unknown_count:
        section.leave_out(f"{unknown_count} payouts: Stripe does not say what they are made of, or not yet")
    return sums.compared() or [Compared("movements of the balance at Stripe", 0)]


async def _compare_parts(section: Section, sums: _Sums, copies: StripeCopies, payout: stripe.Payout, link: str) -> None:
    """A payout is the sum of its parts after fees, to the minor unit."""
    parts_minor = 0
    async for part in copies.parts(payout):
        parts_minor += part.net
        sums.add(f"parts of payouts, after fees, of type {part.type}", part.currency, part.net)
    if parts_minor != payout.amount:
        amount = _amount(payout.amount - parts_minor, payout.currency)
        detail = f"{payout.status}, and its parts are {_amount(parts_minor, payout.currency).value} after fees"
        section.differs(Difference("payout_parts_differ", payout.id, amount, detail, link))


def _not_arrived(payout: stripe.Payout, link: str) -> Difference:
    """The bank did not take it: the balance at Stripe has it again."""
    amount = _amount(-payout.amount, payout.currency)
    return Difference(f"payout_{payout.status}", payout.id, amount, payout.failure_message or payout.status, link)


def _amount(minor: int, currency: str) -> Amount:
    return Amount(amount_of(minor, currency), currency.upper())
