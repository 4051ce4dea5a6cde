"""Rounds: alone at once, together otherwise, and nobody waits for a call that hangs."""

from __future__ import annotations

import asyncio

import pytest

from clearinghouse.api.rounds import Rounds


class Work:
    """Calls that note when they begin and last until they are let go."""

    def __init__(self, *, round_max_s: float = 60, calls_max_count: int = 64) -> None:
        self.rounds = Rounds(round_max_s=round_max_s, calls_max_count=calls_max_count)
        self.begun: list[str] = []
        self.may_end: dict[str, asyncio.Event] = {}

    def call(self, name: str) -> asyncio.Task[str]:
        self.may_end[name] = asyncio.Event()
        return asyncio.create_task(self.rounds.join(lambda: self._work(name)))

    async def _work(self, name: str) -> str:
        self.begun.append(name)
        await self.may_end[name].wait()
        return name

    def let_go(self, *names: str) -> None:
        for name in names:
            self.may_end[name].set()


async def settle() -> None:
    for _ in range(10):
        await asyncio.sleep(0)


async def test_a_call_that_is_alone_begins_at_once() -> None:
    work = Work()
    for name in "abc":
        call = work.call(name)
        await settle()
        assert work.begun[-1] == name
        work.let_go(name)
        assert await call == name


async def test_what_arrives_during_a_round_begins_together_when_the_round_is_done() -> None:
    work = Work()
    calls = [work.call(name) for name in "abcd"]
    await settle()
    assert work.begun == ["a"]
    work.let_go("a")
    await settle()
    assert work.begun == ["a", "b", "c", "d"]
    calls.append(work.call("e"))
    work.let_go("b", "c")
    await settle()
    assert "e" not in work.begun
    work.let_go("d")
    await settle()
    assert "e" in work.begun
    work.let_go("e")
    assert await asyncio.gather(*calls) == ["a", "b", "c", "d", "e"]


async def test_a_round_has_at_most_as_many_calls_as_it_may() -> None:
    work = Work(calls_max_count=2)
    calls = [work.call(name) for name in "abcde"]
    await settle()
    for done, begun in (("a", "abc"), ("bc", "abcde")):
        work.let_go(*done)
        await settle()
        assert "".join(work.begun) == begun
    work.let_go("d", "e")
    await asyncio.gather(*calls)


async def test_a_call_that_hangs_holds_the_next_round_up_for_a_bounded_time(monkeypatch: pytest.MonkeyPatch) -> None:
    work, loop = Work(round_max_s=5), asyncio.get_running_loop()
    now_s = loop.time()
    monkeypatch.setattr(loop, "time", lambda: now_s)  # nothing else makes a round end
    hanging, others = work.call("hanging"), []
    for name in "ab":
        others.append(work.call(name))
        work.let_go(name)
    await settle()
    now_s += 4
    await settle()
    assert work.begun == ["hanging"]
    now_s += 2
    await settle()
    assert [call.done() for call in (hanging, *others)] == [False, True, True]
    # What outlasted its round does not end another one.
    present, next_one = work.call("present"), work.call("next")
    await settle()
    work.let_go("hanging")
    assert await hanging == "hanging"
    await settle()
    assert "next" not in work.begun
    work.let_go("present", "next")
    await asyncio.gather(present, next_one)


@pytest.mark.parametrize("when", ["while it waits", "as its turn comes"])
async def test_a_call_that_is_cancelled_leaves_no_round_open(when: str) -> None:
    work = Work()
    first, cancelled = work.call("first"), work.call("cancelled")
    await settle()
    if when == "while it waits":
        cancelled.cancel()
        await settle()
        work.let_go("first")
    else:
        first.add_done_callback(lambda _: None)
        work.let_go("first")
        while not first.done():  # the turn is given in the step in which the first call ends
            await asyncio.sleep(0)
        cancelled.cancel()
    await first
    with pytest.raises(asyncio.CancelledError):
        await cancelled
    after = work.call("after")
    await settle()
    assert work.begun[-1] == "after"
    work.let_go("after")
    await after


async def test_a_call_that_fails_ends_its_part_of_the_round() -> None:
    work = Work()

    async def fails() -> None:
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        await work.rounds.join(fails)
    after = work.call("after")
    await settle()
    assert work.begun == ["after"]
    work.let_go("after")
    await after
