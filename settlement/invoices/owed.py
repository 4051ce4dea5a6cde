"""What a gateway owes for a period, line by line: exact, and as it is asked for. Pure.

  usage by application      charges of the period, as they are in the books
- credit applied            grants, included usage, payments in advance: whatever usage has consumed
+ payments returned         refunds and disputes
± corrections, fees         what was charged, or taken back, beside usage
+ carried                   what earlier periods were too little for
= owed, exactly             never more nor less than the books say
± rounding                  to what can be paid; the rest is posted, and nothing is lost
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from decimal import Decimal
from typing import Final, Literal

from clearinghouse.ledger.money import EXACT, exact_sum
from settlement.currencies import Currency
from settlement.invoices.usage_lines import Usage, described, facts_of, fewer
from settlement.rounding import bill

LineKind = Literal["usage", "fee", "carried", "credit", "returned", "correction", "rounding"]
FirstState = Literal["planned", "carried", "nothing_due"]

#: What the entries of a period show as, by their kind; the order is that of the lines.
_SHOWN: Final[dict[str, LineKind]] = {
    "fee": "fee",
    "grant": "credit", "included": "credit", "payment": "credit", "dispute_won": "credit", "write_off": "credit",
    "expiry": "credit", "withdrawal": "credit",
    "refund": "returned", "dispute": "returned",
    "adjustment": "correction",
}  # fmt: skip
_WORDS: Final[dict[LineKind, str]] = {
    "fee": "Subscription",
    "credit": "Credit applied",
    "returned": "Payments that were returned",
    "correction": "Corrections",
    "carried": "Carried from earlier periods",
    "rounding": "Rounding",
}


@dataclass(frozen=True, slots=True)
class Books:
    """Of one period of one gateway, without the entries that invoices have by themselves.

    `before` is what was owed and not asked for when it began, `owed` the same when it ended: below 0 they are credit.
    `entered` is what entered the account meanwhile, by kind of transfer; below 0 it left.
    """

    before: Decimal
    usage: Sequence[Usage]
    entered: Mapping[str, Decimal]
    owed: Decimal


@dataclass(frozen=True, slots=True)
class Line:
    """`exact` is what the books have, `amount_minor` what is asked for. `facts` are texts, for machines."""

    kind: LineKind
    description: str
    exact: Decimal
    amount_minor: int
    facts: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Owed:
    """What becomes of it. Where nothing is asked for, there are no lines and `total_minor` is 0.

    The lines' `amount_minor` are `total_minor` together, their `exact` are `exact`; that less the total is what must be
    posted as rounding, so that the books say what was asked for.
    """

    state: FirstState
    exact: Decimal
    total_minor: int
    lines: tuple[Line, ...]


@dataclass(frozen=True, slots=True)
class _Exact:
    kind: LineKind
    description: str
    exact: Decimal
    facts: Mapping[str, str]


def owed_for(books: Books, currency: Currency) -> Owed:
    """The invoice for a period, if there is enough to ask for. Raises DoesNotAddUp where lines and books differ."""
    carried = max(books.before, Decimal(0))
    lines = [*_usage(books.usage, currency), *_entries(books)]
    return _asked(lines, total=EXACT.subtract(books.owed, carried), carried=carried, currency=currency)


def not_by_stripe(owed: Owed) -> Owed:
    """What is asked for without Stripe: the books keep what is owed, and an invoice of Stripe that comes later, if one
    does, asks for what is left of it at the end of that one's period."""
    return replace(owed, state="carried", total_minor=0, lines=()) if owed.state == "planned" else owed


def owed_in_advance(fee: Decimal, included: Decimal | None, currency: Currency) -> Owed:
    """The invoice for a period of a subscription, before it begins."""
    facts = {"charge": format(fee, "f"), **({"included": format(included, "f")} if included is not None else {})}
    return _asked([_Exact("fee", _WORDS["fee"], fee, facts)], total=fee, carried=Decimal(0), currency=currency)


def _asked(lines: list[_Exact], *, total: Decimal, carried: Decimal, currency: Currency) -> Owed:
    billed = bill(
        [line.exact for line in lines],
        ledger_total=total,
        carried=carried,
        minimum_minor=currency.minimum_minor or 0,
        currency=currency,
    )
    if billed.invoice is None:
        state: FirstState = "carried" if billed.carried_forward > 0 else "nothing_due"
        return Owed(state, billed.carried_forward, 0, ())
    if carried:
        lines = [*lines, _Exact("carried", _WORDS["carried"], carried, {})]
    asked = [
        Line(line.kind, line.description, line.exact, amount_minor, line.facts)
        for line, amount_minor in zip(lines, billed.invoice.lines_minor, strict=True)
    ]
    if billed.invoice.rounding_minor:
        asked.append(Line("rounding", _WORDS["rounding"], Decimal(0), billed.invoice.rounding_minor))
    return Owed("planned", billed.invoice.exact, billed.invoice.total_minor, tuple(asked))


def _usage(usage: Sequence[Usage], currency: Currency) -> list[_Exact]:
    return [_Exact("usage", described(each, currency), each.charge, facts_of(each)) for each in fewer(usage)]


def _entries(books: Books) -> list[_Exact]:
    """One line a kind of line. Credit that was there when the period began is a part of what was applied."""
    sums: dict[LineKind, list[Decimal]] = {kind: [] for kind in _SHOWN.values()}
    for kind, amount in books.entered.items():
        sums[_SHOWN[kind]].append(amount)
    sums["credit"].append(max(EXACT.minus(books.before), Decimal(0)))
    entered = {kind: exact_sum(amounts) for kind, amounts in sums.items()}
    return [_Exact(kind, _WORDS[kind], EXACT.minus(amount), {}) for kind, amount in entered.items() if amount]
