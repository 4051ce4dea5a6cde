"""Promise 7: without a fresh price or the database nothing is signed; when they are back, nobody restarts anything."""

from __future__ import annotations

import asyncio
import itertools
import time
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path

import pytest

from chain.rates import EthPrice, FreshPrices
from clearinghouse.charging import Charging
from clearinghouse.errors import PriceStale
from clearinghouse.signing import Asked, SignCall, Signing
from tests.parts.client import CLIENT_TIMEOUT_S, Answer
from tests.parts.database_link import database_link
from tests.parts.service import Service, running
from tests.parts.stack import Stream, TestGateway, running_stack

#: The time the field's clients wait, less what the way takes.
IN_TIME_S = CLIENT_TIMEOUT_S - 0.5
RECOVERY_S = 60


@pytest.fixture
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("db")  # short: it holds a Unix socket


async def refused_in_time(service: Service, gateway: TestGateway, stream: Stream) -> Answer:
    started_s = time.monotonic()
    answer = await service.sign(gateway, stream.body())
    assert time.monotonic() - started_s < IN_TIME_S
    assert answer.status == 503, answer.body
    assert answer.code in ("database_unavailable", "deadline_exceeded")
    return answer


async def until_it_works(service: Service, gateway: TestGateway, stream: Stream) -> Answer:
    """The same request again and again; it must succeed soon after the cause is gone."""
    give_up_at_s = time.monotonic() + RECOVERY_S
    while True:
        answer = await service.sign(gateway, stream.body(), timeout_s=2 * CLIENT_TIMEOUT_S)
        if answer.status == 200:
            return answer
        assert answer.status == 503, answer.body
        assert time.monotonic() < give_up_at_s, "the database is back, and the service is not"
        await asyncio.sleep(0.1)


@pytest.mark.parametrize("way", ["cut", "partition"])
async def test_without_its_database_nothing_is_released_and_it_comes_back_by_itself(
    database: str, folder: Path, way: str
) -> None:
    async with (
        database_link(database, folder) as link,
        running(database, serve_conninfo=link.conninfo, request_deadline_s=2.5) as service,
    ):
        gateway = await service.house.new_gateway(tickets=100)
        stream, fresh = service.new_stream(), service.new_stream()
        await service.pay(gateway, stream)
        before = service.house.fingerprint()
        getattr(link, way)()
        try:
            await asyncio.gather(refused_in_time(service, gateway, stream), refused_in_time(service, gateway, fresh))
            assert service.house.fingerprint() == before
            await link.mend()
            await until_it_works(service, gateway, stream)
            await until_it_works(service, gateway, fresh)
        finally:
            link.cut()  # what is still silent must not keep the service from ending
            await link.mend()
        assert service.house.sums(gateway).issuances == 3
        await service.house.require_sound_books()


async def test_a_database_that_was_away_while_nobody_called_is_not_noticed_by_the_next_callers(
    database: str, folder: Path
) -> None:
    async with (
        database_link(database, folder) as link,
        running(database, serve_conninfo=link.conninfo) as service,
    ):
        gateway, other = await service.house.new_gateway(tickets=100), await service.house.new_gateway(tickets=100)
        stream = service.new_stream()
        await service.pay(gateway, stream)
        for payer, upcoming in ((gateway, stream), (gateway, service.new_stream()), (other, service.new_stream())):
            link.cut()
            await link.mend()
            await service.pay(payer, upcoming)
        link.cut()
        await link.mend()
        answer = await service.sign(gateway, service.new_stream().body(), ("Idempotency-Key", "first"))
        assert answer.status == 200, answer.body
        await service.house.require_sound_books()


async def test_a_commit_whose_outcome_was_lost_with_the_connection_is_not_charged_twice(
    database: str, folder: Path
) -> None:
    """Connections are reset again and again in the middle of a stream of calls; every caller asks until it is told."""
    async with (
        database_link(database, folder) as link,
        running(database, serve_conninfo=link.conninfo) as service,
    ):
        gateway = await service.house.new_gateway(tickets=1000)
        streams = [service.new_stream() for _ in range(8)]
        working, answered = True, asyncio.Event()

        async def cut_again_and_again() -> None:
            for turn in itertools.count():
                answered.clear()
                await asyncio.sleep(0.1 + turn % 7 * 0.01)
                # On a machine so slow that every call takes longer than this, nobody would ever be told.
                if working:
                    await answered.wait()
                if not working:
                    return
                link.cut()
                await link.mend()

        async def pay(stream: Stream) -> int:
            for _ in range(10):
                stream.learn((await until_it_works(service, gateway, stream)).body)
                answered.set()
            return 10

        cutting = asyncio.create_task(cut_again_and_again())
        paid = sum(await asyncio.gather(*(pay(stream) for stream in streams)))
        working = False
        answered.set()
        await cutting
        assert service.house.sums(gateway).issuances == paid
        await service.house.require_sound_books()


class AgedPrices:
    """A feed whose newest observation has an age, which a test sets."""

    def __init__(self) -> None:
        self.age = timedelta(0)

    def price(self, currency: str) -> EthPrice:
        return EthPrice(currency, Decimal(3000), "feed", datetime.now(UTC) - self.age)


async def test_with_a_stale_price_nothing_is_signed_and_with_a_fresh_one_it_goes_on(database: str) -> None:
    feed = AgedPrices()
    async with running_stack(database) as stack:
        signing = Signing(
            authenticator=stack.authenticator,
            lookups=stack.lookups,
            sessions=stack.sessions,
            gates=stack.gates,
            charging=Charging(
                authenticator=stack.authenticator,
                prices=FreshPrices(feed, max_age_s=300),
                commits=stack.commits,
                usage=stack.lookups,
            ),
            signer=stack.signer,
            metrics=stack.metrics,
            deadline_s=4,
        )
        gateway = await stack.new_gateway()
        asked = Asked(stack.new_stream().request())
        call = SignCall(gateway.authorization, lambda: asked)
        for feed.age in (timedelta(seconds=301), timedelta(seconds=-301), timedelta(days=3)):
            with pytest.raises(PriceStale) as refusal:
                await signing.sign_ticket(call)
            assert (refusal.value.http_status, refusal.value.code) == (503, "price_stale")
            assert refusal.value.retry_after_s
        assert (await stack.standing(gateway)).usage_total == 0
        feed.age = timedelta(seconds=299)
        assert (await signing.sign_ticket(call)).receipt.num_tickets == 1


async def test_a_declared_price_serves_longer_than_a_fed_one_may_be_old(database: str) -> None:
    """It was declared to hold until it is declared anew: a service must not stop five minutes after its start."""
    async with running(database, price_max_age_s=1) as service:
        gateway = await service.house.new_gateway()
        await service.pay(gateway, service.new_stream())
        await asyncio.sleep(1.2)
        await service.pay(gateway, service.new_stream())


async def test_a_currency_without_a_price_is_refused_and_says_so(service: Service) -> None:
    gateway = await service.house.new_gateway(currency="CHF", credit=Decimal(10))
    answer = await service.sign(gateway, service.new_stream().body())
    assert (answer.status, answer.code) == (503, "price_stale")
    assert "CHF" in answer.message
    assert service.house.sums(gateway).issuances == 0
