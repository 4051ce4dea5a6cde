"""What a correct signer answers is accepted, with exactly the fee it took; a state beside it is not."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chain.messages import Price, decode_base64, decode_orchestrator_info, encode_base64
from chain.payment_state import PaymentState, decode_state, encode_state
from chain.pb import lp_rpc_pb2 as pb
from clearinghouse.errors import SignerAnswerInvalid
from clearinghouse.verification import SignedPayment, verify_answer
from tests.clearinghouse.histories import AUTH_ID, PLANS, Answered, Plan, Step, history_of
from tests.clearinghouse.signers.calls import KEY

S = 10**9
SKEW_NS = 30 * S


def verified(
    answered: Answered, body: bytes | None = None, *, ahead_ns: int = 0, recovers: bool = True
) -> SignedPayment:
    """`ahead_ns`: how far our clock is ahead of the signer's."""
    return verify_answer(
        answered.body if body is None else body,
        answered.request,
        sender=KEY.address,
        auth_id=AUTH_ID,
        base=answered.base,
        first_nonce=answered.first_nonce,
        recover_signatures=recovers,
        now_unix_ns=answered.now_unix_ns + ahead_ns,
    )


def with_state(body: bytes, change: Callable[[PaymentState], PaymentState]) -> bytes:
    """The same tickets with another state, signed by the signer's own key."""
    document = json.loads(body)
    state = encode_state(change(decode_state(decode_base64(document["state"]["State"]))))
    document["state"] = {"State": encode_base64(state), "Sig": encode_base64(KEY.eth_sign(state))}
    return json.dumps(document).encode()


@settings(max_examples=150)
@given(PLANS, st.integers(-SKEW_NS, SKEW_NS))
def test_whatever_a_correct_signer_answers_is_accepted_with_the_fee_it_took(plan: Plan, ahead_ns: int) -> None:
    """Every type, fresh parameters, falling prices, preloads, states in local time, and a clock off by up to 30 s."""
    for answered in history_of(plan):
        signed = verified(answered, ahead_ns=ahead_ns)
        payment, before = signed.payment, answered.base.balance if answered.base is not None else None
        assert signed.state.balance is not None
        value = Fraction(signed.num_tickets * payment.face_value_wei * payment.win_prob, 2**256 - 1)
        fee = value - signed.state.balance + (before or 0)
        assert abs(signed.fee_wei - fee) <= Fraction(1, 2)
        assert signed.fee_wei >= fee or signed.fee_wei > fee - Fraction(1, 2)


@settings(max_examples=50)
@given(PLANS, st.fractions(-(10**30), 10**30, max_denominator=10**40).filter(bool))
def test_no_other_balance_is_accepted(plan: Plan, off_wei: Fraction) -> None:
    for answered in history_of(plan):
        for wei in (off_wei, Fraction(1), Fraction(-1)):
            body = with_state(answered.body, lambda state, wei=wei: state._replace(balance=(state.balance or 0) + wei))  # type: ignore[misc]
            with pytest.raises(SignerAnswerInvalid, match="another Balance"):
                verified(answered, body)


def history(job_type: str) -> list[Answered]:
    step = Step(elapsed_ns=5 * S, in_pixels=500_000, refreshes=False, price_percent=100, zone_min=0)
    answers = list(history_of(Plan(job_type, (10**9 + 7, 3), 300, 10**18 - 1, (step,) * 2)))
    assert len(answers) == 2
    return answers


def moved(ns: int) -> Callable[[PaymentState], PaymentState]:
    return lambda state: state._replace(last_update_unix_ns=(state.last_update_unix_ns or 0) + ns)


CHANGES: dict[str, tuple[Callable[[PaymentState], PaymentState], str]] = {
    "a numerator of 400 digits": (lambda state: state._replace(balance=Fraction(10**399)), "another Balance"),
    "a denominator of 400 digits": (lambda state: state._replace(balance=Fraction(1, 10**399)), "another Balance"),
    "digits beyond any balance": (lambda state: state._replace(balance=Fraction(10**801)), "cannot be read"),
    "a negative balance": (lambda state: state._replace(balance=Fraction(-1)), "another Balance"),
    "no balance": (lambda state: state._replace(balance=None), "no Balance"),
    "another first price": (
        lambda state: state._replace(initial_price=Price(state.initial_price.price_per_unit * 2, 6)),
        "another InitialPrice",
    ),
    "no first price": (lambda state: state._replace(initial_price=Price(0, 0)), "another InitialPrice"),
    "a clock of yesterday": (moved(-86_400 * S), "LastUpdate"),
    "a clock of tomorrow": (moved(86_400 * S), "LastUpdate"),
    "no time": (lambda state: state._replace(last_update_unix_ns=None), "no LastUpdate"),
    "an expiry": (lambda state: state._replace(auth_expiry_unix_s=4_000_000_000), "another AuthExpiry"),
}


@pytest.mark.parametrize("job_type", ["live", "lv2v", "fixed", ""])
@pytest.mark.parametrize("name", CHANGES)
def test_a_state_that_does_not_follow_is_refused_by_name(name: str, job_type: str) -> None:
    change, words = CHANGES[name]
    for answered in history(job_type):
        verified(answered)
        with pytest.raises(SignerAnswerInvalid, match=words):
            verified(answered, with_state(answered.body, change))


@pytest.mark.parametrize("job_type", ["live", "lv2v"])
def test_a_clock_that_ran_backward_is_refused_where_time_is_billed(job_type: str) -> None:
    """The reference would bill its preload once more."""
    _, second = history(job_type)
    with pytest.raises(SignerAnswerInvalid, match="before the last payment's"):
        verified(second, with_state(second.body, moved(-6 * S)))
    with pytest.raises(SignerAnswerInvalid, match="another Balance"):  # within the skew, but billed for another time
        verified(second, with_state(second.body, moved(-2 * S)))


@pytest.mark.parametrize("job_type", ["fixed", ""])
def test_the_clocks_of_two_signers_may_differ_where_no_time_is_billed(job_type: str) -> None:
    _, second = history(job_type)
    verified(second, with_state(second.body, moved(-6 * S)))


@pytest.mark.parametrize("job_type", ["live", "lv2v", "fixed", ""])
def test_the_clock_of_the_signer_may_be_half_a_minute_off_and_no_more(job_type: str) -> None:
    for answered in history(job_type):
        for ahead_ns in (-SKEW_NS, SKEW_NS):
            verified(answered, ahead_ns=ahead_ns)
        for ahead_ns in (-SKEW_NS - 1, SKEW_NS + 1):
            with pytest.raises(SignerAnswerInvalid, match="30 s off"):
                verified(answered, ahead_ns=ahead_ns)


#: A member that nobody knows: no payment is expected to begin with it, so that the whole of it is decoded and compared.
UNKNOWN = b"\x7a\x01x"


def _outcome(answered: Answered, payment: bytes) -> SignedPayment | str:
    document = json.loads(answered.body)
    document["payment"] = encode_base64(payment)
    try:
        signed = verified(answered, json.dumps(document).encode(), recovers=False)
    except SignerAnswerInvalid as refusal:
        return str(refusal)
    assert signed.parts.payment == document["payment"]
    return signed._replace(parts=signed.parts._replace(payment=""))  # the same payment can be encoded in many ways


def test_a_payment_that_is_known_by_its_bytes_is_judged_as_one_that_is_read() -> None:
    """Each byte that all its tickets share, and of some tickets; and the tickets in another order, fewer, or twice."""
    for answered in history("live"):
        payment = decode_base64(json.loads(answered.body)["payment"])
        assert isinstance(_outcome(answered, payment), SignedPayment)
        for at in range(500):
            changed = payment[:at] + bytes([payment[at] ^ 1]) + payment[at + 1 :]
            assert _outcome(answered, changed) == _outcome(answered, UNKNOWN + changed), changed.hex()
        tickets = pb.Payment.FromString(payment)
        for nonces in itertools.product(range(4), repeat=2):
            del tickets.ticket_sender_params[:]
            for nonce in nonces:
                tickets.ticket_sender_params.add(sender_nonce=answered.first_nonce + nonce - 1, sig=bytes(65))
            changed = tickets.SerializeToString()
            assert _outcome(answered, changed) == _outcome(answered, UNKNOWN + changed), nonces


def test_a_payment_by_another_offer_than_was_asked_for_is_refused_by_name_though_it_is_known() -> None:
    first, _ = history("live")
    other = decode_orchestrator_info(_with_seed(first.request.info.encoded, b"\x77").SerializeToString())
    verified(first)
    asked = replace(first, request=replace(first.request, info=other))
    with pytest.raises(SignerAnswerInvalid, match="another seed than was asked for"):
        verified(asked)


def _with_seed(offer: bytes, seed: bytes) -> pb.OrchestratorInfo:
    changed = pb.OrchestratorInfo.FromString(offer)
    changed.ticket_params.seed = seed
    return changed
