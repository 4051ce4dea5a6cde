"""Statements to test with, written out and drawn at random."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any

from hypothesis import strategies as st

from clearinghouse.ledger.money import EXACT, exact_sum
from settlement.currencies import account_currency
from settlement.statements.statement import Demand, Movement, Party, Span, Statement, UsageLine

OCTOBER = Span(datetime(2026, 9, 30, 22, tzinfo=UTC), datetime(2026, 10, 31, 23, tzinfo=UTC), "Europe/Berlin")
LINES = (
    UsageLine("acme-app", "live-video-to-video", Decimal("61.20394857102938471234"), 20_393_485_710_293_847, 1204,
              Decimal(86400), "seconds", "streamdiffusion-sdxl", "standard"),
    UsageLine("acme-app", "transcode", Decimal("12.005"), 4_001_666_666_666_667, 88, Decimal("55296000000"), "pixels"),
    UsageLine("", "text-to-image", Decimal("0.0449"), 14_966_666_666_667, 3, Decimal(3), "requests", "flux"),
)  # fmt: skip
MOVEMENTS = (
    Movement(datetime(2026, 10, 2, 8, 30, tzinfo=UTC), "top_up", Decimal(100), "pi_3Q", "card ending in 4242"),
    Movement(datetime(2026, 10, 20, tzinfo=UTC), "expiry", Decimal("-4.5"), "tr_018f", "granted credit expired unused"),
)


def example(**changes: Any) -> Statement:
    """October of a gateway. The closing balance follows from the rest unless it is given."""
    given = {
        "number": "ST-acme-2026-10",
        "issuer": Party("Example Clearinghouse Ltd", ("1 Lock Street, Bristol", "VAT GB 123 4567 89")),
        "customer": Party("Acme Streaming GmbH", ("Große Straße 1, 10115 Berlin", "DE123456789")),
        "period": OCTOBER,
        "issued_at": datetime(2026, 11, 1, 6, tzinfo=UTC),
        "currency": account_currency("EUR"),
        "opening": Decimal("20.125"),
        "movements": MOVEMENTS,
        "lines": LINES,
    } | changes
    if "closing" not in given:
        parts = [given["opening"], *(movement.amount for movement in given["movements"])]
        given["closing"] = exact_sum([*parts, *(line.amount.copy_negate() for line in given["lines"])])
    return Statement(**given)


def invoice() -> Statement:
    demand = Demand(
        (("Usage of the period", Decimal("73.25")), ("VAT 19 %", Decimal("13.92")), ("From September", Decimal("0.3"))),
        Decimal("87.47"), date(2026, 11, 15), ("IBAN DE02 1203 0000 0000 2020 51", "BIC BYLADEM1001"), "PO-7731",
    )  # fmt: skip
    return replace(example(), number="INV-2026-0042", demand=demand)


CURRENCIES = [account_currency(code) for code in ("USD", "JPY", "KWD", "ISK", "ETH", "USDC")]

texts = st.text(st.characters(codec="utf-8"), max_size=40)
amounts = st.decimals(-(10**12), 10**12, allow_nan=False, allow_infinity=False, places=34).map(
    EXACT.plus
) | st.decimals(-100, 100, places=4)
instants = st.integers(0, int((OCTOBER.end - OCTOBER.begin) / timedelta(microseconds=1)) - 1).map(
    lambda microseconds: OCTOBER.begin + timedelta(microseconds=microseconds)
)
movements = st.builds(
    Movement, instants, st.sampled_from(["top_up", "grant", "expiry", "refund"]), amounts, texts, texts
)
lines = st.builds(
    UsageLine, app=texts, pipeline=texts, amount=amounts.map(abs), ev_wei=st.integers(0, 2**256 - 1),
    calls=st.integers(0, 10**9), quantity=st.decimals(0, 10**15, places=6), unit=texts, model=texts, rate=texts,
)  # fmt: skip


@st.composite
def statements(draw: st.DrawFn) -> Statement:
    return example(
        customer=draw(st.builds(Party, texts, st.lists(texts, max_size=3).map(tuple))),
        opening=draw(amounts),
        movements=tuple(draw(st.lists(movements, max_size=8))),
        lines=tuple(draw(st.lists(lines, max_size=8))),
        currency=draw(st.sampled_from(CURRENCIES)),
        locale=draw(st.sampled_from(["en", "de-CH", "fr", "hi-IN", "sv", "xx"])),
    )
