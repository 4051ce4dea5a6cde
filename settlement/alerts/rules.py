"""All rules together: from what was observed to what holds. Pure; docs/alerts.md has them one by one."""

from __future__ import annotations

from collections.abc import Collection
from typing import Final

from settlement.alerts.book_rules import BOOK_RULES, book_conditions
from settlement.alerts.conditions import Condition
from settlement.alerts.fund_rules import COVERAGE_UNKNOWN, FUND_RULES, fund_conditions
from settlement.alerts.observed import Observed
from settlement.alerts.payment_rules import PAYMENT_RULES, payment_conditions
from settlement.alerts.service_rules import SERVICE_RULES, service_conditions
from settlement.alerts.thresholds import Thresholds

#: The names of all of them.
RULES: Final = (*FUND_RULES, COVERAGE_UNKNOWN, *SERVICE_RULES, *BOOK_RULES, *PAYMENT_RULES)


def conditions(
    observed: Observed, thresholds: Thresholds, *, firing: Collection[str] = frozenset()
) -> tuple[Condition, ...]:
    """What holds, and of what it is not known. `firing`: the fingerprints of the alerts that fire already."""
    return (
        *fund_conditions(observed, thresholds, firing),
        *service_conditions(observed),
        *book_conditions(observed, thresholds),
        *payment_conditions(observed),
    )
