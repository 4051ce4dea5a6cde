"""The ledger beside a plain twin: whatever happens to an account, in any order, the two agree to the last digit."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from itertools import count
from uuid import UUID

import psycopg
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy.ext.asyncio import AsyncEngine

from clearinghouse.database.connect import ADMIN_ROLE, async_engine, in_role
from clearinghouse.errors import Conflict, OutOfCredit
from clearinghouse.identity import gateways, keys
from clearinghouse.ledger import accounts, transfers
from clearinghouse.ledger.verify import verify
from tests.parts.books import Connection, commit, usage_costing

WHO = {"reason": "a test", "actor": "test"}
_names = count()


@dataclass
class Lot:
    days: int
    remaining: Decimal


@dataclass
class Twin:
    """An account as one would explain it: everything happens at once, lots are a list, nothing is put off."""

    balance: Decimal = Decimal(0)
    limit: Decimal = Decimal(0)
    used: Decimal = Decimal(0)
    lots: list[Lot] = field(default_factory=list)

    def grant(self, amount: Decimal, days: int | None) -> None:
        self.balance += amount
        if days is not None and self.balance > 0:
            self.lots.append(Lot(days, min(amount, self.balance)))
            self.lots.sort(key=lambda lot: lot.days)

    def use(self, amount: Decimal) -> bool:
        if self.balance - amount < -self.limit:
            return False
        self.balance -= amount
        self.used += amount
        for lot in self.lots:
            taken = min(lot.remaining, amount)
            lot.remaining -= taken
            amount -= taken
        return True

    def withdraw(self, amount: Decimal) -> bool:
        if self.balance - amount < -self.limit:
            return False
        self.balance -= amount
        for lot in reversed(self.lots):
            too_much = sum((each.remaining for each in self.lots), Decimal(0)) - max(self.balance, Decimal(0))
            lot.remaining -= min(lot.remaining, max(too_much, Decimal(0)))
        return True

    def set_limit(self, limit: Decimal) -> bool:
        if self.balance < -limit:
            return False
        self.limit = limit
        return True

    def expire_next(self) -> None:
        for lot in self.open_lots()[:1]:
            self.balance -= lot.remaining
            lot.remaining = Decimal(0)

    def open_lots(self) -> list[Lot]:
        return [lot for lot in self.lots if lot.remaining > 0]


# Quarters of a unit, so that amounts often meet exactly; usage in small steps, so that lots are left half used.
LARGE = st.integers(1, 400).map(lambda quarters: Decimal(quarters) / 4)
SMALL = st.integers(1, 100).map(lambda quarters: Decimal(quarters) / 4)
NOTHING = st.just(Decimal(0))
EVENTS = st.sampled_from(
    [("lot", LARGE)] * 4 + [("use", SMALL)] * 4 + [("withdraw", SMALL)] * 2
    + [("expire", NOTHING)] * 2 + [("grant", LARGE), ("use", LARGE), ("limit", SMALL), ("settle", NOTHING)]
).flatmap(lambda event: st.tuples(st.just(event[0]), event[1]))  # fmt: skip


@settings(max_examples=50, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    limit=st.sampled_from([Decimal(0), Decimal(40)]),
    history=st.lists(EVENTS, min_size=10, max_size=24),
    days=st.lists(st.integers(1, 10_000), min_size=25, max_size=25, unique=True),
)
def test_any_history_ends_as_the_plain_twin_says(
    database: str, owner: Connection, limit: Decimal, history: list[tuple[str, Decimal]], days: list[int]
) -> None:
    asyncio.run(_play(database, owner, [("limit", limit), *history], days))


async def _play(database: str, owner: Connection, history: list[tuple[str, Decimal]], days: list[int]) -> None:
    engine = async_engine(in_role(database, ADMIN_ROLE), pool_size=2)
    try:
        async with engine.begin() as connection:
            gateway = await gateways.create(connection, f"history-{next(_names)}")
            key = await keys.create(connection, gateway.id, pepper=b"p" * 32)
        twin = Twin()
        for (event, amount), day in zip(history, days, strict=False):
            await _step(
                engine, owner, twin, gateway_id=gateway.id, key_id=key.key.id, event=event, amount=amount, days=day
            )
            await _compare(engine, twin, gateway.id)
        owner.execute("SELECT settle_due_lots()")
        await _compare(engine, twin, gateway.id)
        assert (await verify(engine)).findings == ()
    finally:
        await engine.dispose()


async def _step(
    engine: AsyncEngine, owner: Connection, twin: Twin, *, gateway_id: UUID, key_id: UUID, event: str, amount: Decimal,
    days: int,
) -> None:  # fmt: skip
    async with engine.begin() as connection:
        if event == "grant":
            await transfers.grant(connection, gateway_id, amount, **WHO)
            twin.grant(amount, None)
        elif event == "lot":
            expires_at = datetime.now(UTC) + timedelta(days=days)
            await transfers.grant(connection, gateway_id, amount, expires_at=expires_at, **WHO)
            twin.grant(amount, days)
        elif event == "withdraw":
            assert await _is_done(transfers.withdraw(connection, gateway_id, amount, **WHO)) == twin.withdraw(amount)
        elif event == "limit":
            assert await _is_done(accounts.set_limit(connection, gateway_id, amount)) == twin.set_limit(amount)
    if event == "use":
        code, _ = commit(owner, usage_costing(gateway_id, key_id, amount))
        assert code in {None, "out_of_credit"}
        assert (code is None) == twin.use(amount)
    elif event == "expire":
        _expire_next(owner, gateway_id)
        twin.expire_next()
    elif event == "settle":
        owner.execute("SELECT settle_due_lots()")


async def _is_done(attempt: object) -> bool:
    try:
        await attempt  # type: ignore[misc]
    except (OutOfCredit, Conflict):
        return False
    return True


async def _compare(engine: AsyncEngine, twin: Twin, gateway_id: UUID) -> None:
    async with engine.connect() as connection:
        now = await accounts.standing(connection, gateway_id)
    assert (now.balance, now.credit_limit, now.available) == (twin.balance, twin.limit, twin.balance + twin.limit)
    assert now.usage_total == twin.used
    assert [lot.remaining for lot in now.lots] == [lot.remaining for lot in twin.open_lots()]


def _expire_next(owner: psycopg.Connection[tuple[object, ...]], gateway_id: UUID) -> None:
    """Let the next expiry come: of the lots that usage has left something of, as the books will find when they look.

    The lots that usage emptied lie before it and are moved as well, so that the order stays.
    """
    with owner.transaction():
        lots = owner.execute(
            """SELECT lot.id, lot.remaining, account.usage_total - account.lots_usage, lot.expires_at <= now()
                 FROM credit_lot AS lot JOIN account ON account.id = account_id
                WHERE account_id = %s AND remaining > 0 ORDER BY expires_at, lot.id""",
            [gateway_id],
        ).fetchall()
        unsettled = lots[0][2] if lots else Decimal(0)
        for lot_id, remaining, _, has_expired in lots:
            assert isinstance(unsettled, Decimal)
            assert isinstance(remaining, Decimal)
            taken = min(remaining, unsettled)
            unsettled -= taken
            if has_expired:
                continue
            owner.execute("UPDATE credit_lot SET expires_at = clock_timestamp() WHERE id = %s", [lot_id])
            if taken < remaining:
                break
        owner.execute(
            "UPDATE account SET next_expiry_at = (SELECT min(expires_at) FROM credit_lot WHERE account_id = account.id "
            "AND remaining > 0) WHERE id = %s",
            [gateway_id],
        )
