"""Promises 2 and 6: a charge is n·EV of the released tickets, rounded up to a wei once, priced exactly."""

from __future__ import annotations

import base64
from collections.abc import AsyncIterator
from decimal import Decimal
from fractions import Fraction
from math import ceil
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from chain.pb import lp_rpc_pb2 as net
from tests.parts.client import Answer
from tests.parts.service import EUR_PER_ETH, House, Service, running
from tests.parts.stack import TICKET_CHARGE_USD, USD_PER_ETH

PRICES = {"USD": USD_PER_ETH, "EUR": EUR_PER_ETH, "ETH": Decimal(1)}
RICH = Decimal(10**6)


@pytest.fixture
async def service(database: str) -> AsyncIterator[Service]:
    """With face values up to the whole deposit: arithmetic must be exact far beyond what is sensible."""
    async with running(database, policy={"face_value_divisor_count": 1}) as service:
        yield service
        await service.house.require_sound_books()


def owed(payment: net.Payment, *, currency: str, markup_bps: int, minimum: Decimal) -> Fraction:
    """By the book, with fractions and nothing of ours: the tickets as the orchestrator will read them."""
    params = payment.ticket_params
    face_value_wei, win_prob = (int.from_bytes(number, "big") for number in (params.face_value, params.win_prob))
    exact_ev_wei = len(payment.ticket_sender_params) * Fraction(face_value_wei * win_prob, 2**256 - 1)
    price = Fraction(PRICES[currency]) / 10**18
    return max(ceil(exact_ev_wei) * price * Fraction(10_000 + markup_bps, 10_000), Fraction(minimum))


def payment_of(answer: Answer) -> net.Payment:
    return net.Payment.FromString(base64.b64decode(answer.json["payment"]))


def charge_of(answer: Answer, currency: str) -> Decimal:
    amount, _, unit = (answer.header("clearinghouse-charge") or "").partition(" ")
    assert unit == currency
    return Decimal(amount)


def minimal(number: int) -> bytes:
    return number.to_bytes((number.bit_length() + 7) // 8, "big")


@given(
    face_value_wei=st.integers(10**3, 10**19),
    ev_wei=st.integers(1, 3 * 10**12 - 1),
    crumbs=st.integers(0, 2**180),
    per_unit=st.integers(1, 10**13),
    units=st.integers(1, 10**7),
    currency=st.sampled_from(sorted(PRICES)),
    markup_bps=st.sampled_from([0, 1, 333, 2500, 10_000, 1_000_000]),
    minimum=st.sampled_from(["0", "0.000000000001", "0.01", "7"]),
)
@example(10**18, 1, 1, 1, 1, "USD", 1_000_000, "0")
@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
async def test_a_charge_equals_the_independent_computation_to_the_last_digit(  # noqa: PLR0917 (hypothesis names them)
    service: Service,
    face_value_wei: int,
    ev_wei: int,
    crumbs: int,
    per_unit: int,
    units: int,
    currency: str,
    markup_bps: int,
    minimum: str,
) -> None:
    stream = service.new_stream()
    params, price = stream.offer.ticket_params, stream.offer.price_info
    win_prob = min(ev_wei * (2**256 - 1) // face_value_wei + crumbs, 2**255)
    params.face_value, params.win_prob = minimal(face_value_wei), minimal(win_prob)
    price.pricePerUnit, price.pixelsPerUnit = per_unit, units
    gateway = await service.house.new_gateway(
        credit=RICH, currency=currency, markup_bps=markup_bps, minimum_charge=Decimal(minimum)
    )
    answer = await service.sign(gateway, stream.body())
    left = service.house.sums(gateway).balance
    if answer.status != 200:
        assert answer.status in (400, 403, 482), answer.body  # too many tickets, too much at once, nothing due
        assert left == RICH
        return
    expected = owed(payment_of(answer), currency=currency, markup_bps=markup_bps, minimum=Decimal(minimum))
    assert Fraction(charge_of(answer, currency)) == expected
    assert Fraction(RICH) - Fraction(left) == expected


@pytest.mark.parametrize("currency", sorted(PRICES))
async def test_many_charges_add_up_without_a_crumb_lost(service: Service, currency: str) -> None:
    gateway = await service.house.new_gateway(credit=Decimal(1), currency=currency, markup_bps=333)
    stream, total = service.new_stream(), Fraction(0)
    stream.offer.ticket_params.win_prob = minimal(2**253 + 12345678901234567890)
    for _ in range(12):
        answer = await service.pay(gateway, stream)
        total += owed(payment_of(answer), currency=currency, markup_bps=333, minimum=Decimal(0))
    sums = service.house.sums(gateway)
    assert Fraction(sums.debited) == Fraction(sums.issued) == total
    assert Fraction(sums.balance) == 1 - total


async def test_a_cheap_fee_does_not_make_an_expensive_ticket_cheap(service: Service) -> None:
    """Spec 10-A1: a session begun and abandoned costs what its ticket is worth, whatever the signer's fee was."""
    gateway = await service.house.new_gateway(tickets=10)
    for _ in range(10):
        stream = service.new_stream()
        stream.offer.price_info.pricePerUnit, stream.offer.price_info.pixelsPerUnit = 1, 2**62
        await service.pay(gateway, stream)
    sums = service.house.sums(gateway)
    assert (sums.tickets, sums.balance) == (10, Decimal(0))
    assert service.house.fetch("SELECT max(fee_wei) FROM issuance") == [(0,)]


async def test_a_markup_or_minimum_changed_between_two_calls_holds_from_the_second(service: Service) -> None:
    house: House = service.house
    gateway = await house.new_gateway(credit=Decimal(10))
    stream = service.new_stream()
    await service.pay(gateway, stream)
    house_change = "UPDATE gateway SET markup_bps = 5000 WHERE id = %s RETURNING id"
    assert house.fetch(house_change, gateway.id)
    await service.pay(gateway, stream)
    assert house.fetch("UPDATE gateway SET minimum_charge = 7 WHERE id = %s RETURNING id", gateway.id)
    await service.pay(gateway, stream)
    records: list[tuple[Any, ...]] = house.fetch("SELECT markup_bps, charge FROM issuance ORDER BY id")
    assert records == [
        (0, TICKET_CHARGE_USD),
        (5000, TICKET_CHARGE_USD * 3 / 2),
        (5000, 7),
    ]
