"""A12: a signer answers strangers on more paths than the three that gateways need."""

from __future__ import annotations

import pytest

from tests.parts import client
from tests.parts.service import Service
from tests.parts.stack import TestGateway

#: What a go-livepeer node may serve besides, and ways to write a path that some other server would take for another.
FOREIGN = (
    "/recordings/abc/index.m3u8", "/hls/abc.m3u8", "/stream/abc.m3u8", "/live/abc/0.ts", "/status", "/sign-byoc-job",
    "/process/request/x", "/send-audio", "/sendTransaction", "/setBroadcastConfig", "/ethAddr", "/debug/pprof/",
    "/generate-live-payment/", "//generate-live-payment", "/./generate-live-payment", "/x/../generate-live-payment",
    "/generate-live-payment%00", "/generate-live-payment;x=1", "/Generate-Live-Payment", "/sign-orchestrator-info/",
)  # fmt: skip


@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_paths_that_gateways_do_not_need_do_not_exist_with_or_without_a_key(
    service: Service, gateway: TestGateway, method: str
) -> None:
    body = service.new_stream().body() if method == "POST" else b""
    for path in FOREIGN:
        for headers in ([], [("Authorization", gateway.authorization)]):
            answer = await client.call(service.port, method, path, body=body, headers=headers)
            assert answer.status == 404, (path, answer.status, answer.body)
    assert service.house.sums(gateway).issuances == 0


async def test_the_senders_proof_and_discovery_ask_for_a_key_that_is_active(
    service: Service, gateway: TestGateway
) -> None:
    routes = (("POST", "/sign-orchestrator-info"), ("GET", "/discover-orchestrators"))
    authorization = [("Authorization", gateway.authorization)]
    for method, path in routes:
        assert (await client.call(service.port, method, path)).status == 401
        assert (await client.call(service.port, method, path, headers=authorization)).status in (200, 404)
    suspended = await service.house.new_gateway()
    await service.house.suspend(suspended)
    for method, path in routes:
        answer = await client.call(service.port, method, path, headers=[("Authorization", suspended.authorization)])
        assert (answer.status, answer.code) == (403, "gateway_suspended")
