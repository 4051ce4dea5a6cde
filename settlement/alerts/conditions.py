"""A condition: something that a rule says about one thing, at one time. Whether anybody is told is not decided here."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum


class Severity(StrEnum):
    WARNING = "warning"
    CRITICAL = "critical"


class Group(StrEnum):
    """What belongs together: alerts of one group that begin at once come in one message."""

    FUNDS = "funds"
    CHAIN = "chain"
    SIGNING = "signing"
    BOOKS = "books"
    WORK = "work"


@dataclass(frozen=True, slots=True)
class Condition:
    """`holds` is True, or None where it is not known whether it does; what does not hold is not there at all.

    `labels` say what it is about, and nothing that changes while it lasts. `facts` are what a message names, in order,
    by name. `since` is when it began where that is known better than by when it was first seen. It is told once it
    has held for `for_s`; not while the condition with the fingerprint `worse` is told, which says more of the same.
    Where `news` changes, something has happened anew that must not drown in what somebody looks after already: it is
    told as at first.
    """

    rule: str
    group: Group
    severity: Severity
    summary: str
    holds: bool | None = True
    labels: tuple[tuple[str, str], ...] = ()
    facts: tuple[tuple[str, str], ...] = ()
    advice: str = ""
    for_s: int = 0
    since: datetime | None = None
    worse: str | None = None
    news: str = ""

    @property
    def fingerprint(self) -> str:
        return fingerprint(self.rule, dict(self.labels))


def fingerprint(rule: str, labels: Mapping[str, str]) -> str:
    """32 hex digits: the same rule about the same thing has the same, in every process and after every restart."""
    text = json.dumps([rule, sorted(labels.items())], ensure_ascii=False, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:32]
