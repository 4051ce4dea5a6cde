"""Nothing is told twice and nothing is left out, whenever the worker is killed. Real PostgreSQL, a clock of the test.

A process that is killed is played by an exception that nothing catches, at one of the places where that matters; what
comes next begins with nothing but the database. Exactly once is the row in the outbox; on the wire the same message may
come again, under the same id, and a receiver that goes by ids has each once.
"""

from __future__ import annotations

import asyncio
import random
from collections import defaultdict
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

import psycopg
import pytest
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from clearinghouse.database.connect import WORK_ROLE, async_engine, in_role
from settlement.alerts.carrier import AlertCarrier
from settlement.alerts.evaluate import Evaluation
from settlement.alerts.observed import JobHealth, Observed
from settlement.alerts.state import KEEP_S
from settlement.alerts.thresholds import Thresholds
from settlement.delivery.courier import Courier
from settlement.delivery.message import Delivery, NotAccepted
from settlement.delivery.outbox import Backoff
from settlement.schedule import Tick
from tests.settlement.alerts.scenes import NOW, POLICY

RESTARTS = 1000
LIFE_S = 20
EVALUATE_EVERY_S, DELIVER_EVERY_S = 10, 5
JOBS = [f"job-{n}" for n in range(4)]
KILLED_AT = ("seeing", "committing", "committed", "claimed", "sent", "recorded")


class Killed(BaseException):
    """The process is no more."""


@dataclass
class World:
    """What really happens: the spans of time in which each job is late."""

    spans: dict[str, list[tuple[datetime, datetime]]] = field(default_factory=lambda: defaultdict(list))

    def is_late(self, job: str, now: datetime) -> bool:
        return any(begin <= now < end for begin, end in self.spans[job])

    def play(self, random_: random.Random, until: datetime) -> None:
        """Spans, and pauses between them, of more than a minute: whatever is shorter may go unseen."""
        for job in JOBS:
            at = NOW
            while at < until:
                begin = at + timedelta(seconds=random_.randint(90, 1200))
                at = begin + timedelta(seconds=random_.randint(90, 1200))
                self.spans[job].append((begin, at))


class Receiver:
    """Takes everything, sometimes after having said no; remembers by id, as a receiver should."""

    takes_many = False

    def __init__(self, random_: random.Random) -> None:
        self._random = random_
        self.by_id: dict[object, tuple[datetime, str, str]] = {}
        self.came_count = 0
        self.now = NOW
        self.kills_after_taking = False

    async def send(self, deliveries: Sequence[Delivery], *, timeout_s: float) -> None:
        (delivery,) = deliveries
        if self._random.random() < 0.1:
            raise NotAccepted("not now")
        self.came_count += 1
        document = delivery.message.document
        self.by_id.setdefault(delivery.id, (self.now, document["labels"]["job"], document["said"]))
        if self.kills_after_taking:
            raise Killed


class Worker:
    """One life of the worker: everything in memory begins with it."""

    def __init__(self, engine: AsyncEngine, world: World, receiver: Receiver, dies_at: str | None) -> None:
        self.engine, self.world, self.receiver, self.dies_at = engine, world, receiver, dies_at
        self.evaluation = Evaluation(self._observe, POLICY, Thresholds(), runbook_url=None)
        carrier = AlertCarrier({"log": receiver, "mail": receiver}, timeout_s=5)
        self.courier = Courier("alert", carrier, backoff=Backoff(5, 10, 20), timeout_s=5)
        receiver.kills_after_taking = dies_at == "sent"

    async def evaluate(self, now: datetime) -> None:
        await self.evaluation.tick(
            _DyingTick(self.engine, now, dies_at="commit" if self.dies_at == "committing" else "")
        )
        self._die("committed")

    async def deliver(self, now: datetime) -> None:
        self.receiver.now = now
        await self.courier.tick(_DyingTick(self.engine, now, dies_at="end" if self.dies_at == "claimed" else ""))
        self._die("recorded")

    async def _observe(self, _: AsyncConnection, now: datetime) -> Observed:
        self._die("seeing")
        late = {job: "was due long ago" if self.world.is_late(job, now) else None for job in JOBS}
        jobs = tuple(JobHealth(job, sentence, 0) for job, sentence in late.items())
        return Observed(now, jobs=jobs, signer_findings_critical={}, signer_findings_warning={})

    def _die(self, here: str) -> None:
        if self.dies_at == here:
            raise Killed


@dataclass(frozen=True, slots=True)
class _DyingTick(Tick):
    """Dies before its transaction is committed, or once it is."""

    dies_at: str = ""

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[AsyncConnection]:
        async with self.engine.begin() as connection:
            yield connection
            if self.dies_at == "commit":
                raise Killed
        if self.dies_at == "end":
            raise Killed


@pytest.mark.slow
async def test_a_thousand_restarts_leave_nothing_out_and_tell_nothing_twice(database: str) -> None:
    random_ = random.Random(20261121)
    world, receiver = World(), Receiver(random_)
    end = NOW + timedelta(seconds=RESTARTS * LIFE_S)
    world.play(random_, end - timedelta(minutes=30))
    fruitless = fruitless_max = 0
    for restart in range(RESTARTS):
        dies_at = random_.choice(KILLED_AT) if restart < RESTARTS - 60 else None
        await one_life(database, world, receiver, dies_at, NOW + timedelta(seconds=restart * LIFE_S))
        fruitless = fruitless + 1 if dies_at in {"seeing", "committing"} else 0
        fruitless_max = max(fruitless_max, fruitless)
    rows = require_told_once(database, world, late_max_s=60 + fruitless_max * LIFE_S)
    assert len(receiver.by_id) == len(rows), "each row has reached its receiver, under its own id"
    assert receiver.came_count > len(rows), "some came again: who is killed after sending does not know that it sent"
    assert len(rows) > RESTARTS / 8


async def one_life(database: str, world: World, receiver: Receiver, dies_at: str | None, now: datetime) -> None:
    """Until it dies, or for so long. Who dies before it has committed has not evaluated at all."""
    engine = async_engine(in_role(database, WORK_ROLE), pool_size=2)
    worker = Worker(engine, world, receiver, dies_at)
    try:
        for at in range(0, LIFE_S, DELIVER_EVERY_S):
            then = now + timedelta(seconds=at, microseconds=1)
            if at % EVALUATE_EVERY_S == 0:
                await worker.evaluate(then)
            await worker.deliver(then)
    except Killed:
        pass
    finally:
        others = asyncio.all_tasks() - {asyncio.current_task()}
        await asyncio.gather(*others, return_exceptions=True)
        await engine.dispose()


def require_told_once(database: str, world: World, *, late_max_s: int) -> list[tuple[Any, ...]]:
    """Every span was told on every channel, its beginning and its end, once and in time. Returns the outbox."""
    rows = _fetch(
        database,
        """SELECT alert.condition->'labels'->>'job', message->'document'->>'said', delivery.created_at, channel,
                  delivery.state FROM delivery JOIN alert ON alert.id = subject ORDER BY position""",
    )
    for job in JOBS:
        for channel in ("log", "mail"):
            said = [(kind, at) for about, kind, at, to, _ in rows if about == job and to == channel]
            assert [kind for kind, _ in said] == ["firing", "resolved"] * len(world.spans[job])
            changes = [at for span in world.spans[job] for at in span]
            late = [(at - cause).total_seconds() for (_, at), cause in zip(said, changes, strict=True)]
            assert all(0 <= seconds <= late_max_s for seconds in late), max(late)
    assert {state for *_, state in rows} == {"delivered"}
    return rows


async def test_two_workers_that_race_tell_everything_once(database: str) -> None:
    random_ = random.Random(7)
    world, receiver = World(), Receiver(random_)
    world.play(random_, NOW + timedelta(minutes=50))
    engines = [async_engine(in_role(database, WORK_ROLE), pool_size=2) for _ in range(2)]
    workers = [Worker(engine, world, receiver, None) for engine in engines]
    for at in range(0, 6000, DELIVER_EVERY_S):
        then = NOW + timedelta(seconds=at)
        if at % EVALUATE_EVERY_S == 0:
            await asyncio.gather(*(worker.evaluate(then) for worker in workers))
        await asyncio.gather(*(worker.deliver(then) for worker in workers))
    for engine in engines:
        await engine.dispose()
    rows = require_told_once(database, world, late_max_s=EVALUATE_EVERY_S + KEEP_S)
    assert len(receiver.by_id) == receiver.came_count == len(rows), "nobody was killed: nothing came twice"


def _fetch(database: str, query: str) -> list[tuple[Any, ...]]:
    with psycopg.connect(database) as connection:
        return connection.execute(query.encode()).fetchall()
