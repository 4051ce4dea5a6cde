"""The made-up orchestrator: its offer decodes, is acceptable, and costs what its module says."""

from __future__ import annotations

from fractions import Fraction

import pytest

from chain.fees import billable_units, fee_wei, tickets_needed
from chain.messages import decode_orchestrator_info
from chain.tickets import batch_ev_wei, recipient_rand_hash, ticket_ev
from clearinghouse.config_chain import EscrowSettings
from clearinghouse.demo_orchestrator import (
    FACE_VALUE_WEI,
    PRICES,
    TICKET_EV_WEI,
    WIN_PROB,
    demo_orchestrator_info,
)


def info_bytes(job_type: str = "fixed", *, recipient_rand: int = 7) -> bytes:
    return demo_orchestrator_info(
        job_type, recipient_rand=recipient_rand, seed=2**256 - 1, session_id="c0ffee", now_unix_s=1_800_000_000
    )


def test_the_offer_decodes_to_what_was_meant() -> None:
    info = decode_orchestrator_info(info_bytes())
    params = info.ticket_params
    assert params is not None
    assert (params.face_value_wei, params.win_prob, params.seed) == (10**16, WIN_PROB, 2**256 - 1)
    assert params.recipient_rand_hash == recipient_rand_hash(7)
    assert (params.creation_round, params.creation_round_block_hash) == (0, bytes(32)), "the signer takes its own"
    assert params.expiration_block > EscrowSettings().last_seen_l1_block
    assert info.auth_token_expiration_unix_s == 1_800_000_000 + 30 * 60


def test_two_sessions_have_different_ticket_parameters() -> None:
    assert info_bytes(recipient_rand=1) != info_bytes(recipient_rand=2)


def test_every_batch_is_charged_in_whole_tickets() -> None:
    assert [batch_ev_wei(FACE_VALUE_WEI, WIN_PROB, n) for n in range(101)] == [n * TICKET_EV_WEI for n in range(101)]


@pytest.mark.parametrize(("job_type", "tickets"), [("fixed", 1), ("live", 5), ("lv2v", 30)])
def test_the_first_payment_takes_a_few_tickets(job_type: str, tickets: int) -> None:
    fee = fee_wei(billable_units(job_type, 0, 0), PRICES[job_type])
    assert tickets_needed(balance=Fraction(0), fee=fee, ev=ticket_ev(FACE_VALUE_WEI, WIN_PROB)) == tickets


def test_a_fixed_call_takes_one_ticket_however_many_went_before() -> None:
    balance, ev, fee = Fraction(0), ticket_ev(FACE_VALUE_WEI, WIN_PROB), fee_wei(1, PRICES["fixed"])
    for _ in range(1000):
        assert tickets_needed(balance=balance, fee=fee, ev=ev) == 1
        balance += ev - fee
