"""Events and their way to an endpoint: signed so that the SDK accepts them, tried again, and spoiled on demand."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest
import stripe

from tests.parts.listening import listening as listening_at
from tests.settlement.stripe_local.parts import Running


@dataclass
class Inbox:
    """An endpoint that keeps what it gets, in order of arrival. `answers`: its next statuses, then 200."""

    url: str = ""
    received: list[tuple[bytes, str]] = field(default_factory=list)
    answers: list[int] = field(default_factory=list)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in head[1:])}
        body = await reader.readexactly(int(headers["content-length"]))
        status = self.answers.pop(0) if self.answers else 200
        if status == 200:
            self.received.append((body, headers["stripe-signature"]))
        writer.write(f"HTTP/1.1 {status} X\r\nContent-Length: 0\r\nConnection: close\r\n\r\n".encode())
        await writer.drain()
        writer.close()

    def events(self, client: stripe.StripeClient, secret: str) -> list[stripe.Event]:
        """What came, checked by the SDK."""
        return [client.construct_event(body, signature, secret) for body, signature in self.received]


@asynccontextmanager
async def listening() -> AsyncIterator[Inbox]:
    inbox = Inbox()
    async with listening_at(inbox.serve) as port:
        inbox.url = f"http://127.0.0.1:{port}/webhooks/stripe"
        yield inbox


async def until(is_so: Callable[[], bool]) -> None:
    async with asyncio.timeout(60):
        while not is_so():
            await asyncio.sleep(0.01)


async def settled(local: Running) -> None:
    """Returns when nothing is on its way any more."""
    async with asyncio.timeout(60):
        while (await local.control("", "GET"))["pending_deliveries"]:
            await asyncio.sleep(0.01)


async def subscribed(local: Running, inbox: Inbox, *kinds: Any) -> str:
    """The secret of an endpoint that is told about these kinds of events."""
    made = await local.client.v1.webhook_endpoints.create_async(
        {"url": inbox.url, "enabled_events": list(kinds) or ["*"]}
    )
    assert made.secret is not None
    return made.secret


async def test_an_event_arrives_signed_and_shows_its_object_and_the_request_that_made_it(local: Running) -> None:
    async with listening() as inbox:
        secret = await subscribed(local, inbox, "customer.created")
        made = await local.client.v1.customers.create_async({"name": "A"}, {"idempotency_key": "k1"})
        await until(lambda: len(inbox.received) == 1)
        await settled(local)
        (event,) = inbox.events(local.client, secret)
        assert (event.type, event.livemode, event.data.object["id"]) == ("customer.created", False, made.id)
        assert event.request is not None
        assert event.request.idempotency_key == "k1"
        body, signature = inbox.received[0]
        for wrong in (body + b" ", body):
            with pytest.raises(stripe.SignatureVerificationError):
                local.client.construct_event(wrong, signature, secret if wrong != body else "whsec_other")
        kept = await local.client.v1.events.retrieve_async(event.id)
        assert (kept.type, kept.pending_webhooks) == ("customer.created", 0)


async def test_an_update_tells_what_changed(local: Running) -> None:
    made = await local.client.v1.customers.create_async({"name": "A"})
    await local.client.v1.customers.update_async(made.id, {"name": "B"})
    event = (await local.client.v1.events.list_async({"type": "customer.updated"})).data[0]
    assert event.data.previous_attributes is not None
    assert event.data.previous_attributes["name"] == "A"
    assert event.data.object["name"] == "B"


async def test_a_delivery_that_is_not_accepted_comes_again(local: Running) -> None:
    async with listening() as inbox:
        inbox.answers = [500, 500]
        await local.control("deliveries", retry_after_s=[0.01, 0.01, 0.01])
        secret = await subscribed(local, inbox, "customer.created")
        await local.client.v1.customers.create_async({})
        await until(lambda: len(inbox.received) == 1)
        assert len(inbox.events(local.client, secret)) == 1
        assert inbox.answers == []


async def test_a_delivery_is_given_up_in_the_end_but_the_event_stays(local: Running) -> None:
    async with listening() as inbox:
        inbox.answers = [500] * 9
        await local.control("deliveries", retry_after_s=[0.01])
        await subscribed(local, inbox, "customer.created")
        await local.client.v1.customers.create_async({})
        await settled(local)
        assert (inbox.received, len(inbox.answers)) == ([], 7)
        assert len((await local.client.v1.events.list_async({"type": "customer.created"})).data) == 1


async def test_events_are_repeated_shuffled_and_lost_on_demand_and_the_same_way_again(local: Running) -> None:
    async with listening() as inbox:
        secret = await subscribed(local, inbox, "customer.created")
        await local.control("deliveries", paused=True)
        made = [(await local.client.v1.customers.create_async({})).id for _ in range(30)]
        assert (await local.control("", "GET"))["pending_deliveries"] == 30
        assert inbox.received == []
        await local.control("deliveries", repeat=3, shuffle=True, lose_percent=20, seed=5)
        await settled(local)
        arrived = [event.data.object["id"] for event in inbox.events(local.client, secret)]
        assert len(arrived) == 3 * len(set(arrived))
        assert set(arrived) < set(made)
        assert len(set(arrived)) >= 15
        assert list(dict.fromkeys(arrived)) != [one for one in made if one in arrived]
        assert len((await local.client.v1.events.list_async({"type": "customer.created", "limit": 100})).data) == 30


async def test_a_list_that_is_empty_may_be_asked_for_by_time_too(local: Running) -> None:
    assert (await local.client.v1.events.list_async({"created": {"gte": 1, "lt": 2}})).data == []
    await local.client.v1.customers.create_async({})
    assert (await local.client.v1.events.list_async({"created": {"gte": 1, "lt": 2}})).data == []


async def test_an_endpoint_that_is_gone_or_disabled_hears_nothing(local: Running) -> None:
    async with listening() as inbox:
        await subscribed(local, inbox, "customer.created")
        (endpoint,) = (await local.client.v1.webhook_endpoints.list_async()).data
        await local.client.v1.webhook_endpoints.update_async(endpoint.id, {"disabled": True})
        await local.client.v1.customers.create_async({})
        await local.client.v1.webhook_endpoints.delete_async(endpoint.id)
        await local.client.v1.customers.create_async({})
        await settled(local)
        assert inbox.received == []


async def test_an_endpoint_needs_a_url(local: Running) -> None:
    with pytest.raises(stripe.InvalidRequestError) as caught:
        await local.client.v1.webhook_endpoints.create_async({"url": "nowhere", "enabled_events": ["*"]})
    assert caught.value.code == "url_invalid"
