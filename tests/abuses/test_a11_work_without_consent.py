"""A11: whoever may not sign makes a signer work, and burns its time before anybody says no."""

from __future__ import annotations

import asyncio

from clearinghouse.identity.keys import new_api_key
from tests.abuses.attack import GO_LIVEPEER, minimal
from tests.parts import client
from tests.parts.lying_signer import LyingSigner
from tests.parts.service import Service, running
from tests.parts.stack import TestGateway


async def test_a_call_that_is_refused_never_reaches_a_signer(database: str, signer: LyingSigner) -> None:
    policy = {"face_value_max_wei": 10**16, "price_fixed_max_wei_per_unit": "800000000000"}
    async with running(database, signer_urls=[signer.url], policy=policy) as service:
        gateway = await service.house.new_gateway()
        poor, suspended = await service.house.new_gateway(tickets=0), await service.house.new_gateway()
        await service.house.suspend(suspended)
        for status, payer, body in (
            (402, poor, service.new_stream().body()),
            (403, suspended, service.new_stream().body()),
            (403, gateway, _expensive(service)),
            (480, gateway, _of_another_session(service, await _paid(service, gateway))),
            (481, gateway, service.new_stream(tickets=101).body()),
            (400, gateway, b"{}"),
        ):
            asked = signer.asked
            answer = await service.sign(payer, body)
            assert answer.status == status, (answer.status, answer.body)
            assert signer.asked == asked, f"a call that was refused with {status} reached the signer"


async def test_strangers_in_great_number_never_reach_a_signer(database: str, signer: LyingSigner) -> None:
    """Every other one has a key in perfect form, which nobody has been given."""
    async with running(database, signer_urls=[signer.url]) as service:
        body = service.new_stream().body()
        keys = [new_api_key()[0] if number % 2 else f"lpch_{number:090d}" for number in range(200)]
        answers = await asyncio.gather(
            *(client.post(service.port, GO_LIVEPEER, body, ("Authorization", f"Bearer {key}")) for key in keys)
        )
        assert {(answer.status, answer.code) for answer in answers} == {(401, "unauthenticated")}
        assert signer.asked == 0


async def _paid(service: Service, gateway: TestGateway) -> bytes:
    """The ticket parameters' commitment of a session that has been paid."""
    stream = service.new_stream()
    await service.pay(gateway, stream)
    return stream.offer.ticket_params.recipient_rand_hash


def _expensive(service: Service) -> bytes:
    stream = service.new_stream()
    stream.offer.ticket_params.face_value = minimal(10**16 + 1)
    return stream.body()


def _of_another_session(service: Service, rand_hash: bytes) -> bytes:
    stream = service.new_stream()
    stream.offer.ticket_params.recipient_rand_hash = rand_hash
    return stream.body()
