"""Calls that are sold by rate cards, closed and asked for."""

from __future__ import annotations

import secrets
from dataclasses import dataclass, field
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

from clearinghouse import rate_store
from clearinghouse.identity import gateways
from clearinghouse.ids import show
from clearinghouse.ledger.verify import verify
from clearinghouse.rates.card import CardVersion, Floor, Rate, Tier
from clearinghouse.rates.rules import Rules, StoredVersion
from clearinghouse.rates.units import Per
from clearinghouse.rates.usage import Cost
from clearinghouse.rates.usage import Usage as Used
from clearinghouse.rating import by_rule
from settlement.rerating.finish import finish
from settlement.rerating.plan import Order, find_or_plan
from settlement.rerating.store import RatedLine, Rerating
from settlement.stripe_link.desk import Desk
from tests.parts import books
from tests.parts.books import ETH
from tests.parts.invoiced import Debtor, Invoiced

LONG_AGO = datetime(2026, 1, 1, tzinfo=UTC)
NS = 10**9


def per_second(version: int, *tiers: tuple[str | None, str], card: str = "standard", **more: Any) -> CardVersion:
    """`(up to, price)` each; without a floor under what it cost unless it is asked for."""
    steps = tuple(Tier(None if up_to is None else int(up_to) * NS, Decimal(price)) for up_to, price in tiers)
    more.setdefault("floor", Floor.CALL)
    return CardVersion(card, version, "USD", LONG_AGO, (Rate(Per.SECOND, steps, **more),))


@dataclass
class Sold:
    house: Invoiced
    versions: dict[UUID, int] = field(default_factory=dict)

    async def apply(self, card: CardVersion) -> StoredVersion:
        async with self.house.admin.begin() as connection:
            return await rate_store.apply(connection, card, is_correction=True, actor="test")

    async def gateway(self, rates: str, name: str | None = None, **details: Any) -> Debtor:
        """On that rate card, of which there is a version; a `card` is what pays."""
        debtor = await self.house.gateway(name or f"gateway-{secrets.token_hex(4)}", **details)
        async with self.house.admin.begin() as connection:
            found = await gateways.find(connection, show("gw", debtor.id))
            await rate_store.assign_to_gateway(connection, found, rates, actor="test")
        self.versions[debtor.id] = self.house.value(
            "SELECT ceilings_version FROM gateway WHERE id = %(id)s", id=debtor.id
        )
        return debtor

    def use(self, debtor: Debtor, stored: StoredVersion, seconds: int, *, ev_wei: int = 1, app: str = "app") -> None:
        """One call, charged as the commit finds."""
        used = Used(app, "", "", duration_ns=seconds * NS)
        rule = Rules((stored,)).at(stored.version.card, datetime.now(UTC), *used[:3])
        priced = by_rule(rule, used, Cost(ev_wei, ETH), may_be_below_cost=False)
        call = books.Usage(
            debtor.id, debtor.key_id, priced.charge, ev_wei, ceilings_version=self.versions[debtor.id],
            rate_rule=priced.rule_id, quantity=priced.quantity,
        )  # fmt: skip
        refusal, _ = books.commit(self.house.owner, call)
        assert refusal is None
        self.house.owner.execute(
            "UPDATE session SET app = %s, pipeline = '', model = '' WHERE id = %s", [app, call.session_id]
        )

    def order(self, debtor: Debtor, stored: StoredVersion, period: str = "2026-08", **more: Any) -> Order:
        given = {"reason": "wrong tiers", "actor": "test", **more}
        return Order(debtor.id, period, stored.version.card, stored.version.version, **given)

    async def rerate(self, debtor: Debtor, stored: StoredVersion, *, desk: Desk | None = None, **more: Any) -> Rerating:
        """Once; the same again goes on where it was interrupted. Raises what `find_or_plan` and `finish` do."""
        walker = self.house.walker(desk)
        found, _ = await find_or_plan(walker.desk, self.order(debtor, stored, **more), only_try=False)
        return await finish(walker, found.id, defaults=self.house.defaults)

    async def tried(self, debtor: Debtor, stored: StoredVersion) -> tuple[Rerating, list[RatedLine]]:
        return await find_or_plan(self.house.desk, self.order(debtor, stored), only_try=True)

    async def require_clean(self) -> None:
        report = await verify(self.house.engine)
        assert report.is_clean, report.findings
