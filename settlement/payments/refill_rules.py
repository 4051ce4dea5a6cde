"""When a saved card is charged because a balance is low, and with how much. Pure.

Never two at once, none before the cooldown is over, never more than the caps of the day and the month (UTC) allow.
After a charge that failed the pause doubles with each further failure, and a card that only its holder can mend rests.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Final

from settlement.currencies import Currency

LONGEST_PAUSE: Final = timedelta(days=1)


@dataclass(frozen=True, slots=True)
class RefillFacts:
    """What is known of a gateway whose balance is below its threshold. Amounts are in `currency`.

    `day_spent` and `month_spent`: automatic charges of this day and month that went through or may still. `last_at` is
    when the newest was asked for, and `failures_count` how many in a row have failed until then.
    """

    currency: Currency
    balance: Decimal
    to: Decimal
    cooldown: timedelta
    day_max: Decimal
    month_max: Decimal
    day_spent: Decimal
    month_spent: Decimal
    last_at: datetime | None
    failures_count: int
    has_card: bool
    card_refused: str | None
    is_under_way: bool


@dataclass(frozen=True, slots=True)
class Charge:
    """`amount` can be paid in its currency."""

    amount: Decimal


@dataclass(frozen=True, slots=True)
class Wait:
    """`reason` is a code: under_way, no_card, card_refused, pause, cap. `is_told`: the gateway hears of it."""

    reason: str
    is_told: bool = False


def due(facts: RefillFacts, now: datetime) -> Charge | Wait:
    """Reasons to wait in this order."""
    if facts.is_under_way:
        return Wait("under_way")
    if not facts.has_card:
        return Wait("no_card", is_told=True)
    if facts.card_refused is not None:
        return Wait("card_refused")
    if facts.last_at is not None and now < facts.last_at + pause_after(facts):
        return Wait("pause")
    wanted = _up(facts.to - facts.balance, facts.currency)
    left = min(facts.day_max - facts.day_spent, facts.month_max - facts.month_spent)
    amount = min(wanted, _down(left, facts.currency))
    least = Decimal(facts.currency.minimum_minor or 1).scaleb(-facts.currency.decimals)
    if amount < max(least, facts.currency.unit):
        return Wait("cap", is_told=True)
    return Charge(amount)


def pause_after(facts: RefillFacts) -> timedelta:
    """The cooldown, doubled with each failure in a row, up to a day; never less than the cooldown itself."""
    doubled = facts.cooldown * (1 << min(facts.failures_count, 20))
    return max(min(doubled, LONGEST_PAUSE), facts.cooldown)


def _up(amount: Decimal, currency: Currency) -> Decimal:
    whole, rest = divmod(amount, currency.unit)
    return (whole + (1 if rest else 0)) * currency.unit


def _down(amount: Decimal, currency: Currency) -> Decimal:
    return max(amount, Decimal(0)) // currency.unit * currency.unit
