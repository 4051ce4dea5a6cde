"""A2: an OrchestratorInfo is anybody's claim; the attacker writes whatever recipient pays well."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Iterator

import pytest

from chain.signatures import checksum_address
from tests.abuses.attack import metrics_page, refused_everywhere
from tests.parts.listening import listening
from tests.parts.lying_signer import LyingSigner
from tests.parts.orchestrator import Orchestrator, running_orchestrator
from tests.parts.service import running
from tests.parts.stack import Stream, TestGateway

LISTED, UNLISTED = b"\x0a" * 20, b"\x0b" * 20
CROSSCHECK = {"crosscheck": "refuse", "crosscheck_private_hosts_allowed": True}
POLICY = {"recipients": [checksum_address(LISTED), checksum_address(b"\x0c" * 20)]}


async def test_only_recipients_of_the_list_are_paid_and_no_signer_hears_of_others(
    database: str, signer: LyingSigner
) -> None:
    async with running(database, signer_urls=[signer.url], policy=POLICY) as service:
        gateway = await service.house.new_gateway()
        stream = service.new_stream()
        stream.offer.ticket_params.recipient = UNLISTED
        said = await refused_everywhere(service, gateway, stream, 403, "ticket_not_allowed", rule="recipient")
        assert checksum_address(UNLISTED) in said
        stream.offer.address = LISTED  # the caller writes this one too: it vouches for nothing
        await refused_everywhere(service, gateway, stream, 403, "ticket_not_allowed", rule="recipient")
        assert signer.asked == 0


async def test_a_listed_recipient_may_offer_under_another_hot_key(database: str) -> None:
    async with running(database, policy=POLICY) as service:
        gateway = await service.house.new_gateway()
        stream = service.new_stream()
        stream.offer.ticket_params.recipient, stream.offer.address = LISTED, secrets.token_bytes(20)
        await service.pay(gateway, stream)
        await service.pay(gateway, stream)


async def test_a_session_with_a_listed_recipient_cannot_go_on_with_another(database: str) -> None:
    async with running(database, policy=POLICY) as service:
        gateway = await service.house.new_gateway()
        stream = service.new_stream()
        stream.offer.ticket_params.recipient = LISTED
        await service.pay(gateway, stream)
        for other in (b"\x0c" * 20, UNLISTED):
            stream.refresh()
            stream.offer.ticket_params.recipient = other
            await refused_everywhere(service, gateway, stream, 403, "session_mismatch")


async def test_what_was_paid_for_stays_available_when_the_list_changes(database: str) -> None:
    async with running(database) as before:
        gateway: TestGateway = await before.house.new_gateway()
        body = before.new_stream().body()
        paid = await before.sign(gateway, body)
        assert paid.status == 200
    async with running(database, policy=POLICY) as after:
        assert (await after.sign(gateway, body)).body == paid.body
        refused = await after.sign(gateway, after.new_stream().body())
        assert (refused.status, refused.code) == (403, "ticket_not_allowed")


@pytest.fixture
def orchestrator() -> Iterator[Orchestrator]:
    """An honest one, in whose name the attacker makes offers."""
    with running_orchestrator() as orchestrator:
        yield orchestrator


def offered(orchestrator: Orchestrator) -> Stream:
    return Stream(
        orchestrator.quote(b"\x01" * 20, job_type="lv2v", session_id="session", route="test"), job_type="lv2v"
    )


async def test_an_offer_forged_in_the_name_of_an_honest_orchestrator_is_refused_before_a_signer_hears_of_it(
    database: str, signer: LyingSigner, orchestrator: Orchestrator
) -> None:
    async with running(database, signer_urls=[signer.url], policy=CROSSCHECK) as service:
        gateway = await service.house.new_gateway(tickets=1000)
        forged = offered(orchestrator)
        forged.offer.ticket_params.recipient = UNLISTED
        said = await refused_everywhere(service, gateway, forged, 403, "ticket_not_allowed", rule="crosscheck")
        assert checksum_address(UNLISTED) in said
        assert signer.asked == 0
        honest = offered(orchestrator)
        await service.pay(gateway, honest)
        honest.offer.CopyFrom(offered(orchestrator).offer)
        await service.pay(gateway, honest)
        assert [quote.route for quote in orchestrator.books.quotes].count("GetOrchestrator") == 1


async def test_the_url_of_an_offer_does_not_lead_into_our_own_network(
    database: str, orchestrator: Orchestrator
) -> None:
    connections = 0

    async def take(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal connections
        connections += 1
        writer.close()

    async with listening(take) as port, running(database, policy={"crosscheck": "refuse"}) as service:
        gateway = await service.house.new_gateway(tickets=1000)
        stream = offered(orchestrator)
        for host in ("127.0.0.1", "localhost", "2130706433", "0x7f.1", "[::ffff:127.0.0.1]", "0.0.0.0", "[::1]"):
            stream.offer.transcoder = f"https://{host}:{port}"
            await refused_everywhere(service, gateway, stream, 503, "orchestrator_unknown", rule="crosscheck")
        for url in (f"http://127.0.0.1:{port}", f"https://user@127.0.0.1:{port}", "file:///etc/passwd"):
            stream.offer.transcoder = url
            await refused_everywhere(service, gateway, stream, 403, "ticket_not_allowed", rule="crosscheck")
    assert connections == 0


async def test_one_that_only_warns_pays_and_counts(database: str, orchestrator: Orchestrator) -> None:
    async with running(database, policy={**CROSSCHECK, "crosscheck": "warn"}) as service:
        gateway = await service.house.new_gateway(tickets=1000)
        forged = offered(orchestrator)
        forged.offer.ticket_params.recipient = UNLISTED
        await service.pay(gateway, forged)
        assert b'clearinghouse_crosschecks_total{outcome="differed"} 1.0' in await metrics_page(service)
