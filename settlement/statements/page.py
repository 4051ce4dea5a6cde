"""What a statement's pages say: every text and number as it is printed. The template only places them."""

from __future__ import annotations

import unicodedata
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Final

from clearinghouse.ledger.money import EXACT
from settlement.rounding import average_rate, rounded
from settlement.statements.figures import Figures, figures_of
from settlement.statements.locales import NumberFormat, number_format
from settlement.time_zones import time_zone

if TYPE_CHECKING:
    from collections.abc import Iterable
    from datetime import datetime

    from settlement.statements.statement import Demand, Movement, Party, Statement, UsageLine

_WEI_DIGITS: Final = 18
#: They turn round what stands after them: a name could make the amount beside it read backwards.
_TURNING: Final = frozenset("\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")


def page_of(statement: Statement) -> dict[str, Any]:
    """Texts, lists of texts and None only: nothing in it is ever read as markup."""
    words = _Words(statement)
    figures = figures_of(statement)
    title = "Invoice" if statement.demand is not None else "Statement"
    return {
        "title": title,
        "number": plain(statement.number),
        "issuer": _party(statement.issuer),
        "customer": _party(statement.customer),
        "facts": words.facts(),
        "currency": plain(statement.currency.code),
        "balance": words.balance(figures),
        "usage": words.usage(figures),
        "demand": None if statement.demand is None else words.demand(statement.demand),
        "notes": [plain(note) for note in [*statement.notes, *words.footnotes()]],
    }


def plain(text: str) -> str:
    """On one line, without characters that control a terminal or turn writing round; lone surrogates become U+FFFD."""
    if text.isascii() and text.isprintable():
        return text.strip()
    return "".join(map(_plain_character, text)).strip()


def _plain_character(character: str) -> str:
    if character in _TURNING:
        return ""
    category = unicodedata.category(character)
    if category in {"Cc", "Zl", "Zp"}:
        return " "
    return "\ufffd" if category in {"Cs", "Co", "Cn"} else character


def _party(party: Party) -> dict[str, Any]:
    return {"name": plain(party.name), "lines": [plain(line) for line in party.lines if plain(line)]}


class _Words:
    """The statement's parts in its locale and time zone."""

    def __init__(self, statement: Statement) -> None:
        self._statement = statement
        self._zone = time_zone(statement.period.zone)
        self._format: NumberFormat = number_format(statement.locale)

    def facts(self) -> list[list[str]]:
        period, demand = self._statement.period, self._statement.demand
        facts = [
            ["Number", plain(self._statement.number)],
            ["Issued", self._day(self._statement.issued_at)],
            ["Period", f"{self._minute(period.begin)} to {self._minute(period.end)}"],
        ]
        if demand is not None:
            facts.append(["Due", demand.due_on.isoformat()])
            if demand.purchase_order:
                facts.append(["Your order", plain(demand.purchase_order)])
        return facts

    def balance(self, figures: Figures) -> list[list[str]]:
        """Rows of when, what, reference and amount; the last is the closing balance."""
        period = self._statement.period
        opening, *movements, usage = figures.balance.rows
        rows = [[self._minute(period.begin), "Opening balance", "", self._amount(opening)]]
        for movement, amount in zip(self._statement.sorted_movements(), movements, strict=True):
            rows.append([self._minute(movement.at), _what(movement), plain(movement.reference), self._amount(amount)])
        rows.append(["", "Usage", "", self._amount(usage)])
        rows += self._rounding(figures.balance.rounding, ["", "Rounding", ""])
        rows.append([self._minute(period.end), "Closing balance", "", self._amount(figures.balance.total)])
        return rows

    def usage(self, figures: Figures) -> dict[str, Any]:
        """Applications, each with its rows of what, quantity, calls, EV, average rate and amount; rounding; total."""
        groups: list[dict[str, Any]] = []
        for line, amount in zip(self._statement.sorted_lines(), figures.usage.rows, strict=True):
            name = plain(line.app) or "no application"
            if not groups or groups[-1]["app"] != name:
                groups.append({"app": name, "rows": []})
            groups[-1]["rows"].append(self._usage_row(line, amount))
        rounding = self._rounding(figures.usage.rounding, [])
        return {
            "groups": groups,
            "rounding": rounding[0][0] if rounding else None,
            "total": self._amount(figures.usage.total),
        }

    def demand(self, demand: Demand) -> dict[str, Any]:
        currency = self._statement.currency
        return {
            "items": [[plain(name), self._amount(amount)] for name, amount in demand.items],
            "amount": self._format.money(demand.amount, currency.code, currency.shown_decimals),
            "pay_to": [plain(line) for line in demand.pay_to],
        }

    def footnotes(self) -> Iterable[str]:
        statement = self._statement
        yield f"Times are in {statement.period.zone}. The period's end is not part of it."
        if statement.lines:
            yield (
                "EV is the expected value of the tickets that were signed. Average rates are rounded, and nothing is "
                "charged by them."
            )
        yield (
            "Amounts are exact in the books; here each is rounded once, half away from zero, and what that took or "
            "gave is shown as rounding."
        )

    def _usage_row(self, line: UsageLine, amount: Decimal) -> list[str]:
        what = " · ".join(filter(None, map(plain, (line.pipeline, line.model, line.rate))))
        unit = plain(line.unit)
        rate = average_rate(line.amount, line.quantity)
        return [
            what or "no pipeline",
            f"{self._format.number(rounded(line.quantity, 3))} {unit}".strip(),
            self._format.number(Decimal(line.calls)),
            self._format.number(Decimal(line.ev_wei).scaleb(-_WEI_DIGITS, EXACT)),
            "" if rate is None else self._format.number(rate),
            self._amount(amount),
        ]

    def _rounding(self, amount: Decimal, before: list[str]) -> list[list[str]]:
        return [[*before, self._amount(amount)]] if amount else []

    def _amount(self, amount: Decimal) -> str:
        return self._format.number(amount, self._statement.currency.shown_decimals)

    def _minute(self, instant: datetime) -> str:
        """ISO 8601 is read the same everywhere. Seconds only where there are any."""
        local = instant.astimezone(self._zone)
        return local.strftime("%Y-%m-%d %H:%M:%S" if local.second or local.microsecond else "%Y-%m-%d %H:%M")

    def _day(self, instant: datetime) -> str:
        return instant.astimezone(self._zone).date().isoformat()


def _what(movement: Movement) -> str:
    kind = movement.kind.replace("_", " ").capitalize()
    description = plain(movement.description)
    return f"{kind}: {description}" if description else kind
