"""Promises 3, 4 and 9 together: an answer that was lost costs a stream neither its life nor a ticket.

The orchestrator of these tests draws the lottery for real and remembers every nonce: the network would accept what it
accepts.
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
from collections import defaultdict

import pytest

from chain.pb import lp_rpc_pb2 as net
from chain.signatures import parse_address
from tests.parts import client
from tests.parts.client import Answer
from tests.parts.orchestrator import Orchestrator
from tests.parts.service import GO_LIVEPEER, Service
from tests.parts.stack import Stream, TestGateway


class Viewer:
    """A gateway's side of one stream: it pays through the service and delivers what it got to the orchestrator."""

    def __init__(self, service: Service, orchestrator: Orchestrator, gateway: TestGateway) -> None:
        self.service, self.orchestrator, self.gateway = service, orchestrator, gateway
        self.session_id = secrets.token_hex(8)
        self.stream = Stream(self._quote(), manifest_id=self.session_id)

    def refresh(self) -> None:
        """A fresh OrchestratorInfo, as after a 480; the state stays the newest that was received."""
        self.stream.offer = self._quote()

    async def pay(self) -> Answer:
        answer = await self.service.pay(self.gateway, self.stream)
        self.deliver(answer)
        return answer

    async def lose(self) -> None:
        await self.service.lose(self.gateway, self.stream.body())

    def deliver(self, answer: Answer) -> None:
        """Raises PaymentRefused where the orchestrator refuses a single ticket."""
        payment = answer.json
        self.orchestrator.receive(payment["payment"], payment["segCreds"], must_be_for=self.session_id)

    def _quote(self) -> net.OrchestratorInfo:
        sender = parse_address(self.service.running.sender_address)
        return self.orchestrator.quote(sender, job_type="fixed", session_id=self.session_id, route="test")


@pytest.fixture
def orchestrator() -> Orchestrator:
    return Orchestrator("https://127.0.0.1:8935")


@pytest.fixture
async def viewer(service: Service, orchestrator: Orchestrator) -> Viewer:
    return Viewer(service, orchestrator, await service.house.new_gateway(tickets=1000))


def require_no_gap(orchestrator: Orchestrator) -> None:
    """Within a recipientRandHash, the delivered nonces are 1, 2, 3 … without one missing."""
    assert orchestrator.books.refused == []
    for nonces in orchestrator.books.nonces.values():
        assert sorted(nonces) == list(range(1, len(nonces) + 1))


def require_no_ticket_charged_twice(service: Service) -> None:
    charged: defaultdict[bytes, list[int]] = defaultdict(list)
    for rand, first, count in service.house.fetch(
        "SELECT recipient_rand_hash, first_nonce, num_tickets FROM issuance ORDER BY id"
    ):
        charged[rand] += range(first, first + count)
    for nonces in charged.values():
        assert nonces == list(range(1, len(nonces) + 1))


async def test_the_identical_request_gets_the_lost_answer_without_a_second_charge(viewer: Viewer) -> None:
    await viewer.pay()
    await viewer.lose()
    spent = viewer.service.house.sums(viewer.gateway)
    answer = await viewer.pay()
    assert answer.header("clearinghouse-replayed") == "true"
    assert viewer.service.house.sums(viewer.gateway) == spent
    await viewer.pay()
    require_no_gap(viewer.orchestrator)
    assert len(viewer.orchestrator.books.tickets) == viewer.service.house.sums(viewer.gateway).tickets


async def test_a_lost_first_answer_is_found_again_before_the_caller_knows_any_state(viewer: Viewer) -> None:
    await viewer.lose()
    answer = await viewer.pay()
    assert answer.header("clearinghouse-replayed") == "true"
    assert viewer.service.house.sums(viewer.gateway).issuances == 1


async def test_fresh_parameters_with_the_older_state_go_on_at_full_charge(viewer: Viewer) -> None:
    await viewer.pay()
    await viewer.lose()
    viewer.refresh()
    before = viewer.service.house.sums(viewer.gateway)
    answer = await viewer.pay()
    after = viewer.service.house.sums(viewer.gateway)
    assert answer.header("clearinghouse-replayed") is None
    assert after.issuances == before.issuances + 1
    assert after.tickets - before.tickets == 2, "the older state has the balance of the first payment left: 4 of 20"
    for _ in range(3):
        await viewer.pay()
    require_no_gap(viewer.orchestrator)
    require_no_ticket_charged_twice(viewer.service)


async def test_a_lost_first_answer_and_fresh_parameters_begin_a_session_anew(viewer: Viewer) -> None:
    await viewer.lose()
    viewer.refresh()
    await viewer.pay()
    await viewer.pay()
    require_no_gap(viewer.orchestrator)
    assert viewer.service.house.fetch("SELECT count(*) FROM session") == [(2,)]


async def test_a_stream_that_loses_every_second_answer_never_loses_its_way(viewer: Viewer) -> None:
    for turn in range(12):
        if turn % 2:
            await viewer.lose()
        if turn % 3 == 1:
            viewer.refresh()
        await viewer.pay()
    require_no_gap(viewer.orchestrator)
    require_no_ticket_charged_twice(viewer.service)


async def test_clients_that_hang_up_at_any_instant_and_ask_again_are_charged_once_each(
    service: Service, orchestrator: Orchestrator
) -> None:
    gateway = await service.house.new_gateway(tickets=1000)
    viewers = [Viewer(service, orchestrator, gateway) for _ in range(24)]

    async def impatient(viewer: Viewer, patience_s: float) -> None:
        body, auth = viewer.stream.body(), ("Authorization", gateway.authorization)
        async with client.unheard(service.port, GO_LIVEPEER, body, auth):
            await asyncio.sleep(patience_s)
        await viewer.pay()

    await asyncio.gather(*(impatient(viewer, i * 0.001) for i, viewer in enumerate(viewers)))
    assert service.house.sums(gateway).issuances == len(viewers)
    require_no_gap(orchestrator)


async def test_a_time_out_of_the_client_does_not_undo_what_was_recorded(viewer: Viewer) -> None:
    body = viewer.stream.body()
    with contextlib.suppress(TimeoutError):
        await viewer.service.sign(viewer.gateway, body, timeout_s=0.001)
    answer = await viewer.pay()
    assert answer.status == 200
    assert viewer.service.house.sums(viewer.gateway).issuances == 1
