from __future__ import annotations

from decimal import Decimal

import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from clearinghouse.errors import Conflict, InvalidRequest, NotFound
from clearinghouse.identity import gateways
from clearinghouse.ids import uuid7
from clearinghouse.ledger import accounts, transfers
from tests.parts.books import Connection


async def test_a_new_account_is_empty(admin: AsyncEngine) -> None:
    async with admin.begin() as connection:
        gateway = await gateways.create(connection, "acme", currency="EUR", credit_limit=Decimal("2.5"))
        now = await accounts.standing(connection, gateway.id)
    assert (now.currency, now.balance, now.credit_limit, now.available) == ("EUR", 0, Decimal("2.5"), Decimal("2.5"))
    assert (now.usage_total, now.lots) == (0, ())


async def test_the_limit_cannot_be_lowered_below_what_is_owed(admin: AsyncEngine) -> None:
    async with admin.begin() as connection:
        gateway = await gateways.create(connection, "acme", credit_limit=Decimal(10))
        await transfers.withdraw(connection, gateway.id, Decimal("7.25"), reason="a test", actor="test")
        with pytest.raises(Conflict, match=r"owes 7.25 USD: its credit limit cannot be lowered to 7.24") as refused:
            await accounts.set_limit(connection, gateway.id, Decimal("7.24"))
        assert (refused.value.code, refused.value.facts) == ("conflict", {"balance": "-7.25"})
        assert (await accounts.standing(connection, gateway.id)).credit_limit == 10
        lowered = await accounts.set_limit(connection, gateway.id, Decimal("7.25"))
    assert (lowered.credit_limit, lowered.available) == (Decimal("7.25"), 0)


async def test_a_negative_limit_is_refused(admin: AsyncEngine) -> None:
    async with admin.begin() as connection:
        gateway = await gateways.create(connection, "acme")
        with pytest.raises(InvalidRequest, match="negative"):
            await accounts.set_limit(connection, gateway.id, Decimal(-1))


async def test_who_has_no_account_has_no_standing(admin: AsyncEngine) -> None:
    async with admin.begin() as connection:
        for attempt in (accounts.standing(connection, uuid7()), accounts.set_limit(connection, uuid7(), Decimal(1))):
            with pytest.raises(NotFound, match="there is no gateway"):
                await attempt


async def test_system_accounts_have_no_standing(admin: AsyncEngine, owner: Connection) -> None:
    async with admin.begin() as connection:
        await gateways.create(connection, "acme")
    row = owner.execute("SELECT id FROM account WHERE name = 'revenue'").fetchone()
    assert row is not None
    async with admin.begin() as connection:
        for attempt in (
            accounts.standing(connection, row[0]),
            accounts.set_limit(connection, row[0], Decimal(1)),
        ):
            with pytest.raises(NotFound):
                await attempt
