"""The rules of the policy, at their edges: the last amount that passes and the first that does not."""

from __future__ import annotations

from decimal import Decimal
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chain.escrow import EscrowReading, EscrowUnknown
from chain.messages import Price, TicketParams
from chain.tickets import WIN_PROB_CERTAIN
from clearinghouse.errors import PriceExceeded, RefreshSession, Refusal, RegistryUnknown, TicketNotAllowed, Unavailable
from clearinghouse.gates import Gates
from clearinghouse.policy import (
    Policy,
    Rule,
    require_call,
    require_price,
    require_recipient,
    require_round,
    require_ticket,
)
from clearinghouse.registry import DeclaredRecipients, Registration
from clearinghouse.sessions import NONCES_PER_RAND_MAX
from tests.parts.stack import Clock, Stream, offer

URL = "https://orchestrator.example:8935"
LAST, PREVIOUS, NO_HASH = b"\x51" * 32, b"\x50" * 32, bytes(32)


def params(
    face_value_wei: int = 10**16, win_prob: int = 1, round_: int = 0, block_hash: bytes = NO_HASH
) -> TicketParams:
    return TicketParams(b"\x0a" * 20, face_value_wei, win_prob, b"\x0b" * 32, 0, 0, round_, block_hash)


def escrow(**changes: Any) -> EscrowReading:
    values: dict[str, Any] = {
        "sender": b"\x01" * 20, "deposit_wei": 10**18, "reserve_wei": 0, "claimed_in_round_wei": 0, "withdraw_round": 0,
        "last_initialized_round": 3501, "last_initialized_round_block_hash": LAST, "last_seen_l1_block": 1,
        "observed_at_unix_s": 1, "simulated": True, "previous_initialized_round": 3500,
        "previous_initialized_round_block_hash": PREVIOUS,
    }  # fmt: skip
    return EscrowReading(**values | changes)


def rule_of(refusal: pytest.ExceptionInfo[Refusal]) -> object:
    return refusal.value.facts["rule"]


def test_an_empty_list_allows_everybody_and_a_list_only_those_on_it() -> None:
    one, other = b"\x01" * 20, b"\x02" * 20
    assert DeclaredRecipients([]).find(one) is Registration.ALLOWED
    listed = DeclaredRecipients([one])
    assert (listed.find(one), listed.find(other)) == (Registration.ALLOWED, Registration.NOT_ALLOWED)


def test_a_recipient_is_refused_when_it_is_not_allowed_and_when_nobody_knows() -> None:
    require_recipient(b"\x01" * 20, Registration.ALLOWED)
    with pytest.raises(TicketNotAllowed) as refused:
        require_recipient(b"\x01" * 20, Registration.NOT_ALLOWED)
    assert (rule_of(refused), refused.value.http_status) == (Rule.RECIPIENT, 403)
    with pytest.raises(RegistryUnknown) as unknown:
        require_recipient(b"\x01" * 20, Registration.UNKNOWN)
    assert (unknown.value.http_status, unknown.value.code) == (503, "registry_unknown")
    assert unknown.value.retry_after_s


@pytest.mark.parametrize(
    ("round_", "block_hash", "is_accepted"),
    [
        (3501, LAST, True),
        (3500, PREVIOUS, True),
        (0, LAST, True),
        (3501, NO_HASH, True),
        (0, NO_HASH, True),
        (3501, PREVIOUS, False),
        (3500, LAST, False),
        (3499, b"\x49" * 32, False),
        (3502, LAST, False),
        (-1, LAST, False),
    ],
)
def test_a_round_is_absent_the_last_or_the_previous_with_its_own_hash(
    round_: int, block_hash: bytes, is_accepted: bool
) -> None:
    if is_accepted:
        require_round(params(round_=round_, block_hash=block_hash), escrow(), url=URL)
        return
    with pytest.raises(RefreshSession) as refused:
        require_round(params(round_=round_, block_hash=block_hash), escrow(), url=URL)
    assert (rule_of(refused), refused.value.orchestrator_url) == (Rule.ROUND, URL)


def test_where_no_previous_round_is_known_only_the_last_is_accepted() -> None:
    reading = escrow(previous_initialized_round=None, previous_initialized_round_block_hash=None)
    require_round(params(round_=3501, block_hash=LAST), reading, url=URL)
    with pytest.raises(RefreshSession):
        require_round(params(round_=3500, block_hash=PREVIOUS), reading, url=URL)


def test_a_face_value_may_be_a_fiftieth_of_the_deposit_and_no_wei_more() -> None:
    require_ticket(Policy(), params(face_value_wei=2), 100)
    with pytest.raises(TicketNotAllowed) as refused:
        require_ticket(Policy(), params(face_value_wei=3), 149)
    assert refused.value.facts == {"rule": Rule.FACE_VALUE, "face_value_wei": "3", "max_wei": "2"}


def test_without_a_deposit_only_the_absolute_limit_holds() -> None:
    require_ticket(Policy(), params(face_value_wei=2**255), None)
    require_ticket(Policy(face_value_max_wei=7), params(face_value_wei=7), None)
    with pytest.raises(TicketNotAllowed) as refused:
        require_ticket(Policy(face_value_max_wei=7), params(face_value_wei=8), 10**18)
    assert refused.value.facts["max_wei"] == "7"


@given(
    face_value_wei=st.integers(0, 2**256 - 1), win_prob=st.integers(0, WIN_PROB_CERTAIN), max_wei=st.integers(0, 10**20)
)
def test_a_tickets_expected_value_is_compared_exactly(face_value_wei: int, win_prob: int, max_wei: int) -> None:
    is_too_high = Fraction(face_value_wei * win_prob, WIN_PROB_CERTAIN) > max_wei
    policy = Policy(ticket_ev_max_wei=max_wei)
    if not is_too_high:
        require_ticket(policy, params(face_value_wei, win_prob), None)
        return
    with pytest.raises(TicketNotAllowed) as refused:
        require_ticket(policy, params(face_value_wei, win_prob), None)
    assert rule_of(refused) == Rule.TICKET_EV
    assert int(str(refused.value.facts["ev_wei"])) > max_wei


def test_a_ceiling_holds_for_its_own_type_and_is_compared_exactly() -> None:
    policy = Policy(price_max_wei_per_unit={"live": Decimal("1200.5")})
    require_price(policy, "live", Price(2401, 2))
    require_price(policy, "lv2v", Price(10**18, 1))
    for prices in ([Price(2402, 2)], [Price(1, 1), Price(1201, 1)], [Price(24010000000000001, 20000000000000)]):
        with pytest.raises(PriceExceeded) as refused:
            require_price(policy, "live", *prices)
        assert rule_of(refused) == Rule.PRICE
        assert refused.value.message.endswith("exceeds the clearinghouse's ceiling 1200.5 wei per second")


def test_a_call_may_use_the_last_nonce_and_not_the_next() -> None:
    last = NONCES_PER_RAND_MAX
    for first_nonce, num_tickets in ((1, last), (last, 1), (last + 1, 0), (502, 99)):
        require_call(Policy(), ev_wei=1, first_nonce=first_nonce, num_tickets=num_tickets, url=URL)
    for first_nonce, num_tickets in ((2, last), (last + 1, 1), (502, 100)):
        with pytest.raises(RefreshSession) as refused:
            require_call(Policy(), ev_wei=1, first_nonce=first_nonce, num_tickets=num_tickets, url=URL)
        assert (rule_of(refused), refused.value.orchestrator_url) == (Rule.NONCES, URL)


def test_nobody_is_sent_for_fresh_parameters_that_would_not_help() -> None:
    require_call(Policy(), ev_wei=1, first_nonce=1, num_tickets=NONCES_PER_RAND_MAX + 1, url=URL)
    with pytest.raises(TicketNotAllowed) as refused:
        require_call(Policy(), ev_wei=2 * 10**13 + 1, first_nonce=600, num_tickets=2, url=URL)
    assert rule_of(refused) == Rule.CALL_EV


class NoReading:
    def read(self) -> EscrowReading:
        raise EscrowUnknown("no reading yet")


def test_without_a_fresh_reading_of_the_escrow_nothing_is_signed() -> None:
    gates = Gates(Policy(), recipients=DeclaredRecipients([]), escrow=NoReading())
    with pytest.raises(Unavailable) as refused:
        gates.require_offer(Stream(offer(Clock())).request())
    assert (refused.value.http_status, refused.value.code) == (503, "unavailable")
