"""A2: an OrchestratorInfo is anybody's claim; the attacker writes whatever recipient pays well."""

from __future__ import annotations

import secrets

from chain.signatures import checksum_address
from tests.abuses.attack import refused_everywhere
from tests.parts.lying_signer import LyingSigner
from tests.parts.service import running
from tests.parts.stack import TestGateway

LISTED, UNLISTED = b"\x0a" * 20, b"\x0b" * 20
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
