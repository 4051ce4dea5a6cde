"""Everything that is due: planned from the books, then walked to Stripe, several at once within Stripe's rate."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from itertools import groupby
from uuid import UUID

import structlog
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from clearinghouse.errors import Refusal
from settlement.invoices.defaults import InvoiceDefaults
from settlement.invoices.planning import Due, all_due, its_turn, plan
from settlement.invoices.requests import shown_id
from settlement.invoices.store import Choice, Invoice, to_walk
from settlement.invoices.walk import Walker
from settlement.rounding import DoesNotAddUp
from settlement.stripe_link.client import StripeAway

log = structlog.get_logger(__name__)

#: Told of every invoice that was walked as far as it goes.
Told = Callable[[Invoice], None]
#: Told after every gateway how many of the periods that are due were looked at, and how many there are.
Looked = Callable[[int, int], None]


@dataclass
class Planned:
    """What became of periods. `problems` say of which gateways nothing could be planned, and why. `left_count`: periods
    of gateways for which there was no time. `busy`: gateways that somebody else plans for, by name: at another turn."""

    invoices: list[Invoice] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    left_count: int = 0
    busy: list[str] = field(default_factory=list)

    def count(self, state: str) -> int:
        return sum(invoice.state == state for invoice in self.invoices)


@dataclass
class Walked:
    """`away`: why Stripe could not be asked to the end; the rest waits. `elsewhere_count`: others are at them."""

    invoices: list[Invoice] = field(default_factory=list)
    elsewhere_count: int = 0
    left_count: int = 0
    away: StripeAway | None = None

    @property
    def held(self) -> list[str]:
        """Those that do not go on, and why. One that was declined has been issued: that is its customer's affair."""
        return [held_words(each) for each in self.invoices if each.problem is not None and each.state != "open"]


def held_words(invoice: Invoice) -> str:
    return f"{shown_id(invoice)} of {invoice.gateway_name}: {invoice.problem}"


async def plan_due(
    engine: AsyncEngine,
    choice: Choice,
    *,
    defaults: InvoiceDefaults,
    only_try: bool = False,
    within_s: int | None = None,
    looked: Looked | None = None,
) -> Planned:
    """Our rows for all that is due. `only_try`: as it would be, and nothing is kept. `engine` writes.

    After `within_s` no further gateway is begun, but one always is: whoever comes again gets on. Of a gateway of which
    a period cannot be planned, no later one is: what it owes follows from the earlier ones. A gateway that somebody
    else plans for, as a re-rating does, keeps no other waiting.
    """
    planned, looked_at_count = Planned(), 0
    clock = asyncio.get_running_loop().time
    until_s = clock() + within_s if within_s is not None else None
    async with engine.connect() as connection:
        due = await all_due(connection, choice)
    for _, grouped in groupby(due, key=lambda each: each.gateway_id):
        if until_s is not None and looked_at_count and clock() >= until_s:
            planned.left_count = len(due) - looked_at_count
            break
        periods = list(grouped)
        looked_at_count += len(periods)
        async with engine.connect() as connection:
            await _plan_gateway(connection, periods, planned, defaults=defaults, only_try=only_try)
        if looked is not None:
            looked(looked_at_count, len(due))
    return planned


async def _plan_gateway(
    connection: AsyncConnection, periods: Sequence[Due], planned: Planned, *, defaults: InvoiceDefaults, only_try: bool
) -> None:
    async with connection.begin() as transaction:
        if not await its_turn(connection, periods[0].gateway_id):
            planned.busy.append(periods[0].gateway_name)
            return
        for due in periods:
            try:
                invoice = await plan(connection, due, defaults=defaults)
            except (Refusal, DoesNotAddUp) as reason:
                planned.problems.append(f"{due.gateway_name}, {due.first_day}: {reason}")
                break
            if invoice is None:
                break
            planned.invoices.append(invoice)
        if only_try:
            await transaction.rollback()


async def walk_all(
    walker: Walker,
    invoice_ids: Sequence[UUID],
    *,
    in_flight_count: int,
    within_s: int | None = None,
    told: Told | None = None,
) -> Walked:
    """All of them, so many at once; no further one is begun after `within_s`, nor once Stripe does not answer."""
    walked, waiting = Walked(), list(reversed(invoice_ids))
    clock = asyncio.get_running_loop().time
    until_s = clock() + within_s if within_s is not None else None

    async def walk_some() -> None:
        while waiting and walked.away is None and (until_s is None or clock() < until_s):
            invoice_id = waiting.pop()
            try:
                invoice = await walker.walk(invoice_id)
            except StripeAway as away:
                if away.key_is_spent:  # of this one alone: it begins anew with its next walk
                    walked.left_count += 1
                    log.info("invoice_waits", invoice_id=str(invoice_id), reason=str(away))
                    continue
                walked.away = away
                walked.left_count += 1
                return
            if invoice is None:
                walked.elsewhere_count += 1
                continue
            walked.invoices.append(invoice)
            if told is not None:
                told(invoice)

    async with asyncio.TaskGroup() as group:
        for _ in range(max(1, min(in_flight_count, len(waiting)))):
            group.create_task(walk_some())
    walked.left_count += len(waiting)
    return walked


async def waiting_invoices(
    engine: AsyncEngine, choice: Choice, now: datetime, *, not_since: datetime | None
) -> list[UUID]:
    """Those that have something to do."""
    async with engine.connect() as connection:
        return await to_walk(connection, choice, now, not_since=not_since)
