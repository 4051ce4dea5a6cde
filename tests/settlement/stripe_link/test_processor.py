"""Stripe's events are acted upon once each, whatever becomes of those who act."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from settlement.stripe_link.desk import Desk, Park
from tests.parts.database_link import database_link
from tests.parts.stripe import LinkedStripe, linked_stripe
from tests.parts.stripe_process import FOLLOWED, PACE, following, processing, processing_elsewhere
from tests.settlement.conftest import Owner

PATIENCE_S = 90


@pytest.fixture
def books(owner: Owner) -> Owner:
    owner.execute(FOLLOWED)
    return owner


async def until(is_so: Callable[[], bool]) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while not is_so():
            await asyncio.sleep(0.02)


async def customer(stripe: LinkedStripe, step: int = 1) -> str:
    """Made by somebody else at Stripe."""
    made = await stripe.running.client.v1.customers.create_async({"metadata": {"step": str(step)}})
    return made.id


def arrives(books: Owner, number: int, object_id: str | None, object_type: str = "customer") -> None:
    books.execute(
        "INSERT INTO stripe_event (id, type, object_type, object_id, created_at, source, payload)"
        " VALUES (%s, 'customer.updated', %s, %s, now(), 'delivered', '{}')",
        [f"evt_{number}", object_type, object_id],
    )


def states(books: Owner) -> dict[str, int]:
    return dict(books.execute("SELECT state, count(*)::integer FROM stripe_event GROUP BY state").fetchall())


def counted(metrics: CollectorRegistry, outcome: str) -> float:
    return metrics.get_sample_value("clearinghouse_stripe_events_total", {"outcome": outcome}) or 0


def one(books: Owner, query: str) -> Any:
    (row,) = books.execute(query.encode()).fetchall()
    return row[0] if len(row) == 1 else row


async def test_an_event_is_acted_upon_within_a_moment_of_its_arrival(database: str, books: Owner) -> None:
    async with linked_stripe() as stripe, processing(database, stripe.base_url, {"customer": following()}):
        await asyncio.sleep(0.5)
        for number in range(3):
            arrives(books, number, await customer(stripe))
            await until(lambda: "received" not in states(books) and "processing" not in states(books))
        took: list[tuple[float]] = books.execute(
            "SELECT extract(epoch FROM ended_at - received_at)::float8 FROM stripe_event ORDER BY 1"
        ).fetchall()
        assert took[0][0] < 0.7, "it was heard of, and not found by the look of each second"
        assert one(books, "SELECT DISTINCT said FROM stripe_event") == "step 1"


async def test_what_has_no_handler_or_no_id_is_done(database: str, books: Owner) -> None:
    async with linked_stripe() as stripe, processing(database, stripe.base_url, {"customer": following()}):
        arrives(books, 1, "tok_1", "token")
        arrives(books, 2, None)
        await until(lambda: states(books) == {"done": 2})
        assert one(books, "SELECT DISTINCT said FROM stripe_event") == "nothing to do"


async def test_events_of_one_object_that_wait_together_are_answered_by_one_question(
    database: str, books: Owner
) -> None:
    async with linked_stripe() as stripe:
        found = await customer(stripe, step=7)
        for number in range(50):
            arrives(books, number, found)
        async with processing(database, stripe.base_url, {"customer": following()}):
            await until(lambda: states(books) == {"done": 50})
        assert stripe.asked("GET", f"/v1/customers/{found}") <= 2
        assert one(books, "SELECT step FROM followed") == 7


async def test_what_arrives_while_its_object_is_asked_for_is_asked_for_again(database: str, books: Owner) -> None:
    async with linked_stripe() as stripe:
        found = await customer(stripe, step=1)
        async with processing(database, stripe.base_url, {"customer": following(takes_s=0.5)}, count=2):
            arrives(books, 1, found)
            await until(lambda: bool(stripe.asked("GET", f"/v1/customers/{found}")))
            await stripe.running.client.v1.customers.update_async(found, {"metadata": {"step": "2"}})
            arrives(books, 2, found)
            await until(lambda: states(books) == {"done": 2})
        assert one(books, "SELECT step FROM followed") == 2
        overlap = "SELECT count(*) FROM handled AS a JOIN handled AS b ON a.id < b.id AND b.begun_at < a.ended_at"
        assert one(books, overlap) == 0, "never twice at once"


async def test_two_processors_share_the_work_and_do_nothing_twice(database: str, books: Owner) -> None:
    async with linked_stripe() as stripe:
        for number in range(40):
            arrives(books, number, await customer(stripe))
        async with processing(database, stripe.base_url, {"customer": following()}, count=2):
            await until(lambda: states(books) == {"done": 40})
        assert one(books, "SELECT count(*), count(DISTINCT customer) FROM handled") == (40, 40)
        assert one(books, "SELECT DISTINCT attempts_count FROM stripe_event") == 1


async def test_what_one_that_was_killed_had_under_way_another_takes_over(
    database: str, books: Owner, tmp_path: Path
) -> None:
    async with linked_stripe() as stripe:
        found = await customer(stripe)
        arrives(books, 1, found)
        with processing_elsewhere(database, stripe.base_url, tmp_path / "log", takes_s=60) as process:
            await until(lambda: one(books, "SELECT count(*) FROM handled") == 1)
            assert states(books) == {"processing": 1}
            process.kill()
        async with processing(database, stripe.base_url, {"customer": following()}) as metrics:
            await until(lambda: states(books) == {"done": 1})
            await until(lambda: counted(metrics, "done") == 1)
        waited: timedelta = one(books, "SELECT max(begun_at) - min(begun_at) FROM handled")
        assert waited > PACE.lease - timedelta(seconds=0.5), "while its lease ran, nobody took it over"
        assert one(books, "SELECT count(*) FILTER (WHERE ended_at IS NULL), count(*) FROM handled") == (1, 2)
        assert one(books, "SELECT attempts_count, failures_count FROM stripe_event") == (2, 1)


async def test_one_that_was_overtaken_ends_nothing(database: str, books: Owner, tmp_path: Path) -> None:
    """Its process was stopped for longer than its lease, and went on as if nothing had been."""
    may_end, patient = asyncio.Event(), PACE._replace(lease=timedelta(seconds=60), handler_timeout_s=50)

    async def waits(desk: Desk, customer_id: str) -> str:
        said = await following()(desk, customer_id)
        await may_end.wait()
        return said

    async with linked_stripe() as stripe:
        arrives(books, 1, await customer(stripe))
        with processing_elsewhere(database, stripe.base_url, tmp_path / "log", takes_s=4) as process:
            await until(lambda: one(books, "SELECT count(*) FROM handled") == 1)
            process.send_signal(signal.SIGSTOP)
            async with processing(database, stripe.base_url, {"customer": waits}, pace=patient):
                await until(lambda: one(books, "SELECT count(ended_at) FROM handled") == 1)
                process.send_signal(signal.SIGCONT)
                await until(lambda: one(books, "SELECT count(ended_at) FROM handled") == 2)
                await asyncio.sleep(0.5)
                assert one(books, "SELECT state, attempts_count FROM stripe_event") == ("processing", 2)
                may_end.set()
                await until(lambda: states(books) == {"done": 1})
        assert one(books, "SELECT count(ended_at) FROM handled") == 2


async def test_what_kills_its_process_time_and_again_is_parked(database: str, books: Owner, tmp_path: Path) -> None:
    async with linked_stripe() as stripe:
        arrives(books, 1, await customer(stripe))
        for number in range(3):
            with processing_elsewhere(database, stripe.base_url, tmp_path / "log", takes_s=60) as process:
                await until(lambda wanted=number + 1: one(books, "SELECT count(*) FROM handled") == wanted)  # type: ignore[misc]
                process.kill()
        async with processing(database, stripe.base_url, {"customer": following()}):
            await until(lambda: states(books) == {"parked": 1})
        assert one(books, "SELECT said FROM stripe_event") == "whoever worked at it ended in the middle, 3 times"


async def test_what_fails_is_tried_again_and_parked_in_the_end(database: str, books: Owner) -> None:
    async def fails(_desk: Desk, object_id: str) -> str:
        raise RuntimeError(f"nothing goes with {object_id}\nnor here")

    async with linked_stripe() as stripe, processing(database, stripe.base_url, {"customer": fails}) as metrics:
        arrives(books, 1, "cus_1")
        await until(lambda: states(books) == {"parked": 1})
        assert one(books, "SELECT attempts_count, failures_count FROM stripe_event") == (3, 3)
        assert one(books, "SELECT said FROM stripe_event") == "failed 3 times: RuntimeError: nothing goes with cus_1"
        await until(lambda: counted(metrics, "failed") == 2)
        await until(lambda: counted(metrics, "parked") == 1)


async def test_a_handler_that_hangs_is_cut_off_before_its_lease_ends(database: str, books: Owner) -> None:
    async with linked_stripe() as stripe:
        arrives(books, 1, await customer(stripe))
        async with processing(database, stripe.base_url, {"customer": following(takes_s=60)}, count=2):
            await until(lambda: states(books) == {"parked": 1})
        assert one(books, "SELECT attempts_count FROM stripe_event") == 3, "each of them ended its own"
        assert "TimeoutError" in one(books, "SELECT said FROM stripe_event")


async def test_what_a_handler_parks_is_parked_at_once_with_its_reason(database: str, books: Owner) -> None:
    async def parks(_desk: Desk, _object_id: str) -> str:
        raise Park("nobody knows this customer")

    async with linked_stripe() as stripe, processing(database, stripe.base_url, {"customer": parks}):
        arrives(books, 1, "cus_1")
        await until(lambda: states(books) == {"parked": 1})
        assert one(books, "SELECT said, attempts_count FROM stripe_event") == ("nobody knows this customer", 1)


async def test_while_stripe_is_away_nothing_is_parked_and_afterwards_all_is_done(database: str, books: Owner) -> None:
    async with linked_stripe() as stripe:
        for number in range(6):
            arrives(books, number, await customer(stripe))
        await stripe.fault("status", status=503, times=None)
        async with processing(database, stripe.base_url, {"customer": following()}, count=2) as metrics:
            await until(lambda: counted(metrics, "away") >= 8)
            assert "parked" not in states(books)
            assert one(books, "SELECT max(failures_count) FROM stripe_event") == 0
            await stripe.works_again()
            await until(lambda: states(books) == {"done": 6})
        assert one(books, "SELECT count(*) FROM followed") == 6


async def test_told_to_stop_it_finishes_what_it_has_begun(database: str, books: Owner) -> None:
    async with linked_stripe() as stripe:
        arrives(books, 1, await customer(stripe))
        async with processing(database, stripe.base_url, {"customer": following(takes_s=1)}):
            await until(lambda: one(books, "SELECT count(*) FROM handled") == 1)
        assert one(books, "SELECT state, attempts_count FROM stripe_event") == ("done", 1)


async def test_what_it_could_not_finish_others_need_not_wait_for(database: str, books: Owner) -> None:
    async with linked_stripe() as stripe:
        arrives(books, 1, await customer(stripe))
        async with processing(
            database, stripe.base_url, {"customer": following(takes_s=60)}, shutdown_timeout_s=0.2
        ) as metrics:
            await until(lambda: one(books, "SELECT count(*) FROM handled") == 1)
        assert one(books, "SELECT state, attempts_count, failures_count FROM stripe_event") == ("received", 1, 0)
        await until(lambda: counted(metrics, "given_back") == 1)
        async with processing(database, stripe.base_url, {"customer": following()}):
            await until(lambda: states(books) == {"done": 1})


async def test_a_database_that_was_away_is_read_again(database: str, books: Owner, tmp_path: Path) -> None:
    async with (
        linked_stripe() as stripe,
        database_link(database, tmp_path) as link,
        processing(link.conninfo, stripe.base_url, {"customer": following()}),
    ):
        arrives(books, 1, await customer(stripe))
        await until(lambda: states(books) == {"done": 1})
        link.cut()
        arrives(books, 2, await customer(stripe))
        await asyncio.sleep(1.5)
        assert states(books) == {"done": 1, "received": 1}
        await link.mend()
        await until(lambda: states(books) == {"done": 2})


async def test_the_inbox_is_told_to_prometheus(database: str, books: Owner) -> None:
    books.execute(
        "INSERT INTO stripe_event (id, type, object_type, created_at, received_at, source, payload, state, due_at,"
        " ended_at) SELECT 'evt_' || n, 'a', 'b', now(), now() - interval '1 h', 'delivered', '{}', 'received',"
        " now() + interval '1 h', NULL FROM generate_series(1, 3) AS n"
    )
    books.execute("UPDATE stripe_event SET state = 'parked', ended_at = now() WHERE id = 'evt_1'")
    async with linked_stripe() as stripe, processing(database, stripe.base_url, {}) as metrics:
        await until(lambda: metrics.get_sample_value("clearinghouse_stripe_events_waiting") == 2)
        assert metrics.get_sample_value("clearinghouse_stripe_events_parked") == 1
        assert 3600 <= (metrics.get_sample_value("clearinghouse_stripe_events_oldest_seconds") or 0) < 3700


async def test_received_at_is_kept_through_all_of_it(database: str, books: Owner) -> None:
    arrives(books, 1, "cus_1")
    before: datetime = one(books, "SELECT received_at FROM stripe_event")
    async with linked_stripe() as stripe, processing(database, stripe.base_url, {}):
        await until(lambda: states(books) == {"done": 1})
    assert one(books, "SELECT received_at FROM stripe_event") == before
