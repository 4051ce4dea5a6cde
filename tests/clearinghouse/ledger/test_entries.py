"""Payments, refunds and corrections may take an account below its limit, and the books say by how much."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from uuid import UUID

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import text
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncEngine

from clearinghouse.errors import IdempotencyConflict, InvalidRequest, OutOfCredit
from clearinghouse.identity import gateways
from clearinghouse.ledger import accounts, transfers
from clearinghouse.ledger.accounts import Standing
from clearinghouse.ledger.transfers import EntryKind, Transfer
from clearinghouse.ledger.verify import verify

WHO = {"reason": "a test", "actor": "test"}


async def book(
    admin: AsyncEngine, gateway_id: UUID, kind: EntryKind, amount: str, *, key: str, expires_at: datetime | None = None
) -> Transfer:
    async with admin.begin() as connection:
        return await transfers.book(
            connection, gateway_id, kind, Decimal(amount), key=key, expires_at=expires_at, **WHO
        )


async def standing(admin: AsyncEngine, gateway_id: UUID) -> Standing:
    async with admin.connect() as connection:
        return await accounts.standing(connection, gateway_id)


@pytest.fixture
async def gateway_id(admin: AsyncEngine) -> UUID:
    async with admin.begin() as connection:
        return (await gateways.create(connection, "acme")).id


async def test_a_payment_is_booked_once_however_often_it_is_confirmed(admin: AsyncEngine, gateway_id: UUID) -> None:
    booked = await asyncio.gather(*(book(admin, gateway_id, "payment", "25", key="pi_1") for _ in range(10)))
    assert len({entry.id for entry in booked}) == 1
    assert sum(not entry.was_repeated for entry in booked) == 1
    assert (await standing(admin, gateway_id)).balance == 25
    with pytest.raises(IdempotencyConflict):
        await book(admin, gateway_id, "payment", "26", key="pi_1")


async def test_a_dispute_takes_back_what_was_used_already_and_the_payment_of_the_debt_makes_up_for_it(
    admin: AsyncEngine, gateway_id: UUID
) -> None:
    await book(admin, gateway_id, "payment", "25", key="pi_1")
    async with admin.begin() as connection:
        await transfers.withdraw(connection, gateway_id, Decimal(20), **WHO)
    await book(admin, gateway_id, "dispute", "-25", key="dp_1")
    assert (await standing(admin, gateway_id)).available == -20
    async with admin.begin() as connection:
        with pytest.raises(OutOfCredit):  # by hand nobody is taken below the limit, however far below it he is
            await transfers.withdraw(connection, gateway_id, Decimal(1), **WHO)
    await book(admin, gateway_id, "dispute_won", "25", key="dp_1")
    async with admin.begin() as connection:
        await transfers.withdraw(connection, gateway_id, Decimal(5), **WHO)
        with pytest.raises(OutOfCredit):
            await transfers.withdraw(connection, gateway_id, Decimal(1), **WHO)
    assert (await verify(admin)).is_clean


async def test_a_limit_that_grows_over_a_debt_leaves_no_more_than_itself(admin: AsyncEngine, gateway_id: UUID) -> None:
    await book(admin, gateway_id, "refund", "-10", key="re_1")
    async with admin.begin() as connection:
        await accounts.set_limit(connection, gateway_id, Decimal(12))
        await transfers.withdraw(connection, gateway_id, Decimal(2), **WHO)
        with pytest.raises(OutOfCredit):
            await transfers.withdraw(connection, gateway_id, Decimal(1), **WHO)
    assert (await verify(admin)).is_clean


async def test_included_usage_is_used_after_grants_that_expire_later_and_ends_with_its_period(
    admin: AsyncEngine, gateway_id: UUID
) -> None:
    later = datetime.now(UTC) + timedelta(days=40)
    await book(admin, gateway_id, "included", "10", key="2026-10", expires_at=later - timedelta(days=30))
    async with admin.begin() as connection:
        await transfers.grant(connection, gateway_id, Decimal(5), expires_at=later, **WHO)
    lots = (await standing(admin, gateway_id)).lots
    assert [lot.amount for lot in lots] == [5, 10]
    assert (await verify(admin)).is_clean


@pytest.mark.parametrize(
    ("kind", "amount"), [("payment", "-1"), ("refund", "1"), ("write_off", "-1"), ("fee", "1"), ("rounding", "0")]
)
async def test_an_entry_that_goes_the_wrong_way_is_refused(
    admin: AsyncEngine, gateway_id: UUID, kind: EntryKind, amount: str
) -> None:
    with pytest.raises(IntegrityError, match="cannot be of"):
        await book(admin, gateway_id, kind, amount, key="k")


async def test_nobody_can_take_the_key_of_a_payment_beforehand(admin: AsyncEngine, gateway_id: UUID) -> None:
    async with admin.begin() as connection:
        with pytest.raises(InvalidRequest, match="payment:"):
            await transfers.grant(connection, gateway_id, Decimal(5), key="payment:pi_1", **WHO)


MOVES = st.lists(
    st.tuples(
        st.sampled_from(["payment", "refund", "dispute", "dispute_won", "write_off", "rounding", "adjustment", "fee"]),
        st.decimals("0.0001", "50", places=4),
        st.booleans(),
    ),
    max_size=8,
)


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(moves=MOVES, limit=st.integers(0, 20))
async def test_whatever_comes_and_goes_the_balance_is_the_sum_and_the_books_are_in_order(
    admin: AsyncEngine, moves: list[tuple[EntryKind, Decimal, bool]], limit: int
) -> None:
    async with admin.begin() as connection:
        gateway_id = (await gateways.create(connection, f"g{datetime.now(UTC).timestamp()}")).id
        await accounts.set_limit(connection, gateway_id, Decimal(limit))
        total = Decimal(0)
        for number, (kind, size, is_positive) in enumerate(moves):
            enters = kind in {"payment", "dispute_won", "write_off"} or (
                kind in {"rounding", "adjustment"} and is_positive
            )
            amount = size if enters else -size
            await transfers.book(connection, gateway_id, kind, amount, key=f"{gateway_id}-{number}", **WHO)
            total += amount
        now = await accounts.standing(connection, gateway_id)
        assert (now.balance, now.available) == (total, total + limit)
        overdrawn = text("SELECT overdrawn FROM account WHERE id = :id")
        assert (await connection.execute(overdrawn, {"id": gateway_id})).scalar_one() == max(0, -total - limit)
