"""Top-ups in the database: every change is one function there, which also writes its event."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from datetime import datetime
from typing import Any, Final, NamedTuple
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from chain.funding import Amounts
from chain.transactions import Fees, SignedTransaction
from chain.wallet_chain import Mined, WalletReading
from clearinghouse.database.connect import database_now
from settlement.topups.conditions import Condition
from settlement.topups.pursuing import Attempt, Purpose, State, Topup

LISTED_MAX_COUNT: Final = 1000

Transaction = Callable[[], AbstractAsyncContextManager[AsyncConnection]]


class Planned(NamedTuple):
    """What is to be paid, and what it was decided from."""

    sender: bytes
    payer: bytes
    chain_id: int
    amounts: Amounts
    standing: WalletReading
    snapshot_at: datetime | None
    #: What gas may cost at most besides.
    gas_max_wei: int


class HowThingsStand(NamedTuple):
    """The row `topup_standing`: `condition` says why nothing is sent that should be, None that nothing is wrong.

    `balance_wei` is the wallet's at `balance_at`; None where it was never read.
    """

    observed_at: datetime
    mode: str
    condition: Condition | None
    said: str
    since: datetime
    payer: bytes | None
    balance_wei: int | None
    balance_at: datetime | None
    balance_is_low: bool
    #: What would be, or is about to be, sent by the last look.
    advised: Amounts | None


class TopupStore:
    """`actor` is who does it, for the events. The engine is in the role clearinghouse_work or clearinghouse_admin.

    `transaction` is where changes are made, such as Tick.transaction, which is fenced; the engine's own without it.
    """

    def __init__(self, engine: AsyncEngine, *, actor: str, transaction: Transaction | None = None) -> None:
        self._engine, self._actor = engine, actor
        self._transaction = transaction or engine.begin

    async def in_flight(self) -> Topup | None:
        found = await self._topups("WHERE ended_at IS NULL")
        return found[0] if found else None

    async def find(self, id_: UUID) -> Topup | None:
        found = await self._topups("WHERE id = :id", id=id_)
        return found[0] if found else None

    async def ended_since(self, chain_id: int, when: datetime) -> list[Topup]:
        """Of which something was signed. The newest first; a handful."""
        where = "WHERE chain_id = :chain_id AND nonce IS NOT NULL AND ended_at > :when"
        return await self._topups(where, "LIMIT 20", chain_id=chain_id, when=when)

    async def newest(self, limit: int) -> list[Topup]:
        return await self._topups("", "LIMIT :limit", limit=min(limit, LISTED_MAX_COUNT))

    async def now(self) -> datetime:
        """By the database's clock, as schedules have it: a machine's own would move the 24 hours of a cap."""
        async with self._engine.connect() as connection:
            return await database_now(connection)

    async def day_wei(self, now: datetime) -> int:
        """Sent in the 24 hours before, and arrived or still may."""
        return int(await self._value("SELECT topup_day_wei(:now)", now=now))

    async def nonce_next(self, chain_id: int, payer: bytes) -> int:
        """The least nonce that the wallet can have by our record; 0 without one."""
        query = (
            "SELECT coalesce(max(nonce) + 1, 0) FROM topup WHERE chain_id = :chain_id AND payer = :payer "
            "AND ended_at IS NOT NULL"
        )
        return int(await self._value(query, chain_id=chain_id, payer=payer))

    async def funded_block(self, chain_id: int, sender: bytes) -> int | None:
        """Where the newest top-up of this escrow arrived."""
        query = (
            "SELECT max(mined_block) FROM topup WHERE chain_id = :chain_id AND sender = :sender AND state = 'confirmed'"
        )
        found = await self._value(query, chain_id=chain_id, sender=sender)
        return int(found) if found is not None else None

    async def plan(self, id_: UUID, planned: Planned, *, day_max_wei: int, reason: str, now: datetime) -> str | None:
        """None where it is planned, else why not: "in_flight", "day_cap" or "reading_too_old"."""
        standing = planned.standing
        refusal = await self._changed(
            "SELECT plan_topup(:id, :now, :chain_id, :ticket_broker, :sender, :payer, :deposit_wei, :reserve_wei, "
            ":day_max_wei, :snapshot_at, :block, :escrow_deposit_wei, :escrow_reserve_wei, :actor, :reason)",
            id=id_, now=now, chain_id=planned.chain_id, ticket_broker=standing.ticket_broker, sender=planned.sender,
            payer=planned.payer, deposit_wei=planned.amounts.deposit_wei, reserve_wei=planned.amounts.reserve_wei,
            day_max_wei=day_max_wei, snapshot_at=planned.snapshot_at, block=standing.block.number,
            escrow_deposit_wei=standing.deposit_wei, escrow_reserve_wei=standing.reserve_wei, reason=reason,
        )  # fmt: skip
        return str(refusal) if refusal is not None else None

    async def store(self, topup: Topup, purpose: Purpose, signed: SignedTransaction, now: datetime) -> bool:
        """The transaction may be sent from now on. False: somebody else was first, and it never may."""
        transaction = signed.transaction
        return bool(
            await self._changed(
                "SELECT store_topup_transaction(:id, :attempt, :purpose, :nonce, :hash, :raw, :gas, :max, :priority, "
                ":now, :actor)",
                id=topup.id, attempt=len(topup.attempts) + 1, purpose=purpose.value, nonce=transaction.nonce,
                hash=signed.hash, raw=signed.raw, gas=transaction.gas_limit_count,
                max=transaction.fees.max_per_gas_wei, priority=transaction.fees.priority_per_gas_wei, now=now,
            )
        )  # fmt: skip

    async def note_sent(self, topup: Topup, attempt: Attempt, answers: Mapping[str, str], now: datetime) -> None:
        await self._changed(
            "SELECT note_topup_sent(:id, :attempt, CAST(:answers AS jsonb), :now, :actor)",
            id=topup.id, attempt=attempt.number, answers=json.dumps(dict(answers)), now=now,
        )  # fmt: skip

    async def note_overtaken(self, topup: Topup, block: int | None, now: datetime) -> None:
        await self._changed("SELECT note_topup_overtaken(:id, :block, :now, :actor)", id=topup.id, block=block, now=now)

    async def end(self, topup: Topup, state: State, mined: Mined | None, why: str | None, now: datetime) -> bool:
        """False where it had ended already."""
        hash_, block, fee_wei = (mined.hash, mined.block_number, mined.fee_wei) if mined is not None else (None,) * 3
        return bool(
            await self._changed(
                "SELECT end_topup(:id, :state, :hash, :block, :fee_wei, :why, :now, :actor)",
                id=topup.id, state=state.value, hash=hash_, block=block, fee_wei=fee_wei, why=why, now=now,
            )
        )  # fmt: skip

    async def reopen(self, topup: Topup, now: datetime) -> bool:
        """False where another one is in flight."""
        return bool(await self._changed("SELECT reopen_topup(:id, :now, :actor)", id=topup.id, now=now))

    async def note_standing(
        self,
        now: datetime,
        *,
        mode: str,
        condition: Condition | None,
        said: str,
        payer: bytes | None = None,
        balance_wei: int | None = None,
        balance_is_low: bool | None = None,
        advised: Amounts | None = None,
    ) -> None:
        """What is None of the wallet stays as it was."""
        await self._changed(
            "SELECT note_topup_standing(:now, :mode, :condition, :said, :payer, :balance_wei, :balance_is_low, "
            ":deposit_wei, :reserve_wei, :actor)",
            now=now, mode=mode, condition=condition.value if condition is not None else None, said=said, payer=payer,
            balance_wei=balance_wei, balance_is_low=balance_is_low,
            deposit_wei=advised.deposit_wei if advised is not None else None,
            reserve_wei=advised.reserve_wei if advised is not None else None,
        )  # fmt: skip

    async def events(self, id_: UUID) -> list[dict[str, Any]]:
        """In their order."""
        query = text("SELECT at, kind, actor, facts FROM topup_event WHERE topup_id = :id ORDER BY topup_event.id")
        async with self._engine.connect() as connection:
            return [dict(row._mapping) for row in await connection.execute(query, {"id": id_})]

    async def _topups(self, where: str, tail: str = "", **parameters: Any) -> list[Topup]:
        async with self._engine.connect() as connection:
            # A row and its transactions of one moment: a plan with a transaction would be signed twice.
            await connection.execution_options(isolation_level="REPEATABLE READ")
            query = text(f"SELECT * FROM topup {where} ORDER BY created_at DESC, id {tail}")  # noqa: S608 - our words
            rows = (await connection.execute(query, parameters)).mappings().all()
            return [_topup(row, await _attempts(connection, row["id"])) for row in rows]

    async def _value(self, query: str, **parameters: Any) -> Any:
        async with self._engine.connect() as connection:
            return (await connection.execute(text(query), parameters)).scalar_one()

    async def _changed(self, query: str, **parameters: Any) -> Any:
        async with self._transaction() as connection:
            named = {"actor": self._actor, **parameters} if ":actor" in query else parameters
            return (await connection.execute(text(query), named)).scalar_one()


async def read_standing(connection: AsyncConnection) -> HowThingsStand | None:
    """None where nobody has looked yet."""
    row = (await connection.execute(text("SELECT * FROM topup_standing"))).mappings().one_or_none()
    if row is None:
        return None
    deposit_wei, reserve_wei = row["advised_deposit_wei"], row["advised_reserve_wei"]
    return HowThingsStand(
        observed_at=row["observed_at"],
        mode=row["mode"],
        condition=Condition(row["condition"]) if row["condition"] is not None else None,
        said=row["said"],
        since=row["since"],
        payer=bytes(row["payer"]) if row["payer"] is not None else None,
        balance_wei=int(row["balance_wei"]) if row["balance_wei"] is not None else None,
        balance_at=row["balance_at"],
        balance_is_low=row["balance_is_low"],
        advised=Amounts(int(deposit_wei), int(reserve_wei)) if deposit_wei is not None else None,
    )


async def _attempts(connection: AsyncConnection, id_: UUID) -> list[Attempt]:
    query = text("SELECT * FROM topup_transaction WHERE topup_id = :id ORDER BY attempt")
    return [
        Attempt(
            number=row["attempt"],
            purpose=Purpose(row["purpose"]),
            hash=bytes(row["hash"]),
            raw=bytes(row["raw"]),
            fees=Fees(int(row["max_fee_per_gas_wei"]), int(row["priority_fee_per_gas_wei"])),
            gas_limit_count=row["gas_limit_count"],
            signed_at=row["signed_at"],
        )
        for row in (await connection.execute(query, {"id": id_})).mappings()
    ]


def _topup(row: Mapping[Any, Any], attempts: Sequence[Attempt]) -> Topup:
    return Topup(
        id=row["id"],
        state=State(row["state"]),
        chain_id=row["chain_id"],
        ticket_broker=bytes(row["ticket_broker"]),
        sender=bytes(row["sender"]),
        payer=bytes(row["payer"]),
        amounts=Amounts(int(row["deposit_wei"]), int(row["reserve_wei"])),
        nonce=row["nonce"],
        observed=Amounts(int(row["observed_deposit_wei"]), int(row["observed_reserve_wei"])),
        is_cancelling=row["is_cancelling"],
        overtaken_since_block=row["overtaken_since_block"],
        created_at=row["created_at"],
        ended_at=row["ended_at"],
        mined_block=row["mined_block"],
        fee_wei=int(row["fee_wei"]) if row["fee_wei"] is not None else None,
        actor=row["actor"],
        reason=row["reason"],
        attempts=tuple(attempts),
    )
