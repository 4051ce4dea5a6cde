"""The cross-check against real orchestrators: what is asked, how often, and what is made of the answer."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from ipaddress import ip_address
from uuid import UUID, uuid4

import pytest
from prometheus_client import CollectorRegistry

from chain.pb import lp_rpc_pb2 as net
from clearinghouse import orchestrators
from clearinghouse.errors import OrchestratorUnknown, TicketNotAllowed
from clearinghouse.metrics import CrossCheckOutcome, Metrics
from clearinghouse.orchestrators import ASKED_AGAIN_AFTER_S, CrossCheck, Mode
from clearinghouse.public_hosts import IPAddress, Resolver
from clearinghouse.requests import PaymentRequest
from tests.parts.listening import listening
from tests.parts.orchestrator import Orchestrator, running_orchestrator
from tests.parts.stack import Clock, Stream, native_signer

GATEWAY = uuid4()
REMEMBER_S = 600


class Seconds:
    def __init__(self) -> None:
        self.now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s


class Checked:
    """A cross-check and what it counts."""

    def __init__(self, mode: Mode, resolver: Resolver | None, *, timeout_s: float, private: bool) -> None:
        self.metrics = Metrics(CollectorRegistry(), version="test")
        self.clock = Seconds()
        self.check = CrossCheck(
            native_signer(Clock()),
            mode=mode,
            timeout_s=timeout_s,
            remember_s=REMEMBER_S,
            private_hosts_allowed=private,
            metrics=self.metrics,
            resolver=resolver,
            now_s=self.clock,
        )

    async def require(self, offer: net.OrchestratorInfo, gateway: UUID = GATEWAY, **stream: str) -> None:
        await self.check.require(request(offer, **stream), gateway)

    def count(self, outcome: CrossCheckOutcome) -> float | None:
        return self.metrics.registry.get_sample_value("clearinghouse_crosschecks_total", {"outcome": outcome})


@contextmanager
def checked(
    mode: Mode = "refuse", resolver: Resolver | None = None, *, timeout_s: float = 5, private: bool = True
) -> Iterator[Checked]:
    made = Checked(mode, resolver, timeout_s=timeout_s, private=private)
    try:
        yield made
    finally:
        made.check.close()


@pytest.fixture
def orchestrator() -> Iterator[Orchestrator]:
    with running_orchestrator() as orchestrator:
        yield orchestrator


def request(offer: net.OrchestratorInfo, job_type: str = "lv2v") -> PaymentRequest:
    return Stream(offer, job_type=job_type).request()


def offer_of(orchestrator: Orchestrator, job_type: str = "lv2v") -> net.OrchestratorInfo:
    return orchestrator.quote(b"\x01" * 20, job_type=job_type, session_id="session", route="test")


def questions(orchestrator: Orchestrator) -> int:
    return [quote.route for quote in orchestrator.books.quotes].count("GetOrchestrator")


@asynccontextmanager
async def silent_peer() -> AsyncIterator[tuple[int, list[asyncio.StreamWriter]]]:
    """Takes connections and says nothing, not even a TLS greeting. The port, and the connections it has taken."""
    taken: list[asyncio.StreamWriter] = []

    async def take(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        taken.append(writer)

    async with listening(take, "0.0.0.0") as port:
        yield port, taken


async def test_an_offer_that_its_orchestrator_confirms_is_asked_about_once(orchestrator: Orchestrator) -> None:
    with checked() as made:
        for _ in range(3):
            await made.require(offer_of(orchestrator))
        assert (questions(orchestrator), made.count(CrossCheckOutcome.AGREED)) == (1, 3)
        made.clock.now_s += REMEMBER_S
        await made.require(offer_of(orchestrator))
        assert questions(orchestrator) == 2


async def test_what_is_remembered_of_an_offer_is_small_whatever_its_capabilities(
    orchestrator: Orchestrator,
) -> None:
    """Ten thousand of them are remembered, and a caller has up to 16 KiB for each."""
    capabilities = net.Capabilities(
        constraints=net.Capabilities.Constraints(minVersion="v" * 12_000)
    ).SerializeToString()
    with checked() as made:
        for _ in range(2):
            await made.check.require(
                Stream(offer_of(orchestrator), job_type="lv2v", capabilities=capabilities).request(), GATEWAY
            )
        assert made.count(CrossCheckOutcome.AGREED) == 2
        assert sum(len(part) for key in made.check._replies for part in key) < 256
    assert questions(orchestrator) == 1


async def test_many_at_once_wait_for_one_question(orchestrator: Orchestrator) -> None:
    with checked() as made:
        await asyncio.gather(*(made.require(offer_of(orchestrator), uuid4()) for _ in range(20)))
        assert questions(orchestrator) == 1


@pytest.mark.parametrize("field", ["recipient", "address", "price", "ticket"])
async def test_an_offer_in_the_name_of_another_is_refused_and_says_in_what_it_differs(
    orchestrator: Orchestrator, field: str
) -> None:
    forged = offer_of(orchestrator)
    match field:
        case "recipient":
            forged.ticket_params.recipient = secrets.token_bytes(20)
        case "address":
            forged.address = secrets.token_bytes(20)
        case "price":
            forged.price_info.pixelsPerUnit = 2**40
        case "ticket":
            face_value = int.from_bytes(forged.ticket_params.face_value, "big") * 5
            forged.ticket_params.face_value = face_value.to_bytes(32, "big")
    with checked() as made:
        await made.require(offer_of(orchestrator))
        with pytest.raises(TicketNotAllowed, match=field) as refused:
            await made.require(forged)
        assert refused.value.facts["rule"] == "crosscheck"
        assert questions(orchestrator) == 1, "what was told a moment ago is not asked again"
        await made.require(offer_of(orchestrator))


@pytest.mark.parametrize(("wei", "passes"), [(224, False), (225, True), (300, True), (375, True), (376, False)])
async def test_a_price_may_have_moved_by_a_quarter(orchestrator: Orchestrator, wei: int, passes: bool) -> None:
    offer = offer_of(orchestrator)
    offer.price_info.pricePerUnit = wei
    with checked() as made:
        if passes:
            await made.require(offer)
        else:
            with pytest.raises(TicketNotAllowed, match="price"):
                await made.require(offer)


async def test_a_price_per_second_or_call_is_not_compared_with_a_price_per_pixel(orchestrator: Orchestrator) -> None:
    with checked() as made:
        await made.require(offer_of(orchestrator, "live"), job_type="live")
        await made.require(offer_of(orchestrator, "fixed"), job_type="fixed")


async def test_an_orchestrator_that_changed_its_price_is_asked_again_before_anybody_is_refused(
    orchestrator: Orchestrator,
) -> None:
    with checked() as made:
        await made.require(offer_of(orchestrator))
        made.clock.now_s += ASKED_AGAIN_AFTER_S
        orchestrator.settings.prices["lv2v"] = (900, 1)
        await made.require(offer_of(orchestrator))
        assert questions(orchestrator) == 2


async def test_in_warn_mode_everything_is_counted_and_nothing_refused(orchestrator: Orchestrator) -> None:
    forged = offer_of(orchestrator)
    forged.ticket_params.recipient = secrets.token_bytes(20)
    nowhere = offer_of(orchestrator)
    nowhere.transcoder = "https://127.0.0.1:1"
    no_url = offer_of(orchestrator)
    no_url.transcoder = "http://127.0.0.1:1"
    with checked("warn") as made:
        for offer in (forged, nowhere, no_url):
            await made.require(offer)
        for outcome in (CrossCheckOutcome.DIFFERED, CrossCheckOutcome.UNANSWERED, CrossCheckOutcome.URL_REFUSED):
            assert made.count(outcome) == 1


async def test_one_that_hangs_is_given_up_in_time_and_not_asked_again_for_a_moment(orchestrator: Orchestrator) -> None:
    offer = offer_of(orchestrator)
    async with silent_peer() as (port, taken):
        offer.transcoder = f"https://127.0.0.1:{port}"
        with checked(timeout_s=0.2) as made:
            for connections in (1, 1, 2):
                async with asyncio.timeout(30):
                    with pytest.raises(OrchestratorUnknown) as refused:
                        await made.require(offer)
                assert refused.value.retry_after_s == ASKED_AGAIN_AFTER_S
                assert len(taken) == connections
                made.clock.now_s += ASKED_AGAIN_AFTER_S / 2


async def test_ones_that_hang_hold_up_neither_other_gateways_nor_honest_orchestrators(
    orchestrator: Orchestrator,
) -> None:
    async with silent_peer() as (port, taken):
        with checked(timeout_s=120) as made:
            attacks = []
            for number in range(40):
                offer = offer_of(orchestrator)
                offer.transcoder = f"https://127.0.0.{number + 1}:{port}"
                attacks.append(asyncio.create_task(made.require(offer, gateway=UUID(int=7))))
            async with asyncio.timeout(30):
                while len(taken) < orchestrators.ASKED_AT_ONCE_PER_GATEWAY_MAX_COUNT:
                    await asyncio.sleep(0.01)
            await asyncio.sleep(0.3)
            assert len(taken) == orchestrators.ASKED_AT_ONCE_PER_GATEWAY_MAX_COUNT
            async with asyncio.timeout(60):
                await made.require(offer_of(orchestrator))
            for attack in attacks:
                attack.cancel()
            await asyncio.gather(*attacks, return_exceptions=True)


async def confirmed(made: Checked, offer: net.OrchestratorInfo, gateway: UUID = GATEWAY) -> None:
    """In the end: an orchestrator of a machine that stands still may answer too late, and is asked again."""
    async with asyncio.timeout(60):
        while True:
            try:
                return await made.require(offer, gateway)
            except OrchestratorUnknown:
                made.clock.now_s += ASKED_AGAIN_AFTER_S
                await asyncio.sleep(0.01)


async def test_name_servers_that_hang_hold_up_their_own_gateway_only(orchestrator: Orchestrator) -> None:
    """Nothing ends a look-up that has begun: its place is taken until it ends by itself, whatever the time-out."""
    asked: list[str] = []
    end = asyncio.Event()

    async def resolver(host: str) -> list[IPAddress]:
        asked.append(host)
        if host.startswith("hangs"):
            await end.wait()
        return [ip_address("127.0.0.1")]

    attacker = uuid4()
    with checked(resolver=resolver, timeout_s=1) as made:

        async def attack(number: int) -> None:
            offer = offer_of(orchestrator)
            offer.transcoder = f"https://hangs{number}.example"
            with pytest.raises(OrchestratorUnknown):
                await made.require(offer, attacker)

        await asyncio.gather(*map(attack, range(8)))
        await asyncio.gather(*map(attack, range(8, 12)))
        assert len(asked) == orchestrators.ASKED_AT_ONCE_PER_GATEWAY_MAX_COUNT
        await confirmed(made, offer_of(orchestrator))
        end.set()
        await confirmed(made, offer_of(orchestrator), attacker)


async def test_a_name_is_resolved_once_and_only_to_where_it_may_lead(orchestrator: Orchestrator) -> None:
    """A name server of the attacker's tells a public address first and 127.0.0.1 to whoever asks again."""
    answers = iter([["127.0.0.1"], ["8.8.8.8", "127.0.0.1"], ["::ffff:127.0.0.1"], ["169.254.169.254"]])

    async def resolver(_: str) -> list[IPAddress]:
        return [ip_address(address) for address in next(answers)]

    port = orchestrator.url.rpartition(":")[2]
    with checked(resolver=resolver, private=False) as made:
        for number in range(4):
            offer = offer_of(orchestrator)
            offer.transcoder = f"https://orchestrator{number}.example:{port}"
            with pytest.raises(OrchestratorUnknown) as refused:
                await made.require(offer)
            assert "127.0.0.1" not in refused.value.message, "strangers are not told what names mean in our network"
        assert made.count(CrossCheckOutcome.HOST_REFUSED) == 4
    assert questions(orchestrator) == 0
    assert next(answers, None) is None


async def test_the_name_is_only_told_to_the_peer_and_not_connected_to(orchestrator: Orchestrator) -> None:
    async def resolver(_: str) -> list[IPAddress]:
        return [ip_address("127.0.0.1")]

    offer = offer_of(orchestrator)
    offer.transcoder = orchestrator.url.replace("127.0.0.1", "name-that-exists-nowhere.invalid")
    with checked(resolver=resolver) as made:
        await made.require(offer)
    assert questions(orchestrator) == 1


async def test_the_second_address_is_tried_where_nobody_listens_at_the_first(orchestrator: Orchestrator) -> None:
    async def resolver(_: str) -> list[IPAddress]:
        return [ip_address("127.0.0.99"), ip_address("127.0.0.1")]

    offer = offer_of(orchestrator)
    offer.transcoder = orchestrator.url.replace("127.0.0.1", "orchestrator.example")
    with checked(resolver=resolver) as made:
        await made.require(offer)


async def test_a_gateway_cannot_make_us_knock_at_doors_all_over_the_internet(orchestrator: Orchestrator) -> None:
    asked: list[str] = []

    async def resolver(host: str) -> list[IPAddress]:
        asked.append(host)
        return []

    with checked("warn", resolver) as made:
        for number in range(200):
            offer = offer_of(orchestrator)
            offer.transcoder = f"https://door{number}.example"
            await made.require(offer)
        assert len(asked) == orchestrators.ASKED_PER_GATEWAY.burst_count
        await made.require(offer_of(orchestrator), uuid4())
