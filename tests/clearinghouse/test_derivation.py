"""Tickets, fee and value between two states: the protocol's own numbers, and whatever a correct signer signs."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chain.messages import Price, decode_base64, decode_payment
from chain.payment_state import PaymentState, decode_state
from chain.shallow_json import loads
from chain.tickets import WIN_PROB_CERTAIN, ticket_ev
from clearinghouse.derivation import (
    CLOCK_SKEW_MAX_NS,
    DerivationError,
    Fee,
    derive,
    fee_of,
    require_clock,
    require_follows,
    work_of,
)
from tests.chain.vectors import OURS, PROTOCOL, load
from tests.clearinghouse.histories import PLANS, Answered, Plan, Step, history_of

S = 10**9
NOW_UNIX_NS = 1_775_592_000_123_456_789
FIRST = PaymentState(
    state_id="f1405ced",
    pm_session_id=b"\x01" * 32,
    last_update_unix_ns=NOW_UNIX_NS,
    orchestrator_address=b"\x02" * 20,
    app="",
    auth_expiry_unix_s=0,
    sender_nonce=1,
    balance=Fraction(5),
    initial_price=Price(3, 1),
    type="live",
    sequence_number=0,
    auth_id="",
)


def fee_between(state: PaymentState, base: PaymentState | None, *, in_pixels: int) -> Fee:
    return fee_of(state, work_of(state, base, in_pixels=in_pixels))


def after(state: PaymentState, *, seconds: int, tickets: int, balance: str, **changes: Any) -> PaymentState:
    assert state.last_update_unix_ns is not None
    return state._replace(
        last_update_unix_ns=state.last_update_unix_ns + seconds * S,
        sender_nonce=state.sender_nonce + tickets,
        balance=Fraction(balance),
        sequence_number=state.sequence_number + 1,
        **changes,
    )


# --- section 5.7 ------------------------------------------------------------------------------------------------------


#: The first state of the reference's LV2V case: its test sends pixels and no type.
LV2V = FIRST._replace(type="", initial_price=Price(150, 175), sender_nonce=25, balance=Fraction(125, 7))


def test_the_references_lv2v_case_follows_from_its_pixels() -> None:
    """EV 35: 25 tickets pay 6000/7 and leave 125/7; then 61 pay 15000/7 at the first price and leave 10."""
    first = LV2V
    fee = fee_between(first, None, in_pixels=1000)
    assert (Fraction(*fee), fee.wei) == (Fraction(6000, 7), 857)
    require_follows(first, None, fee=fee, num_tickets=25, face_value_wei=175, win_prob=WIN_PROB_CERTAIN // 5)
    second = after(first, seconds=0, tickets=61, balance="10")
    fee = fee_between(second, first, in_pixels=2500)
    assert (Fraction(*fee), fee.wei) == (Fraction(15000, 7), 2143)
    require_follows(second, first, fee=fee, num_tickets=61, face_value_wei=175, win_prob=WIN_PROB_CERTAIN // 5)


@pytest.mark.parametrize("tickets", [1, 24, 26, 100])
def test_another_number_of_tickets_is_refused_even_where_the_balance_agrees(tickets: int) -> None:
    """A number that wrapped around leaves a deficit, and a generous signer would spend the caller's credit."""
    fee = fee_between(LV2V, None, in_pixels=1000)
    state = LV2V._replace(balance=35 * tickets - Fraction(*fee))
    with pytest.raises(DerivationError, match="fewer tickets than due" if tickets < 25 else "more tickets than due"):
        require_follows(state, None, fee=fee, num_tickets=tickets, face_value_wei=175, win_prob=WIN_PROB_CERTAIN // 5)


@pytest.mark.parametrize(("balance", "words"), [(36, "more"), (35, "more"), (-1, "fewer"), (-36, "fewer")])
def test_one_ticket_is_refused_where_none_or_two_are_due(balance: int, words: str) -> None:
    """EV 35, and a fee of 3 that does not matter: the balance before must come to one ticket's value, no further."""
    base = FIRST._replace(balance=Fraction(balance))
    state = after(base, seconds=1, tickets=1, balance=str(balance + 35 - 3))
    assert not _follows(state, base, 1, Fraction(35))
    with pytest.raises(DerivationError, match=f"{words} tickets than due"):
        derive(state, base)
    for right in (0, 34):
        base = FIRST._replace(balance=Fraction(right))
        assert derive(after(base, seconds=1, tickets=1, balance=str(right + 35 - 3)), base).num_tickets == 1


def test_live_bills_ten_seconds_and_then_those_that_passed() -> None:
    """EV 35, price 3: first 30 wei and 5 left; 12 s later 36 wei and 4 left; one ticket each."""
    first = derive(FIRST, None)
    assert (first.first_nonce, first.num_tickets, first.fee.wei, first.ev_wei) == (1, 1, 30, 35)
    second = derive(after(FIRST, seconds=12, tickets=1, balance="4"), FIRST)
    assert (second.first_nonce, second.num_tickets, second.fee.wei, second.ev_wei) == (2, 1, 36, 35)
    assert second.ev_numerator == 35 * WIN_PROB_CERTAIN


def test_fixed_bills_one_unit_a_call_whatever_the_clock_says() -> None:
    state = FIRST._replace(type="fixed", balance=Fraction(0))
    first = derive(state, None)
    assert (first.num_tickets, first.fee.wei, first.ev_wei) == (1, 3, 3)
    for seconds in (0, 3600, -1):
        second = derive(after(state, seconds=seconds, tickets=1, balance="0"), state)
        assert (second.first_nonce, second.num_tickets, second.fee.wei, second.ev_wei) == (2, 1, 3, 3)


def test_lv2v_bills_a_minute_and_then_whole_pixels() -> None:
    """Section 3.1: 60 s preload, then 141 653 333 pixels for 5.123456789 s."""
    state = FIRST._replace(type="lv2v", initial_price=Price(1, 1), balance=Fraction(0))
    assert fee_between(state, None, in_pixels=7) == Fee(1_658_880_000, 1)
    later = state._replace(last_update_unix_ns=NOW_UNIX_NS + 5_123_456_789)
    assert fee_between(later, state, in_pixels=7) == Fee(141_653_333, 1)


def test_after_a_refresh_the_nonces_begin_at_one_and_the_balance_goes_on() -> None:
    state = after(FIRST, seconds=12, tickets=0, balance="4", pm_session_id=b"\x09" * 32)
    second = derive(state._replace(sender_nonce=1), FIRST)
    assert (second.first_nonce, second.num_tickets, second.ev_wei) == (1, 1, 35)


@pytest.mark.parametrize("file", [OURS, PROTOCOL], ids=["ours", "the protocol's"])
def test_of_the_staged_tickets_of_the_vectors_that_number_alone_follows(file: Path) -> None:
    checked = 0
    for vector in load(file)["stagedTickets"]:
        ev, existing = Fraction(vector["ev"]), Fraction(vector["existing"])
        if not vector["tickets"] or WIN_PROB_CERTAIN % ev.denominator:
            continue
        price = Price(int(vector["minCredit"]), 1)
        base = FIRST._replace(type="fixed", balance=existing, initial_price=price)
        for count in range(1, vector["tickets"] + 3):
            state = base._replace(balance=existing + count * ev - price.price_per_unit)
            assert _follows(state, base, count, ev) == (count == vector["tickets"]), (vector, count)
        checked += 1
    assert checked >= 3


def _follows(state: PaymentState, base: PaymentState, num_tickets: int, ev: Fraction) -> bool:
    fee = fee_between(state, base, in_pixels=0)
    face_value_wei, win_prob = ev.numerator, WIN_PROB_CERTAIN // ev.denominator
    try:
        require_follows(state, base, fee=fee, num_tickets=num_tickets, face_value_wei=face_value_wei, win_prob=win_prob)
    except DerivationError:
        return False
    return True


# --- what a correct signer signs --------------------------------------------------------------------------------------


def _states(answered: Answered) -> tuple[PaymentState, PaymentState | None]:
    return decode_state(decode_base64(loads(answered.body)["state"]["State"])), answered.base


@settings(max_examples=150)
@given(PLANS)
def test_what_a_correct_signer_signs_derives_to_its_tickets(plan: Plan) -> None:
    for answered in history_of(plan):
        state, base = _states(answered)
        payment = decode_payment(loads(answered.body)["payment"])
        count = len(payment.nonces)
        fee = fee_between(state, base, in_pixels=answered.request.in_pixels)
        before = base.balance if base is not None and base.balance is not None else Fraction(0)
        assert state.balance == before + count * ticket_ev(payment.face_value_wei, payment.win_prob) - Fraction(*fee)
        if plan.job_type == "":
            with pytest.raises(DerivationError, match="untyped"):
                derive(state, base)
            continue
        derived = derive(state, base)
        assert (derived.first_nonce, derived.num_tickets, derived.fee) == (payment.nonces[0], count, fee)
        assert derived.ev_numerator == count * payment.face_value_wei * payment.win_prob


def test_the_histories_pay_often_for_every_type_and_with_refreshes() -> None:
    """Otherwise the test above would prove little."""
    step = Step(elapsed_ns=5 * S, in_pixels=500_000, refreshes=False, price_percent=50, zone_min=120)
    steps = (step, step, replace(step, refreshes=True), step)
    for job_type in ("live", "lv2v", "fixed", ""):
        calls = list(history_of(Plan(job_type, (10**9 + 7, 3), 300, 10**18 - 1, steps)))
        assert len(calls) == 4, job_type
        assert [call.first_nonce == 1 for call in calls] == [True, False, True, False]
        assert b"+02:00" in decode_base64(loads(calls[0].body)["state"]["State"])


# --- what does not follow ---------------------------------------------------------------------------------------------

SECOND = after(FIRST, seconds=12, tickets=1, balance="4")
UNLIKE: dict[str, tuple[dict[str, Any], str]] = {
    "a gap": ({"sequence_number": 2}, "SequenceNumber"),
    "a repeat": ({"sequence_number": 0}, "SequenceNumber"),
    "another StateID": ({"state_id": "0"}, "StateID"),
    "another orchestrator": ({"orchestrator_address": bytes(20)}, "OrchestratorAddress"),
    "another app": ({"app": "b"}, "App"),
    "another type": ({"type": "lv2v"}, "Type"),
    "another first price": ({"initial_price": Price(6, 2)}, "InitialPrice"),
    "an expiry": ({"auth_expiry_unix_s": 2**40}, "AuthExpiry"),
    "no ticket": ({"sender_nonce": 1}, "0 tickets"),
    "fewer nonces than before": ({"sender_nonce": 0}, "-1 tickets"),
    "101 tickets": ({"sender_nonce": 102}, "101 tickets"),
    "no balance": ({"balance": None}, "no Balance"),
    "no time": ({"last_update_unix_ns": None}, "no LastUpdate"),
    "a time before": ({"last_update_unix_ns": NOW_UNIX_NS - 1}, "before"),
    "a negative balance": ({"balance": Fraction(-1)}, "fewer tickets than due"),
    "tickets without value": ({"balance": Fraction(-31)}, "without value"),
    "less than nothing": ({"balance": Fraction(-(10**399))}, "without value"),
    "a balance of 400 digits": ({"balance": Fraction(10**399)}, "no 1 equal tickets"),
    "a fraction that no ticket has": ({"balance": Fraction(4) + Fraction(1, 2**300)}, "no 1 equal tickets"),
}


@pytest.mark.parametrize("name", UNLIKE)
def test_a_state_that_does_not_follow_is_refused_by_name(name: str) -> None:
    changes, words = UNLIKE[name]
    with pytest.raises(DerivationError, match=words):
        derive(SECOND._replace(**changes), FIRST)


@pytest.mark.parametrize(
    "changes", [{"sequence_number": 1}, {"auth_expiry_unix_s": 1}, {"sender_nonce": 0}, {"type": "bogus"}]
)
def test_a_first_state_begins_at_zero(changes: dict[str, Any]) -> None:
    with pytest.raises(DerivationError):
        derive(FIRST._replace(**changes), None)


@pytest.mark.parametrize("price", [Price(0, 1), Price(1, 0), Price(-1, -1), Price(-1, 1), Price(1, -1)])
def test_a_price_that_is_not_positive_bills_nothing(price: Price) -> None:
    with pytest.raises(DerivationError, match="InitialPrice"):
        fee_between(FIRST._replace(initial_price=price), None, in_pixels=1)


def test_less_than_a_pixel_of_time_is_no_call() -> None:
    state = FIRST._replace(type="lv2v")
    later = state._replace(last_update_unix_ns=NOW_UNIX_NS + 36)
    with pytest.raises(DerivationError, match="no unit"):
        fee_between(later, state, in_pixels=1)


@pytest.mark.parametrize("wei", [1, -1, Fraction(1, 10**30), 10**399, -(10**399)])
def test_a_balance_one_wei_or_less_beside_the_right_one_is_refused(wei: Fraction) -> None:
    fee = fee_between(SECOND, FIRST, in_pixels=0)
    how: dict[str, Any] = {"fee": fee, "num_tickets": 1, "face_value_wei": 175, "win_prob": WIN_PROB_CERTAIN // 5}
    require_follows(SECOND, FIRST, **how)
    with pytest.raises(DerivationError, match="another Balance"):
        require_follows(SECOND._replace(balance=4 + wei), FIRST, **how)


@pytest.mark.parametrize("off_ns", [0, 1, CLOCK_SKEW_MAX_NS])
def test_a_clock_may_be_off_by_the_skew_either_way_and_no_more(off_ns: int) -> None:
    for sign in (1, -1):
        require_clock(FIRST, now_unix_ns=NOW_UNIX_NS + sign * off_ns)
        with pytest.raises(DerivationError, match="30 s off"):
            require_clock(FIRST, now_unix_ns=NOW_UNIX_NS + sign * (CLOCK_SKEW_MAX_NS + 1 + off_ns))


def test_a_state_without_a_time_has_no_clock() -> None:
    with pytest.raises(DerivationError, match="no LastUpdate"):
        require_clock(FIRST._replace(last_update_unix_ns=None), now_unix_ns=NOW_UNIX_NS)


@given(st.integers(0, 10**40), st.integers(1, 10**20))
def test_a_fee_is_rounded_half_away_from_zero(numerator: int, denominator: int) -> None:
    exact = Fraction(numerator, denominator)
    assert Fee(numerator, denominator).wei == int(exact + Fraction(1, 2))
