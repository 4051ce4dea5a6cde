"""The fee that is read out of a signer's states, against the same sum in fractions."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

from hypothesis import given
from hypothesis import strategies as st

from chain.messages import Payment, Price
from chain.payment_state import PaymentState
from clearinghouse.verification import _fee_wei

STATE = PaymentState(
    state_id="f1405ced",
    pm_session_id=bytes(32),
    last_update_unix_ns=0,
    orchestrator_address=bytes(20),
    app="",
    auth_expiry_unix_s=0,
    sender_nonce=1,
    balance=None,
    initial_price=Price(1, 1),
    type="",
    sequence_number=0,
    auth_id="",
)
BALANCES = st.one_of(st.none(), st.fractions(-(10**20), 10**20, max_denominator=10**18))


def payment(count: int, face_value_wei: int, win_prob: int) -> Payment:
    return Payment(
        sender=bytes(20),
        recipient=bytes(20),
        face_value_wei=face_value_wei,
        win_prob=win_prob,
        recipient_rand_hash=bytes(32),
        seed=0,
        expiration_block=1,
        creation_round=1,
        creation_round_block_hash=bytes(32),
        expected_price=Price(1, 1),
        nonces=tuple(range(1, count + 1)),
        signatures=(bytes(65),) * count,
    )


@given(
    before=BALANCES,
    after=BALANCES,
    count=st.integers(1, 100),
    face_value_wei=st.integers(0, 10**18),
    win_prob=st.integers(0, 2**256 - 1),
)
def test_the_recorded_fee_is_what_explains_the_balances(
    before: Fraction | None, after: Fraction | None, count: int, face_value_wei: int, win_prob: int
) -> None:
    """Spec 3.5: n·EV = B' - B + fee; recorded in whole wei, half away from zero."""
    fee = _fee_wei(
        payment(count, face_value_wei, win_prob), replace(STATE, balance=after), replace(STATE, balance=before)
    )
    exact = Fraction(count * face_value_wei * win_prob, 2**256 - 1) - (after or 0) + (before or 0)
    assert abs(fee - exact) <= Fraction(1, 2)
    assert abs(fee) >= abs(exact) or abs(fee - exact) < Fraction(1, 2)
