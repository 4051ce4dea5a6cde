"""Issuances to export, of both ways in and with the texts that callers may send."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from uuid import UUID

from hypothesis import strategies as st

from clearinghouse.issuances import Issuance
from clearinghouse.ledger.money import EXACT
from clearinghouse.rates.units import Per

BEGIN = datetime(2026, 10, 1, tzinfo=UTC)


def issuance(number: int = 0, *, app: str = "acme-app", by_webhook: bool = False) -> Issuance:
    return Issuance(
        id=UUID(int=2**100 + number), session_id=UUID(int=number // 20), key_id=UUID(int=7), num_tickets=number % 5 + 1,
        ev_wei=10**15 + number, fee_wei=-3, charge=Decimal("0.0034") + EXACT.scaleb(Decimal(number), -34),
        currency="EUR", price=Decimal("3012.123456789012"), price_source="chainlink",
        price_observed_at=BEGIN - timedelta(seconds=3), markup_bps=1500, balance_after=Decimal("-1.5"),
        created_at=BEGIN + timedelta(seconds=number, microseconds=1), manifest_id=f"stream-{number // 20}", app=app,
        job_type="lv2v", pipeline="live-video-to-video", model="sdxl", orchestrator=bytes([number // 7 % 50]) * 20,
        recipient=None if by_webhook else b"\x02" * 20, transcoder="", end_user="=cmd|' /C calc'!A0",
        first_nonce=number, face_value_wei=None if by_webhook else 10**18, win_prob=None if by_webhook else 2**256 - 1,
        rate_card=None, rate_version=None, rate_per=None, quantity=None, rerated_charge=None, rerated_by=None,
    )  # fmt: skip


def many(count: int) -> Iterator[Issuance]:
    return (issuance(number, by_webhook=number % 3 == 0) for number in range(count))


texts = st.text(st.characters(codec="utf-8"), max_size=30)
wei = st.integers(0, 10**38 - 1)
amounts = st.decimals(0, 10**12, allow_nan=False, allow_infinity=False, places=34)
instants = st.datetimes(datetime(2000, 1, 1), datetime(2100, 1, 1), timezones=st.just(UTC))  # noqa: DTZ001
issuances = st.builds(
    Issuance, id=st.uuids(), session_id=st.uuids(), key_id=st.uuids(), num_tickets=st.integers(1, 2**31 - 1),
    ev_wei=wei, fee_wei=wei | wei.map(lambda amount: -amount), charge=amounts, currency=st.just("USD"), price=amounts,
    price_source=texts, price_observed_at=instants, markup_bps=st.integers(0, 10**6),
    balance_after=amounts | amounts.map(Decimal.copy_negate), created_at=instants, manifest_id=texts, app=texts,
    job_type=texts, pipeline=texts, model=texts, orchestrator=st.binary(min_size=20, max_size=20),
    recipient=st.none() | st.binary(min_size=20, max_size=20), transcoder=texts, end_user=texts,
    first_nonce=st.integers(0, 2**32 - 1), face_value_wei=st.none() | st.integers(0, 2**256 - 1),
    win_prob=st.none() | st.integers(0, 2**256 - 1), rate_card=st.none() | st.just("standard"),
    rate_version=st.none() | st.integers(1, 2**31 - 1), rate_per=st.none() | st.sampled_from([*map(str, Per)]),
    quantity=st.none() | st.integers(0, 2**64), rerated_charge=st.none() | amounts,
    rerated_by=st.none() | st.just("standard@2"),
)  # fmt: skip
