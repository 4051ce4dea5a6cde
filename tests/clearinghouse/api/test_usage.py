"""GET /v1/usage over a real socket: what was paid is in the answer at once, rolled up or not."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from clearinghouse.usage_rollups import roll_up
from tests.clearinghouse.api.http_port import HttpPort
from tests.parts.stack import TICKET_CHARGE_USD, TICKET_EV_WEI, Stack


async def test_a_gateway_reads_what_it_used_up_to_this_moment_and_nothing_of_others(
    port: HttpPort, stack: Stack
) -> None:
    gateway, other, stream = await stack.new_gateway(), await stack.new_gateway(), stack.new_stream()
    answers = []
    for rolls_up in (False, True, False):
        await stack.pay(gateway, stream)
        if rolls_up:
            await roll_up(stack.engine.begin, within_s=None)
        answers.append((await port.as_gateway(gateway, "GET", "/v1/usage?by=pipeline,day&time_zone=UTC")).json)

    assert [answer["totals"][0]["issuances"] for answer in answers] == [1, 2, 3]
    newest: dict[str, Any] = answers[-1]
    (item,) = newest["items"]
    assert newest["by"] == ["day", "pipeline"]
    assert newest["to"] == item["day"] == f"{datetime.now(UTC):%Y-%m-%d}"
    assert (item["app"], item["currency"], item["ev_wei"]) == (None, "USD", str(3 * TICKET_EV_WEI))
    assert item["charge"] == f"{3 * TICKET_CHARGE_USD:f}"
    nothing = (await port.as_gateway(other, "GET", "/v1/usage")).json
    assert (nothing["items"], nothing["totals"], nothing["time_zone"]) == ([], [], "UTC")


@pytest.mark.parametrize(
    ("query", "part"),
    [
        ("by=day,colour", "usage cannot be told apart by 'colour'"),
        ("by=", "usage cannot be told apart by ''"),
        ("from=yesterday", "from is a day, written 2026-04-07, not 'yesterday'"),
        ("from=2020-01-01", "are more than 400 days"),
        ("time_zone=Berlin", "there is no time zone 'Berlin'"),
        ("tz=UTC", "unknown query parameter 'tz': known are by, from, time_zone, to"),
        ("by=app&by=model", "by is given more than once"),
    ],
)
async def test_a_question_that_is_wrong_is_refused_with_what_is_right(
    port: HttpPort, stack: Stack, query: str, part: str
) -> None:
    gateway = await stack.new_gateway()
    answer = await port.as_gateway(gateway, "GET", f"/v1/usage?{query}")
    assert part in answer.problem(400, "invalid_request")["detail"]


async def test_nobody_reads_usage_without_a_key(port: HttpPort) -> None:
    (await port.call("GET", "/v1/usage")).problem(401, "unauthenticated")
