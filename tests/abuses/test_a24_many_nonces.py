"""A24: an orchestrator takes 600 tickets with one recipientRandHash; what is signed beyond them is paid for nothing."""

from __future__ import annotations

from decimal import Decimal

from chain.pb import lp_rpc_pb2 as net
from tests.abuses.attack import refused_everywhere
from tests.parts.orchestrator import Orchestrator
from tests.parts.orchestrator.books import NONCES_MAX
from tests.parts.service import Service
from tests.parts.stack import SIGNER_KEY, Stream, TestGateway

TICKETS_A_CALL = 100


def quote(orchestrator: Orchestrator) -> net.OrchestratorInfo:
    return orchestrator.quote(SIGNER_KEY.address, job_type="fixed", session_id="deadbeef", route="GetOrchestrator")


async def deliver(service: Service, gateway: TestGateway, stream: Stream, orchestrator: Orchestrator) -> int:
    """One payment, which the orchestrator accepts. How many tickets it has by now."""
    answer = await service.pay(gateway, stream)
    orchestrator.receive(answer.json["payment"], answer.json["segCreds"])
    return len(orchestrator.books.tickets)


async def test_as_many_are_signed_as_an_orchestrator_takes_and_with_fresh_parameters_it_goes_on(
    service: Service,
) -> None:
    gateway = await service.house.new_gateway(credit=Decimal(1000))
    orchestrator = Orchestrator("https://orchestrator.example:8935")
    orchestrator.settings.prices["fixed"] = (TICKETS_A_CALL * orchestrator.settings.ticket_ev_wei - 1, 1)
    stream = Stream(quote(orchestrator), manifest_id="deadbeef")
    while len(orchestrator.books.tickets) < NONCES_MAX:
        await deliver(service, gateway, stream, orchestrator)
    assert len(orchestrator.books.tickets) == NONCES_MAX
    said = await refused_everywhere(service, gateway, stream, 480, "refresh_session", rule="nonces")
    assert f"{NONCES_MAX} were issued" in said
    stream.offer = quote(orchestrator)
    assert await deliver(service, gateway, stream, orchestrator) == NONCES_MAX + TICKETS_A_CALL
    assert orchestrator.books.refused == []


async def test_a_call_that_would_pass_the_last_nonce_is_refused_as_a_whole(
    service: Service, gateway: TestGateway
) -> None:
    stream = service.new_stream(tickets=70)
    for _ in range(8):
        await service.pay(gateway, stream)
    said = await refused_everywhere(service, gateway, stream, 480, "refresh_session", rule="nonces")
    assert "560 were issued and 70 more are due" in said
