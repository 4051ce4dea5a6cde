"""What a process knows of rate cards, and what signing has to do with its learning of others."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator

import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from clearinghouse import rate_store, rate_watch
from clearinghouse.errors import DatabaseUnavailable
from clearinghouse.rate_watch import RateWatch
from clearinghouse.rates.card import CardVersion
from tests.parts.books import Connection
from tests.parts.cards import applied, card_of

PATIENCE_S = 30


class Reading:
    """In place of the reading of documents: it notes which, and goes on when it is let."""

    def __init__(self) -> None:
        self.read: list[tuple[str, int]] = []
        self.has_begun = threading.Event()
        self.may_go_on = threading.Event()
        self._read_json = rate_store.read_json

    def __call__(self, text: str) -> CardVersion:
        self.has_begun.set()
        assert self.may_go_on.wait(PATIENCE_S), "the event loop waits for what it has to let go on"
        card = self._read_json(text)
        self.read.append((card.card, card.version))
        return card


@pytest.fixture
async def watch(admin: AsyncEngine) -> AsyncIterator[RateWatch]:
    """It looks only when it is asked."""
    watch = RateWatch(admin)
    yield watch
    await watch.stop()


def version(number: int, **fields: str) -> CardVersion:
    return card_of({"per": "second", "price": f"0.{number}"}, version=number, **fields)


async def test_the_event_loop_goes_on_while_a_document_is_read_and_each_is_read_once(
    admin: AsyncEngine, watch: RateWatch, monkeypatch: pytest.MonkeyPatch
) -> None:
    await applied(admin, version(1))
    await watch.newest()
    await applied(admin, version(2))
    reading = Reading()
    monkeypatch.setattr(rate_store, "read_json", reading)
    monkeypatch.setattr(rate_watch, "_READ_TIMEOUT_S", PATIENCE_S)
    asked = [asyncio.create_task(watch.newest()) for _ in range(3)]
    async with asyncio.timeout(PATIENCE_S):
        while not reading.has_begun.is_set():
            await asyncio.sleep(0.01)
    known = [each.version.version for each in watch.rules.stored]
    reading.may_go_on.set()
    assert known == [1], "until all is read nothing of it is seen"
    for rules in await asyncio.gather(*asked):
        assert [each.version.version for each in rules.stored] == [1, 2]
    assert reading.read == [("standard", 2)]


async def test_whoever_cannot_wait_for_a_long_document_is_refused_and_it_is_read_all_the_same(
    admin: AsyncEngine, watch: RateWatch, monkeypatch: pytest.MonkeyPatch
) -> None:
    await applied(admin, version(1))
    reading = Reading()
    monkeypatch.setattr(rate_store, "read_json", reading)
    monkeypatch.setattr(rate_watch, "_READ_TIMEOUT_S", PATIENCE_S)
    asked = asyncio.create_task(watch.newest())
    async with asyncio.timeout(PATIENCE_S):
        while not reading.has_begun.is_set():
            await asyncio.sleep(0.01)
    monkeypatch.setattr(rate_watch, "_READ_TIMEOUT_S", 0.05)
    with pytest.raises(DatabaseUnavailable):
        await watch.newest()
    asked.cancel()
    reading.may_go_on.set()
    monkeypatch.setattr(rate_watch, "_READ_TIMEOUT_S", PATIENCE_S)
    assert [each.version.version for each in (await watch.newest()).stored] == [1]
    assert reading.read == [("standard", 1)]


async def test_what_nothing_is_charged_by_any_more_is_not_kept(
    admin: AsyncEngine, owner: Connection, watch: RateWatch
) -> None:
    for number in (1, 2, 3):
        await applied(admin, version(number))
    ahead = version(4, effective_from="2099-01-01T00:00:00Z")
    await applied(admin, ahead)
    assert [each.version.version for each in (await watch.newest()).stored] == [1, 2, 3, 4]
    owner.execute(
        "SET session_replication_role = replica; "
        "UPDATE rate_card SET applied_at = applied_at - interval '2 hours' WHERE version < 3; "
        "SET session_replication_role = DEFAULT"
    )
    await applied(admin, version(5, card="other"))
    found = [(each.version.card, each.version.version) for each in (await watch.newest()).stored]
    assert found == [("other", 5), ("standard", 2), ("standard", 3), ("standard", 4)]
    assert (await watch.newest()) is watch.rules
