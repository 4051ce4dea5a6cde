"""A1: a tiny price and an expensive ticket, and the session is abandoned after it.

That every ticket is charged at what it is worth is tests/promises/test_exact_charges.py; here, that none is worth much.
"""

from __future__ import annotations

import asyncio

import pytest
import structlog

from chain.tickets import WIN_PROB_CERTAIN
from clearinghouse import housekeeping
from clearinghouse.ids import show
from clearinghouse.signers.server import signer_served
from tests.abuses.attack import metrics_page, minimal, refused_everywhere
from tests.parts.service import Service, running
from tests.parts.stack import TICKET_EV_WEI, Clock, Stream, TestGateway, native_signer, offer

TICKET_EV_MAX_WEI = 3 * 10**12
CALL_EV_MAX_WEI = 2 * 10**13


def tickets_worth(ev_wei: int, service: Service) -> Stream:
    """Tickets of exactly `ev_wei`, for a price of next to nothing."""
    stream = service.new_stream()
    stream.offer.price_info.pricePerUnit, stream.offer.price_info.pixelsPerUnit = 1, 2**62
    stream.offer.ticket_params.face_value = minimal(5 * ev_wei)
    stream.offer.ticket_params.win_prob = minimal(WIN_PROB_CERTAIN // 5)
    return stream


async def test_a_ticket_worth_a_wei_more_than_allowed_is_refused_and_the_last_allowed_one_is_not(
    service: Service, gateway: TestGateway
) -> None:
    await service.pay(gateway, tickets_worth(TICKET_EV_MAX_WEI, service))
    dear = tickets_worth(TICKET_EV_MAX_WEI + 1, service)
    said = await refused_everywhere(service, gateway, dear, 403, "ticket_not_allowed", rule="ticket_ev")
    assert f"{TICKET_EV_MAX_WEI + 1} wei" in said
    assert f"{TICKET_EV_MAX_WEI} wei" in said


async def test_a_running_session_cannot_turn_to_dearer_tickets(service: Service, gateway: TestGateway) -> None:
    stream = tickets_worth(TICKET_EV_WEI, service)
    await service.pay(gateway, stream)
    stream.refresh()
    stream.offer.ticket_params.face_value = minimal(5 * TICKET_EV_MAX_WEI + 5)
    await refused_everywhere(service, gateway, stream, 403, "ticket_not_allowed", rule="ticket_ev")


async def test_many_tickets_in_one_call_are_bounded_by_what_they_are_worth_together(
    service: Service, gateway: TestGateway
) -> None:
    ev_wei = CALL_EV_MAX_WEI // 50
    for tickets in (50, 51):
        stream = tickets_worth(ev_wei, service)
        stream.offer.price_info.pricePerUnit, stream.offer.price_info.pixelsPerUnit = tickets * ev_wei, 1
        if tickets == 50:
            await service.pay(gateway, stream)
        else:
            await refused_everywhere(service, gateway, stream, 403, "ticket_not_allowed", rule="call_ev")


async def test_what_a_signer_signs_beyond_the_quote_is_judged_again_and_thrown_away(database: str) -> None:
    """Its clock runs ahead, so it finds more seconds to be due than the front did."""
    clock = Clock()
    policy = {"call_ev_max_wei": 12 * TICKET_EV_WEI}
    async with (
        signer_served(native_signer(clock)) as url,
        running(database, signer_urls=[url], policy=policy) as service,
    ):
        gateway = await service.house.new_gateway(tickets=1000)
        stream = Stream(offer(Clock()), job_type="live")
        await service.pay(gateway, stream)  # ten seconds in advance
        clock.advance(20)
        await refused_everywhere(service, gateway, stream, 403, "ticket_not_allowed", rule="call_ev")
        assert service.house.sums(gateway).tickets == 10


async def test_whoever_abandons_every_session_after_its_first_call_shows_up_in_the_watch(
    database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ten dear tickets, none of them used up; beside somebody who pays what his orchestrator asks."""
    async with running(database) as service:
        attacker = await service.house.new_gateway(tickets=10_000)
        honest = await service.house.new_gateway(tickets=10_000)
        for _ in range(10):
            await service.pay(attacker, tickets_worth(TICKET_EV_MAX_WEI, service))
        stream = tickets_worth(TICKET_EV_MAX_WEI, service)
        stream.offer.price_info.pricePerUnit, stream.offer.price_info.pixelsPerUnit = TICKET_EV_MAX_WEI, 1
        for _ in range(10):
            await service.pay(honest, stream)
    monkeypatch.setattr(housekeeping, "FEE_WATCH_INTERVAL_S", 0.05)
    with structlog.testing.capture_logs() as logs:
        async with running(database) as service:
            async with asyncio.timeout(60):
                while b"clearinghouse_low_fees_total 1.0" not in await metrics_page(service):
                    await asyncio.sleep(0.05)
            await asyncio.sleep(0.2)
            assert b"clearinghouse_low_fees_total 1.0" in await metrics_page(service), "once an hour, not every round"
            assert (await service.house.standing(attacker)).fee_ev_bps == 0
            assert (await service.house.standing(honest)).fee_ev_bps == 10_000
            await service.house.require_sound_books()
    (said,) = [entry for entry in logs if entry["event"] == "fees_below_ev"]
    assert said["gateway_id"] == show("gw", attacker.id)
    assert said["ev_day_wei"] == str(10 * TICKET_EV_MAX_WEI)
