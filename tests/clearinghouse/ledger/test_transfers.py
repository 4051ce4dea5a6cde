from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from uuid import UUID

import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from clearinghouse.errors import IdempotencyConflict, InvalidRequest, NotFound, OutOfCredit
from clearinghouse.identity import gateways, keys
from clearinghouse.ids import uuid7
from clearinghouse.ledger import accounts, transfers
from clearinghouse.ledger.accounts import Standing
from clearinghouse.ledger.transfers import Transfer
from clearinghouse.ledger.verify import verify
from tests.parts.books import Connection, commit, usage_costing

WHO = {"reason": "a test", "actor": "test"}
SOON = timedelta(days=1)


async def grant(admin: AsyncEngine, gateway_id: UUID, amount: str, **further: object) -> Transfer:
    async with admin.begin() as connection:
        return await transfers.grant(connection, gateway_id, Decimal(amount), **{**WHO, **further})  # type: ignore[arg-type]


async def withdraw(admin: AsyncEngine, gateway_id: UUID, amount: str, **further: object) -> Transfer:
    async with admin.begin() as connection:
        return await transfers.withdraw(connection, gateway_id, Decimal(amount), **{**WHO, **further})  # type: ignore[arg-type]


async def standing(admin: AsyncEngine, gateway_id: UUID) -> Standing:
    async with admin.connect() as connection:
        return await accounts.standing(connection, gateway_id)


@pytest.fixture
async def gateway_id(admin: AsyncEngine) -> UUID:
    async with admin.begin() as connection:
        return (await gateways.create(connection, "acme")).id


async def test_a_grant_is_booked_with_its_reason_and_can_be_spent(admin: AsyncEngine, gateway_id: UUID) -> None:
    booked = await grant(admin, gateway_id, "12.345678901234", reason="invoice 7", actor="cli:ann", key="inv-7")
    assert (booked.kind, booked.destination, booked.amount) == ("grant", gateway_id, Decimal("12.345678901234"))
    assert (booked.reason, booked.actor, booked.key, booked.currency) == ("invoice 7", "cli:ann", "inv-7", "USD")
    assert not booked.was_repeated
    assert (await standing(admin, gateway_id)).available == Decimal("12.345678901234")


async def test_an_amount_keeps_every_digit_the_database_can_hold(admin: AsyncEngine, gateway_id: UUID) -> None:
    amount = "999999999999999.123456789012345678"
    await grant(admin, gateway_id, amount)
    assert (await standing(admin, gateway_id)).balance == Decimal(amount)


async def test_a_repeated_key_books_once_and_returns_the_first_transfer(admin: AsyncEngine, gateway_id: UUID) -> None:
    first = await grant(admin, gateway_id, "5", key="k")
    again = await grant(admin, gateway_id, "5.00", key="k", reason="another reason")
    assert again.id == first.id
    assert again.was_repeated
    assert again.reason == "a test"
    taken = await withdraw(admin, gateway_id, "2", key="w")
    assert (await withdraw(admin, gateway_id, "2", key="w")).id == taken.id
    assert (await standing(admin, gateway_id)).balance == 3


async def test_a_key_used_for_something_else_is_a_conflict(admin: AsyncEngine, gateway_id: UUID) -> None:
    async with admin.begin() as connection:
        other = await gateways.create(connection, "other")
    await grant(admin, gateway_id, "5", key="k")
    for attempt in (
        grant(admin, gateway_id, "6", key="k"),
        grant(admin, other.id, "5", key="k"),
        withdraw(admin, gateway_id, "5", key="k"),
    ):
        with pytest.raises(IdempotencyConflict, match="'k' was used for another transfer"):
            await attempt
    assert (await standing(admin, gateway_id)).balance == 5
    assert (await standing(admin, other.id)).balance == 0


async def test_a_key_sent_by_many_at_once_books_once(admin: AsyncEngine, gateway_id: UUID) -> None:
    booked = await asyncio.gather(*(grant(admin, gateway_id, "5", key="k") for _ in range(12)))
    assert len({transfer.id for transfer in booked}) == 1
    assert sum(not transfer.was_repeated for transfer in booked) == 1
    assert (await standing(admin, gateway_id)).balance == 5


async def test_a_key_sent_for_two_gateways_at_once_books_for_one(admin: AsyncEngine, gateway_id: UUID) -> None:
    async with admin.begin() as connection:
        other = await gateways.create(connection, "other")
    attempts = [grant(admin, one, "5", key="k") for one in (gateway_id, other.id) for _ in range(6)]
    outcomes = await asyncio.gather(*attempts, return_exceptions=True)
    assert sum(isinstance(outcome, IdempotencyConflict) for outcome in outcomes) == 6
    assert sum(isinstance(outcome, Transfer) for outcome in outcomes) == 6
    balances = [(await standing(admin, one)).balance for one in (gateway_id, other.id)]
    assert sorted(balances) == [0, 5]


async def test_concurrent_withdrawals_never_overdraw(admin: AsyncEngine, gateway_id: UUID) -> None:
    await grant(admin, gateway_id, "10")
    attempts = [withdraw(admin, gateway_id, "3") for _ in range(10)]
    outcomes = await asyncio.gather(*attempts, return_exceptions=True)
    assert sum(isinstance(outcome, Transfer) for outcome in outcomes) == 3
    assert sum(isinstance(outcome, OutOfCredit) for outcome in outcomes) == 7
    assert (await standing(admin, gateway_id)).balance == 1


async def test_two_withdrawals_of_everything_succeed_once(admin: AsyncEngine, gateway_id: UUID) -> None:
    for _ in range(5):
        await grant(admin, gateway_id, "10")
        attempts = [withdraw(admin, gateway_id, "10") for _ in range(2)]
        outcomes = await asyncio.gather(*attempts, return_exceptions=True)
        assert sorted(type(outcome).__name__ for outcome in outcomes) == ["Transfer", "WithdrawalTooLarge"]
        assert (await standing(admin, gateway_id)).balance == 0


async def test_a_withdrawal_may_use_the_credit_limit_and_not_more(admin: AsyncEngine, gateway_id: UUID) -> None:
    await grant(admin, gateway_id, "1")
    async with admin.begin() as connection:
        await accounts.set_limit(connection, gateway_id, Decimal(2))
    with pytest.raises(OutOfCredit, match=r"3.000001 USD is more than is available: balance 1, credit limit 2") as no:
        await withdraw(admin, gateway_id, "3.000001")
    assert no.value.facts == {"available": "3", "currency": "USD"}
    await withdraw(admin, gateway_id, "3")
    assert (await standing(admin, gateway_id)).available == 0


async def test_a_refused_transfer_leaves_the_callers_transaction_usable(admin: AsyncEngine, gateway_id: UUID) -> None:
    async with admin.begin() as connection:
        with pytest.raises(OutOfCredit):
            await transfers.withdraw(connection, gateway_id, Decimal(1), **WHO)
        await transfers.grant(connection, gateway_id, Decimal(7), **WHO)
    assert (await standing(admin, gateway_id)).balance == 7


async def test_a_gateway_that_does_not_exist_gets_nothing(admin: AsyncEngine) -> None:
    for attempt in (grant(admin, uuid7(), "5"), withdraw(admin, uuid7(), "5")):
        with pytest.raises(NotFound, match="there is no gateway gw_"):
            await attempt


@pytest.mark.parametrize("amount", ["0", "-1"])
async def test_only_positive_amounts_move(admin: AsyncEngine, gateway_id: UUID, amount: str) -> None:
    for attempt in (grant(admin, gateway_id, amount), withdraw(admin, gateway_id, amount)):
        with pytest.raises(InvalidRequest, match="greater than 0"):
            await attempt


@pytest.mark.parametrize("reason", ["", "   ", "two\nlines", "x" * 1001])
async def test_a_reason_is_one_readable_line(admin: AsyncEngine, gateway_id: UUID, reason: str) -> None:
    with pytest.raises(InvalidRequest, match="reason"):
        await grant(admin, gateway_id, "5", reason=reason)


@pytest.mark.parametrize("key", ["", "a b", "ü", "x" * 256, "expiry:1", "a\n"])
async def test_unusable_idempotency_keys_are_refused(admin: AsyncEngine, gateway_id: UUID, key: str) -> None:
    with pytest.raises(InvalidRequest, match="idempotency key"):
        await grant(admin, gateway_id, "5", key=key)


async def test_credit_cannot_be_granted_into_the_past(admin: AsyncEngine, gateway_id: UUID) -> None:
    with pytest.raises(InvalidRequest, match="in the past"):
        await grant(admin, gateway_id, "5", expires_at=datetime.now(UTC) - timedelta(seconds=1))


async def test_what_is_left_of_expiring_credit_lapses_by_itself(
    admin: AsyncEngine, owner: Connection, gateway_id: UUID
) -> None:
    await grant(admin, gateway_id, "10")
    lot = await grant(admin, gateway_id, "4", expires_at=datetime.now(UTC) + SOON)
    key_id = await a_key(admin, gateway_id)
    assert commit(owner, usage_costing(gateway_id, key_id, Decimal("1.5"))) == (None, Decimal("12.5"))
    before = await standing(admin, gateway_id)
    assert [(one.id, one.amount, one.remaining) for one in before.lots] == [(lot.id, 4, Decimal("2.5"))]

    expire(owner, lot.id)
    after = await standing(admin, gateway_id)
    assert (after.balance, after.available, after.lots) == (10, 10, ())
    assert commit(owner, usage_costing(gateway_id, key_id, Decimal(11)))[0] == "out_of_credit"
    booked = owner.execute("SELECT amount, source FROM transfer WHERE kind = 'expiry'").fetchall()
    assert booked == [(Decimal("2.5"), gateway_id)]
    assert (await verify(admin)).findings == ()


async def test_usage_takes_from_what_expires_first(admin: AsyncEngine, owner: Connection, gateway_id: UUID) -> None:
    later = await grant(admin, gateway_id, "4", expires_at=datetime.now(UTC) + 2 * SOON)
    sooner = await grant(admin, gateway_id, "3", expires_at=datetime.now(UTC) + SOON)
    await grant(admin, gateway_id, "5")
    commit(owner, usage_costing(gateway_id, await a_key(admin, gateway_id), Decimal(5)))
    now = await standing(admin, gateway_id)
    assert [(lot.id, lot.remaining) for lot in now.lots] == [(later.id, 2)]
    assert sooner.id not in {lot.id for lot in now.lots}


async def test_withdrawals_take_permanent_credit_first_then_what_expires_last(
    admin: AsyncEngine, gateway_id: UUID
) -> None:
    sooner = await grant(admin, gateway_id, "3", expires_at=datetime.now(UTC) + SOON)
    later = await grant(admin, gateway_id, "4", expires_at=datetime.now(UTC) + 2 * SOON)
    await grant(admin, gateway_id, "5")
    await withdraw(admin, gateway_id, "5")
    assert [lot.remaining for lot in (await standing(admin, gateway_id)).lots] == [3, 4]
    await withdraw(admin, gateway_id, "1")
    now = await standing(admin, gateway_id)
    assert [(lot.id, lot.remaining) for lot in now.lots] == [(sooner.id, 3), (later.id, 3)]


async def test_a_grant_that_pays_a_debt_has_no_credit_left_to_expire(
    admin: AsyncEngine, owner: Connection, gateway_id: UUID
) -> None:
    async with admin.begin() as connection:
        await accounts.set_limit(connection, gateway_id, Decimal(10))
    commit(owner, usage_costing(gateway_id, await a_key(admin, gateway_id), Decimal(6)))
    await grant(admin, gateway_id, "4", expires_at=datetime.now(UTC) + SOON)
    assert (await standing(admin, gateway_id)).lots == ()
    lot = await grant(admin, gateway_id, "5", expires_at=datetime.now(UTC) + SOON)
    assert [one.remaining for one in (await standing(admin, gateway_id)).lots] == [3]
    expire(owner, lot.id)
    assert (await standing(admin, gateway_id)).balance == 0
    assert (await verify(admin)).findings == ()


async def a_key(admin: AsyncEngine, gateway_id: UUID) -> UUID:
    async with admin.begin() as connection:
        return (await keys.create(connection, gateway_id, pepper=b"p" * 32)).key.id


def expire(owner: Connection, lot_id: UUID) -> None:
    """Let the time come at which a lot expires."""
    with owner.transaction():
        moved = owner.execute(
            "UPDATE credit_lot SET expires_at = now() - interval '1 s' WHERE id = %s RETURNING account_id", [lot_id]
        ).fetchone()
        assert moved is not None
        owner.execute(
            "UPDATE account SET next_expiry_at = (SELECT min(expires_at) FROM credit_lot WHERE account_id = account.id "
            "AND remaining > 0) WHERE id = %s",
            moved,
        )
