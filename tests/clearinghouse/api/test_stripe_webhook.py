"""POST /webhooks/stripe of a real service: 200 is said of what is in the database, and of nothing else."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import psycopg
import pytest
import stripe

from clearinghouse.api.stripe_webhook import EVENT_MAX_BYTES
from clearinghouse.database.connect import SERVE_ROLE, in_role
from tests.parts import client
from tests.parts.client import Answer
from tests.parts.database_link import database_link
from tests.parts.service import Service, running

PATH = "/webhooks/stripe"
SECRET, NEXT_SECRET = "whsec_of_this_endpoint", "whsec_that_comes_next"


def event(number: int = 1, **fields: Any) -> str:
    made = {
        "id": f"evt_{number}", "object": "event", "api_version": "2026-10-28.endive", "created": int(time.time()),
        "data": {"object": {"id": f"cus_{number}", "object": "customer"}}, "livemode": False,
        "type": "customer.updated",
    }  # fmt: skip
    return json.dumps({**made, **fields})


async def told(service: Service, body: str, *, secret: str = SECRET, at: int | None = None, **how: Any) -> Answer:
    header = stripe.WebhookSignature.generate_signature_header(body, secret, at)
    return await client.post(service.port, PATH, body.encode(), ("Stripe-Signature", header), **how)


@asynccontextmanager
async def serving(database: str, *secrets: str, **settings: Any) -> AsyncIterator[Service]:
    stripe_settings = {"webhook_secrets": list(secrets) or [SECRET]}
    async with running(database, stripe=stripe_settings, **settings) as service:
        yield service


def stored(service: Service) -> list[str]:
    return [event_id for (event_id,) in service.house.fetch("SELECT id FROM stripe_event ORDER BY id")]


async def test_a_signed_event_is_stored_and_so_is_it_the_second_time(database: str) -> None:
    async with serving(database) as service:
        body = event()
        answers = [await told(service, body) for _ in range(3)]
        assert [answer.status for answer in answers] == [200, 200, 200]
        ((event_id, object_type, object_id, source, state, payload),) = service.house.fetch(
            "SELECT id, object_type, object_id, source, state, payload FROM stripe_event"
        )
        assert (event_id, object_type, object_id) == ("evt_1", "customer", "cus_1")
        assert (source, state, payload) == ("delivered", "received", body)


async def test_what_stripe_did_not_sign_is_refused_and_not_stored(database: str) -> None:
    async with serving(database) as service:
        now, body = int(time.time()), event()
        unsigned = await client.post(service.port, PATH, body.encode())
        header = ("Stripe-Signature", stripe.WebhookSignature.generate_signature_header(body, SECRET))
        refused = [
            unsigned,
            await told(service, body, secret="whsec_of_somebody_else"),
            await told(service, body, at=now - 400),
            await told(service, body, at=now + 400),
            await client.post(service.port, PATH, body.encode() + b" ", header),
            await client.post(service.port, PATH, body.encode(), header, header),
        ]
        assert [(answer.status, answer.code) for answer in refused] == [(400, "invalid_request")] * 6
        assert all(answer.header("content-type") == "application/problem+json" for answer in refused)
        assert SECRET not in "".join(answer.body.decode() for answer in refused)
        assert stored(service) == []


async def test_while_a_secret_is_rolled_events_signed_with_either_are_taken(database: str) -> None:
    async with serving(database, SECRET, NEXT_SECRET) as service:
        assert (await told(service, event(1), secret=SECRET)).status == 200
        assert (await told(service, event(2), secret=NEXT_SECRET)).status == 200
        assert stored(service) == ["evt_1", "evt_2"]


async def test_an_event_of_the_other_mode_is_refused(database: str) -> None:
    async with serving(database) as service:
        answer = await told(service, event(livemode=True))
        assert answer.status == 400
        assert "an event of live mode, and this clearinghouse is in test mode" in answer.message
        assert stored(service) == []


async def test_what_is_signed_and_no_event_is_refused(database: str) -> None:
    async with serving(database) as service:
        for body in ("{}", "no", event(object="v2.core.event"), event(data={})):
            answer = await told(service, body)
            assert (answer.status, answer.code) == (400, "invalid_request")
        assert stored(service) == []


async def test_an_event_of_another_version_is_taken_because_its_object_is_asked_for_anew(database: str) -> None:
    async with serving(database) as service:
        assert (await told(service, event(api_version="2019-01-01"))).status == 200
        assert stored(service) == ["evt_1"]


async def test_a_body_over_the_limit_is_refused_and_the_largest_is_taken(database: str) -> None:
    async with serving(database) as service:
        room = EVENT_MAX_BYTES - len(event(filler=""))
        assert (await told(service, event(1, filler="x" * room))).status == 200
        answer = await told(service, event(2, filler="x" * (room + 1)))
        assert (answer.status, answer.code) == (413, "request_too_large")
        endless = await told(service, event(3, filler="x" * (3 << 20)))
        assert (endless.status, endless.code) == (413, "request_too_large")
        assert stored(service) == ["evt_1"]


async def test_the_route_takes_posts_alone_and_is_not_there_without_secrets(database: str) -> None:
    async with serving(database) as service:
        answer = await client.call(service.port, "GET", PATH)
        assert (answer.status, answer.header("allow")) == (405, "POST")
    async with running(database) as service:
        assert (await told(service, event())).status == 404


async def test_gateways_are_not_shown_it_as_theirs(database: str) -> None:
    async with serving(database) as service:
        assert PATH not in (await client.call(service.port, "GET", "/openapi.json")).json["paths"]


async def test_without_the_database_nothing_is_acknowledged_and_later_it_is(database: str, tmp_path: Path) -> None:
    async with (
        database_link(database, tmp_path) as link,
        serving(database, serve_conninfo=link.conninfo) as service,
    ):
        assert (await told(service, event(1))).status == 200
        link.cut()
        answer = await told(service, event(2))
        assert (answer.status, answer.code) == (503, "database_unavailable")
        assert answer.header("retry-after") == "5"
        await link.mend()
        assert (await told(service, event(2))).status == 200
        assert stored(service) == ["evt_1", "evt_2"]


async def test_a_database_that_falls_silent_is_given_up_within_stripes_patience(database: str, tmp_path: Path) -> None:
    async with (
        database_link(database, tmp_path) as link,
        serving(database, serve_conninfo=link.conninfo) as service,
    ):
        assert (await told(service, event(1))).status == 200
        link.partition()
        begun = time.monotonic()
        answer = await told(service, event(2), timeout_s=18)
        assert answer.status == 503
        assert time.monotonic() - begun < 15
        link.cut()


async def test_many_at_once_are_all_stored_once(database: str) -> None:
    async with serving(database) as service:
        bodies = [event(number % 20) for number in range(100)]
        answers = await asyncio.gather(*(told(service, body) for body in bodies))
        assert {answer.status for answer in answers} == {200}
        assert len(stored(service)) == 20


async def test_refusals_are_counted_under_its_own_name(database: str) -> None:
    async with serving(database) as service:
        await told(service, event())
        await told(service, event(), secret="whsec_of_somebody_else")
        metrics = (await client.call(service.port, "GET", "/metrics")).body.decode()
        assert 'clearinghouse_answers_total{route="stripe_webhook"} 1.0' in metrics
        assert 'clearinghouse_refusals_total{code="invalid_request",route="stripe_webhook"} 1.0' in metrics


@pytest.mark.parametrize(
    "statement",
    [
        "SELECT payload FROM stripe_event",
        "UPDATE stripe_event SET state = 'done', ended_at = now()",
        "DELETE FROM stripe_event",
        "INSERT INTO stripe_event (id, type, object_type, created_at, source, payload, state, ended_at)"
        " VALUES ('evt_1', 'a', 'b', now(), 'delivered', '', 'done', now())",
        "SELECT * FROM stripe_sweep",
    ],
)
def test_the_service_adds_events_and_neither_reads_nor_changes_them(database: str, statement: str) -> None:
    with psycopg.connect(in_role(database, SERVE_ROLE), autocommit=True) as connection:
        connection.execute(
            "INSERT INTO stripe_event (id, type, object_type, created_at, source, payload)"
            " VALUES ('evt_0', 'a', 'b', now(), 'delivered', '{}') ON CONFLICT DO NOTHING"
        )
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            connection.execute(statement.encode())
