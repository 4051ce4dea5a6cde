"""Fees: what is offered first, what replaces it, and that no cap is ever passed."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chain.gas import FeeCaps, TooExpensive, first_fees, gas_limit, raised_fees
from chain.transactions import Fees

GWEI = 10**9
CAPS = FeeCaps(
    max_per_gas_wei=10 * GWEI, priority_max_per_gas_wei=GWEI, priority_wanted_wei=GWEI // 100,
    gas_limit_max_count=1_000_000,
)  # fmt: skip
FEES = st.integers(0, 20 * GWEI)


def test_the_first_offer_is_twice_the_base_fee_and_the_priority() -> None:
    assert first_fees(GWEI, CAPS) == Fees(2 * GWEI + GWEI // 100, GWEI // 100)


def test_the_first_offer_is_lower_near_the_cap_and_there_is_none_beyond() -> None:
    assert first_fees(9 * GWEI, CAPS).max_per_gas_wei == 10 * GWEI
    with pytest.raises(TooExpensive, match="at most 10000000000"):
        first_fees(10 * GWEI, CAPS)


@given(FEES, FEES, FEES)
def test_a_replacement_offers_an_eighth_more_of_both_and_nothing_beyond_the_caps(a: int, b: int, base: int) -> None:
    before = Fees(max(a, b), min(a, b))
    try:
        after = raised_fees(before, base, CAPS)
    except TooExpensive:
        highest = (CAPS.max_per_gas_wei, CAPS.priority_max_per_gas_wei)
        assert any(8 * cap < 9 * was or cap == was for cap, was in zip(highest, before, strict=True))
        return
    for now, was in zip(after, before, strict=True):
        assert 8 * now >= 9 * was
        assert now > was
    assert after.max_per_gas_wei <= CAPS.max_per_gas_wei
    assert after.priority_per_gas_wei <= CAPS.priority_max_per_gas_wei
    assert after.max_per_gas_wei >= after.priority_per_gas_wei


def test_a_replacement_follows_a_base_fee_that_rose() -> None:
    assert raised_fees(first_fees(GWEI, CAPS), 4 * GWEI, CAPS).max_per_gas_wei > 8 * GWEI


def test_a_quarter_more_gas_than_estimated_is_allowed_for() -> None:
    assert gas_limit(100_001, CAPS) == 125_002
    with pytest.raises(TooExpensive, match="1000000 is allowed"):
        gas_limit(800_001, CAPS)
