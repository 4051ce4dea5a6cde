"""What a re-rating of a closed period would be, and its row: all of it is decided then, and nothing changes later."""

from __future__ import annotations

from contextlib import aclosing
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any, Final
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection

from clearinghouse.errors import InvalidRequest, NotFound
from clearinghouse.ids import uuid7
from clearinghouse.ledger.money import EXACT
from clearinghouse.ledger.transfers import check_reason
from clearinghouse.rate_store import read_rules
from clearinghouse.rates.rules import Rules
from settlement.invoices.planning import one_at_a_time
from settlement.invoices.store import Invoice
from settlement.rerating.in_place import asked_of, invoice_of, require_in_place, require_untouched
from settlement.rerating.included import included_anew
from settlement.rerating.refusals import BooksDiffer, NotToBeRerated, RatedAlready, ReratingBusy
from settlement.rerating.replay import Recharged, Replay
from settlement.rerating.store import (
    ROWS_AT_ONCE,
    RatedLine,
    Rerating,
    calls_of,
    charged_by_newer,
    find_rerating,
    insert_calls,
    insert_lines,
    insert_rerating,
    rated_lines,
    reratings_of,
)
from settlement.stripe_link.desk import Desk

_REASON_CHARS_MAX: Final = 300


@dataclass(frozen=True, slots=True)
class Order:
    """`period` is the beginning of its first day's name, such as 2026-10; `card` and `version` are the correction."""

    gateway_id: UUID
    period: str
    card: str
    version: int
    reason: str
    actor: str


@dataclass(frozen=True, slots=True)
class _Period:
    begins_at: datetime
    ends_at: datetime
    first_day: str
    way: str
    usage: Decimal


@dataclass(frozen=True, slots=True)
class _Cards:
    """`as_of` is their highest rule, `own` are those of the version that is meant."""

    rules: Rules
    as_of: int
    own: frozenset[int]


@dataclass(frozen=True, slots=True)
class _Rated:
    """Of all calls of a period: how many, and the difference."""

    id: UUID
    as_of: int
    calls_count: int
    difference: Decimal


async def find_or_plan(desk: Desk, order: Order, *, only_try: bool) -> tuple[Rerating, list[RatedLine]]:
    """The re-rating of that period by that version; the one that there is, if it was planned before. `only_try`: as it
    would be, and nothing is kept.

    Raises NotFound, InvalidRequest, what refusals.py has, StripeAway.
    """
    check_reason(order.reason, chars_max=_REASON_CHARS_MAX)
    async with desk.engine.connect() as connection:
        period = await _period(connection, order)
        cards = await _cards_as_of(connection, order, period)
        if (known := await _known(connection, order, period, cards.as_of)) is not None:
            return known, await rated_lines(connection, known.id)
        asked_before = await invoice_of(connection, order.gateway_id, period.begins_at)
    if asked_before is not None:
        asked_before = await require_untouched(desk, asked_before, reason=order.reason, actor=order.actor)
    if not only_try:
        async with desk.transaction() as connection:
            return await _planned_within(connection, order, period, cards, asked_before)
    async with desk.engine.connect() as connection:  # which is rolled back
        return await _planned_within(connection, order, period, cards, asked_before)


async def _planned_within(
    connection: AsyncConnection, order: Order, period: _Period, cards: _Cards, asked_before: Invoice | None
) -> tuple[Rerating, list[RatedLine]]:
    """Calls are rated before anybody has to wait, then it is looked whether that holds still. Raises ReratingBusy."""
    if (known := await _known(connection, order, period, cards.as_of)) is not None:
        return known, await rated_lines(connection, known.id)
    earlier = await reratings_of(connection, order.gateway_id, period.begins_at)
    rated = await _rated(connection, order, period, cards)
    await one_at_a_time(connection, order.gateway_id)
    if await reratings_of(connection, order.gateway_id, period.begins_at) != earlier:
        raise ReratingBusy("The period was rated anew by somebody else at this moment.")
    if asked_of(await invoice_of(connection, order.gateway_id, period.begins_at)) != asked_of(asked_before):
        raise ReratingBusy("The period's invoice changed at this moment.")
    made = await _made(connection, order, period, asked_before, rated)
    return made, await rated_lines(connection, made.id)


async def _period(connection: AsyncConnection, order: Order) -> _Period:
    """The closed one. Raises NotFound, InvalidRequest for several, NotToBeRerated for one that was free."""
    query = """SELECT begins_at, ends_at, first_day::text, way, usage FROM billing_period
                WHERE gateway_id = :gateway_id AND first_day::text LIKE :period ORDER BY begins_at"""
    values = {"gateway_id": order.gateway_id, "period": f"{order.period}%"}
    found = [_Period(*row) for row in await connection.execute(text(query), values)]
    if not found:
        raise NotFound(
            "There is no closed period of this gateway that begins so: `clearinghouse periods list` has them."
        )
    if len(found) > 1:
        days = ", ".join(each.first_day for each in found)
        raise InvalidRequest(f"a period is rated anew by itself: say which one, by its first day, of {days}")
    if found[0].way == "free":
        raise NotToBeRerated(
            "The period is one of the way free: what was granted has paid for its usage, and nobody was charged for it."
        )
    return found[0]


async def _cards_as_of(connection: AsyncConnection, order: Order, period: _Period) -> _Cards:
    """As they were once that version was applied. Raises NotFound, and InvalidRequest where a change of price that came
    after it would be taken back."""
    rules = await read_rules(connection)
    own = [
        frozenset(each.rule_ids)
        for each in rules.stored
        if (each.version.card, each.version.version) == (order.card, order.version)
    ]
    if not own:
        raise NotFound(
            f"There is no version {order.version} of a rate card {order.card[:64]}: `clearinghouse rates apply "
            "--correction` adds one."
        )
    as_of = max(own[0])
    if newer := await charged_by_newer(connection, order.gateway_id, period.begins_at, period.ends_at, as_of):
        raise InvalidRequest(
            f"calls of the period, or of its month before it, were charged by {newer}, which was applied after "
            f"{order.card}@{order.version}: say --as-of {newer}, which knows both"
        )
    return _Cards(Rules(tuple(each for each in rules.stored if max(each.rule_ids) <= as_of)), as_of, own[0])


async def _known(connection: AsyncConnection, order: Order, period: _Period, as_of: int) -> Rerating | None:
    """Raises RatedAlready where a later version was used, ReratingBusy where another re-rating is not done."""
    for each in await reratings_of(connection, order.gateway_id, period.begins_at):
        if each.as_of == as_of:
            return each
        if each.as_of > as_of:
            raise RatedAlready(f"The period was rated by {each.card}@{each.version} already, which is newer.")
        if each.state == "planned":
            raise ReratingBusy(f"Its re-rating by {each.card}@{each.version} is not done yet.")
    return None


async def _made(
    connection: AsyncConnection, order: Order, period: _Period, invoice: Invoice | None, rated: _Rated
) -> Rerating:
    included = Decimal(0)
    if period.way == "subscription":
        included = await included_anew(connection, order.gateway_id, period.begins_at, rated.difference)
    if invoice is not None and rated.difference:
        await require_in_place(connection, invoice, EXACT.subtract(rated.difference, included))
    values: dict[str, Any] = {
        "id": rated.id, "gateway_id": order.gateway_id, "begins_at": period.begins_at, "card": order.card,
        "version": order.version, "as_of": rated.as_of, "reason": order.reason, "actor": order.actor,
        "calls_count": rated.calls_count, "difference": rated.difference, "included": included,
        "invoice_id": invoice.id if invoice is not None and rated.difference else None,
    }  # fmt: skip
    try:
        await insert_rerating(connection, values)
    except IntegrityError as taken:
        raise ReratingBusy("Another re-rating of this gateway is not done yet.") from taken
    await insert_lines(connection, rated.id)
    made = await find_rerating(connection, rated.id)
    await _require_sums(connection, made)
    return made


async def _rated(connection: AsyncConnection, order: Order, period: _Period, cards: _Cards) -> _Rated:
    """Rows of all calls; the one that they refer to has to follow in the same transaction. Raises InvalidRequest
    where none of them is by the version that is meant."""
    rerating_id = uuid7()
    replay, batch = Replay(cards.rules), list[Recharged]()
    calls_count, is_used, difference = 0, False, Decimal(0)
    async with aclosing(calls_of(connection, order.gateway_id, period.begins_at, period.ends_at)) as calls:
        async for call in calls:
            recharged = replay.recharged(call)
            if call.at < period.begins_at:
                continue
            batch.append(recharged)
            calls_count, is_used = calls_count + 1, is_used or recharged.rate_rule in cards.own
            difference = EXACT.add(difference, EXACT.subtract(recharged.charge, recharged.charged))
            if len(batch) == ROWS_AT_ONCE:
                await insert_calls(connection, rerating_id, batch)
                batch = []
    if batch:
        await insert_calls(connection, rerating_id, batch)
    if not is_used:
        raise InvalidRequest(
            f"no call of the period would be charged by {order.card}@{order.version}: a correction begins when the "
            "version begins that it corrects, and is of the card that calls were charged by"
        )
    return _Rated(rerating_id, cards.as_of, calls_count, difference)


async def _require_sums(connection: AsyncConnection, made: Rerating) -> None:
    """All usage of the period is in the lines, and they differ by what the calls differ by."""
    query = """SELECT sum(charge) - sum(charged), sum(calls_count), (SELECT calls_count FROM billing_period
                WHERE gateway_id = :gateway_id AND begins_at = :begins_at) FROM rerated_line WHERE rerating_id = :id"""
    values = {"id": made.id, "gateway_id": made.gateway_id, "begins_at": made.begins_at}
    difference, found, wanted = (await connection.execute(text(query), values)).one()
    if (difference, found) != (made.difference, wanted):
        raise BooksDiffer(
            f"The books do not add up: {found} calls of {wanted}, and a difference of {difference}, not "
            f"{made.difference}."
        )
