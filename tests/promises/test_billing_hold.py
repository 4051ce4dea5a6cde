"""What is owed holds a gateway back: new sessions, or everything; on every way in, from the next call on."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import grpc
import psycopg
import pytest
from google.rpc.error_details_pb2 import ErrorInfo
from grpc_status import rpc_status

from clearinghouse.api.pb.clearinghouse_pb2_grpc import ClearinghouseStub
from clearinghouse.identity.authenticate import REFUSAL_REMEMBERED_S
from settlement.customers.holds import Hold, Source, set_billing_hold
from tests.parts.asking import asking
from tests.parts.books import commit_together, new_gateway, usage
from tests.parts.client import call
from tests.parts.service import OURS, Service, our_body, running
from tests.parts.stack import Stream, TestGateway
from tests.promises.test_coverage_gates import _message

if TYPE_CHECKING:
    from clearinghouse.api.pb.clearinghouse_pb2_grpc import ClearinghouseAsyncStub

REASON = "invoice CH-7 is 30 days overdue"


@pytest.fixture
async def service(database: str) -> AsyncIterator[Service]:
    async with running(database, webhook={"enabled": True}) as service:
        yield service
        await service.house.require_sound_books()


async def held(service: Service, gateway: TestGateway, hold: Hold, *, source: Source = "dunning") -> None:
    async with service.house.engine.begin() as connection:
        await set_billing_hold(connection, gateway.id, hold, REASON, source=source)


async def lifted(service: Service, gateway: TestGateway) -> None:
    """As a payment does; it holds within a second."""
    await held(service, gateway, Hold.NONE)
    await asyncio.sleep(REFUSAL_REMEMBERED_S + 0.1)


async def by_grpc(service: Service, gateway: TestGateway, stream: Stream) -> tuple[grpc.StatusCode, ErrorInfo]:
    async with grpc.aio.insecure_channel(f"127.0.0.1:{service.running.grpc_port}") as channel:
        stub: ClearinghouseAsyncStub = ClearinghouseStub(channel)
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await stub.SignTicket(_message(stream), metadata=(("authorization", gateway.authorization),))
    told, info = rpc_status.from_call(raised.value), ErrorInfo()  # type: ignore[arg-type]
    assert told is not None
    told.details[0].Unpack(info)
    return raised.value.code(), info


@pytest.mark.parametrize("hold", list(Hold)[1:])
async def test_a_hold_is_the_same_refusal_on_every_way_in_and_payment_lifts_it(service: Service, hold: Hold) -> None:
    gateway, begun = await service.house.new_gateway(), service.new_stream()
    await service.pay(gateway, begun)
    await held(service, gateway, hold)
    refused = begun if hold is Hold.SIGNING else service.new_stream()
    before = service.house.fingerprint()
    for answer in (
        await service.sign(gateway, refused.body()),
        await service.sign(gateway, json.dumps(our_body(refused.document())).encode(), path=OURS),
    ):
        assert (answer.status, answer.code) == (402, "billing_hold"), answer.body
        assert REASON.encode() in answer.body
    code, info = await by_grpc(service, gateway, refused)
    assert (code, info.reason) == (grpc.StatusCode.FAILED_PRECONDITION, "billing_hold")
    assert info.metadata["hold"] == hold
    async with asking(service) as signer:
        verdict = await signer.sign(gateway, service.new_stream().body())
        assert (verdict.status, verdict.message.partition(":")[0]) == (402, "billing_hold")
        assert REASON in verdict.message
    assert service.house.fingerprint() == before, "nothing was charged or recorded"
    await lifted(service, gateway)
    await service.pay(gateway, refused)


async def test_sessions_that_were_open_go_on_while_no_new_one_is_opened(service: Service) -> None:
    gateway, begun = await service.house.new_gateway(), service.new_stream()
    await service.pay(gateway, begun)
    async with asking(service) as signer:
        shown = service.new_stream()
        await signer.pay(gateway, shown)
        await held(service, gateway, Hold.NEW_SESSIONS)
        await service.pay(gateway, begun)
        await signer.pay(gateway, shown)
        assert (await service.sign(gateway, service.new_stream().body())).code == "billing_hold"
        await service.pay(gateway, begun)


async def test_what_was_paid_for_stays_available_while_no_new_session_is_opened(service: Service) -> None:
    gateway, body = await service.house.new_gateway(), service.new_stream().body()
    first = await service.sign(gateway, body)
    await held(service, gateway, Hold.NEW_SESSIONS)
    again = await service.sign(gateway, body)
    assert (again.status, again.body) == (200, first.body)


async def test_a_held_gateway_still_sees_what_is_its_own(service: Service) -> None:
    gateway = await service.house.new_gateway()
    await held(service, gateway, Hold.SIGNING)
    assert (await service.sign(gateway, service.new_stream().body())).status == 402
    asked = ("Authorization", gateway.authorization)
    assert (await call(service.port, "GET", "/v1/balance", headers=[asked])).status == 200


@pytest.mark.parametrize("hold", list(Hold)[1:])
async def test_the_commit_refuses_by_itself_in_the_published_order(database: str, hold: Hold) -> None:
    with psycopg.connect(database, autocommit=True) as owner:
        gateway, key = new_gateway(owner)
        poor, poor_key = new_gateway(owner, credit=0)
        begun, shown = usage(gateway, key), usage(gateway, key, approved=b"states")
        assert [code for code, _ in commit_together(owner, [begun, shown])] == [None, None]
        for each in (gateway, poor):
            owner.execute("SELECT set_billing_hold(%s, %s, %s)", [each, hold.value, REASON])
        calls = [
            begun, begun.continued(), usage(gateway, key), usage(gateway, key, approved=b"states"),
            usage(poor, poor_key), usage(gateway, key, markup_bps=7),
        ]  # fmt: skip
        expected = {
            Hold.NEW_SESSIONS: ["replayed", None, "billing_hold", "billing_hold", "billing_hold", "terms_changed"],
            Hold.SIGNING: ["replayed", *["billing_hold"] * 5],
        }
        assert [code for code, _ in commit_together(owner, calls)] == expected[hold]
        owner.execute("UPDATE gateway SET status = 'suspended'")
        assert [code for code, _ in commit_together(owner, calls[2:3])] == ["gateway_suspended"]


async def test_free_terms_end_at_their_instant_in_the_commit_and_before_it(service: Service, database: str) -> None:
    gateway, stream = await service.house.new_gateway(), service.new_stream()
    await service.pay(gateway, stream)
    ends_at = datetime.now(UTC) + timedelta(seconds=3)
    with psycopg.connect(database, autocommit=True) as owner:
        owner.execute("UPDATE account SET signs_until = %s WHERE id = %s", [ends_at, gateway.id])
        await service.pay(gateway, stream)
        await asyncio.sleep((ends_at - datetime.now(UTC)).total_seconds() + 0.1)
        answer = await service.sign(gateway, stream.body())
        assert (answer.status, answer.code) == (402, "billing_hold")
        assert b"for free" in (await service.sign(gateway, stream.body())).body
        owner.execute("UPDATE account SET signs_until = NULL WHERE id = %s", [gateway.id])
    await asyncio.sleep(REFUSAL_REMEMBERED_S + 0.1)
    await service.pay(gateway, stream)


async def test_a_hold_that_nothing_before_the_commit_knows_of_stops_the_tickets(service: Service) -> None:
    """The caller is remembered, so that nothing before the commit knows of the hold."""
    gateway, stream = await service.house.new_gateway(), service.new_stream()
    await service.pay(gateway, stream)
    await held(service, gateway, Hold.SIGNING)
    before = service.house.sums(gateway)
    answer = await service.sign(gateway, stream.body())
    assert (answer.status, answer.code) == (402, "billing_hold")
    assert REASON.encode() in answer.body
    assert service.house.sums(gateway) == before


async def test_sources_lift_only_their_own_and_the_strongest_holds(service: Service) -> None:
    gateway = await service.house.new_gateway()

    def effective() -> str:
        ((hold,),) = service.house.fetch("SELECT billing_hold FROM gateway WHERE id = %s", gateway.id)
        return str(hold)

    await held(service, gateway, Hold.SIGNING, source="dispute")
    await held(service, gateway, Hold.NEW_SESSIONS, source="dunning")
    assert effective() == "signing"
    await held(service, gateway, Hold.NONE, source="dispute")
    assert effective() == "new_sessions"
    await held(service, gateway, Hold.NONE, source="operator")
    assert effective() == "new_sessions"
    await held(service, gateway, Hold.NONE, source="dunning")
    assert effective() == "none"
