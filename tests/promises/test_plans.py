"""Plans and price ceilings on running services: a change holds for the next call on every process, and is explained."""

from __future__ import annotations

import asyncio
from decimal import Decimal
from time import monotonic
from typing import Any

import pytest

from clearinghouse.identity import gateways, limits, plans
from clearinghouse.identity.authenticate import REFUSAL_REMEMBERED_S
from clearinghouse.identity.limits import INHERIT
from clearinghouse.ids import show
from clearinghouse.lookups import KeyRecord, Lookups
from tests.abuses.attack import metrics_page
from tests.parts.client import Answer
from tests.parts.service import Service, running
from tests.parts.stack import TICKET_CHARGE_USD, TICKET_EV_WEI, Stream, TestGateway

#: What `Service.new_stream` offers for a call of one ticket.
PRICE = TICKET_EV_WEI


async def put_plan(service: Service, name: str, currency: str | None = None, **wanted: str) -> None:
    async with service.house.engine.begin() as connection:
        plan = await plans.put(connection, name, wanted, currency=currency, actor="test")
    await plans.apply(service.house.engine, plan)


async def put_on(service: Service, gateway: TestGateway, plan: str) -> None:
    async with service.house.engine.begin() as connection:
        await gateways.set_plan(connection, await gateways.find(connection, show("gw", gateway.id)), plan)


async def own(service: Service, gateway: TestGateway, **values: Any) -> None:
    async with service.house.engine.begin() as connection:
        await limits.set_gateway_limits(connection, gateway.id, values)


async def a_session_each(twins: tuple[Service, Service], gateway: TestGateway) -> list[Stream]:
    """So that both processes remember the gateway, with the terms it has now."""
    streams = [service.new_stream() for service in twins]
    for service, stream in zip(twins, streams, strict=True):
        await service.pay(gateway, stream)
    return streams


async def refused(
    twins: tuple[Service, Service], gateway: TestGateway, streams: list[Stream], status: int
) -> list[Answer]:
    """The next call of each, which is refused and leaves nothing behind."""
    books = twins[0].house.fingerprint()
    answers = [await service.sign(gateway, stream.body()) for service, stream in zip(twins, streams, strict=True)]
    assert [answer.status for answer in answers] == [status] * 2, [answer.body for answer in answers]
    assert twins[0].house.fingerprint() == books
    return answers


async def test_a_gateway_put_on_a_plan_has_its_limits_for_the_next_call_on_every_process(
    twins: tuple[Service, Service],
) -> None:
    first, _ = twins
    gateway = await first.house.new_gateway()
    streams = await a_session_each(twins, gateway)
    await put_plan(first, "small", calls_per_day="2")
    await put_on(first, gateway, "small")
    answers = await refused(twins, gateway, streams, 429)
    assert {answer.header("clearinghouse-limit") for answer in answers} == {"calls_per_day"}


async def test_a_changed_plan_has_changed_for_all_its_gateways_and_own_limits_stand_above_it(
    twins: tuple[Service, Service],
) -> None:
    first, _ = twins
    await put_plan(first, "small", "USD", spend_per_day="1000")
    found = [await first.house.new_gateway(plan="small") for _ in range(3)]
    sessions = [await a_session_each(twins, gateway) for gateway in found]
    await own(first, found[1], spend_per_day=Decimal(500))
    await own(first, found[2], spend_per_day=None)
    await put_plan(first, "small", spend_per_day="0.00001")
    answers = await refused(twins, found[0], sessions[0], 429)
    assert {answer.header("clearinghouse-limit") for answer in answers} == {"spend_per_day"}
    for gateway, streams in zip(found[1:], sessions[1:], strict=True):
        for service, stream in zip(twins, streams, strict=True):
            await service.pay(gateway, stream)
    await own(first, found[1], spend_per_day=INHERIT)
    await refused(twins, found[1], sessions[1], 429)


@pytest.mark.parametrize("whose", ["plan small", "gateway"])
async def test_a_lowered_ceiling_holds_for_the_next_ticket_though_the_old_one_is_remembered(
    twins: tuple[Service, Service], whose: str
) -> None:
    first, _ = twins
    await put_plan(first, "small", price_fixed=str(PRICE))
    gateway = await first.house.new_gateway(plan="small")
    streams = await a_session_each(twins, gateway)
    if whose == "gateway":
        await own(first, gateway, price_fixed=PRICE - 1)
    else:
        await put_plan(first, "small", price_fixed=str(PRICE - 1))
    for answer in await refused(twins, gateway, streams, 481):
        assert (answer.code, answer.message) == (
            "price_exceeded",
            f"orchestrator price {PRICE} exceeds the {whose}'s ceiling {PRICE - 1} wei per call",
        )


async def test_a_lowered_ceiling_holds_also_for_a_caller_that_is_read_anew_for_its_credit(service: Service) -> None:
    gateway = await service.house.new_gateway(tickets=1)
    stream = service.new_stream()
    await service.pay(gateway, stream)
    await service.house.grant(gateway, TICKET_CHARGE_USD)
    await own(service, gateway, price_fixed=PRICE - 1)
    answer = await service.sign(gateway, stream.body())
    assert (answer.status, answer.code) == (481, "price_exceeded")


async def test_a_raised_ceiling_holds_within_a_second(twins: tuple[Service, Service]) -> None:
    first, _ = twins
    gateway = await first.house.new_gateway()
    streams = await a_session_each(twins, gateway)
    await own(first, gateway, price_fixed=1)
    await refused(twins, gateway, streams, 481)
    await own(first, gateway, price_fixed=PRICE)
    await asyncio.sleep(REFUSAL_REMEMBERED_S + 0.05)
    for service, stream in zip(twins, streams, strict=True):
        await service.pay(gateway, stream)


async def test_a_caller_above_its_ceiling_costs_no_signature_and_no_reading_but_one_a_second(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    gateway = await service.house.new_gateway()
    await own(service, gateway, price_fixed=1)
    reads = 0
    read = Lookups.key

    async def counted(lookups: Lookups, public_id: str) -> KeyRecord | None:
        nonlocal reads
        reads += 1
        return await read(lookups, public_id)

    monkeypatch.setattr(Lookups, "key", counted)
    asked = [monotonic()]
    for _ in range(20):
        assert (await service.sign(gateway, service.new_stream().body())).status == 481
    asked.append(monotonic())
    assert 1 <= reads <= 1 + (asked[1] - asked[0]) / REFUSAL_REMEMBERED_S
    answered = [line for line in (await metrics_page(service)).decode().splitlines() if "signer_answers_total{" in line]
    assert answered
    assert all(line.endswith(" 0.0") for line in answered)


@pytest.mark.parametrize(
    ("ceilings", "whose", "lowest"),
    [
        ((3, 5, 4), "the clearinghouse's", 3),
        ((5, 3, 4), "the plan small's", 3),
        ((5, 4, 3), "the gateway's", 3),
        ((3, 3, 3), "the clearinghouse's", 3),
        ((None, 3, 3), "the plan small's", 3),
        ((None, None, 3), "the gateway's", 3),
        ((5, None, None), "the clearinghouse's", 5),
        ((None, 5, None), "the plan small's", 5),
    ],
)
async def test_the_lowest_ceiling_decides_and_the_refusal_says_whose_it_is(
    database: str, ceilings: tuple[int | None, int | None, int | None], whose: str, lowest: int
) -> None:
    """Of the configuration, of the plan and of the gateway itself."""
    configured, planned, of_its_own = ceilings
    policy = {"price_fixed_max_wei_per_unit": str(configured)} if configured is not None else {}
    async with running(database, policy=policy) as service:
        await put_plan(service, "small", price_fixed="none" if planned is None else str(planned), calls_per_day="9")
        gateway = await service.house.new_gateway(plan="small")
        if of_its_own is not None:
            await own(service, gateway, price_fixed=of_its_own)
        answer = await service.sign(gateway, service.new_stream().body())
        assert (answer.status, answer.message) == (
            481,
            f"orchestrator price {PRICE} exceeds {whose} ceiling {lowest} wei per call",
        )


async def test_a_gateway_without_ceilings_is_not_held_to_those_of_others(service: Service) -> None:
    await put_plan(service, "small", price_fixed="1")
    strict, free = await service.house.new_gateway(plan="small"), await service.house.new_gateway()
    assert (await service.sign(strict, service.new_stream().body())).status == 481
    await service.pay(free, service.new_stream())


async def test_what_was_paid_for_stays_available_under_a_lower_ceiling(service: Service) -> None:
    gateway = await service.house.new_gateway()
    body = service.new_stream().body()
    paid = await service.sign(gateway, body)
    await own(service, gateway, price_fixed=1)
    again = await service.sign(gateway, body)
    assert (again.status, again.body, again.header("clearinghouse-replayed")) == (200, paid.body, "true")
