"""Whatever is sent: no 5xx, no hang, no charge without tickets, and afterwards the service is as it was.

STORM_SEED and STORM_SECONDS choose the damage and its length; a failure shows the seed and what was sent.
"""

from __future__ import annotations

import asyncio
import base64
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from uuid import uuid4

import grpc
import pytest

from chain.pb import lp_rpc_pb2 as net
from clearinghouse.api.grpc_server import SERVICE_NAME
from clearinghouse.api.pb import clearinghouse_pb2 as pb
from tests.clearinghouse.api.grpc_parts import metadata, next_request
from tests.parts.client import Answer
from tests.parts.service import GO_LIVEPEER, OURS, Service, our_body, running
from tests.parts.stack import Stream, TestGateway
from tests.storm.mutate import Mutator, storm_seconds, storm_seed, until_the_end

pytestmark = [pytest.mark.slow, pytest.mark.timeout(storm_seconds() * 2 + 120)]

ADMIN_TOKEN = "admin-token-of-the-storm-0123456789"
AT_ONCE = 8
RECOVERS_WITHIN_S = 1.0
#: Wei per unit, so that a call of the type is worth a ticket or two.
PRICES = {"fixed": 8 * 10**9, "lv2v": 1, "live": 10**8, "": 8 * 10**6}


@pytest.fixture
def damage() -> Mutator:
    number = storm_seed()
    print(f"STORM_SEED={number}")
    return Mutator(number)


@pytest.fixture
async def service(database: str) -> AsyncIterator[Service]:
    async with running(database, admin_token=ADMIN_TOKEN) as service:
        yield service
        await service.house.require_sound_books()


@pytest.fixture
async def gateway(service: Service) -> TestGateway:
    return await service.house.new_gateway(tickets=1_000_000)


async def streams(service: Service, gateway: TestGateway) -> list[Stream]:
    """Of every type, the first call and a later one, with all that a request can have."""
    capabilities = net.Capabilities(version="0.8", bitstring=[1 << 35], capacities={35: 1}).SerializeToString()
    found = [
        service.new_stream(job_type=kind, app="app", in_pixels=1000, capabilities=capabilities)
        for kind in (*PRICES, "fixed", "lv2v")
    ]
    for stream in found:
        stream.offer.price_info.pricePerUnit = PRICES[stream.job_type]
    for stream in found[-2:]:
        await service.pay(gateway, stream)
    found[-1].refresh()
    return found


@asynccontextmanager
async def unharmed(service: Service, gateway: TestGateway) -> AsyncIterator[None]:
    """Afterwards a good call succeeds at once, and what was refused in between has left nothing behind."""
    yield
    started_s = time.monotonic()
    await service.pay(gateway, service.new_stream())
    assert time.monotonic() - started_s < RECOVERS_WITHIN_S
    await service.house.require_sound_books()


class Tally:
    """Charges against releases: a mutation may be harmless, and is then paid for; nothing else is."""

    def __init__(self, service: Service, gateway: TestGateway) -> None:
        self._service, self._gateway = service, gateway
        self._recorded = service.house.sums(gateway).issuances
        self._books = service.house.fingerprint()

    def require(self, released_count: int) -> None:
        recorded, books = self._service.house.sums(self._gateway).issuances, self._service.house.fingerprint()
        assert recorded - self._recorded == released_count
        assert released_count or books == self._books, "nothing was released, and yet something was recorded"
        self._recorded, self._books = recorded, books


async def storm_of(
    send: Callable[[], Awaitable[bool]], *, service: Service, gateway: TestGateway, renew: Callable[[], Awaitable[None]]
) -> None:
    """Several at once, for as long as storms last. `send` returns whether tickets were released and not repeated."""
    async with unharmed(service, gateway):
        for number in until_the_end():
            if number % 50 == 0:
                await renew()
                tally = Tally(service, gateway)
            released = await asyncio.gather(*(send() for _ in range(AT_ONCE)))
            tally.require(sum(released))


@contextmanager
def showing(what: str, sent: bytes) -> Iterator[None]:
    try:
        yield
    except BaseException:
        print(f"{what}: {base64.b64encode(sent[:20_000]).decode()}")
        raise


def require_expected(path: str, answer: Answer) -> None:
    """Success, or a refusal of the 4xx kind with a code and a sentence in the route's own format."""
    assert answer.status == 200 or 400 <= answer.status < 500, (answer.status, answer.body[:500])
    if answer.status == 200:
        return
    assert answer.code, answer.headers
    assert len(answer.message) > 5, answer.body
    if path == OURS:
        assert answer.header("content-type") == "application/problem+json"
        assert (answer.json["status"], answer.json["code"]) == (answer.status, answer.code)
    else:
        assert answer.header("content-type") == "application/json"
        assert set(answer.json) == {"error"}


@pytest.mark.parametrize("path", [GO_LIVEPEER, OURS])
async def test_damaged_json_is_refused_or_paid_for(
    service: Service, gateway: TestGateway, damage: Mutator, path: str
) -> None:
    corpus: list[Stream] = []
    seen: Counter[int] = Counter()

    async def renew() -> None:
        corpus[:] = await streams(service, gateway)

    async def send() -> bool:
        document = damage.random.choice(corpus).document()
        if damage.random.random() < 0.3:
            document["maxPrice"] = {"price": "99999999999", "currency": "wei", "unit": "fixed"}
        if path == OURS:
            document = our_body(document, idempotency_key=damage.random.choice(["", "a", "b"]), end_user="someone")
        body = damage.json(document)
        with showing("JSON", body):
            answer = await service.sign(gateway, body, path=path)
            require_expected(path, answer)
        seen[answer.status] += 1
        return answer.status == 200 and answer.header("clearinghouse-replayed") is None

    await storm_of(send, service=service, gateway=gateway, renew=renew)
    assert seen[400] > seen.total() // 10, "the damage is not seen"
    print(f"answers by status: {dict(seen)}")


NOT_OURS_TO_GIVE = {
    grpc.StatusCode.INTERNAL,
    grpc.StatusCode.UNKNOWN,
    grpc.StatusCode.UNAVAILABLE,
    grpc.StatusCode.DEADLINE_EXCEEDED,
    grpc.StatusCode.CANCELLED,
    grpc.StatusCode.DATA_LOSS,
}


@pytest.fixture
async def channel(service: Service) -> AsyncIterator[grpc.aio.Channel]:
    async with grpc.aio.insecure_channel(f"127.0.0.1:{service.running.grpc_port}") as channel:
        yield channel


async def test_damaged_messages_over_grpc_are_refused_or_paid_for(
    service: Service, gateway: TestGateway, channel: grpc.aio.Channel, damage: Mutator
) -> None:
    corpus: list[Stream] = []
    seen: Counter[grpc.StatusCode] = Counter()
    sign = channel.unary_unary(f"/{SERVICE_NAME}/SignTicket")  # bytes to bytes

    async def renew() -> None:
        corpus[:] = await streams(service, gateway)

    async def send() -> bool:
        request = next_request(damage.random.choice(corpus), end_user="someone")
        encoded = damage.protobuf(request.SerializeToString())
        with showing("protobuf", encoded):
            call = sign(encoded, metadata=metadata(gateway), timeout=5)
            code = await call.code()
            assert code not in NOT_OURS_TO_GIVE, (code, await call.details())
            seen[code] += 1
            if code is not grpc.StatusCode.OK:
                return False
            assert pb.SignTicketResponse.FromString(await call).receipt.issuance_id
        return "clearinghouse-replayed" not in dict(await call.trailing_metadata())

    await storm_of(send, service=service, gateway=gateway, renew=renew)
    assert seen[grpc.StatusCode.INVALID_ARGUMENT] > seen.total() // 10, "the damage is not seen"
    print(f"answers by code: { {code.name: count for code, count in seen.items()} }")


async def test_a_stream_of_damaged_messages_answers_each_of_them_and_goes_on(
    service: Service, gateway: TestGateway, channel: grpc.aio.Channel, damage: Mutator
) -> None:
    call = channel.stream_stream(f"/{SERVICE_NAME}/SignTickets")(metadata=metadata(gateway))
    corpus = await streams(service, gateway)
    seen: Counter[int] = Counter()
    async with unharmed(service, gateway):
        tally = Tally(service, gateway)
        for _ in until_the_end():
            released = 0
            sent = []
            for _ in range(AT_ONCE):
                request = pb.SignTicketsRequest(
                    request_id=uuid4().hex, request=next_request(damage.random.choice(corpus))
                )
                sent.append(damage.protobuf(request.SerializeToString()))
                await call.write(sent[-1])
            with showing("the last ones", b"\n---\n".join(sent)):
                for _ in sent:
                    answer = pb.SignTicketsResponse.FromString(await asyncio.wait_for(call.read(), 5))
                    assert answer.refusal.http_status < 500, answer.refusal
                    assert answer.HasField("refusal") != answer.HasField("response")
                    seen[answer.refusal.http_status] += 1
                    released += answer.HasField("response") and not answer.replayed
            tally.require(released)
            if released:
                corpus = await streams(service, gateway)
                tally = Tally(service, gateway)
        await call.done_writing()
        assert await asyncio.wait_for(call.read(), 5) is grpc.aio.EOF  # type: ignore[attr-defined]
        assert await call.code() is grpc.StatusCode.OK
    assert seen[400] > seen.total() // 10, "the damage is not seen"


async def test_damaged_messages_to_every_other_method_are_answered(
    service: Service, gateway: TestGateway, channel: grpc.aio.Channel, damage: Mutator
) -> None:
    """Also health and reflection, which need no key."""
    good = {
        "GetBalance": pb.GetBalanceRequest(),
        "SignOrchestratorInfo": pb.SignOrchestratorInfoRequest(),
        "DiscoverOrchestrators": pb.DiscoverOrchestratorsRequest(caps=["a/b", "c"]),
        "ListIssuances": pb.ListIssuancesRequest(page_size=3, session_id="ses_" + "0" * 32, cursor="x"),
    }
    every = set(pb.DESCRIPTOR.services_by_name["Clearinghouse"].methods_by_name)
    assert every == {*good, "SignTicket", "SignTickets"}, "a method that no storm knows"
    methods = {f"/{SERVICE_NAME}/{name}": message.SerializeToString() for name, message in good.items()}
    methods |= {
        "/grpc.health.v1.Health/Check": b"\x0a\x03abc",
        "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo": b"\x1a\x03abc\x22\x05hello",
    }
    books = service.house.fingerprint()
    for _ in until_the_end():
        method, message = damage.random.choice(sorted(methods.items()))
        encoded = damage.protobuf(message) if message else damage.blind(b"\x0a\x01x")
        with showing(method, encoded):
            call = channel.stream_stream(method)(iter([encoded]), metadata=metadata(gateway), timeout=5)
            with suppress(grpc.aio.AioRpcError):
                async for _ in call:
                    pass
            assert await call.code() not in NOT_OURS_TO_GIVE, await call.details()
    assert service.house.fingerprint() == books
    async with unharmed(service, gateway):
        pass
