"""Promise 7 on prices: calls are charged at what the chain's feed says, or an operator, and at nothing in doubt."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest

from clearinghouse import price_store
from clearinghouse.service import ServiceError
from tests.abuses.attack import metrics_page
from tests.clearinghouse.signers.receiver import Receiver, http_answer, receiving
from tests.parts import client
from tests.parts.chained import ORCHESTRATOR, PATIENCE_S, Chained, chained
from tests.parts.client import Answer
from tests.parts.devnet import Devnet, round_hash
from tests.parts.devnet.fault_proxy import changed, hanging, honest
from tests.parts.devnet.price_feeds import PriceFeeds
from tests.parts.service import OURS, our_body, running
from tests.parts.stack import TICKET_EV_WEI, Stream, TestGateway

POLL_S = 0.1
MAX_AGE_S = 3
SECRET = "k3y-of-the-price-service"


@dataclass
class Fed:
    """A service that takes its prices from the chain, and who pays with it."""

    over: Chained
    feeds: PriceFeeds
    gateways: dict[str, TestGateway] = field(default_factory=dict)

    async def try_to_pay(self, currency: str = "USD") -> Answer:
        if currency not in self.gateways:
            credit = Decimal(10)
            self.gateways[currency] = await self.over.service.house.new_gateway(currency=currency, credit=credit)
        body = json.dumps(our_body(self._stream().document())).encode()
        return await self.over.service.sign(self.gateways[currency], body, path=OURS)

    async def paid_at(self, price: str, currency: str = "USD", *, source: str = "chainlink") -> dict[str, Any]:
        """Calls until one is charged at this price, exactly; the record says where it was from."""
        answer = await self._until(
            lambda: self.try_to_pay(currency),
            lambda answer: answer.status == 200 and Decimal(answer.json["receipt"]["price"]) == Decimal(price),
        )
        receipt: dict[str, Any] = answer.json["receipt"]
        assert Decimal(receipt["charge"]) == TICKET_EV_WEI * Decimal(price) / 10**18
        ((cited, observed_at),) = self.over.service.house.fetch(
            "SELECT price_source, price_observed_at FROM issuance ORDER BY id DESC LIMIT 1"
        )
        found, *rounds = cited.split()
        assert found == source
        self._require_rounds(rounds, currency if source == "chainlink" else None)
        return {**receipt, "observed_at": observed_at}

    async def refused_for(self, reason: str, currency: str = "USD") -> Answer:
        """Calls until they are refused for this; then nothing is signed or charged."""
        answer = await self._until(
            lambda: self.try_to_pay(currency), lambda answer: answer.status == 503 and reason in answer.message
        )
        assert (answer.code, answer.header("retry-after")) == ("price_stale", "30")
        books = self.over.service.house.fingerprint()
        assert (await self.try_to_pay(currency)).status == 503
        assert self.over.service.house.fingerprint() == books
        return answer

    async def price_seen(self, currency: str = "USD") -> Answer:
        await self.try_to_pay(currency)
        key = ("Authorization", self.gateways[currency].authorization)
        return await client.call(self.over.service.port, "GET", "/v1/prices", headers=[key])

    async def metric(self, name: str) -> str | None:
        lines = (await metrics_page(self.over.service)).decode().splitlines()
        found = [line.rpartition(" ")[2] for line in lines if line.startswith(f"clearinghouse_{name} ")]
        return found[0] if found else None

    async def override(self, price: str, *, seconds: float, currency: str = "USD") -> None:
        until = datetime.now(UTC) + timedelta(seconds=seconds)
        async with self.over.service.house.engine.begin() as connection:
            await price_store.set_override(connection, currency, price, until=until, reason="night", actor="cli:alice")

    def _require_rounds(self, cited: list[str], currency: str | None) -> None:
        """Each feed that the price came from, with one of its rounds; none where it was no feed's."""
        feeds = {None: [], "EUR": [self.feeds.eth_usd, self.feeds.eur_usd]}.get(currency, [self.feeds.eth_usd])
        for told, feed in zip(cited, feeds, strict=True):
            pair, _, round_id = told.partition(":")
            assert pair == feed.name.replace(" ", "")
            assert 1 <= int(round_id) <= feed.round_id

    async def _until(self, ask: Callable[[], Awaitable[Answer]], is_it: Callable[[Answer], bool]) -> Answer:
        answer: Answer | None = None
        try:
            async with asyncio.timeout(PATIENCE_S):
                while not is_it(answer := await ask()):
                    await asyncio.sleep(POLL_S)
        except TimeoutError:
            pytest.fail(f"the last answer was {answer.status if answer else None}: {answer.body if answer else b''!r}")
        assert answer is not None
        return answer

    def _stream(self) -> Stream:
        stream = self.over.service.new_stream()
        params = stream.offer.ticket_params
        params.recipient = ORCHESTRATOR
        params.expiration_params.creation_round = self.over.devnet.round
        params.expiration_params.creation_round_block_hash = round_hash(self.over.devnet.round)
        return stream


@asynccontextmanager
async def fed(database: str, devnet: Devnet, *, price_max_age_s: int = MAX_AGE_S, **price: Any) -> AsyncIterator[Fed]:
    feeds = PriceFeeds.deployed_on(devnet)
    settings = {
        "source": "chainlink", "poll_s": POLL_S, "eth_usd_feed": feeds.eth_usd.address,
        "sequencer_feed": feeds.sequencer.address, "currency_feeds": {"EUR": feeds.eur_usd.address},
        **price,
    }  # fmt: skip
    async with chained(database, devnet, price=settings, price_max_age_s=price_max_age_s) as over:
        yield Fed(over, feeds)


def opinion(price: str) -> bytes:
    return http_answer(json.dumps({"data": {"amount": price}}).encode())


def opinions(receiver: Receiver) -> dict[str, str]:
    return {"USD": f"{receiver.origin}/{SECRET}?token={SECRET}#/data/amount"}


# --- the feed ---------------------------------------------------------------------------------------------------------


async def test_calls_are_charged_at_what_the_feed_says_and_a_price_that_moves_is_the_next_calls(
    database: str, devnet: Devnet
) -> None:
    async with fed(database, devnet) as service:
        await service.paid_at("3000")
        service.feeds.eth_usd.say("3123.45678901", age_s=7)
        receipt = await service.paid_at("3123.45678901")
        assert receipt["observed_at"].timestamp() in range(service.feeds.now() - 60, service.feeds.now() - 6)
        await service.paid_at("2602.880657508333", "EUR")
        service.feeds.eur_usd.say("1.25")
        await service.paid_at("2498.765431208", "EUR")
        rows = service.over.service.house.fetch(
            "SELECT currency, price FROM price_observation WHERE source = 'chainlink' ORDER BY currency, price"
        )
        assert [row for row in rows if row[0] == "USD"] == [("USD", Decimal(3000)), ("USD", Decimal("3123.45678901"))]
        assert ("EUR", Decimal("2498.765431208")) in rows
        assert await service.metric('price_known{currency="EUR"}') == "1.0"


async def test_a_gateway_sees_what_it_is_charged_at_and_why_there_is_none(database: str, devnet: Devnet) -> None:
    async with fed(database, devnet) as service:
        await service.paid_at("2500", "EUR")
        seen = (await service.price_seen("EUR")).json
        assert (seen["currency"], seen["price"], seen["source"], seen["until"]) == ("EUR", "2500", "chainlink", None)
        assert seen["age_s"] in range(-1, MAX_AGE_S + 1)
        service.feeds.eur_usd.set(answer=0, started_at=service.feeds.now())
        await service.refused_for("the feed EUR / USD says 0", "EUR")
        answer = await service.price_seen("EUR")
        assert (answer.status, answer.code) == (503, "price_stale")
        await service.paid_at("3000")


async def test_a_feed_in_doubt_is_no_price_and_a_good_one_again_is_used_without_a_restart(
    database: str, devnet: Devnet
) -> None:
    async with fed(database, devnet) as service:
        await service.paid_at("3000")
        service.feeds.eth_usd.set(answer=0, started_at=service.feeds.now())
        await service.refused_for("the feed ETH / USD says 0, which is no price")
        service.feeds.eth_usd.say("3000", age_s=3700)
        await service.refused_for("s ago; at most 3600 s are allowed")
        service.feeds.eth_usd.say("3001")
        await service.paid_at("3001")
        service.feeds.sequencer.set(answer=1, started_at=service.feeds.now())
        await service.refused_for("the chain's sequencer is down")
        assert await service.metric('price_known{currency="USD"}') == "0.0"
        ready = await client.call(service.over.service.port, "GET", "/readyz")
        assert ready.status == 503
        assert b"sequencer is down" in ready.body
        service.feeds.sequencer.set(answer=0, started_at=service.feeds.now())
        await service.refused_for("prices are used after 3600 s")
        service.feeds.sequencer.set(answer=0, started_at=service.feeds.now() - 3700)
        await service.paid_at("3001")


async def test_an_endpoint_that_lies_about_the_price_or_hangs_leaves_the_last_one_until_that_is_too_old(
    database: str, devnet: Devnet
) -> None:
    """Only what is asked of the feed is falsified, so that nothing else stops the service."""

    def lie(result: str, parameters: list[dict[str, str]]) -> str:
        is_of_feed = parameters[0]["to"].lower() == service.feeds.eth_usd.address.lower()
        return result.replace(f"{3000 * 10**8:064x}", f"{9000 * 10**8:064x}") if is_of_feed else result

    async with fed(database, devnet) as service:
        await service.paid_at("3000")
        service.over.proxies[1].fault = changed("eth_call", lie)
        await asyncio.sleep(3 * POLL_S)
        await service.paid_at("3000")
        await service.refused_for(f"s old; at most {MAX_AGE_S} s are allowed")
        (check,) = [c for c in await service.over.service.running.readiness.checks() if c.name == "price"]
        assert "disagree" in check.detail
        service.over.proxies[1].fault = honest
        await service.paid_at("3000")


async def test_no_call_waits_for_feeds_that_hang(database: str, devnet: Devnet) -> None:
    async with fed(database, devnet, price_max_age_s=60) as service:
        for proxy in service.over.proxies:
            proxy.fault = hanging()
        started_s = asyncio.get_running_loop().time()
        answers = [await service.price_seen() for _ in range(5)]
        assert asyncio.get_running_loop().time() - started_s < 5, "ten calls, and each look at a feed half a second"
        assert {answer.status for answer in answers} == {200}


# --- a second opinion -------------------------------------------------------------------------------------------------


async def test_a_second_opinion_ten_percent_away_stops_calls_until_the_two_agree(
    database: str, devnet: Devnet, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    caplog.set_level(logging.DEBUG)
    async with (
        receiving(opinion("3010.5")) as receiver,
        fed(database, devnet, second_opinions=opinions(receiver)) as service,
    ):
        await service.paid_at("3000")
        receiver.answers[:] = [opinion("3300")]
        answer = await service.refused_for("1000 basis points apart, 200 are allowed")
        await service.refused_for("in doubt", "EUR")
        assert await service.metric('price_checks_total{currency="USD",outcome="disagreed"}') not in {None, "0.0"}
        receiver.answers[:] = [opinion("3059")]
        await service.paid_at("3000")
        shown = [answer.body.decode(), caplog.text, *capfd.readouterr()]
    assert "price_disagreement" in "".join(shown)
    assert SECRET not in "".join(shown)
    rows = service.over.service.house.fetch("SELECT price FROM price_observation WHERE source = 'second_opinion'")
    assert rows[0] == (Decimal("3010.5"),)


async def test_with_the_policy_feed_a_disagreement_is_counted_and_the_feed_is_used(
    database: str, devnet: Devnet
) -> None:
    async with (
        receiving(opinion("3300")) as receiver,
        fed(database, devnet, second_opinions=opinions(receiver), on_disagreement="feed") as service,
    ):
        await service.paid_at("3000")
        assert await service.metric('price_checks_total{currency="USD",outcome="disagreed"}') not in {None, "0.0"}


@pytest.mark.parametrize("answer", [None, http_answer(b"{}"), http_answer(b"", status="500 Oops")])
async def test_a_second_opinion_that_is_missing_is_counted_and_the_feed_is_used(
    database: str, devnet: Devnet, answer: bytes | None
) -> None:
    async with (
        receiving(answer) as receiver,
        fed(database, devnet, second_opinions=opinions(receiver), second_opinion_timeout_s=0.2) as service,
    ):
        await service.paid_at("3000")
        assert await service.metric('price_checks_total{currency="USD",outcome="unanswered"}') not in {None, "0.0"}


# --- an override ------------------------------------------------------------------------------------------------------


async def test_an_operators_price_stands_above_a_feed_that_fails_and_ends_by_itself(
    database: str, devnet: Devnet
) -> None:
    async with fed(database, devnet) as service:
        service.feeds.sequencer.set(answer=1, started_at=service.feeds.now())
        await service.refused_for("sequencer is down")
        await service.override("3210.5", seconds=6)
        await service.paid_at("3210.5", source="override")
        seen = (await service.price_seen()).json
        assert (seen["price"], seen["source"], seen["age_s"]) == ("3210.5", "override", None)
        assert seen["until"] is not None
        left_s = await service.metric('price_override_seconds{currency="USD"}')
        assert left_s is not None
        assert 0 < float(left_s) < 6
        await service.refused_for("sequencer is down")
        assert await service.metric('price_override_seconds{currency="USD"}') is None
        await service.override("2800", seconds=600, currency="EUR")
        await service.paid_at("2800", "EUR", source="override")


async def test_a_declared_price_is_replaced_without_a_restart_and_comes_back(database: str, devnet: Devnet) -> None:
    async with fed(database, devnet, source="declared") as service:
        await service.paid_at("3000", source="declared")
        await service.override("3333", seconds=600)
        await service.paid_at("3333", source="override")
        async with service.over.service.house.engine.begin() as connection:
            await price_store.clear_override(connection, "USD", reason="", actor="cli:bob")
        await service.paid_at("3000", source="declared")


async def test_a_service_whose_feeds_cannot_be_read_at_all_does_not_start(database: str) -> None:
    with pytest.raises(ServiceError, match=r"chain\.rpc_urls is needed with price\.source = chainlink"):
        async with running(database, price={"source": "chainlink"}):
            pass
