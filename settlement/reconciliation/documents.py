"""A report in JSON, and its amounts as people read them. Scripts rely on the names."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from clearinghouse.instants import rfc3339
from clearinghouse.ledger.money import EXACT, show_amount
from settlement.currencies import account_currency
from settlement.reconciliation.report import WEI, Amount, Report, Section

Document = dict[str, Any]


def report_document(report: Report) -> Document:
    return {
        "begins_at": rfc3339(report.period.begins_at),
        "ends_at": rfc3339(report.period.ends_at),
        "taken_at": rfc3339(report.taken_at),
        "differences_count": report.differences_count,
        "sections": [_section(section) for section in report.sections],
    }


def _section(section: Section) -> Document:
    return {
        "name": section.name,
        "title": section.title,
        "is_compared": section.is_compared,
        "not_compared": section.not_compared,
        "compared": [
            {"what": one.what, "count": one.count, "sums": [amount_document(sum_) for sum_ in one.sums]}
            for one in section.compared
        ],
        "differences_count": section.differences_count,
        "totals": [
            {"name": one.name, "count": one.count, "sums": [amount_document(sum_) for sum_ in one.sums]}
            for one in section.totals
        ],
        "differences": [
            {
                "name": one.name, "subject": one.subject,
                "amount": amount_document(one.amount) if one.amount is not None else None,
                "detail": one.detail, "link": one.link,
            }
            for one in section.differences
        ],
    }  # fmt: skip


def amount_document(amount: Amount) -> Document:
    """`{"wei": "1000"}`, or `{"minor": "1050", "currency": "USD"}`: exact, and finer than a minor unit where it is."""
    if amount.unit == WEI:
        return {"wei": show_amount(amount.value)}
    minor = EXACT.scaleb(amount.value, account_currency(amount.unit).decimals)
    return {"minor": show_amount(minor), "currency": amount.unit}


def shown(amount: Amount | None) -> str:
    """`10.5 USD`, `1000 wei`, or that nobody tells."""
    return f"{show_amount(amount.value)} {amount.unit}" if amount is not None else "not known"


def all_shown(amounts: Iterable[Amount]) -> str:
    return ", ".join(shown(amount) for amount in amounts)
