"""The webhook's edge: who may ask, what is a question, and what a verdict can say."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator
from typing import Any

import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from clearinghouse.api.hot_shapes import WebhookQuestion, WebhookState, WebhookVerdict
from clearinghouse.api.webhook import PATHS, QUESTION_MAX_BYTES
from clearinghouse.coverage.open_tickets import UNSEEN_FACE_VALUE_MAX
from clearinghouse.errors import LimitReached, Refusal
from clearinghouse.identity import webhook_signers
from clearinghouse.verdicts import STATUSES, approval, rejection
from tests.parts import client
from tests.parts.asking import ask, first_state, question
from tests.parts.service import Service, running
from tests.parts.stack import PEPPER, TestGateway

VERDICTS = {402, 403, 409, 429, 503}


@pytest.fixture
async def service(database: str) -> AsyncIterator[Service]:
    async with running(database, webhook={"enabled": True}) as service:
        yield service
        await service.house.require_sound_books()


@pytest.fixture
async def secret(service: Service) -> str:
    return await service.house.new_webhook_secret()


@pytest.fixture
async def gateway(service: Service) -> TestGateway:
    return await service.house.new_gateway()


# --- verdicts ---------------------------------------------------------------------------------------------------------


def refusals(base: type[Refusal] = Refusal) -> list[type[Refusal]]:
    return [kind for one in base.__subclasses__() for kind in (one, *refusals(one))]


@pytest.mark.parametrize("kind", refusals(), ids=lambda kind: kind.__qualname__)
def test_every_refusal_has_a_verdict_that_the_clients_behind_a_signer_understand(kind: type[Refusal]) -> None:
    refusal = Refusal("A sentence.", retry_after_s=7)
    refusal.__class__ = kind
    verdict = json.loads(rejection(refusal))
    assert verdict == {"status": STATUSES[kind.http_status], "reason": f"{kind.code}: A sentence. Try again in 7 s."}
    assert verdict["status"] in VERDICTS
    assert not re.search("expiry", rejection(refusal).decode())


def test_a_limit_stays_a_429_and_a_verdict_fits_its_documented_shape() -> None:
    verdict = json.loads(rejection(LimitReached("Too much.", retry_after_s=1, rule="calls_per_day")))
    assert verdict["status"] == 429
    WebhookVerdict.model_validate(verdict)
    WebhookVerdict.model_validate_json(approval("gw_1/ses_1", "live", None))


# --- who may ask ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", PATHS)
async def test_a_question_is_answered_on_both_paths(
    service: Service, secret: str, gateway: TestGateway, path: str
) -> None:
    answer = await ask(service, secret, question(gateway, first_state()), path=path)
    assert (answer.status, answer.json["status"]) == (200, 200)
    assert answer.json.keys() == {"status", "auth_id"}
    assert service.house.sums(gateway).tickets == 1


async def test_without_a_signers_secret_nothing_is_read_and_nothing_is_charged(
    service: Service, gateway: TestGateway
) -> None:
    for wrong in ("", "lpws_no", gateway.api_key):
        answer = await ask(service, wrong, b"\xff not even JSON")
        assert (answer.status, answer.code) == (401, "unauthenticated")
        assert "webhook-signer" in answer.json["what_next"]
    get = await client.call(service.port, "GET", PATHS[0])
    assert (get.status, get.header("allow")) == (405, "POST")
    assert service.house.sums(gateway).issuances == 0


async def test_two_secrets_of_a_signer_are_valid_at_once(service: Service, gateway: TestGateway) -> None:
    async with service.house.engine.begin() as connection:
        old = await webhook_signers.create(connection, "ha", sender=b"\x07" * 20, pepper=PEPPER)
    async with service.house.engine.begin() as connection:
        new = await webhook_signers.rotate(connection, "ha", pepper=PEPPER)
    for secret in (old.webhook_secret, new.webhook_secret):
        assert (await ask(service, secret, question(gateway, first_state()))).json["status"] == 200
    assert service.house.fetch("SELECT DISTINCT sender FROM issuance") == [(b"\x07" * 20,)]


async def test_what_was_set_at_the_signers_bounds_the_face_values_of_the_exposure_book(
    service: Service, gateway: TestGateway
) -> None:
    sender = b"\x07" * 20
    for name, face_value_max_wei, bound in (("one", 10**16, 10**16), ("two", 10**17, 10**17), ("three", None, None)):
        async with service.house.engine.begin() as connection:
            new = await webhook_signers.create(
                connection, name, sender=sender, pepper=PEPPER, face_value_max_wei=face_value_max_wei
            )
        assert (await ask(service, new.webhook_secret, question(gateway, first_state()))).json["status"] == 200
        with psycopg.connect(service.house.conninfo) as owner:
            row = owner.execute(UNSEEN_FACE_VALUE_MAX, {"sender": sender}).fetchone()
        assert row == (None if bound is None else str(bound),)
        assert service.house.fetch("SELECT DISTINCT face_value_wei FROM exposure_entry") == [(None,)]


async def test_a_service_that_does_not_offer_it_has_no_such_route(database: str) -> None:
    async with running(database) as service:
        answer = await ask(service, "", b"{}")
        assert (answer.status, answer.code) == (404, "not_found")


# --- what is a question -----------------------------------------------------------------------------------------------


def spelled(name: str, other: str) -> Any:
    def change(asked: dict[str, Any]) -> bytes:
        return json.dumps(asked).replace(f'"{name}"', f'"{other}"', 1).encode()

    return change


NO_QUESTIONS: dict[str, Any] = {
    "nothing": lambda _: b"",
    "no JSON": lambda _: b"state",
    "a list": lambda _: b"[]",
    "no headers": lambda asked: {"state": asked["state"]},
    "no state": lambda asked: {"headers": asked["headers"]},
    "State": spelled("state", "State"),
    "HEADERS": spelled("headers", "HEADERS"),
    "sequencenumber": spelled("SequenceNumber", "sequencenumber"),
    "a state twice": lambda asked: json.dumps(asked).replace('"state"', '"state": {}, "state"', 1).encode(),
    "a member twice": lambda asked: json.dumps(asked).replace('"AuthID"', '"AuthID": "", "AuthID"', 1).encode(),
    "a header twice": lambda asked: {**asked, "headers": {**asked["headers"], "authorization": ["Bearer x"]}},
    "a header of one value": lambda asked: {**asked, "headers": {"Authorization": "Bearer x"}},
    "a header of numbers": lambda asked: {**asked, "headers": {"Authorization": [1]}},
    "a float": lambda asked: {**asked, "state": {**asked["state"], "SenderNonce": 1.0}},
    "a balance of text": lambda asked: {**asked, "state": {**asked["state"], "Balance": "much"}},
    "an endless balance": lambda asked: {**asked, "state": {**asked["state"], "Balance": "9" * 900}},
    "something after it": lambda asked: json.dumps(asked).encode() + b" {}",
    "a lone surrogate": lambda asked: json.dumps(asked).replace('"App": ""', '"App": "\\ud800"').encode(),
}


@pytest.mark.parametrize("name", NO_QUESTIONS)
async def test_what_has_more_than_one_reading_or_none_is_no_question(
    service: Service, secret: str, gateway: TestGateway, name: str
) -> None:
    answer = await ask(service, secret, NO_QUESTIONS[name](question(gateway, first_state())))
    assert (answer.status, answer.code) == (400, "invalid_request"), answer.body
    assert service.house.sums(gateway).issuances == 0


async def test_a_body_that_is_too_large_is_no_question(service: Service, secret: str, gateway: TestGateway) -> None:
    answer = await ask(service, secret, question(gateway, first_state(), X_Filler=["x" * QUESTION_MAX_BYTES]))
    assert (answer.status, answer.code) == (413, "request_too_large")


REFUSED: dict[str, tuple[dict[str, Any], int, str]] = {
    "another clock": ({"last_update_unix_ns": 10**18}, 403, "invalid_request: The state has a LastUpdate"),
    "no time": ({"last_update_unix_ns": None}, 403, "invalid_request: The state has no LastUpdate"),
    "no parameters": ({"pm_session_id": b""}, 403, "invalid_request: The state has no PMSessionID"),
    "a type that no job has": ({"type": "bogus"}, 403, "invalid_request: invalid job type"),
    "an app that cannot be stored": ({"app": "a\x00b"}, 403, "invalid_request: App contains a control character"),
    "somebody else's AuthID": ({"auth_id": "me"}, 403, "session_not_yours"),
    "the middle of a session": ({"sequence_number": 4}, 409, "state_conflict: The state has another SequenceNumber"),
    "an expiry": ({"auth_expiry_unix_s": 2**40}, 409, "state_conflict: The state has another AuthExpiry"),
    "a balance out of nothing": ({"balance": -1}, 409, "state_conflict: The state has a Balance"),
    "no tickets": ({"sender_nonce": 0}, 409, "state_conflict: The state has issued 0 tickets"),
    "many tickets": ({"sender_nonce": 101}, 409, "state_conflict: The state has issued 101 tickets"),
}


@pytest.mark.parametrize("name", REFUSED)
async def test_a_state_that_says_something_impossible_is_refused_with_the_reason(
    service: Service, secret: str, gateway: TestGateway, name: str
) -> None:
    changes, status, reason = REFUSED[name]
    answer = await ask(service, secret, question(gateway, first_state(**changes)))
    assert (answer.status, answer.json["status"]) == (200, status), answer.body
    assert answer.json["reason"].startswith(reason)
    assert answer.json.keys() == {"status", "reason"}
    assert service.house.sums(gateway).issuances == 0


async def test_the_same_question_32_times_at_once_is_one_charge_and_one_verdict(
    service: Service, secret: str, gateway: TestGateway
) -> None:
    asked = question(gateway, first_state())
    answers = await asyncio.gather(*(ask(service, secret, asked) for _ in range(32)))
    assert {answer.body for answer in answers} == {answers[0].body}
    assert answers[0].json["status"] == 200
    sums = service.house.sums(gateway)
    assert (sums.issuances, sums.tickets) == (1, 1)
    assert service.house.fetch("SELECT repeats_count FROM account WHERE gateway_id = %s", gateway.id) == [(0,)]


async def test_attempts_show_in_the_metrics(service: Service, secret: str, gateway: TestGateway) -> None:
    await ask(service, secret, question(gateway, first_state()))
    await ask(service, secret, question(gateway, first_state(type="")))
    page = (await client.call(service.port, "GET", "/metrics")).body.decode()
    for line in (
        'clearinghouse_answers_total{route="webhook"} 1.0',
        'clearinghouse_refusals_total{code="ticket_not_allowed",route="webhook"} 1.0',
        'clearinghouse_rule_refusals_total{rule="untyped"} 1.0',
        'clearinghouse_webhook_approvals_total{kind="next"} 1.0',
    ):
        assert line in page


def test_the_documented_question_has_the_keys_that_are_read() -> None:
    asked = question(None, first_state())
    assert set(WebhookQuestion.model_fields) == asked.keys()
    assert list(WebhookState.model_fields) == list(asked["state"])


@given(data=st.data())
@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
async def test_no_change_of_bytes_breaks_the_service(
    service: Service, secret: str, gateway: TestGateway, data: st.DataObject
) -> None:
    body = bytearray(json.dumps(question(gateway, first_state())).encode())
    for _ in range(data.draw(st.integers(1, 4))):
        body[data.draw(st.integers(0, 599)) % len(body)] = data.draw(st.integers(0, 255))
    answer = await ask(service, secret, bytes(body))
    assert answer.status in {200, 400}, answer.body
    if answer.status == 200:
        assert answer.json["status"] in VERDICTS | {200}
