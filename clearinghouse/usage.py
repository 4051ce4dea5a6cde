"""Limits on what is used: calls, spend, expected value, open sessions. Which there are, and when one is passed.

The commit decides (migrations/sql, `commit_issuances`): it judges and counts under the account's lock, so that no
number of processes can pass a limit together. Here is what is said of it, and what keeps a caller that was refused from
costing a signature with every further call: it is refused from memory for a moment, then from the database.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from enum import StrEnum
from time import monotonic
from typing import Final, NamedTuple, Protocol
from uuid import UUID

from clearinghouse.bounded import Bounded
from clearinghouse.errors import LimitReached
from clearinghouse.instants import rfc3339
from clearinghouse.ledger.money import show_amount

#: A session in which nothing was paid for so long is closed, and counts as open no more.
SESSION_IDLE_S: Final = 120
#: How long a refusal is repeated from memory before the database is asked again.
REFUSAL_REMEMBERED_S: Final = 1
REMEMBERED_MAX_COUNT: Final = 50_000


class Limit(StrEnum):
    """Every limit, in the order in which the commit judges them. The names are part of the API."""

    CALLS_PER_DAY = "calls_per_day"
    SPEND_PER_DAY = "spend_per_day"
    SPEND_PER_MONTH = "spend_per_month"
    EV_OPEN = "ev_open"
    SESSIONS_OPEN = "sessions_open"
    KEY_CALLS_PER_DAY = "key_calls_per_day"
    KEY_SPEND_PER_DAY = "key_spend_per_day"
    KEY_SPEND_PER_MONTH = "key_spend_per_month"
    KEY_EV_OPEN = "key_ev_open"
    KEY_SESSIONS_OPEN = "key_sessions_open"
    SESSIONS_OPEN_PER_ORCHESTRATOR = "sessions_open_per_orchestrator"


SPEND: Final = frozenset(
    {Limit.SPEND_PER_DAY, Limit.SPEND_PER_MONTH, Limit.KEY_SPEND_PER_DAY, Limit.KEY_SPEND_PER_MONTH}
)
CALLS: Final = frozenset({Limit.CALLS_PER_DAY, Limit.KEY_CALLS_PER_DAY})
MONTHLY: Final = frozenset({Limit.SPEND_PER_MONTH, Limit.KEY_SPEND_PER_MONTH})
EV_OPEN: Final = frozenset({Limit.EV_OPEN, Limit.KEY_EV_OPEN})
SESSIONS: Final = frozenset({Limit.SESSIONS_OPEN, Limit.KEY_SESSIONS_OPEN, Limit.SESSIONS_OPEN_PER_ORCHESTRATOR})


class Use(NamedTuple):
    """What one call would use."""

    gateway_id: UUID
    key_id: UUID
    orchestrator: bytes
    is_new_session: bool
    charge: Decimal
    ev_wei: int


class Allowance(NamedTuple):
    """`allowed` is None where there is no limit. Money in the account's currency, expected value in wei."""

    allowed: Decimal | int | None
    used: Decimal | int


class Usage(NamedTuple):
    """What may be used and what was, at one instant. Of sessions with an orchestrator: those with the one asked for."""

    read_at: datetime
    #: The day, in UTC, that the counters are of.
    day: date
    currency: str
    allowances: dict[Limit, Allowance]


class Reads(Protocol):
    async def usage(self, gateway_id: UUID, key_id: UUID, orchestrator: bytes) -> Usage: ...


@dataclass(slots=True)
class _Refused:
    until_s: float
    use: Use
    limit: Limit
    usage: Usage


class UsageLimits:
    """What this process remembers of refusals. It only ever spares work: whoever is let through meets the commit."""

    def __init__(self, reads: Reads, *, now_s: Callable[[], float] = monotonic) -> None:
        self._reads = reads
        self._now_s = now_s
        self._refused: Bounded[UUID, _Refused] = Bounded(REMEMBERED_MAX_COUNT)

    def remembers(self, use: Use) -> bool:
        """Whether such a call is remembered as refused. Of any other there is nothing to ask."""
        return self._refused_like(use) is not None

    def asks_again(self, use: Use) -> bool:
        """Whether `require` will ask the database: such a call was refused, and that is no longer a moment ago."""
        refused = self._refused_like(use)
        return refused is not None and self._now_s() >= refused.until_s

    async def require(self, use: Use) -> None:
        """Raises LimitReached where such a call was refused a moment ago, or was and would be again."""
        refused = self._refused_like(use)
        if refused is None:
            return
        asked_at_s = self._now_s()
        if asked_at_s < refused.until_s:
            raise limit_reached(refused.limit, refused.usage, use)
        usage = await self._reads.usage(use.gateway_id, use.key_id, use.orchestrator)
        limit = first_passed(usage, use)
        if limit is None:
            if self._refused.get(use.key_id) is refused:
                del self._refused[use.key_id]
            return
        self._remember(use, limit, usage, asked_at_s)
        raise limit_reached(limit, usage, use)

    async def passed(self, code: str, use: Use) -> LimitReached:
        """What to say of a call that the commit refused with `code`; remembered while it holds."""
        limit, asked_at_s = Limit(code), self._now_s()
        usage = await self._reads.usage(use.gateway_id, use.key_id, use.orchestrator)
        if is_passed(limit, usage.allowances[limit], use):
            self._remember(use, limit, usage, asked_at_s)
        return limit_reached(limit, usage, use)

    def _refused_like(self, use: Use) -> _Refused | None:
        refused = self._refused.get(use.key_id)
        return refused if refused is not None and _is_covered(use, refused) else None

    def _remember(self, use: Use, limit: Limit, usage: Usage, asked_at_s: float) -> None:
        """For a moment from when the database was asked: its answer may have been long under way."""
        self._refused.remember(use.key_id, _Refused(asked_at_s + REFUSAL_REMEMBERED_S, use, limit, usage))


def _is_covered(use: Use, refused: _Refused) -> bool:
    """Whether a call would use as much as the one that was refused: a smaller one may still fit."""
    if refused.limit in SESSIONS and not use.is_new_session:
        return False
    if refused.limit is Limit.SESSIONS_OPEN_PER_ORCHESTRATOR:
        return use.orchestrator == refused.use.orchestrator
    if refused.limit in SPEND:
        return use.charge >= refused.use.charge
    return refused.limit not in EV_OPEN or use.ev_wei >= refused.use.ev_wei


def is_passed(limit: Limit, allowance: Allowance, use: Use) -> bool:
    """Whether a call would pass a limit: the same comparison as in the commit."""
    if allowance.allowed is None or (limit in SESSIONS and not use.is_new_session):
        return False
    return allowance.used + _needed(limit, use) > allowance.allowed


def first_passed(usage: Usage, use: Use) -> Limit | None:
    """The limit that the commit would name."""
    return next((limit for limit in Limit if is_passed(limit, usage.allowances[limit], use)), None)


def _needed(limit: Limit, use: Use) -> Decimal | int:
    if limit in SPEND:
        return use.charge
    return use.ev_wei if limit in EV_OPEN else 1


def resets_at(limit: Limit, usage: Usage) -> datetime:
    """When the limit gives way by itself, at the earliest."""
    if limit in SESSIONS:
        return usage.read_at + timedelta(seconds=SESSION_IDLE_S)
    return begins_anew_at(usage.day, monthly=limit in MONTHLY)


def begins_anew_at(day: date, *, monthly: bool) -> datetime:
    """The midnight that ends the day, or the month it is in; UTC."""
    midnight = datetime(day.year, day.month, day.day, tzinfo=UTC) + timedelta(days=1)
    if not monthly or midnight.day == 1:
        return midnight
    return datetime(day.year + day.month // 12, day.month % 12 + 1, 1, tzinfo=UTC)


def limit_reached(limit: Limit, usage: Usage, use: Use) -> LimitReached:
    """The refusal, with what it takes to understand it."""
    allowance = usage.allowances[limit]
    allowed = "unlimited" if allowance.allowed is None else show(allowance.allowed)
    unit = unit_of(limit, usage.currency)
    until = resets_at(limit, usage) if is_passed(limit, allowance, use) else usage.read_at + timedelta(seconds=1)
    wait_s = max(1, -((usage.read_at - until) // timedelta(seconds=1)))
    return LimitReached(
        f"The limit {limit} is reached: {show(allowance.used)} of {allowed} {unit} are used and this call needs "
        f"{show(_needed(limit, use))}. {_way_out(limit, until)}",
        retry_after_s=wait_s,
        rule=str(limit),
        allowed=allowed,
        used=show(allowance.used),
        unit=unit,
        resets_at=rfc3339(until),
    )


def _way_out(limit: Limit, until: datetime) -> str:
    if limit in SESSIONS:
        return f"A session is closed when nothing was paid in it for {SESSION_IDLE_S} seconds."
    if limit in EV_OPEN:
        return f"The tickets released longest ago no longer count after {rfc3339(until)}."
    return f"It begins anew at {rfc3339(until)}."


def unit_of(limit: Limit, currency: str) -> str:
    if limit in SPEND:
        return currency
    if limit in EV_OPEN:
        return "wei"
    return "calls" if limit in CALLS else "sessions"


def show(quantity: Decimal | int) -> str:
    return show_amount(Decimal(quantity))


def allowances(pairs: Iterable[tuple[Decimal | int | None, Decimal | int | None]]) -> dict[Limit, Allowance]:
    """From (allowed, used) of every limit, in its order."""
    return {limit: Allowance(allowed, used or 0) for limit, (allowed, used) in zip(Limit, pairs, strict=True)}
