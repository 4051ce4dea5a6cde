"""Turns: one at a time by name, in order, and nobody waits for somebody who has gone."""

from __future__ import annotations

import asyncio

import pytest

from clearinghouse.turns import Turns


async def test_the_same_name_is_one_at_a_time_and_in_order_of_arrival() -> None:
    turns, at_work, order = Turns(), 0, []

    async def work(number: int) -> None:
        nonlocal at_work
        await turns.take("a")
        try:
            at_work += 1
            assert at_work == 1
            await asyncio.sleep(0)
            order.append(number)
            at_work -= 1
        finally:
            turns.give("a")

    await asyncio.gather(*(work(number) for number in range(20)))
    assert order == list(range(20))
    assert len(turns) == 0


async def test_other_names_do_not_wait() -> None:
    turns = Turns()
    await turns.take("a")
    await asyncio.wait_for(turns.take("b"), 30)
    assert len(turns) == 2


async def test_who_stops_waiting_is_passed_over() -> None:
    turns = Turns()
    await turns.take("a")
    impatient, patient = asyncio.create_task(turns.take("a")), asyncio.create_task(turns.take("a"))
    await asyncio.sleep(0)
    impatient.cancel()
    await asyncio.wait([impatient])
    turns.give("a")
    await asyncio.wait_for(patient, 30)
    turns.give("a")
    assert len(turns) == 0


async def test_a_turn_that_comes_together_with_a_cancellation_goes_to_the_next() -> None:
    turns = Turns()
    await turns.take("a")
    unlucky, next_one = asyncio.create_task(turns.take("a")), asyncio.create_task(turns.take("a"))
    await asyncio.sleep(0)
    turns.give("a")
    unlucky.cancel()
    with pytest.raises(asyncio.CancelledError):
        await unlucky
    await asyncio.wait_for(next_one, 30)
    turns.give("a")
    assert len(turns) == 0


async def test_giving_what_nobody_holds_is_a_bug() -> None:
    with pytest.raises(KeyError):
        Turns().give("a")
