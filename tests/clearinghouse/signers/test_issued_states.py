"""What a signer remembers of the states it signed: whole pairs only, and not without end."""

from __future__ import annotations

import pytest

from chain.payment_state import REMEMBERED_STATE_BYTES_MAX, PaymentState, SignedState, encode_state
from clearinghouse.signers.issued_states import IssuedStates
from tests.clearinghouse.signers.calls import KEY, Call


def signed(number: int, app: str = "") -> tuple[SignedState, PaymentState]:
    state = Call().state._replace(sequence_number=number, app=app)
    data = encode_state(state)
    return SignedState(data, KEY.eth_sign(data)), state


def test_a_pair_is_found_as_it_was_remembered() -> None:
    issued, (pair, state) = IssuedStates(), signed(1)
    assert issued.find(pair) is None
    issued.remember(pair, state)
    assert issued.find(SignedState(bytes(bytearray(pair.state)), bytes(bytearray(pair.sig)))) == state


@pytest.mark.parametrize("bit", range(8))
def test_a_pair_with_one_bit_changed_is_not_known(bit: int) -> None:
    issued, (pair, state) = IssuedStates(), signed(1)
    issued.remember(pair, state)
    for byte in range(len(pair.state)):
        assert issued.find(SignedState(_flipped(pair.state, byte, bit), pair.sig)) is None
    for byte in range(len(pair.sig)):
        assert issued.find(SignedState(pair.state, _flipped(pair.sig, byte, bit))) is None


def _flipped(data: bytes, byte: int, bit: int) -> bytes:
    return data[:byte] + bytes([data[byte] ^ 1 << bit]) + data[byte + 1 :]


def test_halves_of_two_known_pairs_are_not_known() -> None:
    issued, (one, first), (other, second) = IssuedStates(), signed(1), signed(2)
    issued.remember(one, first)
    issued.remember(other, second)
    assert issued.find(SignedState(one.state, other.sig)) is None
    assert issued.find(SignedState(other.state, one.sig)) is None


def test_the_oldest_go_when_there_are_too_many() -> None:
    issued, pairs = IssuedStates(states_max_count=3), [signed(number) for number in range(10)]
    for pair, state in pairs:
        issued.remember(pair, state)
        assert len(issued) <= 3
    assert [issued.find(pair) is not None for pair, _ in pairs] == [False] * 7 + [True] * 3


def test_the_same_state_signed_again_takes_no_second_place() -> None:
    issued = IssuedStates(states_max_count=3)
    for _ in range(5):
        issued.remember(*signed(1))
    assert len(issued) == 1


def test_a_large_state_is_not_kept() -> None:
    issued, (pair, state) = IssuedStates(), signed(1, app="x" * REMEMBERED_STATE_BYTES_MAX)
    issued.remember(pair, state)
    assert len(issued) == 0
    assert issued.find(pair) is None
