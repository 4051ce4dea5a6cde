"""Rate cards in the database: versions are added, never changed, and gateways and plans are put on cards.

Reading is for any role; all else is in the caller's transaction, in role clearinghouse_admin.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final, NamedTuple
from uuid import UUID

from sqlalchemy import text

from clearinghouse.errors import Conflict, InvalidRequest, NotFound
from clearinghouse.identity import plans
from clearinghouse.instants import rfc3339
from clearinghouse.ledger.money import show_amount
from clearinghouse.rates.book import CardConflict, HoldsForThePast
from clearinghouse.rates.card import CardVersion, Meter, Rate
from clearinghouse.rates.document import digest, document, read_json
from clearinghouse.rates.quote import START, Position
from clearinghouse.rates.rules import Rules, StoredVersion
from clearinghouse.rates.units import BASE_PER_UNIT, from_grains

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncConnection

    from clearinghouse.identity.gateways import Gateway
    from clearinghouse.identity.plans import Plan

#: In place of a card's name: no card, whatever the plan has; and what the plan has.
NONE: Final = "none"
INHERIT: Final = "inherit"

_SELECT: Final = """
    SELECT document::text, rule_ids, applied_at, applied_by
      FROM rate_card JOIN LATERAL (
          SELECT array_agg(id ORDER BY ordinal) AS rule_ids FROM rate_rule
           WHERE rate_rule.card = rate_card.card AND rate_rule.version = rate_card.version) AS rule ON true
"""
# The clocks of those who price a call differ by less. Whatever held before that has been taken the place of for good.
_IN_USE: Final = """
    SELECT card, version FROM rate_card
     WHERE NOT EXISTS (SELECT FROM rate_card AS later WHERE later.card = rate_card.card
                          AND (later.effective_from, later.version) > (rate_card.effective_from, rate_card.version)
                          AND greatest(later.effective_from, later.applied_at) < now() - interval '1 hour')
"""
_AMONG: Final = " WHERE (card, version) IN (SELECT * FROM unnest(CAST(:cards AS text[]), CAST(:versions AS integer[])))"


class CardDoesNotFit(Conflict):
    """It contradicts the versions there are."""

    what_next = "Correct the card: a further version has a number of its own, and the currency of those before it."


class CardHoldsForThePast(Conflict):
    """Calls were charged by another version in the time for which it would hold."""

    what_next = (
        "Let it begin later; or apply it as a correction, which leaves what was charged as it is until a closed period "
        "is rated anew by it: `clearinghouse rates apply --correction`, over HTTP `?correction=true`."
    )


class Found(NamedTuple):
    """What is in use: versions that were read before, and rows of others, whose documents `understood` reads."""

    known: tuple[StoredVersion, ...]
    rows: Sequence[Any]


async def newest_rule_id(connection: AsyncConnection) -> int:
    """0 where there is none. Whoever knows it has nothing to read."""
    return int((await connection.execute(text("SELECT coalesce(max(id), 0) FROM rate_rule"))).scalar_one())


async def read_rules(connection: AsyncConnection) -> Rules:
    """All versions. Raises CardInvalid where one cannot be read: another release wrote it."""
    rows = (await connection.execute(text(_SELECT))).all()
    return await asyncio.to_thread(understood, Found((), rows))


async def find_in_use(connection: AsyncConnection, known: Rules) -> Found:
    """The versions that hold, are to come, or held an hour ago: no others charge anything any more."""
    wanted = {(row.card, row.version) for row in await connection.execute(text(_IN_USE))}
    kept = tuple(each for each in known.stored if (each.version.card, each.version.version) in wanted)
    missing = sorted(wanted - {(each.version.card, each.version.version) for each in kept})
    keys = {"cards": [card for card, _ in missing], "versions": [version for _, version in missing]}
    return Found(kept, (await connection.execute(text(_SELECT + _AMONG), keys)).all() if missing else ())


def understood(found: Found) -> Rules:
    """The versions in the order in which they take effect. Takes a second for 10,000 rates: not for the event loop.

    Raises CardInvalid.
    """
    read = [StoredVersion(read_json(row[0]), tuple(row[1]), row[2], row[3]) for row in found.rows]
    return Rules(tuple(sorted([*found.known, *read], key=_place)))


def _place(stored: StoredVersion) -> tuple[str, datetime, int]:
    return stored.version.card, stored.version.effective_from, stored.version.version


async def versions_of(connection: AsyncConnection, card: str) -> list[StoredVersion]:
    """In the order in which they take effect. NotFound where there is no such card."""
    found = [each for each in (await read_rules(connection)).stored if each.version.card == card]
    if not found:
        raise NotFound(f"there is no rate card {card[:64]}: `clearinghouse rates apply` adds one")
    return found


async def version_of(connection: AsyncConnection, card: str, version: int | None) -> StoredVersion:
    """The one with this number; the highest where none is named. NotFound without it."""
    by_number = {each.version.version: each for each in await versions_of(connection, card)}
    chosen = max(by_number) if version is None else version
    if chosen not in by_number:
        raise NotFound(f"the rate card {card} has no version {chosen}")
    return by_number[chosen]


async def apply(connection: AsyncConnection, card: CardVersion, *, is_correction: bool, actor: str) -> StoredVersion:
    """Adds a version. Applied again, it is found as it is.

    A card's first version may begin in the past, for nobody was charged by it. Conflict where the number is taken by
    another, or the version would hold for calls already charged and is not meant as a correction; InvalidRequest where
    calls cannot be charged by it.
    """
    _require_name(card)
    rules = await read_rules(connection)  # before the lock: commits wait while it is held
    now = (await connection.execute(text("SELECT hold_rate_cards()"))).scalar_one()
    if await newest_rule_id(connection) != rules.newest_id:
        rules = await read_rules(connection)
    return _found(rules, card, now=now, is_correction=is_correction) or await _insert(connection, card, actor)


async def judge(connection: AsyncConnection, card: CardVersion, *, is_correction: bool) -> bool:
    """Whether it is stored already; nothing is written, or waits. Raises what `apply` would."""
    _require_name(card)
    now = (await connection.execute(text("SELECT clock_timestamp()"))).scalar_one()
    return _found(await read_rules(connection), card, now=now, is_correction=is_correction) is not None


def _found(rules: Rules, card: CardVersion, *, now: datetime, is_correction: bool) -> StoredVersion | None:
    """The same version among those there are. Conflict where it is none of them, and does not go with them."""
    for each in rules.stored:
        if each.version == card:
            return each
    is_first = not rules.book.versions(card.card)
    try:
        rules.book.with_version(card, now=now, is_correction=is_correction or is_first)
    except HoldsForThePast as conflict:
        raise CardHoldsForThePast(str(conflict)) from None
    except CardConflict as conflict:
        raise CardDoesNotFit(str(conflict)) from None
    return None


def _require_name(card: CardVersion) -> None:
    if card.card in (NONE, INHERIT):
        raise InvalidRequest(f"no rate card may be called {card.card}: that word says which card a gateway has")


_INSERT_CARD: Final = """
    INSERT INTO rate_card (card, version, currency, effective_from, document, sha256, applied_by)
    VALUES (:card, :version, :currency, :effective_from, CAST(:document AS jsonb), :sha256, :actor)
    RETURNING applied_at, applied_by
"""
# All at once, from JSON: however many there are, commits wait for two statements and not for one of each rate.
_INSERT_RULES: Final = """
    INSERT INTO rate_rule (card, version, ordinal, application, pipeline, model, per, base_per_unit, floor,
                           minimum_charge, counts, meter)
    SELECT :card, :version, ordinal, application, pipeline, model, per, base_per_unit, floor, minimum_charge, counts,
           meter
      FROM jsonb_to_recordset(CAST(:rules AS jsonb)) AS rule (
           ordinal integer, application text, pipeline text, model text, per text, base_per_unit numeric, floor text,
           minimum_charge numeric, counts boolean, meter text)
     ORDER BY ordinal
    RETURNING ordinal, id
"""
_INSERT_TIERS: Final = """
    INSERT INTO rate_tier (rule_id, begins_at, price, below)
    SELECT * FROM jsonb_to_recordset(CAST(:tiers AS jsonb)) AS tier (
           rule_id bigint, begins_at numeric, price numeric, below numeric)
"""


async def _insert(connection: AsyncConnection, card: CardVersion, actor: str) -> StoredVersion:
    parameters = {
        "card": card.card, "version": card.version, "currency": card.currency, "effective_from": card.effective_from,
        "document": json.dumps(document(card)), "sha256": digest(card), "actor": actor,
    }  # fmt: skip
    rules = json.dumps([{"ordinal": ordinal, **_rule_values(rate)} for ordinal, rate in enumerate(card.rates)])
    applied = (await connection.execute(text(_INSERT_CARD), parameters)).one()
    inserted = await connection.execute(
        text(_INSERT_RULES), {"card": card.card, "version": card.version, "rules": rules}
    )
    ids = [row.id for row in sorted(inserted.all())]
    tiers = [
        {"rule_id": rule_id, **tier}
        for rule_id, rate in zip(ids, card.rates, strict=True)
        for tier in _tier_values(rate)
    ]
    await connection.execute(text(_INSERT_TIERS), {"tiers": json.dumps(tiers)})
    return StoredVersion(card, tuple(ids), applied.applied_at, applied.applied_by)


def _rule_values(rate: Rate) -> dict[str, Any]:
    return {
        "application": rate.application, "pipeline": rate.pipeline, "model": rate.model, "per": rate.per.value,
        "base_per_unit": str(BASE_PER_UNIT[rate.per]), "floor": rate.floor.value,
        "minimum_charge": show_amount(rate.minimum_charge), "counts": rate.counts, "meter": _shown(rate.meter),
    }  # fmt: skip


def _tier_values(rate: Rate) -> list[dict[str, str]]:
    return [
        {
            "begins_at": str(step.begin),
            "price": show_amount(from_grains(step.price_grains)),
            "below": show_amount(from_grains(step.below)),
        }
        for step in rate.steps
    ]


# --- who is charged by which ----------------------------------------------------------------------------------------


async def assign_to_gateway(connection: AsyncConnection, gateway: Gateway, card: str, *, actor: str) -> None:
    """From the next call on. NONE: its own markup, whatever the plan has; INHERIT: what the plan has.

    NotFound without such a card; Conflict where it is in another currency, or no version of it holds yet.
    """
    if card not in (NONE, INHERIT):
        currency = await _currency_in_force(connection, card)
        _require_currency(card, currency, gateway.currency, whose=f"the account of {gateway.name}")
    query = text("SELECT assign_rate_card(:gateway, :card, :actor)")
    stored = None if card == INHERIT else card
    await connection.execute(query, {"gateway": gateway.id, "card": stored, "actor": actor})


async def assign_to_plan(
    connection: AsyncConnection, name: str, card: str, *, may_be_below_cost: bool, actor: str
) -> Plan:
    """`plans.apply` then brings it to the plan's gateways. NONE: no card.

    NotFound without such a plan or card; Conflict where a gateway on the plan has an account in another currency.
    """
    await plans.find(connection, name)
    if card == INHERIT:
        raise InvalidRequest(f"a plan has nothing to inherit a rate card from: name one, or {NONE}")
    if card != NONE:
        currency = await _currency_in_force(connection, card)
        for gateway, theirs in await _currencies_on(connection, name):
            _require_currency(card, currency, theirs, whose=f"the account of {gateway}, which is on the plan,")
    query = text("SELECT assign_plan_rate_card(:plan, :card, :below_cost, :actor)")
    parameters = {"plan": name, "card": None if card == NONE else card, "below_cost": may_be_below_cost, "actor": actor}
    await connection.execute(query, parameters)
    return await plans.find(connection, name)


async def card_of(connection: AsyncConnection, gateway_id: UUID) -> tuple[str | None, bool]:
    """Which card its calls are charged by, if any, and whether they may be charged less than their tickets cost."""
    query = text("SELECT rate_card, below_cost FROM gateway WHERE id = :id")
    row = (await connection.execute(query, {"id": gateway_id})).one()
    return row.rate_card, row.below_cost


def _shown(meter: Meter) -> str:
    """As commits count by it. Not in ASCII: escapes of the longest names would not fit into an index."""
    return json.dumps(meter, ensure_ascii=False)


async def _currencies_on(connection: AsyncConnection, plan: str) -> list[tuple[str, str]]:
    """A gateway of each currency."""
    query = """SELECT DISTINCT ON (currency) gateway.name, currency FROM gateway JOIN account ON account.id = gateway.id
                WHERE gateway.plan = :plan ORDER BY currency, gateway.name"""
    return [(row[0], row[1]) for row in await connection.execute(text(query), {"plan": plan})]


async def _currency_in_force(connection: AsyncConnection, card: str) -> str:
    """NotFound without such a card, Conflict where no version of it holds yet."""
    first = (await versions_of(connection, card))[0].version
    now: datetime = (await connection.execute(text("SELECT clock_timestamp()"))).scalar_one()
    if first.effective_from > now:
        raise Conflict(
            f"the rate card {card} begins at {rfc3339(first.effective_from)}: until then calls charged by it would "
            "have no price and be refused; assign it when it holds, or apply a version that holds now"
        )
    return first.currency


def _require_currency(card: str, currency: str, theirs: str, *, whose: str) -> None:
    if currency != theirs:
        raise Conflict(f"the rate card {card} is in {currency}, and {whose} is in {theirs}")


async def position(connection: AsyncConnection, gateway_id: UUID, meter: Meter, at: datetime) -> Position:
    """How far the gateway has come by a rate in the month (UTC) of that instant."""
    query = """SELECT volume, rated, cost FROM rate_position
                WHERE gateway_id = :gateway_id AND meter = :meter AND month = month_of(:day)"""
    parameters = {"gateway_id": gateway_id, "meter": _shown(meter), "day": at.astimezone(UTC).date()}
    row = (await connection.execute(text(query), parameters)).one_or_none()
    return START if row is None else Position(int(row.volume), row.rated, row.cost)
