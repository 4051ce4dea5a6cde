"""Promises 2, 6 and 7 where a rate card sets the price: exact, never below cost unless a plan allows it, or refused.

That a commit charges what the pure quotes say, whatever the card, tests/clearinghouse/test_rate_commits.py shows. Here
the quantities are those of real payments, through every way in.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import time
from collections.abc import AsyncIterator
from decimal import Decimal
from fractions import Fraction
from typing import Any

import pytest
from sqlalchemy import text

from chain.go_duration import PIXELS_PER_SECOND
from clearinghouse import rate_store
from clearinghouse.charging import TERMS_CHANGES_MAX_COUNT
from clearinghouse.commits import GroupCommit, Issuance, Outcome
from clearinghouse.errors import OutOfCredit, RateUnknown
from clearinghouse.ledger.verify import verify
from clearinghouse.policy import Policy
from tests.parts import client
from tests.parts.asking import asking
from tests.parts.cards import allow_below_cost, applied, card_of, put_on
from tests.parts.service import OURS, our_body, running
from tests.parts.stack import TICKET_CHARGE_USD, TICKET_EV_WEI, Clock, Stack, TestGateway, running_stack

WIDE = Policy(ticket_ev_max_wei=10**18, call_ev_max_wei=10**20)
#: Of one ticket: what a second, a fixed job and a pixel of an untyped one cost here.
COST = TICKET_CHARGE_USD


class _Still(Clock):
    """It stands still but for what a test puts it forward by, and for a millisecond each time that it is read."""

    def __init__(self) -> None:
        super().__init__()
        self._read_ns = time.time_ns()

    def __call__(self) -> int:
        self._read_ns += 10**6
        return self._read_ns + self.ahead_ns


@pytest.fixture
async def stack(database: str) -> AsyncIterator[Stack]:
    async with running_stack(database, policy=WIDE, clock=_Still()) as stack:
        yield stack
        await require_sound(stack)


async def require_sound(stack: Stack) -> None:
    report = await verify(stack.engine)
    assert report.is_clean, report.findings


async def tenant(stack: Stack, *rates: dict[str, Any], credit: str = "1000", **fields: Any) -> TestGateway:
    """Charged by a card of these rates."""
    await applied(stack.engine, card_of(*rates, **fields))
    gateway = await stack.new_gateway(credit=credit)
    await put_on(stack.engine, gateway, fields.get("card", "standard"))
    return gateway


async def charged(stack: Stack, gateway: TestGateway, job_type: str, *seconds: int, **settings: Any) -> list[Decimal]:
    """What the payments of one stream cost, by their receipts: the first, and one each after so many seconds."""
    stream = stack.new_stream(job_type=job_type, **settings)
    stream.offer.price_info.pixelsPerUnit = PIXELS_PER_SECOND if job_type == "lv2v" else 1
    receipts = [(await stack.pay(gateway, stream)).receipt]
    for elapsed_s in seconds:
        stack.clock.advance(elapsed_s)
        receipts.append((await stack.pay(gateway, stream)).receipt)
    assert [receipt.balance for receipt in receipts][-1] == (await stack.standing(gateway)).balance
    assert {receipt.markup_bps for receipt in receipts} == {0}
    return [receipt.charge for receipt in receipts]


# --- what is measured ---------------------------------------------------------------------------------------------


async def test_live_is_charged_by_the_seconds_begun(stack: Stack) -> None:
    gateway = await tenant(stack, {"per": "second", "price": "0.003"})
    first, *later = await charged(stack, gateway, "live", 5, 7)
    assert first == Decimal("0.03"), "ten seconds are paid ahead"
    # Between two payments a moment more goes by than the clock was put forward: one more second is begun.
    assert later == [Decimal("0.018"), Decimal("0.024")]


async def test_a_minute_is_sixty_seconds_and_no_rounding_adds_up(stack: Stack) -> None:
    gateway = await tenant(stack, {"per": "minute", "price": "0.1"})
    charges = await charged(stack, gateway, "live", 6, 6, 6)
    seconds = 10 + 3 * 7
    assert 0 <= sum(map(Fraction, charges)) - Fraction(seconds, 600) < Fraction(1, 10**34)


async def test_lv2v_is_charged_by_its_pixels(stack: Stack) -> None:
    gateway = await tenant(stack, {"per": "720p-pixel-second", "price": "0.00000000005"})
    first, second = await charged(stack, gateway, "lv2v", 5)
    assert first == Decimal(60 * PIXELS_PER_SECOND) * Decimal("0.00000000005"), "a minute is paid ahead"
    per_second = Decimal(PIXELS_PER_SECOND) * Decimal("0.00000000005")
    assert 5 * per_second <= second <= 6 * per_second


async def test_a_stream_is_one_request_and_every_fixed_job_is_one(stack: Stack) -> None:
    gateway = await tenant(stack, {"per": "request", "price": "0.01"})
    # What its later payments cost was paid for by the first one: a month's sums count, and they are far above cost.
    assert await charged(stack, gateway, "live", 5, 5) == [Decimal("0.01"), 0, 0]
    assert await charged(stack, gateway, "fixed", 1, 1) == [Decimal("0.01")] * 3
    assert await charged(stack, gateway, "", 1, in_pixels=1) == [Decimal("0.01")] * 2


async def test_cost_plus_is_the_cost_of_each_call_and_its_markup(stack: Stack) -> None:
    gateway = await tenant(stack, {"per": "cost", "markup_bps": 500, "minimum_charge": "0.00005"})
    stream = stack.new_stream(tickets=3)
    assert (await stack.pay(gateway, stream)).receipt.charge == 3 * COST * Decimal("1.05")
    assert (await stack.pay(gateway, stack.new_stream())).receipt.charge == Decimal("0.00005")


async def test_tiers_count_over_sessions_and_streams_of_the_gateway_alone(stack: Stack) -> None:
    rate = {"per": "request", "tiers": [{"up_to": "3", "price": "0.02"}, {"price": "0.01"}]}
    gateway, other = await tenant(stack, rate), await tenant(stack, rate)
    spent = [await charged(stack, one, "fixed", 1) for one in (gateway, other, gateway, gateway)]
    assert [*itertools.chain(*spent)] == [Decimal(f"0.0{cents}") for cents in (2, 2, 2, 2, 2, 1, 1, 1)]


# --- never below cost -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("floor", ["period", "call", "none"])
async def test_no_card_alone_sells_below_cost(stack: Stack, floor: str) -> None:
    gateway = await tenant(stack, {"per": "second", "price": "0.0000000001", "floor": floor})
    assert await charged(stack, gateway, "live", 5, 6) == [10 * COST, 6 * COST, 7 * COST]


async def test_a_card_and_a_plan_together_do(stack: Stack) -> None:
    gateway = await tenant(stack, {"per": "second", "price": "0.0000001", "floor": "none"})
    held = await tenant(stack, {"per": "second", "price": "0.0000001"}, card="held")
    await allow_below_cost(stack.engine)
    assert await charged(stack, gateway, "live", 4) == [Decimal("0.000001"), Decimal("0.0000005")]
    assert await charged(stack, held, "live", 4) == [10 * COST, 5 * COST]


async def test_what_is_free_by_card_and_plan_costs_nothing_and_is_in_the_books(stack: Stack) -> None:
    gateway = await tenant(stack, {"per": "request", "price": "0", "floor": "none"}, credit="0")
    await allow_below_cost(stack.engine)
    assert await charged(stack, gateway, "fixed", 1) == [0, 0]


async def test_a_lump_is_charged_once_and_used_up_by_what_follows(stack: Stack) -> None:
    """Promise 2 over the month: at no time was less charged than the tickets cost."""
    gateway = await tenant(stack, {"per": "request", "price": "0.00006"})
    stream = stack.new_stream(tickets=10)
    charges = [(await stack.pay(gateway, stream)).receipt.charge]
    charges += [(await stack.pay(gateway, stack.new_stream())).receipt.charge for _ in range(6)]
    costs = [10 * COST, *[COST] * 6]
    for count in range(1, 8):
        assert sum(charges[:count]) == max(count * Decimal("0.00006"), sum(costs[:count]))


# --- which rate, and from when ----------------------------------------------------------------------------------------


async def test_application_and_the_labels_that_a_session_began_with_choose_the_rate(stack: Stack) -> None:
    gateway = await tenant(
        stack,
        {"per": "request", "price": "0.01"},
        {"application": "studio", "per": "request", "price": "0.02"},
    )
    assert await charged(stack, gateway, "fixed") == [Decimal("0.01")]
    assert await charged(stack, gateway, "fixed", 1, app="studio") == [Decimal("0.02")] * 2


async def test_a_call_without_a_price_is_refused_before_a_signer_is_asked(stack: Stack) -> None:
    gateway = await tenant(stack, {"application": "studio", "per": "second", "price": "0.02"})
    for stream in (stack.new_stream(), stack.new_stream(app="studio")):  # another application, and no seconds
        with pytest.raises(RateUnknown) as refusal:
            await stack.pay(gateway, stream)
        assert (refusal.value.http_status, refusal.value.code) == (503, "rate_unknown")
    assert (await stack.standing(gateway)).balance == 1000


async def test_a_version_holds_for_the_very_next_payment_in_every_process(stack: Stack) -> None:
    gateway = await tenant(stack, {"per": "request", "price": "0.01"})
    async with running_stack(stack.conninfo) as other:
        streams = [(one, one.new_stream()) for one in (stack, other)]
        for version in range(2, 7):
            await applied(stack.engine, card_of({"per": "request", "price": f"0.0{version}"}, version=version))
            for one, stream in streams:
                assert (await one.pay(gateway, stream)).receipt.charge == Decimal(f"0.0{version}")


async def test_a_card_that_is_assigned_or_taken_away_holds_for_the_very_next_payment(stack: Stack) -> None:
    gateway, stream = await stack.new_gateway(markup_bps=1000), stack.new_stream()
    await applied(stack.engine, card_of({"per": "request", "price": "0.01"}))
    prices = {"none": COST * Decimal("1.1"), "standard": Decimal("0.01")}
    for card in ("none", "standard", "none", "standard"):
        await put_on(stack.engine, gateway, card)
        receipt = (await stack.pay(gateway, stream)).receipt
        assert (receipt.charge, receipt.markup_bps) == (prices[card], 1000 if card == "none" else 0)


async def test_versions_that_race_payments_charge_each_by_the_one_that_held(stack: Stack) -> None:
    """Which one held, verify finds from the times in the books."""
    gateway = await tenant(stack, {"per": "request", "price": "0.01"}, credit="1000000")
    async with running_stack(stack.conninfo) as other:
        is_over, paid = asyncio.Event(), asyncio.Event()

        async def pays(one: Stack) -> int:
            stream, count = one.new_stream(), 0
            while not is_over.is_set():
                receipt = (await one.pay(gateway, stream)).receipt
                assert receipt.charge in {Decimal(f"0.{cents:02}") for cents in range(1, 16)}
                count += 1
                paid.set()
            return count

        async def changes() -> None:
            for version in range(2, 16):
                rate = {"per": "request", "price": f"0.{version:02}"}
                await applied(stack.engine, card_of(rate, version=version))
                paid.clear()
                await asyncio.sleep(0.1)
                await paid.wait()
            is_over.set()

        counts = await asyncio.gather(*(pays((stack, other)[i % 2]) for i in range(8)), changes())
    query = "SELECT version, count(*) FROM issuance JOIN rate_rule AS rule ON rule.id = rate_rule GROUP BY 1"
    async with stack.engine.connect() as connection:
        by_version = {row[0]: row[1] for row in await connection.exec_driver_sql(query)}
    assert sum(by_version.values()) == sum(filter(None, counts))
    assert len(by_version) > 5


async def test_credit_is_spent_to_the_last_charge_and_not_beyond(stack: Stack) -> None:
    gateway = await tenant(stack, {"per": "request", "price": "0.01", "floor": "call"}, credit="0.64")
    outcomes = await asyncio.gather(
        *(stack.pay(gateway, stack.new_stream()) for _ in range(100)), return_exceptions=True
    )
    refused = [outcome for outcome in outcomes if isinstance(outcome, BaseException)]
    assert (len(refused), {type(one) for one in refused}) == (36, {OutOfCredit})
    assert (await stack.standing(gateway)).balance == 0


async def test_a_repeated_request_shows_the_same_charge_and_is_charged_once(stack: Stack) -> None:
    gateway = await tenant(stack, {"per": "request", "price": "0.01"})
    stream = stack.new_stream()
    first = await stack.pay(gateway, stream)
    stream.state = None
    again = await stack.pay(gateway, stream)
    assert (again.replayed, again.receipt) == (True, first.receipt)
    assert (await stack.standing(gateway)).balance == Decimal("999.99")


# --- every way in -----------------------------------------------------------------------------------------------------


async def test_both_routes_and_the_webhook_charge_by_the_card(database: str) -> None:
    rates = ({"per": "request", "price": "0.01"}, {"application": "studio", "per": "cost", "markup_bps": 10_000})
    async with running(database, webhook={"enabled": True}) as service, asking(service) as signer:
        house = service.house
        await applied(house.engine, card_of(*rates))
        for app, price in (("", Decimal("0.01")), ("studio", 2 * COST)):
            gateway = await house.new_gateway(credit=Decimal(1))
            await put_on(house.engine, gateway, "standard")
            theirs = await service.pay(gateway, service.new_stream(app=app))
            assert Decimal((theirs.header("clearinghouse-charge") or "").split()[0]) == price
            body = json.dumps(our_body(service.new_stream(app=app).document())).encode()
            ours = await service.sign(gateway, body, path=OURS)
            assert (ours.status, Decimal(ours.json["receipt"]["charge"])) == (200, price)
            await signer.pay(gateway, service.new_stream(app=app))
            assert house.fetch("SELECT charge FROM issuance WHERE gateway_id = %s", gateway.id) == [(price,)] * 3
            headers = [("Authorization", gateway.authorization)]
            listed = await client.call(service.port, "GET", "/v1/issuances", headers=headers)
            shown = ("standard", 1, "cost", None) if app else ("standard", 1, "request", "1")
            names = ("rate_card", "rate_version", "rate_per", "rate_quantity", "markup_bps")
            assert {tuple(item[name] for name in names) for item in listed.json["items"]} == {(*shown, 0)}
            assert house.sums(gateway).balance == 1 - 3 * price
        await house.require_sound_books()


async def test_the_webhook_measures_time_as_the_signers_states_show_it(database: str) -> None:
    async with running(database, webhook={"enabled": True}) as service, asking(service) as signer:
        house = service.house
        await applied(house.engine, card_of({"per": "second", "price": "0.001"}))
        gateway = await house.new_gateway(credit=Decimal(1))
        await put_on(house.engine, gateway, "standard")
        stream = service.new_stream(job_type="live")
        for _ in range(3):
            await signer.pay(gateway, stream)
        rows = house.fetch("SELECT charge, quantity, fee_wei FROM issuance ORDER BY sequence")
        assert rows[0][:2] == (Decimal("0.01"), 10 * 10**9)
        for charge, quantity_ns, fee_wei in rows:
            assert quantity_ns == fee_wei / TICKET_EV_WEI * 10**9, "what the network is paid for"
            assert charge == quantity_ns * Decimal("0.000000000001")
        await house.require_sound_books()


async def test_a_payment_waits_for_whoever_is_adding_a_version_and_is_charged_by_it(stack: Stack) -> None:
    gateway = await tenant(stack, {"per": "request", "price": "0.01"})
    stream = stack.new_stream()
    await stack.pay(gateway, stream)
    async with stack.engine.begin() as connection:
        await connection.exec_driver_sql("SELECT hold_rate_cards()")
        paying = asyncio.create_task(stack.pay(gateway, stream))
        await asyncio.sleep(0.3)
        assert not paying.done(), "whoever adds a version is waited for"
        await rate_store.apply(
            connection, card_of({"per": "request", "price": "0.02"}, version=2), is_correction=True, actor="test"
        )
    assert (await paying).receipt.charge == Decimal("0.02")


@pytest.mark.parametrize(
    ("changes_count", "is_paid"), [(TERMS_CHANGES_MAX_COUNT - 1, True), (TERMS_CHANGES_MAX_COUNT, False)]
)
async def test_terms_that_change_before_each_commit_end_in_one_debit_or_in_none(
    stack: Stack, monkeypatch: pytest.MonkeyPatch, changes_count: int, is_paid: bool
) -> None:
    gateway, stream = await stack.new_gateway(), stack.new_stream()
    commit, markups = GroupCommit.commit, iter(range(1, changes_count + 1))

    async def overtaken(self: GroupCommit, issuance: Issuance) -> Outcome:
        if (markup_bps := next(markups, None)) is not None:
            async with stack.engine.begin() as connection:
                query = text("UPDATE gateway SET markup_bps = :markup_bps WHERE id = :id")
                await connection.execute(query, {"markup_bps": markup_bps, "id": gateway.id})
        return await commit(self, issuance)

    monkeypatch.setattr(GroupCommit, "commit", overtaken)
    if is_paid:
        receipt = (await stack.pay(gateway, stream)).receipt
        assert receipt.charge == TICKET_CHARGE_USD * (10_000 + changes_count) / 10_000
    else:
        with pytest.raises(RateUnknown, match="changes faster"):
            await stack.pay(gateway, stream)
    assert ((await stack.standing(gateway)).usage_total > 0) is is_paid
