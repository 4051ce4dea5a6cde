"""Random histories: workers that end at any point, nodes that forget, chains that are reorganised, wallets that others
use. Whatever happens, what the chain paid is what the books say, and no nonce ever paid twice."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from chain.funding import Amounts
from chain.transactions import Fees, SignedTransaction, Transaction, sign
from chain.wallets import KeyWallet
from clearinghouse.database.connect import WORK_ROLE, async_engine, in_role
from settlement.topups.conditions import TopupRefused
from settlement.topups.flow import Point, Topups
from settlement.topups.store import TopupStore
from tests.parts.devnet import DEV_CHAIN_ID
from tests.parts.topups import CAPS, CONFIRMATIONS, PATIENCE, RULES, SENDER
from tests.parts.wallet import ETHER, GWEI, TREASURY
from tests.parts.wallet_model import BROKER, ModelChain

STEPS_COUNT = 40
KINDS = {
    "planned", "signed", "sent", "sent_again", "replacement_signed", "cancel_signed", "confirmed", "cancelled",
    "nonce_taken", "displaced",
}  # fmt: skip


class Died(BaseException):
    """A worker ends, as `kill -9` ends it: nothing catches this."""


@dataclass
class Doomed:
    """Dies when it has reached so many points."""

    left: int

    def reached(self, point: Point) -> None:
        self.left -= 1
        if self.left < 0:
            raise Died


@dataclass
class World:
    database: str
    engine: AsyncEngine
    dice: random.Random
    chain: ModelChain
    now: datetime = field(default_factory=lambda: datetime(2026, 11, 21, tzinfo=UTC))
    #: What others sent from the wallet. They go on sending it.
    foreigners: list[SignedTransaction] = field(default_factory=list)

    def worker(self, *, lives: int) -> Topups:
        return Topups(
            TopupStore(self.engine, actor="a worker"), self.chain, KeyWallet(TREASURY), rules=RULES, caps=CAPS,
            patience=PATIENCE, observer=Doomed(lives),
        )  # fmt: skip

    async def turn(self, *, lives: int) -> None:
        """As the schedule's, with an amount that is due whenever nothing is in flight."""
        topups = self.worker(lives=lives)
        with suppress(TopupRefused, Died):
            pursued = await topups.pursue(self.now)
            if await topups.revisit(self.now):
                pursued = await topups.pursue(self.now) or pursued
            if pursued is None:
                amounts = Amounts(self.dice.randrange(1, ETHER), 0)
                planned = await topups.plan_named(SENDER.address, amounts, await topups.standing(b"x" * 20), self.now)
                await topups.begin(planned._replace(sender=SENDER.address), self.now, reason="due")
                await topups.pursue(self.now)

    async def race(self) -> None:
        await asyncio.gather(*(self.turn(lives=self.dice.randrange(12)) for _ in range(2)))

    async def cancel(self) -> None:
        topups = self.worker(lives=self.dice.randrange(6))
        with suppress(TopupRefused, Died):
            found = await TopupStore(self.engine, actor="an operator").in_flight()
            if found is not None:
                await topups.cancel(found.id, self.now)

    async def happen(self) -> None:
        """One thing."""
        what = self.dice.random()
        if what < 0.35:
            await self.turn(lives=self.dice.randrange(12))
        elif what < 0.45:
            await self.race()
        elif what < 0.75:
            self.chain.mine()
        elif what < 0.81:
            deepest = CONFIRMATIONS if self.dice.random() < 0.4 else 3 * CONFIRMATIONS  # also below what is confirmed
            self.chain.reorganise(self.dice.randrange(1, deepest))
        elif what < 0.86:
            self.chain.drop()
        elif what < 0.88:
            await self.cancel()
        elif what < 0.91:
            self.foreign()
        elif what < 0.95:
            self.chain.base_fee_wei = self.dice.choice([GWEI, 5 * GWEI, 30 * GWEI])
        else:
            self.chain.is_away = not self.chain.is_away
        self.now += timedelta(seconds=self.dice.randrange(60))

    def foreign(self) -> None:
        """A transaction of the wallet that is none of ours."""
        nonce = sum(each is not None for each in self.chain.blocks)
        fees = Fees(40 * GWEI, 12 * GWEI)
        self.foreigners.append(sign(Transaction(DEV_CHAIN_ID, nonce, b"\x0b" * 20, 1, b"", 21_000, fees), TREASURY))
        self.chain.take(self.foreigners[-1])

    async def settle(self) -> None:
        """The faults end, and what is in flight comes to its end."""
        self.chain.is_away, self.chain.base_fee_wei = False, GWEI
        quiet = 0
        for _ in range(60):
            self.now += timedelta(seconds=30)
            for each in self.foreigners:
                self.chain.take(each)
            with suppress(TopupRefused):
                pursued = await self.worker(lives=1000).pursue(self.now)
                otherwise_count = await self.worker(lives=1000).revisit(self.now)
                quiet = quiet + 1 if pursued is None and not otherwise_count else 0
                if quiet > 2 * CONFIRMATIONS:  # what waits in a pool was mined by now
                    return
            self.chain.mine()
        pytest.fail("it does not come to an end")

    def rows(self, query: str) -> list[tuple[Any, ...]]:
        with psycopg.connect(self.database, autocommit=True) as connection:
            return connection.execute(query.encode()).fetchall()


@pytest.fixture
async def engine(database: str) -> AsyncIterator[AsyncEngine]:
    engine = async_engine(in_role(database, WORK_ROLE), pool_size=4)
    yield engine
    await engine.dispose()


@pytest.mark.parametrize("seed", range(24))
async def test_money_sent_is_money_recorded(database: str, engine: AsyncEngine, seed: int) -> None:
    dice = random.Random(seed)
    world = World(database, engine, dice, ModelChain(dice))
    for _ in range(STEPS_COUNT):
        await world.happen()
        assert len(world.rows("SELECT FROM topup WHERE ended_at IS NULL")) <= 1
    await world.settle()

    confirmed = world.rows("SELECT mined_hash, deposit_wei + reserve_wei FROM topup WHERE state = 'confirmed'")
    on_chain = [each for each in world.chain.blocks if each is not None and each.transaction.to == BROKER]
    assert {bytes(hash_): int(wei) for hash_, wei in confirmed} == {
        each.hash: each.transaction.value_wei for each in on_chain
    }
    assert len(confirmed) == len(on_chain)
    stored = {bytes(raw) for (raw,) in world.rows("SELECT raw FROM topup_transaction")}
    assert world.chain.seen <= stored
    nonces = world.rows("SELECT nonce, count(*) FROM topup WHERE nonce IS NOT NULL GROUP BY nonce HAVING count(*) > 1")
    assert nonces == []
    (day_wei,) = world.rows("SELECT coalesce(sum(deposit_wei), 0) FROM topup WHERE state = 'confirmed'")[0]
    assert day_wei <= RULES.day_max_wei


async def test_one_that_waits_for_another_nonce_is_not_offered_for_more(database: str, engine: AsyncEngine) -> None:
    """A transaction of somebody else is gone that came before it: no fee makes up for that."""
    dice = random.Random(0)
    world = World(database, engine, dice, ModelChain(dice))
    world.foreign()
    world.chain.mine()
    topups = world.worker(lives=1000)
    planned = await topups.plan_named(SENDER.address, Amounts(1, 0), await topups.standing(b"x" * 20), world.now)
    await topups.begin(planned, world.now, reason="due")
    await topups.pursue(world.now)
    world.chain.drop()
    world.chain.reorganise(1)
    world.chain.drop()
    world.now += timedelta(seconds=PATIENCE.stuck_after_s)
    pursued = await topups.pursue(world.now)
    assert pursued is not None
    assert pursued.trouble is not None
    assert "nonce_behind" in pursued.trouble.message
    assert len(pursued.topup.attempts) == 1


async def test_the_histories_have_everything_in_them(database: str, engine: AsyncEngine) -> None:
    """What the test above says is worth something only where these things happen."""
    kinds: set[str] = set()
    for seed in range(40, 80):
        dice = random.Random(seed)
        world = World(database, engine, dice, ModelChain(dice))
        for _ in range(STEPS_COUNT):
            await world.happen()
        await world.settle()
        kinds |= {kind for (kind,) in world.rows("SELECT DISTINCT kind FROM topup_event")}
        with psycopg.connect(database, autocommit=True) as connection:
            connection.execute("SET session_replication_role = replica")  # past the triggers that keep the audit
            connection.execute("TRUNCATE topup, topup_transaction, topup_event")
        if kinds >= KINDS:
            break
    assert kinds >= KINDS
