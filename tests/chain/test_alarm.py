"""One timer keeps every deadline: each is called once, at its time, unless it was taken back."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable

from chain.alarm import Alarm


class Late:
    """Writes down when it was called."""

    def __init__(self, at_s: float) -> None:
        self.at_s = at_s
        self.called_at_s: list[float] = []

    def __call__(self) -> None:
        self.called_at_s.append(asyncio.get_running_loop().time())


async def test_each_deadline_is_called_once_and_never_early_unless_it_was_taken_back() -> None:
    dice, loop, alarm = random.Random(7), asyncio.get_running_loop(), Alarm()
    kept, taken_back = [], []
    for _ in range(300):
        late = Late(loop.time() + dice.uniform(-0.01, 0.1))
        alarm.set(late.at_s, late)
        (taken_back if dice.random() < 0.5 else kept).append(late)
        if taken_back and dice.random() < 0.5:
            alarm.unset(taken_back[-1])
        if dice.random() < 0.1:
            await asyncio.sleep(0.001)
    for late in taken_back:
        alarm.unset(late)
    await asyncio.sleep(0.2)
    assert all(len(late.called_at_s) == 1 and late.called_at_s[0] >= late.at_s for late in kept)
    assert all(len(late.called_at_s) <= 1 for late in taken_back)
    assert sum(len(late.called_at_s) for late in taken_back) < len(taken_back)


async def test_a_deadline_before_all_others_is_not_kept_waiting_and_neither_are_the_others() -> None:
    loop, alarm, order = asyncio.get_running_loop(), Alarm(), list[str]()
    done = asyncio.Event()

    def says(name: str) -> Callable[[], None]:
        return lambda: order.append(name)

    alarm.set(loop.time() + 60, says("never"))
    alarm.set(loop.time() + 0.04, says("second"))
    alarm.set(loop.time() + 0.02, says("first"))
    alarm.set(loop.time() + 0.06, done.set)
    async with asyncio.timeout(5):
        await done.wait()
    assert order == ["first", "second"]
    alarm.close()


async def test_what_is_called_may_set_and_take_back_others() -> None:
    loop, alarm, called = asyncio.get_running_loop(), Alarm(), list[str]()
    done = asyncio.Event()

    def beside() -> None:
        called.append("beside")

    def first() -> None:
        called.append("first")
        alarm.unset(beside)
        alarm.set(loop.time() + 0.01, done.set)

    alarm.set(loop.time() + 0.01, first)
    alarm.set(loop.time() + 0.03, beside)
    async with asyncio.timeout(5):
        await done.wait()
    await asyncio.sleep(0.04)
    assert called == ["first"]


async def test_what_fails_keeps_no_other_waiting() -> None:
    loop, alarm, done = asyncio.get_running_loop(), Alarm(), asyncio.Event()
    told: list[str] = []
    loop.set_exception_handler(lambda _, context: told.append(str(context["exception"])))

    def fails() -> None:
        raise ValueError("a bug")

    alarm.set(0, fails)
    alarm.set(1e-9, done.set)
    async with asyncio.timeout(5):
        await done.wait()
    assert told == ["a bug"]


async def test_after_closing_nothing_is_called() -> None:
    alarm, late = Alarm(), Late(0)
    alarm.set(0, late)
    alarm.close()
    await asyncio.sleep(0.01)
    assert late.called_at_s == []
