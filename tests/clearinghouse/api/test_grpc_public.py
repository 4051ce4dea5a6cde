"""Health, whose servicer shares one lock among all who watch it."""

from __future__ import annotations

import asyncio

from grpc_health.v1 import health_pb2

from clearinghouse.api.grpc_public import Health, public_methods
from clearinghouse.rpc.frames import Setting, settings
from tests.clearinghouse.rpc.http2_parts import HELLO
from tests.clearinghouse.rpc.port_parts import running, visiting


async def test_who_watches_health_and_takes_nothing_does_not_keep_others_from_it() -> None:
    health = Health()
    nothing = HELLO + settings({Setting.INITIAL_WINDOW_SIZE: 0})
    methods = public_methods(health, (), read_timeout_s=10)
    async with running(further=methods) as port, visiting(port, hello=nothing) as visitor:
        stream_id = visitor.ask("/grpc.health.v1.Health/Watch", b"")
        while not visitor.answer_so_far(stream_id).headers:
            assert await visitor.hears()
        async with asyncio.timeout(10):
            await health.set("", health_pb2.HealthCheckResponse.NOT_SERVING)
            await health.close()
