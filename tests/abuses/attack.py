"""What attackers' scripts have in common: the same call on every way in, which every way must refuse alike."""

from __future__ import annotations

import json
import re

import grpc

from clearinghouse.api.grpc_refusals import STATUS_CODES
from clearinghouse.api.pb.clearinghouse_pb2_grpc import ClearinghouseStub
from tests.clearinghouse.api.grpc_parts import Refused, metadata, next_request
from tests.parts import client
from tests.parts.service import GO_LIVEPEER, OURS, Service, our_body
from tests.parts.stack import Stream, TestGateway


async def refused_everywhere(
    service: Service, gateway: TestGateway, stream: Stream, status: int, code: str, *, rule: str = ""
) -> str:
    """The stream's next call is refused on all three ways, nothing is recorded, and `rule` counts each.

    Returns the sentence, which is the same on all of them.
    """
    books, count = service.house.fingerprint(), await refusals_by(service, rule) if rule else 0
    theirs = await service.sign(gateway, stream.body())
    ours = await service.sign(gateway, json.dumps(our_body(stream.document())).encode(), path=OURS)
    async with grpc.aio.insecure_channel(f"127.0.0.1:{service.running.grpc_port}") as channel:
        call = ClearinghouseStub(channel).SignTicket(next_request(stream), metadata=metadata(gateway))
        third = await Refused.by(call)
    assert (theirs.status, theirs.code) == (ours.status, ours.code) == (status, code), (theirs.body, ours.body)
    assert (third.code, third.info.reason) == (STATUS_CODES[status], code), third
    assert _words(theirs.message) == _words(ours.message) == _words(third.message)
    assert service.house.fingerprint() == books, "refused, and yet something was recorded"
    if rule:
        assert ours.json["rule"] == third.info.metadata["rule"] == rule
        assert await refusals_by(service, rule) == count + 3
    if status == 480:
        assert theirs.header("livepeer-orchestrator-url") == stream.offer.transcoder
    return theirs.message


async def refusals_by(service: Service, rule: str) -> int:
    """What /metrics says a rule has refused so far."""
    page = (await metrics_page(service)).decode()
    found = re.search(rf'^clearinghouse_rule_refusals_total\{{rule="{rule}"\}} (\d+)', page, re.MULTILINE)
    assert found is not None, rule
    return int(found[1])


async def metrics_page(service: Service) -> bytes:
    return (await client.call(service.port, "GET", "/metrics")).body


def _words(sentence: str) -> str:
    """Without its numbers: some of them are readings of a clock."""
    return re.sub(r"\d+", "0", sentence)


def minimal(number: int) -> bytes:
    """Big-endian without leading zeros, as amounts are in ticket parameters."""
    return number.to_bytes((number.bit_length() + 7) // 8, "big")


__all__ = ["GO_LIVEPEER", "OURS", "metrics_page", "minimal", "refusals_by", "refused_everywhere"]
