"""A11: whoever may not sign makes a signer work, and burns its time before anybody says no."""

from __future__ import annotations

import asyncio
import secrets
from time import monotonic

import pytest

from clearinghouse.identity import authenticate, webhook_signers
from clearinghouse.identity.keys import API_KEY, list_keys
from clearinghouse.identity.limits import set_gateway_limits, set_key_limits
from clearinghouse.identity.webhook_signers import WEBHOOK_PATH, WEBHOOK_SECRET
from clearinghouse.request_rates import Rate
from tests.abuses.attack import GO_LIVEPEER, minimal
from tests.parts import client
from tests.parts.client import Answer
from tests.parts.lying_signer import LyingSigner
from tests.parts.service import Service, running
from tests.parts.stack import PEPPER, TestGateway


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
        keys = [made_up() if number % 2 else f"lpch_{number:090d}" for number in range(200)]
        answers = await asyncio.gather(
            *(client.post(service.port, GO_LIVEPEER, body, ("Authorization", f"Bearer {key}")) for key in keys)
        )
        assert {(answer.status, answer.code) for answer in answers} == {(401, "unauthenticated")}
        assert signer.asked == 0


async def test_a_stranger_s_body_is_not_decoded(service: Service) -> None:
    """The key is judged first: a broken body of somebody without one is nobody's business."""
    for route in (GO_LIVEPEER, "/v1/signTicket"):
        answer = await client.post(
            service.port, route, b"{broken", ("Authorization", f"Bearer {API_KEY.new(PEPPER)[0]}")
        )
        assert (answer.status, answer.code) == (401, "unauthenticated")


async def test_keys_that_are_made_up_are_not_looked_up_and_keep_nobody_out(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not one look-up of an unknown key is left, and a gateway that this process has never seen still gets in."""
    monkeypatch.setattr(authenticate, "UNKNOWN_KEYS", Rate(per_s=1, burst_count=1))
    body = service.new_stream().body()
    for _ in range(3):
        newcomer = await service.house.new_gateway()
        flood = [
            client.post(service.port, GO_LIVEPEER, body, ("Authorization", f"Bearer {made_up()}")) for _ in range(100)
        ]
        *answers, paid = await asyncio.gather(*flood, service.sign(newcomer, service.new_stream().body()))
        assert {(answer.status, answer.code) for answer in answers} == {(401, "unauthenticated")}
        assert paid.status == 200, paid.body


async def test_keys_of_another_database_cannot_make_us_look_them_up_for_ever(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(authenticate, "UNKNOWN_KEYS", few := Rate(per_s=10, burst_count=50))
    gateway = await service.house.new_gateway()
    await service.pay(gateway, service.new_stream())
    body = service.new_stream().body()
    keys = [API_KEY.new(PEPPER)[0] for _ in range(4 * few.burst_count)]
    answers: list[Answer] = []
    for start in range(0, len(keys), 100):
        answers += await asyncio.gather(
            *(
                client.post(service.port, GO_LIVEPEER, body, ("Authorization", f"Bearer {key}"))
                for key in keys[start : start + 100]
            )
        )
    assert {(answer.status, answer.code) for answer in answers} == {(401, "unauthenticated"), (429, "limit_reached")}
    assert [answer.status for answer in answers].count(401) < 2 * few.burst_count
    refused = next(answer for answer in answers if answer.status == 429)
    assert refused.header("clearinghouse-limit") == "key_lookups_per_s"
    await service.pay(gateway, service.new_stream())


async def test_webhook_secrets_that_do_not_exist_cannot_make_us_look_them_up_for_ever(
    database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(webhook_signers, "UNKNOWN_SECRETS", few := Rate(per_s=5, burst_count=20))
    async with running(database, webhook={"enabled": True}) as service:

        async def asked(secret: str) -> Answer:
            return await client.post(service.port, WEBHOOK_PATH, b"{broken", ("Authorization", f"Bearer {secret}"))

        known = await service.house.new_webhook_secret()
        assert (await asked(known)).status == 400, "a signer of ours is told that it asks nothing"
        made_up = [WEBHOOK_SECRET.new(PEPPER)[0] for _ in range(5 * few.burst_count)]
        answers = await asyncio.gather(*(asked(secret) for secret in made_up))
        assert {(answer.status, answer.code) for answer in answers} == {
            (401, "unauthenticated"), (429, "limit_reached"),
        }  # fmt: skip
        assert [answer.status for answer in answers].count(401) < 2 * few.burst_count
        assert (await asked(known)).status == 400, "who was recognised before is not kept out"


async def test_a_gateway_that_calls_too_often_is_told_to_wait_before_anything_is_signed(
    database: str, signer: LyingSigner
) -> None:
    async with running(database, signer_urls=[signer.url]) as service:
        often, patient = await service.house.new_gateway(), await service.house.new_gateway()
        async with service.house.engine.begin() as connection:
            await set_gateway_limits(connection, often.id, {"requests_per_s": 1, "burst_count": 3})
        bodies = [service.new_stream().body() for _ in range(8)]
        began_s = monotonic()
        answers = await asyncio.gather(*(service.sign(often, body) for body in bodies))
        let_through = [answer.status for answer in answers].count(200)
        assert 3 <= let_through <= 3 + int(monotonic() - began_s)
        refused = [answer for answer in answers if answer.status != 200]
        assert {(answer.status, answer.code) for answer in refused} == {(429, "limit_reached")}
        assert {answer.header("clearinghouse-limit") for answer in refused} == {"requests_per_s"}
        assert all(int(answer.header("retry-after") or 0) >= 1 for answer in refused)
        assert signer.asked == let_through
        await service.pay(patient, service.new_stream())
        await asyncio.sleep(1.1)
        await service.pay(often, service.new_stream())


async def test_several_processes_together_let_through_what_the_rate_says(database: str) -> None:
    async with running(database, processes_count=2) as first, running(database, processes_count=2) as second:
        gateway = await first.house.new_gateway()
        async with first.house.engine.begin() as connection:
            await set_gateway_limits(connection, gateway.id, {"requests_per_s": 1, "burst_count": 6})
        bodies = [first.new_stream().body() for _ in range(12)]
        calls = [(first, second)[number % 2].sign(gateway, body) for number, body in enumerate(bodies)]
        began_s = monotonic()
        statuses = [answer.status for answer in await asyncio.gather(*calls)]
        assert 6 <= statuses.count(200) <= 6 + int(monotonic() - began_s)
        assert set(statuses) == {200, 429}


async def test_a_key_has_a_rate_of_its_own_within_its_gateway_s(service: Service) -> None:
    gateway = await service.house.new_gateway()
    other_key = await service.house.new_key(gateway.id)
    async with service.house.engine.begin() as connection:
        (key,) = [key for key in await list_keys(connection, gateway.id) if key.public_id in gateway.api_key]
        await set_key_limits(connection, key.id, {"requests_per_s": 1, "burst_count": 1})
    began_s, let_through = monotonic(), 0
    while (answer := await service.sign(gateway, service.new_stream().body())).status == 200:
        let_through += 1
    assert 1 <= let_through <= 1 + int(monotonic() - began_s)
    assert (answer.status, answer.header("clearinghouse-limit")) == (429, "key_requests_per_s")
    for _ in range(3):
        await service.pay(other_key, service.new_stream())


def made_up() -> str:
    """In proper form, with its checksum; but nobody without the pepper can set the seal."""
    return API_KEY.new(secrets.token_bytes(32))[0]


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
