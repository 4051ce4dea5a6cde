"""Promise 1: no ticket leaves unless it was debited from an account that had the credit."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest

from tests.parts.client import Answer
from tests.parts.service import Service, our_body
from tests.parts.stack import TICKET_CHARGE_USD, TICKET_EV_WEI, TestGateway

CALLERS = 64


def in_an_hour() -> datetime:
    return datetime.now(UTC) + timedelta(hours=1)


async def storm(services: Sequence[Service], gateway: TestGateway, callers: int = CALLERS) -> list[Answer]:
    """So many callers at once, each with a new session, spread over the services."""
    bodies = [services[0].new_stream().body() for _ in range(callers)]
    return await asyncio.gather(*(services[i % len(services)].sign(gateway, body) for i, body in enumerate(bodies)))


def require_books_match(service: Service, gateway: TestGateway, released: list[Answer]) -> None:
    """What was answered, what was recorded and what was debited are one sum, and nothing went below the limit."""
    sums = service.house.sums(gateway)
    receipts = [Decimal((answer.header("clearinghouse-charge") or "").removesuffix(" USD")) for answer in released]
    assert sums.issued == sums.debited == sum(receipts)
    assert sums.issuances == len(released)
    assert sums.tickets * TICKET_EV_WEI == sums.ev_wei
    assert sums.balance >= -sums.credit_limit
    assert len({answer.header("clearinghouse-receipt") for answer in released}) == len(released)


@pytest.mark.parametrize("affordable", [0, 1, 37, 64])
async def test_64_callers_at_once_get_exactly_the_tickets_the_credit_covers(service: Service, affordable: int) -> None:
    gateway = await service.house.new_gateway(tickets=affordable)
    answers = await storm([service], gateway)
    released = [answer for answer in answers if answer.status == 200]
    assert len(released) == affordable
    assert {answer.code for answer in answers if answer.status != 200} <= {"out_of_credit"}
    require_books_match(service, gateway, released)
    assert service.house.sums(gateway).balance == 0


async def test_credit_that_misses_one_ticket_by_the_smallest_unit_buys_one_ticket_less(service: Service) -> None:
    gateway = await service.house.new_gateway(credit=5 * TICKET_CHARGE_USD - Decimal("1e-12"))
    released = [answer for answer in await storm([service], gateway) if answer.status == 200]
    assert len(released) == 4


async def test_a_credit_limit_is_spent_to_the_last_ticket_and_never_passed(service: Service) -> None:
    gateway = await service.house.new_gateway(tickets=3, credit_limit=7 * TICKET_CHARGE_USD)
    released = [answer for answer in await storm([service], gateway) if answer.status == 200]
    assert len(released) == 10
    require_books_match(service, gateway, released)
    assert service.house.sums(gateway).balance == -7 * TICKET_CHARGE_USD


async def test_calls_of_different_sizes_in_one_storm_never_overspend_and_leave_less_than_the_smallest_call(
    service: Service,
) -> None:
    gateway = await service.house.new_gateway(tickets=100)
    sizes = [1 + i % 7 for i in range(CALLERS)]
    answers = await asyncio.gather(*(service.sign(gateway, service.new_stream(tickets=size).body()) for size in sizes))
    released = [answer for answer in answers if answer.status == 200]
    require_books_match(service, gateway, released)
    left = service.house.sums(gateway).balance
    refused = [size for size, answer in zip(sizes, answers, strict=True) if answer.status == 402]
    assert left < min(refused) * TICKET_CHARGE_USD, "a call was refused that the credit would have covered"


@pytest.mark.parametrize("affordable", [1, 37])
async def test_two_processes_never_release_more_than_the_credit_and_all_of_it_after_retries(
    twins: tuple[Service, Service], affordable: int
) -> None:
    gateway = await twins[0].house.new_gateway(tickets=affordable)
    released = [answer for answer in await storm(twins, gateway) if answer.status == 200]
    assert len(released) <= affordable
    while again := [answer for answer in await storm(twins, gateway, 16) if answer.status == 200]:
        released += again
    assert len(released) == affordable
    require_books_match(twins[0], gateway, released)


async def test_one_stream_paid_through_two_processes_is_one_chain_of_states(twins: tuple[Service, Service]) -> None:
    gateway = await twins[0].house.new_gateway(tickets=20)
    stream = twins[0].new_stream(tickets=2)
    for i in range(10):
        await twins[i % 2].pay(gateway, stream)
    assert (await twins[0].sign(gateway, stream.body())).code == "out_of_credit"
    rows = twins[0].house.fetch("SELECT first_nonce, num_tickets FROM issuance ORDER BY id")
    assert rows == [(1 + 2 * i, 2) for i in range(10)]


async def test_a_refusal_for_want_of_credit_says_what_it_costs_and_the_same_request_succeeds_after_a_top_up(
    service: Service,
) -> None:
    gateway = await service.house.new_gateway(tickets=0)
    stream = service.new_stream(tickets=3)
    refused = await service.sign(gateway, stream.body())
    assert (refused.status, refused.code) == (402, "out_of_credit")
    assert "0.000072 USD" in refused.message
    await service.house.grant(gateway, 3 * TICKET_CHARGE_USD)
    assert (await service.sign(gateway, stream.body())).status == 200


async def test_a_gateway_that_turned_credit_into_tickets_elsewhere_is_not_believed_by_a_process_that_remembers_more(
    twins: tuple[Service, Service],
) -> None:
    first, second = twins
    gateway = await first.house.new_gateway(tickets=10)
    await second.pay(gateway, second.new_stream())  # the second process remembers credit for nine
    await first.pay(gateway, first.new_stream(tickets=9))
    answer = await second.sign(gateway, second.new_stream().body())
    assert (answer.status, answer.code) == (402, "out_of_credit")


async def test_expired_credit_cannot_be_spent_even_before_anything_has_tidied_up(service: Service) -> None:
    gateway = await service.house.new_gateway(tickets=10, expires_at=in_an_hour())
    await service.pay(gateway, service.new_stream(tickets=4))
    service.house.expire_credit(gateway)
    answers = await storm([service], gateway, 8)
    assert {(answer.status, answer.code) for answer in answers} == {(402, "out_of_credit")}
    sums = service.house.sums(gateway)
    assert sums.tickets == 4
    assert (await service.house.standing(gateway)).available == 0


async def test_expired_credit_is_not_spent_by_a_process_that_remembers_it(service: Service) -> None:
    gateway = await service.house.new_gateway(tickets=10, expires_at=in_an_hour())
    await service.house.grant(gateway, 2 * TICKET_CHARGE_USD)
    stream = service.new_stream()
    await service.pay(gateway, stream)  # of the credit that expires first
    service.house.expire_credit(gateway)
    assert (await service.sign(gateway, service.new_stream(tickets=3).body())).status == 402
    await service.pay(gateway, service.new_stream(tickets=2))
    assert service.house.sums(gateway).balance == 0


async def test_both_routes_draw_on_one_account(service: Service) -> None:
    gateway = await service.house.new_gateway(tickets=2)
    await service.pay(gateway, service.new_stream())
    ours = json.dumps(our_body(service.new_stream().document())).encode()
    answer = await service.sign(gateway, ours, path="/v1/signTicket")
    assert answer.status == 200, answer.body
    assert answer.json["receipt"]["balance"] == "0"
    refused = await service.sign(
        gateway, json.dumps(our_body(service.new_stream().document())).encode(), path="/v1/signTicket"
    )
    assert (refused.status, refused.json["code"]) == (402, "out_of_credit")
    assert (refused.json["charge"], refused.json["available"]) == ("0.000024", "0")
