"""From Stripe over HTTP into the real service, from its inbox into our rows: in the end they say what Stripe says."""

from __future__ import annotations

import asyncio
import random
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from settlement.runs import tick_engine
from settlement.schedule import Tick
from settlement.stripe_link.desk import desk_of
from settlement.stripe_link.lost_events import find_lost_events
from settlement.stripe_link.sweep import NotSwept, StripeNotThere, sweep
from tests.parts.database_link import database_link
from tests.parts.service import running
from tests.parts.stripe import LinkedStripe, linked_stripe
from tests.parts.stripe_process import FOLLOWED, following, processing
from tests.settlement.conftest import Owner
from tests.settlement.stripe_link.test_processor import one, states, until

SECRET, NEXT_SECRET = "whsec_of_this_endpoint", "whsec_that_comes_next"
#: By then nothing that was not delivered is taken to be on its way.
LATER = timedelta(minutes=11)


@pytest.fixture
def books(owner: Owner) -> Owner:
    owner.execute(FOLLOWED)
    return owner


async def grown(stripe: LinkedStripe, customers: list[str], step: int) -> None:
    """All of them take a step, in any order."""
    update = stripe.running.client.v1.customers.update_async
    shuffled = random.Random(step).sample(customers, len(customers))
    await asyncio.gather(*(update(one, {"metadata": {"step": str(step)}}) for one in shuffled))


async def made(stripe: LinkedStripe, count: int) -> list[str]:
    create = stripe.running.client.v1.customers.create_async
    return [(await create({"metadata": {"step": "0"}})).id for _ in range(count)]


async def looked_for(stripe: LinkedStripe, database: str, *, at: datetime | None = None) -> str:
    """A turn of the job that finds lost events."""
    engine = tick_engine(database)
    try:
        return await find_lost_events(Tick(engine, at or datetime.now(UTC) + LATER), stripe.link, {"customer"})
    finally:
        await engine.dispose()


def followed(books: Owner) -> dict[str, int]:
    return dict(books.execute("SELECT customer, step FROM followed").fetchall())


async def test_events_repeated_shuffled_and_lost_leave_our_rows_as_stripes(database: str, books: Owner) -> None:
    """Each event ten times, shuffled, a fifth of them lost, two processors; and what was lost is found."""
    async with (
        linked_stripe() as stripe,
        running(database, stripe={"webhook_secrets": [SECRET, NEXT_SECRET]}) as service,
        processing(database, stripe.base_url, {"customer": following()}, count=2),
    ):
        stripe.delivers_signed_to(f"http://127.0.0.1:{service.port}/webhooks/stripe", NEXT_SECRET, SECRET)
        await stripe.control("deliveries", repeat=10, shuffle=True, lose_percent=20, seed=7)
        customers = await made(stripe, 15)
        for step in range(1, 5):
            await grown(stripe, customers, step)
        await stripe.delivered(within_s=60)
        delivered = one(books, "SELECT count(*) FROM stripe_event")
        assert 15 * 5 * 0.6 < delivered < 15 * 5, "some were lost"
        assert "were never delivered" in await looked_for(stripe, database)
        assert one(books, "SELECT count(*) FROM stripe_event") == 15 * 5
        assert one(books, "SELECT count(*) FROM stripe_event WHERE source = 'listed'") == 15 * 5 - delivered
        await until(lambda: states(books) == {"done": 15 * 5})
        assert followed(books) == dict.fromkeys(customers, 4)
        assert (await looked_for(stripe, database)).startswith("0 of")
        assert one(books, "SELECT count(*) FROM stripe_event") == 15 * 5


async def test_what_could_not_be_stored_stripe_sends_again(database: str, books: Owner, tmp_path: Path) -> None:
    async with (
        linked_stripe() as stripe,
        database_link(database, tmp_path) as link,
        running(database, serve_conninfo=link.conninfo, stripe={"webhook_secrets": [SECRET]}) as service,
        processing(database, stripe.base_url, {"customer": following()}),
    ):
        stripe.delivers_signed_to(f"http://127.0.0.1:{service.port}/webhooks/stripe", SECRET)
        await stripe.control("deliveries", retry_after_s=[0.3] * 30)
        link.cut()
        customers = await made(stripe, 3)
        await asyncio.sleep(1)
        assert one(books, "SELECT count(*) FROM stripe_event") == 0
        assert (await stripe.control("", "GET"))["pending_deliveries"] == 3
        await link.mend()
        await stripe.delivered(within_s=30)
        await until(lambda: followed(books) == dict.fromkeys(customers, 0))


async def test_an_endpoint_whose_secret_we_do_not_have_delivers_nothing(database: str, books: Owner) -> None:
    async with linked_stripe() as stripe, running(database, stripe={"webhook_secrets": [SECRET]}) as service:
        stripe.delivers_signed_to(f"http://127.0.0.1:{service.port}/webhooks/stripe", NEXT_SECRET)
        await stripe.control("deliveries", retry_after_s=[0.1])
        await made(stripe, 2)
        await stripe.delivered()
        assert one(books, "SELECT count(*) FROM stripe_event") == 0


async def test_what_may_still_be_on_its_way_is_not_taken_to_be_lost(database: str, books: Owner) -> None:
    async with linked_stripe() as stripe:
        await made(stripe, 2)
        assert await looked_for(stripe, database, at=datetime.now(UTC)) == "0 of 0 events were never delivered"
        assert await looked_for(stripe, database) == "2 of 2 events were never delivered"


async def test_a_look_for_lost_events_that_was_cut_off_begins_where_it_began(database: str, books: Owner) -> None:
    async with linked_stripe(retry_for_s=0.1) as stripe:
        await made(stripe, 120)
        await stripe.fault("status", status=500, skip=1, times=None, path="/v1/events")
        with pytest.raises(Exception, match="unexpected error"):
            await looked_for(stripe, database)
        assert one(books, "SELECT count(*) FROM stripe_listing") == 0
        await stripe.works_again()
        await looked_for(stripe, database)
        assert one(books, "SELECT count(*) FROM stripe_event") == 120


async def test_events_about_what_nobody_follows_are_not_looked_for(database: str, books: Owner) -> None:
    async with linked_stripe() as stripe:
        await stripe.running.client.v1.products.create_async({"name": "A"})
        await stripe.running.client.v1.products.create_async({"name": "A", "id": "25 % off"})  # whoever else is there
        assert (await looked_for(stripe, database)).startswith("0 of")
        assert one(books, "SELECT count(*) FROM stripe_event") == 0


# --- the sweep --------------------------------------------------------------------------------------------------------


async def unfinished(connection: AsyncConnection, after: str, count_max: int) -> list[str]:
    """Customers that have not taken their fourth step, as we know them."""
    query = """SELECT customer FROM followed WHERE step < 4 AND customer > :after COLLATE "C"
                ORDER BY customer COLLATE "C" LIMIT :count"""
    return list((await connection.execute(text(query), {"after": after, "count": count_max})).scalars())


async def swept(stripe: LinkedStripe, database: str) -> str:
    """A turn as the schedule would have it: the engine it is given reads."""
    engine = tick_engine(database)
    tick = Tick(engine, datetime.now(UTC))
    try:
        async with desk_of(stripe.settings, tick) as desk:
            return await sweep(tick, desk, {"customer": following()}, {"customer": unfinished})
    finally:
        await engine.dispose()


async def test_what_nobody_told_us_about_is_found_by_the_sweep(
    database: str, books: Owner, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("settlement.stripe_link.sweep.COUNT_MAX", 4)
    async with linked_stripe() as stripe:
        customers = await made(stripe, 10)
        books.cursor().executemany("INSERT INTO followed VALUES (%s, 0)", [(each,) for each in customers])
        await grown(stripe, customers, 4)
        assert [await swept(stripe, database) for _ in range(4)] == [f"{n} customer" for n in (4, 4, 2, 0)]
        assert followed(books) == dict.fromkeys(customers, 4)


async def test_what_stays_unfinished_is_looked_at_again_and_again(
    database: str, books: Owner, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("settlement.stripe_link.sweep.COUNT_MAX", 2)
    async with linked_stripe() as stripe:
        customers = await made(stripe, 3)
        books.cursor().executemany("INSERT INTO followed VALUES (%s, 0)", [(each,) for each in customers])
        for _ in range(4):
            await swept(stripe, database)
        assert dict(books.execute("SELECT customer, count(*) FROM handled GROUP BY 1").fetchall()) == dict.fromkeys(
            customers, 2
        )


async def test_one_object_that_fails_keeps_no_other_from_being_swept(database: str, books: Owner) -> None:
    async with linked_stripe() as stripe:
        customers = await made(stripe, 2)
        books.cursor().executemany("INSERT INTO followed VALUES (%s, 0)", [(each,) for each in ["a_gone", *customers]])
        await grown(stripe, customers, 4)
        with pytest.raises(NotSwept, match="1 of 3 objects: a_gone: StripeRefused: No such customer"):
            await swept(stripe, database)
        assert followed(books) == {"a_gone": 0, **dict.fromkeys(customers, 4)}


async def test_what_our_key_may_not_see_keeps_no_other_from_being_swept(database: str, books: Owner) -> None:
    async with linked_stripe() as stripe:
        customers = sorted(await made(stripe, 3))
        books.cursor().executemany("INSERT INTO followed VALUES (%s, 0)", [(each,) for each in customers])
        await grown(stripe, customers, 4)
        await stripe.fault("status", method="GET", path=f"/v1/customers/{customers[0]}", status=403, times=None)
        with pytest.raises(NotSwept, match=f"1 of 3 objects: {customers[0]}"):
            await swept(stripe, database)
        assert followed(books) == {customers[0]: 0, **dict.fromkeys(customers[1:], 4)}


async def test_while_stripe_is_away_the_sweep_waits(database: str, books: Owner) -> None:
    async with linked_stripe(retry_for_s=0.1) as stripe:
        books.execute("INSERT INTO followed VALUES ('cus_1', 0)")
        await stripe.fault("status", status=503, times=None)
        with pytest.raises(StripeNotThere):
            await swept(stripe, database)
        assert one(books, "SELECT count(*) FROM stripe_sweep") == 0
