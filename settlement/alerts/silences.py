"""Silences: what is not told for a while, by what it is about. Alerts live on meanwhile; only nobody hears of them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from difflib import get_close_matches
from typing import Final
from uuid import UUID

from clearinghouse.errors import InvalidRequest
from settlement.alerts.conditions import Condition, Group, Severity
from settlement.alerts.rules import RULES

_GROUPS: Final = sorted(Group)
_SEVERITIES: Final = sorted(Severity, reverse=True)


@dataclass(frozen=True, slots=True)
class Silence:
    """Hushes what has every value of `matches`, from `starts_at` until `ends_at`; never everything."""

    id: UUID
    matches: Mapping[str, str]
    starts_at: datetime
    ends_at: datetime
    reason: str
    actor: str

    def hushes(self, condition: Condition, now: datetime) -> bool:
        if not self.matches or not self.starts_at <= now < self.ends_at:
            return False
        known = dict(condition.labels) | {
            "rule": condition.rule, "severity": condition.severity, "group": condition.group,
            "fingerprint": condition.fingerprint,
        }  # fmt: skip
        return all(known.get(name) == value for name, value in self.matches.items())


def require_known(matches: Mapping[str, str]) -> None:
    """InvalidRequest for what no alert will ever have: a misspelled silence silences nothing, and nobody is told.

    Labels may be anything; what they are called and hold, only the rules know.
    """
    rule = matches.get("rule")
    if rule is not None and rule not in RULES:
        near = get_close_matches(rule, RULES, n=1)
        known = f"did you mean {near[0]}?" if near else "docs/alerts.md has them"
        raise InvalidRequest(f"there is no rule {rule[:64]}: {known}")
    if matches.get("severity", Severity.WARNING) not in _SEVERITIES:
        raise InvalidRequest(f"a severity is {_or(_SEVERITIES)}")
    if matches.get("group", Group.FUNDS) not in _GROUPS:
        raise InvalidRequest(f"a group is {_or(_GROUPS)}")


def _or(names: Sequence[str]) -> str:
    *most, last = names
    return f"{', '.join(most)} or {last}"


def is_silenced(condition: Condition, silences: Iterable[Silence], now: datetime) -> bool:
    return any(silence.hushes(condition, now) for silence in silences)
