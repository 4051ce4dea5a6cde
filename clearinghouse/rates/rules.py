"""Rate cards as they are stored: each rate is a rule with a number, which what it charged keeps for ever."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from types import MappingProxyType
from typing import Any, NamedTuple

from clearinghouse.instants import rfc3339
from clearinghouse.rates.book import RateBook
from clearinghouse.rates.card import CardVersion, Rate
from clearinghouse.rates.document import summary


class StoredVersion(NamedTuple):
    """`rule_ids` are in the order of the version's rates."""

    version: CardVersion
    rule_ids: tuple[int, ...]
    applied_at: datetime
    applied_by: str


def stored_summary(stored: StoredVersion) -> dict[str, Any]:
    """As it is listed."""
    return {
        **summary(stored.version), "applied_at": rfc3339(stored.applied_at), "applied_by": stored.applied_by,
    }  # fmt: skip


class Rule(NamedTuple):
    """A rate of a version that holds at an instant, and its number."""

    id: int
    rate: Rate
    version: CardVersion


@dataclass(frozen=True, slots=True)
class Rules:
    """All versions of all cards, as of one look at the database. Immutable: a newer look gives another."""

    stored: tuple[StoredVersion, ...]
    book: RateBook = field(init=False)
    #: The highest: versions are only ever added, so it tells one look from another.
    newest_id: int = field(init=False)
    _ids: Mapping[tuple[str, int], Mapping[tuple[str | None, str | None, str | None], int]] = field(
        init=False, repr=False
    )

    def __post_init__(self) -> None:
        ids = {
            (each.version.card, each.version.version): {
                rate.names: rule_id for rate, rule_id in zip(each.version.rates, each.rule_ids, strict=True)
            }
            for each in self.stored
        }
        set_once = object.__setattr__
        set_once(self, "book", RateBook(each.version for each in self.stored))
        set_once(self, "newest_id", max((rule_id for each in self.stored for rule_id in each.rule_ids), default=0))
        set_once(self, "_ids", MappingProxyType(ids))

    def at(self, card: str, instant: datetime, application: str, pipeline: str, model: str) -> Rule:
        """The rule for such a call at that time. Raises RateUnknown."""
        version = self.book.at(card, instant)
        rate = version.rate(application, pipeline, model)
        return Rule(self._ids[version.card, version.version][rate.names], rate, version)
