"""Who may sign: only the holder of an active key of an active gateway, and only for that gateway."""

from __future__ import annotations

import asyncio
import base64
import json
import zlib
from datetime import UTC, datetime, timedelta

import pytest

from clearinghouse.identity.authenticate import REFUSAL_REMEMBERED_S
from clearinghouse.identity.keys import API_KEY
from clearinghouse.lookups import KeyRecord, Lookups
from tests.parts import client
from tests.parts.client import Answer
from tests.parts.lying_signer import lying_signer
from tests.parts.service import GO_LIVEPEER, OURS, Service, our_body, running
from tests.parts.stack import PEPPER, TestGateway


async def with_headers(service: Service, *headers: tuple[str, str], path: str = GO_LIVEPEER) -> Answer:
    document = service.new_stream().document()
    body = json.dumps(our_body(document) if path == OURS else document).encode()
    return await client.post(service.port, path, body, *headers)


def basic(user: str, password: str) -> tuple[str, str]:
    return ("Authorization", "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode())


async def test_a_call_without_a_valid_key_is_refused_and_never_told_why_more_than_is_safe(service: Service) -> None:
    gateway = await service.house.new_gateway()
    key = gateway.api_key
    other_secret = API_KEY.new(PEPPER)[0]
    mixed = key[:22] + other_secret[22:]
    wrong: dict[str, list[tuple[str, str]]] = {
        "no header": [],
        "empty": [("Authorization", "")],
        "no scheme": [("Authorization", key)],
        "another scheme": [("Authorization", f"Digest {key}")],
        "no key": [("Authorization", "Bearer ")],
        "half a key": [("Authorization", f"Bearer {key[:40]}")],
        "one digit changed": [("Authorization", f"Bearer {key[:-1]}{'0' if key[-1] != '0' else '1'}")],
        "upper case": [("Authorization", f"Bearer {key.upper()}")],
        "a key nobody has": [("Authorization", f"Bearer {other_secret}")],
        "the secret of another": [("Authorization", f"Bearer {mixed}")],
        "two keys": [("Authorization", f"Bearer {key}"), ("Authorization", f"Bearer {key}")],
        "two keys in one": [("Authorization", f"Bearer {key}, Bearer {key}")],
        "a control character of Latin-1": [("Authorization", f"Bearer {key[:-1]}\x85{key[-1]}")],
        "not ASCII": [("Authorization", f"Bearer {key[:-1]}\xe9")],
        "digits of another script": [("Authorization", "Bearer lpch_\xb2\xb3")],
        "not base64": [("Authorization", "Basic %%%")],
        "basic without key": [basic("", "")],
        "another header": [("X-Api-Key", key)],
    }
    for what, headers in wrong.items():
        for path in (GO_LIVEPEER, OURS):
            answer = await with_headers(service, *headers, path=path)
            assert (answer.status, answer.code) == (401, "unauthenticated"), (what, answer.status, answer.body)
            assert answer.header("www-authenticate"), what
            assert key[22:] not in answer.body.decode(), what
    assert service.house.sums(gateway).issuances == 0


async def test_a_wrong_secret_with_a_right_checksum_is_refused(service: Service) -> None:
    gateway = await service.house.new_gateway()
    body = gateway.api_key[:22] + "0" * 64
    forged = f"{body}{zlib.crc32(body.encode()):08x}"
    answer = await with_headers(service, ("Authorization", f"Bearer {forged}"))
    assert (answer.status, answer.code) == (401, "unauthenticated")
    await service.pay(gateway, service.new_stream())
    answer = await with_headers(service, ("Authorization", f"Bearer {forged}"))
    assert (answer.status, answer.code) == (401, "unauthenticated")


async def test_a_bad_request_without_a_key_tells_nothing_about_sessions(service: Service) -> None:
    """A stranger with a state learns no more than a stranger without one."""
    gateway = await service.house.new_gateway()
    stream = service.new_stream()
    await service.pay(gateway, stream)
    answer = await client.post(service.port, GO_LIVEPEER, stream.body())
    assert (answer.status, answer.code) == (401, "unauthenticated")


async def test_basic_credentials_with_the_key_are_accepted(service: Service) -> None:
    gateway = await service.house.new_gateway()
    assert (await with_headers(service, basic("anybody", gateway.api_key))).status == 200
    assert (await with_headers(service, basic(gateway.api_key, ""))).status == 200
    assert (await with_headers(service, ("authorization", f"bearer {gateway.api_key}"))).status == 200


async def test_a_revoked_key_signs_nothing_from_that_instant_even_where_it_is_remembered(
    twins: tuple[Service, Service],
) -> None:
    house = twins[0].house
    gateway = await house.new_gateway()
    for service in twins:
        await service.pay(gateway, service.new_stream())
    await house.revoke(gateway)
    before = house.fingerprint()
    for service in twins:
        for _ in range(3):
            answer = await service.sign(gateway, service.new_stream().body())
            assert (answer.status, answer.code) == (401, "unauthenticated")
    assert house.fingerprint() == before


async def test_a_revoked_key_gets_no_stored_answer_once_the_revocation_is_known(service: Service) -> None:
    gateway = await service.house.new_gateway()
    body = service.new_stream().body()
    await service.sign(gateway, body)
    await service.house.revoke(gateway)
    assert (await service.sign(gateway, service.new_stream().body())).status == 401
    assert (await service.sign(gateway, body)).status == 401


async def test_an_expired_key_signs_nothing_even_where_it_is_remembered(service: Service) -> None:
    gateway = await service.house.new_gateway()
    short = await service.house.new_key(gateway.id, expires_at=datetime.now(UTC) + timedelta(hours=1))
    await service.pay(short, service.new_stream())
    service.house.expire_key(short)
    for _ in range(2):  # once by the commit, and then as it is remembered
        answer = await service.sign(short, service.new_stream().body())
        assert (answer.status, answer.code) == (401, "unauthenticated")
    await service.pay(gateway, service.new_stream())


async def test_a_suspended_gateway_signs_nothing_until_it_is_resumed(twins: tuple[Service, Service]) -> None:
    first, second = twins
    gateway = await first.house.new_gateway()
    stream = first.new_stream()
    await first.pay(gateway, stream)
    await second.pay(gateway, stream)
    await first.house.suspend(gateway)
    for service in twins:
        answer = await service.sign(gateway, stream.body())
        assert (answer.status, answer.code) == (403, "gateway_suspended")
    await first.house.resume(gateway)
    await asyncio.sleep(REFUSAL_REMEMBERED_S + 0.1)
    await first.pay(gateway, stream)
    await second.pay(gateway, stream)


async def _overtaken(database: str, interfere: str) -> tuple[Answer, int]:
    """A call during which, after the signer has signed and before the commit, something happens to its gateway."""
    async with lying_signer() as signer, running(database, signer_urls=[signer.url]) as service:
        gateway = await service.house.new_gateway()
        await service.pay(gateway, service.new_stream())  # the key is remembered
        signer.may_answer.clear()
        pending = asyncio.create_task(service.sign(gateway, service.new_stream().body()))
        while signer.asked < 2:
            await asyncio.sleep(0.005)
        act = {"revoke": service.house.revoke, "suspend": service.house.suspend}[interfere]
        await act(gateway)
        signer.may_answer.set()
        return await pending, service.house.sums(gateway).issuances


async def test_the_second_counts_from_before_the_caller_was_read_however_long_that_took(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = Lookups.key

    async def slow(lookups: Lookups, public_id: str) -> KeyRecord | None:
        record = await read(lookups, public_id)
        await asyncio.sleep(REFUSAL_REMEMBERED_S + 0.1)
        return record

    monkeypatch.setattr(Lookups, "key", slow)
    gateway = await service.house.new_gateway()
    await service.house.suspend(gateway)
    assert (await service.sign(gateway, service.new_stream().body())).code == "gateway_suspended"
    await service.house.resume(gateway)
    assert (await service.sign(gateway, service.new_stream().body())).status == 200


async def test_a_key_revoked_between_signature_and_commit_gets_nothing(database: str) -> None:
    answer, issuances = await _overtaken(database, "revoke")
    assert (answer.status, answer.code, issuances) == (401, "unauthenticated", 1)


async def test_a_gateway_suspended_between_signature_and_commit_gets_nothing(database: str) -> None:
    answer, issuances = await _overtaken(database, "suspend")
    assert (answer.status, answer.code, issuances) == (403, "gateway_suspended", 1)


async def test_no_header_but_the_key_decides_whose_payment_it_is(service: Service) -> None:
    victim, attacker = await service.house.new_gateway(), await service.house.new_gateway()
    claims = [
        (name, value)
        for name in ("Signer-Auth-Id", "Signer_Auth_Id", "Signer-Gateway", "X-Forwarded-User", "Clearinghouse-Gateway")
        for value in (f"gw_{victim.id.hex}", f"gw_{victim.id.hex}/ses_{'0' * 32}")
    ]
    await service.pay(attacker, service.new_stream(), *claims)
    assert service.house.sums(victim).issuances == 0
    assert service.house.sums(attacker).issuances == 1


async def test_an_issuance_is_attributed_to_the_gateway_the_key_and_the_end_user(service: Service) -> None:
    gateway = await service.house.new_gateway()
    second_key: TestGateway = await service.house.new_key(gateway.id)
    await service.pay(second_key, service.new_stream(), ("Clearinghouse-End-User", "user-7"))
    ((gateway_id, public_id, end_user),) = service.house.fetch(
        "SELECT i.gateway_id, k.public_id, end_user FROM issuance i JOIN api_key k ON k.id = i.key_id"
    )
    assert (gateway_id, public_id, end_user) == (gateway.id, second_key.api_key.split("_")[1], "user-7")


async def test_the_other_routes_ask_for_the_key_too(service: Service) -> None:
    gateway = await service.house.new_gateway()
    authorization = ("Authorization", gateway.authorization)
    for method, path in (("POST", "/sign-orchestrator-info"), ("GET", "/discover-orchestrators")):
        assert (await client.call(service.port, method, path)).status == 401
        assert (await client.call(service.port, method, path, headers=[authorization])).status in (200, 404)
