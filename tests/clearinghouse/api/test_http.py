"""The routes that sign come to the API in two ways, by the listener and by ASGI. It answers and counts them alike."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from clearinghouse.requests import MAX_BODY_BYTES
from tests.clearinghouse.api.http_port import Answer, HttpPort, running_port
from tests.parts.stack import Stack, running_stack

#: A query means nothing here, but makes it another target than the one that the listener knows.
WAYS = ("", "?by=asgi")
ROUTES = {"/generate-live-payment": "generate_live_payment", "/v1/signTicket": "sign_ticket"}
OF_THIS_ANSWER = {"date", "clearinghouse-overhead-ms"}


@pytest.fixture
async def stack(database: str) -> AsyncIterator[Stack]:
    async with running_stack(database) as running:
        yield running


@pytest.fixture
async def port(stack: Stack) -> AsyncIterator[HttpPort]:
    async with running_port(stack) as running:
        yield running


def count(stack: Stack, name: str, **labels: str) -> float:
    return stack.metrics.registry.get_sample_value(f"clearinghouse_{name}_total", labels) or 0


def lasting(answer: Answer) -> tuple[int, dict[str, str], bytes]:
    headers = {name.lower(): value for name, value in answer.headers.items() if name.lower() not in OF_THIS_ANSWER}
    return answer.status, headers, answer.body


async def test_a_call_is_paid_either_way_and_repeated_by_the_other(port: HttpPort, stack: Stack) -> None:
    gateway = await stack.new_gateway()
    for first, second in (WAYS, WAYS[::-1]):
        body = stack.new_stream().body()
        paid = await port.as_gateway(gateway, "POST", f"/generate-live-payment{first}", body)
        again = await port.as_gateway(gateway, "POST", f"/generate-live-payment{second}", body)
        assert (paid.status, again.status, again.body) == (200, 200, paid.body)
        assert (paid.headers["clearinghouse-replayed"], again.headers["clearinghouse-replayed"]) == (None, "true")
        assert all(float(answer.headers["clearinghouse-overhead-ms"]) > 0 for answer in (paid, again))
    assert count(stack, "answers", route="generate_live_payment") == 4


@pytest.mark.parametrize("path", ROUTES)
@pytest.mark.parametrize(
    ("body", "code"),
    [(b"{", "invalid_request"), (b" " * (MAX_BODY_BYTES + 1), "request_too_large"), (None, "unauthenticated")],
)
async def test_a_refusal_has_the_same_bytes_and_is_counted_either_way(
    port: HttpPort, stack: Stack, path: str, body: bytes | None, code: str
) -> None:
    if body is None:
        document = stack.new_stream().document()
        ours = {"orchestrator": document["orchestrator"], "type": document["type"]}
        answers = [await port.call("POST", path + way, document if path[1] == "g" else ours) for way in WAYS]
    else:
        gateway = await stack.new_gateway()
        answers = [await port.as_gateway(gateway, "POST", path + way, body) for way in WAYS]
    assert answers[0].headers["clearinghouse-error"] == code
    assert lasting(answers[0]) == lasting(answers[1])
    assert count(stack, "refusals", route=ROUTES[path], code=code) == 2
