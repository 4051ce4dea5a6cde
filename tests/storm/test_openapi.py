"""The API as its own document describes it: schemathesis reads /openapi.json of a running service and its worst."""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter
from collections.abc import AsyncIterator
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, given, seed, settings
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from tests.parts import client
from tests.parts.service import Service, gateway_text, running
from tests.parts.stack import TestGateway
from tests.storm.mutate import storm_seconds, storm_seed

pytestmark = [pytest.mark.slow, pytest.mark.timeout(storm_seconds() * 2 + 240)]

ADMIN_TOKEN = "admin-token-of-the-storm-0123456789"
EXAMPLES_PER_OPERATION = 8
CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_schema_conformance,
    response_headers_conformance,
]


@pytest.fixture
async def service(database: str) -> AsyncIterator[Service]:
    async with running(database, admin_token=ADMIN_TOKEN) as service:
        yield service
        await service.house.require_sound_books()


async def test_our_own_statuses_are_documented_where_payments_are_made(service: Service) -> None:
    document = (await client.call(service.port, "GET", "/openapi.json")).json
    for path in ("/generate-live-payment", "/v1/signTicket"):
        assert {"480", "481", "482"} <= set(document["paths"][path]["post"]["responses"])


async def test_whatever_the_document_allows_or_forbids_is_answered_as_it_says(service: Service) -> None:
    gateway, subject = [await service.house.new_gateway(tickets=1000) for _ in range(2)]
    books, number = service.house.fingerprint(), storm_seed()
    print(f"STORM_SEED={number}")
    seen = await asyncio.to_thread(_storm, service.port, gateway, subject, number)  # the service runs in this one
    assert len(seen) > 20
    print(f"calls by operation: {dict(seen)}")
    assert service.house.sums(gateway).issuances == 0, "a request that signs cannot be made of a schema alone"
    assert service.house.fingerprint()[1] == books[1]
    started_s = time.monotonic()
    await service.pay(gateway, service.new_stream())
    assert time.monotonic() - started_s < client.CLIENT_TIMEOUT_S - 1


def _storm(port: int, gateway: TestGateway, subject: TestGateway, number: int) -> Counter[str]:
    schema = schemathesis.openapi.from_url(f"http://127.0.0.1:{port}/openapi.json")
    operations = [found.ok() for found in schema.get_all_operations()]
    seen: Counter[str] = Counter()
    end_s, turn = time.monotonic() + storm_seconds(), 0
    while not turn or time.monotonic() < end_s:
        for operation in operations:
            is_admins = operation.path.startswith(("/v1/admin/", "/v1/jobs"))
            authorization = f"Bearer {ADMIN_TOKEN}" if is_admins else gateway.authorization
            how = {"base_url": f"http://127.0.0.1:{port}", "headers": {"Authorization": authorization}}
            seen[operation.label] += _examples(operation, gateway_text(subject), number + turn, how)
        turn += 1
    return seen


def _examples(operation: Any, subject: str, number: int, how: dict[str, Any]) -> int:
    """Calls what the document allows, and what it forbids; of path parameters the one or the other half exists."""
    choice, count = random.Random(number), 0
    allowed, forbidden = operation.as_strategy(), operation.as_strategy(generation_mode=GenerationMode.NEGATIVE)

    @seed(number)
    @settings(
        max_examples=EXAMPLES_PER_OPERATION, deadline=None, database=None, suppress_health_check=list(HealthCheck)
    )
    @given(case=allowed | forbidden)
    def examine(case: Any) -> None:
        nonlocal count
        if "gateway" in case.path_parameters and choice.random() < 0.5:
            case.path_parameters["gateway"] = subject  # beyond the 404
        count += 1
        case.call_and_validate(checks=CHECKS, timeout=5, **how)

    examine()
    return count
