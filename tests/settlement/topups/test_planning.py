"""What is paid in, decided: never beyond the advice, the caps or what is missing."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chain.funding import Amounts
from chain.quorum import Block
from chain.wallet_chain import WalletReading
from settlement.topups.conditions import Condition, TopupRefused
from settlement.topups.planning import Advice, Rules, amounts_due, require_fresh, require_sendable, require_within

NOW = datetime(2026, 11, 21, 12, tzinfo=UTC)
RULES = Rules(transaction_max_wei=500, day_max_wei=1000, amount_min_wei=10, advice_max_age_s=300)
ADVICE = Advice(b"s" * 20, NOW, 7, simulated=False, deposit_wei=100, reserve_wei=50, top_up=Amounts(300, 200))
HERE = WalletReading(
    block=Block(bytes(32), 7, 7, 0), ticket_broker=b"b" * 20, base_fee_wei=1, balance_wei=10**6, nonce=3,
    pending_nonce=3, deposit_wei=100, reserve_wei=50, withdraw_round=0,
)  # fmt: skip
WEI = st.integers(0, 2000)
AMOUNTS = st.builds(Amounts, WEI, WEI)


def refusal(error: pytest.ExceptionInfo[TopupRefused]) -> Condition:
    return error.value.condition


@given(top_up=AMOUNTS, was=AMOUNTS, has=AMOUNTS, day_wei=WEI)
def test_no_amount_passes_what_is_missing_what_is_advised_or_a_cap(
    top_up: Amounts, was: Amounts, has: Amounts, day_wei: int
) -> None:
    advice = replace(ADVICE, top_up=top_up, deposit_wei=was.deposit_wei, reserve_wei=was.reserve_wei)
    standing = replace(HERE, deposit_wei=has.deposit_wei, reserve_wei=has.reserve_wei)
    needed = Amounts(*(min(max(0, w + t - h), t) for w, t, h in zip(was, top_up, has, strict=True)))
    room_wei = min(RULES.transaction_max_wei, RULES.day_max_wei - day_wei)
    if min(needed.total_wei, room_wei) < RULES.amount_min_wei:
        with pytest.raises(TopupRefused) as caught:
            amounts_due(advice, standing, RULES, day_wei=day_wei)
        is_nothing = needed.total_wei < RULES.amount_min_wei
        assert refusal(caught) is (Condition.NOTHING_DUE if is_nothing else Condition.DAY_CAP)
        return
    due = amounts_due(advice, standing, RULES, day_wei=day_wei)
    assert due.reserve_wei == min(needed.reserve_wei, room_wei)  # it comes first
    assert due.deposit_wei == min(needed.deposit_wei, room_wei - due.reserve_wei)


def test_a_deposit_that_shrank_since_is_not_filled_up_beyond_the_advice() -> None:
    """What was taken were open tickets, which the advice had counted."""
    assert amounts_due(ADVICE, replace(HERE, deposit_wei=0), RULES, day_wei=0) == Amounts(300, 200)


@pytest.mark.parametrize(
    ("advice", "condition"),
    [
        (None, Condition.NO_ADVICE),
        (replace(ADVICE, simulated=True), Condition.SIMULATED),
        (replace(ADVICE, block_number=None), Condition.SIMULATED),
        (replace(ADVICE, observed_at=NOW - timedelta(seconds=301)), Condition.ADVICE_STALE),
        (replace(ADVICE, observed_at=NOW + timedelta(seconds=301)), Condition.ADVICE_STALE),
        (replace(ADVICE, block_number=6), Condition.ADVICE_AWAITED),
    ],
)
def test_advice_that_may_not_be_followed_is_named(advice: Advice | None, condition: Condition) -> None:
    with pytest.raises(TopupRefused) as caught:
        require_fresh(advice, NOW, RULES, funded_block=7)
    assert refusal(caught) is condition


def test_fresh_advice_is_followed() -> None:
    at_the_edge = replace(ADVICE, observed_at=NOW - timedelta(seconds=300))
    assert require_fresh(at_the_edge, NOW, RULES, funded_block=7) == at_the_edge
    assert require_fresh(ADVICE, NOW, RULES, funded_block=None) == ADVICE


@pytest.mark.parametrize(
    ("standing", "nonce_next", "condition"),
    [
        (replace(HERE, withdraw_round=1), 0, Condition.UNLOCKED),
        (HERE, 4, Condition.NONCE_BEHIND),
        (replace(HERE, pending_nonce=4), 0, Condition.WALLET_BUSY),
    ],
)
def test_a_wallet_or_an_escrow_in_an_odd_state_is_left_alone(
    standing: WalletReading, nonce_next: int, condition: Condition
) -> None:
    with pytest.raises(TopupRefused) as caught:
        require_sendable(standing, payer=b"p" * 20, nonce_next=nonce_next)
    assert refusal(caught) is condition
    require_sendable(HERE, payer=b"p" * 20, nonce_next=3)


@pytest.mark.parametrize(
    ("amounts", "day_wei", "condition"),
    [
        (Amounts(0, 0), 0, Condition.NOTHING_DUE),
        (Amounts(400, 101), 0, Condition.TRANSACTION_CAP),
        (Amounts(100, 0), 901, Condition.DAY_CAP),
    ],
)
def test_amounts_that_somebody_named_keep_to_the_caps_too(amounts: Amounts, day_wei: int, condition: Condition) -> None:
    with pytest.raises(TopupRefused) as caught:
        require_within(amounts, RULES, day_wei=day_wei)
    assert refusal(caught) is condition
    assert require_within(Amounts(1, 0), RULES, day_wei=0) == Amounts(1, 0)  # small, and somebody wants it


@pytest.mark.parametrize("condition", list(Condition))
def test_every_refusal_says_what_to_do(condition: Condition) -> None:
    refused = TopupRefused(condition, "because")
    assert refused.what_next.endswith(".")
    assert refused.message == f"{condition.value}: because"
