"""Promise 3: the same request is charged once and answered with the same bytes, whoever asks how often."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence

import pytest

from clearinghouse.identity import limits
from tests.parts.client import Answer
from tests.parts.service import OURS, Service, our_body
from tests.parts.stack import TICKET_CHARGE_USD, TestGateway
from tests.promises.overtaking import overtaking

TIMES = 32
#: What an answer says about the answering, not about the payment.
OF_THE_ANSWERING = {"clearinghouse-overhead-ms", "clearinghouse-replayed", "date"}


def key(text: str) -> tuple[str, str]:
    return ("Idempotency-Key", text)


def essence(answer: Answer) -> tuple[int, bytes, tuple[tuple[str, str], ...]]:
    return answer.status, answer.body, tuple(h for h in answer.headers if h[0] not in OF_THE_ANSWERING)


async def at_once(
    services: Sequence[Service], gateway: TestGateway, body: bytes, *headers: tuple[str, str], path: str
) -> list[Answer]:
    return await asyncio.gather(
        *(services[i % len(services)].sign(gateway, body, *headers, path=path) for i in range(TIMES))
    )


def body_for(path: str, service: Service, **settings: int) -> bytes:
    document = service.new_stream(**settings).document()
    return json.dumps(our_body(document) if path == OURS else document).encode()


def require_one_charge(service: Service, gateway: TestGateway, answers: list[Answer]) -> None:
    assert answers[0].status == 200, answers[0].body
    assert len({essence(answer) for answer in answers}) == 1
    assert [answer.header("clearinghouse-replayed") for answer in answers].count(None) == 1
    sums = service.house.sums(gateway)
    assert (sums.issuances, sums.debited, sums.balance) == (1, 2 * TICKET_CHARGE_USD, 8 * TICKET_CHARGE_USD)


@pytest.mark.parametrize("headers", [(), (key("first payment"),)], ids=["plain", "keyed"])
@pytest.mark.parametrize("path", ["/generate-live-payment", OURS])
async def test_one_request_32_times_at_once_is_one_charge_and_one_answer(
    service: Service, path: str, headers: tuple[tuple[str, str], ...]
) -> None:
    gateway = await service.house.new_gateway(tickets=10)
    answers = await at_once([service], gateway, body_for(path, service, tickets=2), *headers, path=path)
    require_one_charge(service, gateway, answers)


@pytest.mark.parametrize("headers", [(), (key("first payment"),)], ids=["plain", "keyed"])
async def test_one_request_32_times_at_once_through_two_processes_is_one_charge_and_one_answer(
    twins: tuple[Service, Service], headers: tuple[tuple[str, str], ...]
) -> None:
    path = "/generate-live-payment"
    gateway = await twins[0].house.new_gateway(tickets=10)
    answers = await at_once(twins, gateway, body_for(path, twins[0], tickets=2), *headers, path=path)
    require_one_charge(twins[0], gateway, answers)


async def test_a_continued_request_32_times_through_two_processes_is_one_charge(twins: tuple[Service, Service]) -> None:
    gateway = await twins[0].house.new_gateway(tickets=10)
    stream = twins[0].new_stream()
    await twins[0].pay(gateway, stream)
    answers = await at_once(twins, gateway, stream.body(), path="/generate-live-payment")
    assert len({essence(answer) for answer in answers}) == 1
    assert answers[0].status == 200
    assert twins[0].house.sums(gateway).issuances == 2


async def test_a_request_that_means_the_same_is_the_same_in_another_spelling_and_on_the_other_route(
    service: Service,
) -> None:
    gateway = await service.house.new_gateway(tickets=10)
    document = service.new_stream().document()
    first = await service.sign(gateway, json.dumps(document).encode())
    reordered = json.dumps(dict(reversed(document.items())), indent=2).encode()
    again = await service.sign(gateway, reordered)
    with_more = await service.sign(gateway, json.dumps({**document, "capability": "unknown to us"}).encode())
    assert again.body == first.body == with_more.body
    ours = await service.sign(gateway, json.dumps(our_body(document)).encode(), path=OURS)
    assert ours.json["payment"] == first.json["payment"]
    assert ours.header("clearinghouse-receipt") == first.header("clearinghouse-receipt")
    assert service.house.sums(gateway).issuances == 1


async def test_a_replay_needs_no_credit(service: Service) -> None:
    gateway = await service.house.new_gateway(tickets=1)
    body = service.new_stream().body()
    first = await service.sign(gateway, body)
    again = await service.sign(gateway, body)
    assert essence(again) == essence(first)
    assert first.header("clearinghouse-balance") == "0 USD"


async def test_a_replay_by_another_process_is_the_same_to_the_byte(
    twins: tuple[Service, Service],
) -> None:
    gateway = await twins[0].house.new_gateway(tickets=1)
    body = twins[0].new_stream().body()
    first, again = await twins[0].sign(gateway, body), await twins[1].sign(gateway, body)
    assert essence(again) == essence(first)


# --- idempotency keys -------------------------------------------------------------------------------------------------


async def test_a_key_with_another_request_is_a_conflict_and_costs_nothing(service: Service) -> None:
    gateway = await service.house.new_gateway(tickets=10)
    await service.pay(gateway, service.new_stream(), key("k"))
    before = service.house.fingerprint()
    answer = await service.sign(gateway, service.new_stream().body(), key("k"))
    assert (answer.status, answer.code) == (409, "idempotency_conflict")
    assert service.house.fingerprint() == before


async def test_a_key_with_another_request_is_a_conflict_at_another_process_and_at_the_same_instant(
    twins: tuple[Service, Service],
) -> None:
    gateway = await twins[0].house.new_gateway(tickets=100)
    bodies = [twins[0].new_stream().body() for _ in range(TIMES)]
    answers = await asyncio.gather(*(twins[i % 2].sign(gateway, body, key("k")) for i, body in enumerate(bodies)))
    assert sorted(answer.status for answer in answers) == [200] + [409] * (TIMES - 1)
    assert twins[0].house.sums(gateway).issuances == 1


async def test_a_key_repeats_its_answer_after_the_session_has_moved_on(service: Service) -> None:
    gateway = await service.house.new_gateway(tickets=10)
    stream = service.new_stream()
    body = stream.body()
    first = await service.pay(gateway, stream, key("k"))
    for _ in range(3):
        await service.pay(gateway, stream)
    again = await service.sign(gateway, body, key("k"))
    assert essence(again) == essence(first)
    assert again.header("clearinghouse-replayed") == "true"
    assert service.house.sums(gateway).issuances == 4


async def test_a_key_belongs_to_one_gateway_alone(service: Service) -> None:
    one, other = await service.house.new_gateway(tickets=1), await service.house.new_gateway(tickets=1)
    first = await service.pay(one, service.new_stream(), key("k"))
    second = await service.pay(other, service.new_stream(), key("k"))
    assert first.header("clearinghouse-receipt") != second.header("clearinghouse-receipt")


async def test_a_stored_answer_is_never_given_to_another_gateway(service: Service) -> None:
    owner, thief = await service.house.new_gateway(), await service.house.new_gateway()
    body = service.new_stream().body()
    await service.sign(owner, body, key("k"))
    for headers in ((), (key("k"),)):
        stolen = await service.sign(thief, body, *headers)
        assert (stolen.status, stolen.code) == (480, "refresh_session")
    assert service.house.sums(thief).issuances == 0


async def test_a_key_whose_request_was_refused_may_be_used_again(service: Service) -> None:
    gateway = await service.house.new_gateway(tickets=1)
    assert (await service.sign(gateway, service.new_stream(tickets=2).body(), key("k"))).status == 402
    assert (await service.sign(gateway, service.new_stream().body(), key("k"))).status == 200


async def test_a_key_in_the_body_is_the_key_of_the_header(service: Service) -> None:
    gateway = await service.house.new_gateway(tickets=10)
    document = service.new_stream().document()
    first = await service.sign(gateway, json.dumps(our_body(document, idempotency_key="k")).encode(), path=OURS)
    assert first.status == 200, first.body
    other = await service.sign(gateway, service.new_stream().body(), key("k"))
    assert other.code == "idempotency_conflict"


async def test_two_different_keys_for_one_call_are_not_guessed_between(service: Service) -> None:
    gateway = await service.house.new_gateway(tickets=10)
    document = our_body(service.new_stream().document(), idempotency_key="in the body")
    answer = await service.sign(gateway, json.dumps(document).encode(), key("in the header"), path=OURS)
    assert (answer.status, answer.code) == (400, "invalid_request")


async def test_a_repeated_idempotency_key_header_is_not_guessed_between(service: Service) -> None:
    gateway = await service.house.new_gateway(tickets=10)
    answer = await service.sign(gateway, service.new_stream().body(), key("one"), key("two"))
    assert (answer.status, answer.code) == (400, "invalid_request")


async def test_a_key_on_a_repetition_changes_nothing_about_the_one_charge(service: Service) -> None:
    """The first call carried no key; its repetition does. Also when the session has moved on, nothing is charged."""
    gateway = await service.house.new_gateway(tickets=10)
    stream = service.new_stream()
    body = stream.body()
    first = await service.pay(gateway, stream)
    assert essence(await service.sign(gateway, body, key("k"))) == essence(first)
    await service.pay(gateway, stream)
    late = await service.sign(gateway, body, key("k"))
    assert late.status == 480 or essence(late) == essence(first)
    assert service.house.sums(gateway).issuances == 2


# --- a process that has not heard of the payment ----------------------------------------------------------------------


async def test_a_payment_made_elsewhere_with_the_last_credit_is_repeated_where_the_session_was_remembered(
    twins: tuple[Service, Service],
) -> None:
    gateway = await twins[0].house.new_gateway(tickets=2)
    stream = twins[0].new_stream()
    await twins[1].pay(gateway, stream)
    body = stream.body()
    first = await twins[0].sign(gateway, body)
    assert (first.status, first.header("clearinghouse-balance")) == (200, "0 USD")
    assert (await twins[1].sign(gateway, twins[1].new_stream(tickets=2).body())).code == "out_of_credit"
    again = await twins[1].sign(gateway, body)
    assert essence(again) == essence(first)
    assert again.header("clearinghouse-replayed") == "true"


async def test_a_payment_made_elsewhere_within_a_limit_is_repeated_where_that_limit_was_met(
    twins: tuple[Service, Service],
) -> None:
    gateway = await twins[0].house.new_gateway(tickets=100)
    async with twins[0].house.engine.begin() as connection:
        await limits.set_gateway_limits(connection, gateway.id, {"calls_per_day": 2})
    stream = twins[0].new_stream()
    await twins[1].pay(gateway, stream)
    body = stream.body()
    first = await twins[0].sign(gateway, body)
    assert (await twins[1].sign(gateway, twins[1].new_stream().body())).code == "limit_reached"
    assert essence(await twins[1].sign(gateway, body)) == essence(first)


async def test_a_payment_made_elsewhere_between_the_lookup_and_the_look_at_the_credit_is_repeated(
    twins: tuple[Service, Service], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The credit is gone, and it was this very request that took it."""
    house = twins[0].house
    gateway, body = await house.new_gateway(tickets=0), twins[0].new_stream().body()
    assert (await twins[1].sign(gateway, body)).code == "out_of_credit"
    await house.grant(gateway, TICKET_CHARGE_USD)
    overtaken = overtaking(monkeypatch, lambda: twins[0].sign(gateway, body))
    second = await twins[1].sign(gateway, body)
    assert (second.status, second.header("clearinghouse-replayed")) == (200, "true")
    assert essence(second) == essence(overtaken[0])
    assert house.sums(gateway).issuances == 1


async def test_a_gateway_that_is_found_to_be_suspended_is_not_answered_with_what_was_paid_for(
    twins: tuple[Service, Service], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The published order: the caller is judged before the session."""
    house = twins[0].house
    gateway, body = await house.new_gateway(tickets=0), twins[0].new_stream().body()
    assert (await twins[1].sign(gateway, body)).code == "out_of_credit"  # by which it is remembered
    await house.grant(gateway, TICKET_CHARGE_USD)

    async def sign_and_suspend() -> Answer:
        answer = await twins[0].sign(gateway, body)
        await house.suspend(gateway)
        return answer

    overtaken = overtaking(monkeypatch, sign_and_suspend)
    assert (await twins[1].sign(gateway, body)).code == "gateway_suspended"
    assert overtaken[0].status == 200


async def test_a_state_that_went_on_elsewhere_needs_a_refresh_and_not_credit(twins: tuple[Service, Service]) -> None:
    """The published order: what is asked for is judged before what it costs, whatever a process remembers."""
    gateway = await twins[0].house.new_gateway(tickets=3)
    stream = twins[0].new_stream()
    await twins[1].pay(gateway, stream)
    body = stream.body()
    await twins[0].pay(gateway, stream)
    await twins[0].pay(gateway, stream)
    assert (await twins[1].sign(gateway, twins[1].new_stream().body())).code == "out_of_credit"
    assert (await twins[1].sign(gateway, body)).code == "refresh_session"
