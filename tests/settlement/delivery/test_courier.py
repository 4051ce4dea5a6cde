"""The outbox and its courier: in order, again after a pause, given up after so many, and never by two at once."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

import psycopg
import pytest
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncEngine

from clearinghouse.database.connect import ADMIN_ROLE, WORK_ROLE, async_engine, in_role
from settlement.delivery.courier import Courier
from settlement.delivery.message import Delivery, Message, NotAccepted
from settlement.delivery.outbox import Backoff, put, put_back
from settlement.schedule import Tick
from tests.settlement.alerts.scenes import NOW, after

ABOUT = UUID(int=1)
BACKOFF = Backoff(first_s=5, longest_s=60, attempts_max=4)


@dataclass
class Carrier:
    """Answers in turn: None took it, an exception did not; the last one for ever."""

    answers: list[Exception | None] = field(default_factory=lambda: [None])
    sent: list[Delivery] = field(default_factory=list)
    waits_s: float = 0

    def bundles(self, deliveries: Sequence[Delivery]) -> list[list[Delivery]]:
        return [[delivery] for delivery in deliveries]

    async def send(self, bundle: Sequence[Delivery]) -> None:
        self.sent += bundle
        await asyncio.sleep(self.waits_s)
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if answer is not None:
            raise answer


@pytest.fixture
async def engine(database: str) -> AsyncIterator[AsyncEngine]:
    engine = async_engine(in_role(database, WORK_ROLE))
    yield engine
    await engine.dispose()


@pytest.fixture
def owner(database: str) -> Iterator[psycopg.Connection[tuple[Any, ...]]]:
    with psycopg.connect(database, autocommit=True) as connection:
        yield connection


def message(title: str) -> Message:
    return Message("alert.firing", "one", "warning", False, "funds", title, "text", NOW, {"rule": "r"})


async def told(engine: AsyncEngine, title: str, number: int, *, channel: str = "mail", about: UUID = ABOUT) -> None:
    async with engine.begin() as connection:
        await put(
            connection, "alert", subject=about, number=number, channels=[channel], message=message(title), now=NOW
        )


async def turn(engine: AsyncEngine, carrier: Carrier, now: datetime, *, timeout_s: float = 5) -> str:
    return await Courier("alert", carrier, backoff=BACKOFF, timeout_s=timeout_s).tick(Tick(engine, now))


async def test_what_is_not_taken_is_sent_again_after_pauses_that_double_and_then_given_up(
    engine: AsyncEngine, owner: psycopg.Connection[tuple[Any, ...]]
) -> None:
    await told(engine, "a", 1)
    carrier = Carrier([NotAccepted("busy")])
    seconds = [at for at in range(0, 120) if await turn(engine, carrier, after(at)) != "nothing was due"]
    assert seconds == [0, 5, 15, 35]
    state = owner.execute("SELECT state, attempts_count, error FROM delivery").fetchall()
    assert state == [("dead", 4, "busy")]
    attempts = owner.execute("SELECT number, outcome, detail FROM delivery_attempt ORDER BY number").fetchall()
    assert attempts == [(number, "failed", "busy") for number in (1, 2, 3, 4)]
    assert len({delivery.id for delivery in carrier.sent}) == 1, "the same message, under one id"


async def test_a_final_no_is_not_asked_twice(engine: AsyncEngine, owner: psycopg.Connection[tuple[Any, ...]]) -> None:
    await told(engine, "a", 1)
    carrier = Carrier([NotAccepted("wrong key", is_final=True)])
    assert await turn(engine, carrier, NOW) == "1 refused"
    assert await turn(engine, carrier, after(3600)) == "nothing was due"
    assert owner.execute("SELECT state, error FROM delivery").fetchall() == [("dead", "wrong key")]


async def test_what_was_given_up_goes_out_again_from_its_first_attempt_when_put_back(
    engine: AsyncEngine, database: str, owner: psycopg.Connection[tuple[Any, ...]]
) -> None:
    await told(engine, "a", 1)
    carrier = Carrier([NotAccepted("wrong key", is_final=True), NotAccepted("busy"), None])
    await turn(engine, carrier, NOW)
    admin = async_engine(in_role(database, ADMIN_ROLE))
    async with admin.begin() as connection:
        assert await put_back(connection, [carrier.sent[0].id], now=after(100)) == 1
    await admin.dispose()
    assert await turn(engine, carrier, after(100)) == "1 failed"
    assert await turn(engine, carrier, after(105)) == "1 delivered"
    assert owner.execute("SELECT state, attempts_count, attempts_before FROM delivery").fetchall() == [
        ("delivered", 3, 1)
    ]


async def test_an_end_waits_for_its_beginning_and_other_channels_wait_for_neither(engine: AsyncEngine) -> None:
    await told(engine, "begins", 1)
    await told(engine, "ends", 2)
    await told(engine, "begins elsewhere", 1, channel="pager")
    carrier = Carrier([NotAccepted("busy"), None])
    await turn(engine, carrier, NOW)
    assert [delivery.message.title for delivery in carrier.sent] == ["begins", "begins elsewhere"]
    await turn(engine, carrier, after(5))
    await turn(engine, carrier, after(10))
    assert [delivery.message.title for delivery in carrier.sent[2:]] == ["begins", "ends"]


async def test_a_second_message_of_one_number_is_refused_by_the_database(engine: AsyncEngine) -> None:
    await told(engine, "a", 1)
    with pytest.raises(IntegrityError):
        await told(engine, "again", 1)


async def test_of_two_couriers_one_sends(engine: AsyncEngine) -> None:
    for number in range(20):
        await told(engine, f"{number}", 1, about=UUID(int=number + 1))
    carrier = Carrier(waits_s=0.05)
    await asyncio.gather(*(turn(engine, carrier, NOW) for _ in range(4)))
    assert sorted(int(delivery.message.title) for delivery in carrier.sent) == list(range(20))


async def test_who_comes_back_late_cannot_say_how_a_newer_attempt_ended(
    engine: AsyncEngine, owner: psycopg.Connection[tuple[Any, ...]]
) -> None:
    await told(engine, "a", 1)
    sends, may_end = asyncio.Event(), asyncio.Event()

    class Held(Carrier):
        async def send(self, bundle: Sequence[Delivery]) -> None:
            sends.set()
            await may_end.wait()
            await super().send(bundle)

    late = Held([NotAccepted("no", is_final=True)])
    slow = asyncio.create_task(turn(engine, late, NOW, timeout_s=120))
    await sends.wait()
    assert await turn(engine, Carrier(), after(140)) == "1 delivered", "the first attempt counts as lost by then"
    may_end.set()
    await slow
    assert owner.execute("SELECT state, attempts_count FROM delivery").fetchall() == [("delivered", 2)]
    first, second = owner.execute("SELECT outcome FROM delivery_attempt ORDER BY number").fetchall()
    assert (first, second) == (("refused",), ("delivered",)), "each attempt is kept as it was"


async def test_a_receiver_that_hangs_holds_up_nobody_else(engine: AsyncEngine) -> None:
    await told(engine, "hangs", 1, channel="pager")
    await told(engine, "goes", 1, channel="mail")

    class Hanging(Carrier):
        async def send(self, bundle: Sequence[Delivery]) -> None:
            if bundle[0].channel == "pager":
                await asyncio.sleep(60)
            await super().send(bundle)

    carrier = Hanging()
    started = asyncio.get_running_loop().time()
    assert await turn(engine, carrier, NOW, timeout_s=0.3) == "1 delivered, 1 failed"
    assert asyncio.get_running_loop().time() - started < 30, "it would hang for a minute"
    assert [delivery.message.title for delivery in carrier.sent] == ["goes"]


async def test_a_bug_in_one_channel_is_logged_and_keeps_nobody_from_hearing(
    engine: AsyncEngine, owner: psycopg.Connection[tuple[Any, ...]]
) -> None:
    await told(engine, "a", 1, channel="mail")
    await told(engine, "b", 1, channel="pager")
    assert await turn(engine, Carrier([ZeroDivisionError("secret"), None]), NOW) == "1 delivered, 1 failed"
    (error,) = owner.execute("SELECT error FROM delivery WHERE state = 'waiting'").fetchone() or ("",)
    assert error == "failed with ZeroDivisionError: see the log"


def test_the_pauses_of_the_settings_take_as_long_as_the_reference_says() -> None:
    def total(backoff: Backoff) -> timedelta:
        return sum((backoff.pause(attempt) for attempt in range(1, backoff.attempts_max)), timedelta())

    assert timedelta(hours=3) <= total(Backoff(5, 900, 20)) < timedelta(hours=4), "alerts.attempts_max_count"
    assert timedelta(hours=20) <= total(Backoff(10, 3600, 30)) < timedelta(hours=26), "notices.attempts_max_count"
