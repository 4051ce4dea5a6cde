"""What is known by its bytes is what the decoder reads there; everything else is left to the decoder."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chain.expected_payment import ExpectedPayment, expected_payment
from chain.messages import (
    MessageError,
    Payment,
    decode_base64,
    decode_orchestrator_info,
    decode_payment_bytes,
    encode_payment,
)
from chain.pb import lp_rpc_pb2 as pb

OFFER = pb.OrchestratorInfo(
    ticket_params=pb.TicketParams(
        recipient=b"\x01" * 20,
        face_value=b"\x03\xe8",
        win_prob=b"\xff" * 32,
        recipient_rand_hash=b"\x02" * 32,
        seed=b"\x05",
        expiration_block=b"\x06",
    ),
    price_info=pb.PriceInfo(pricePerUnit=9, pixelsPerUnit=10),
)
EXPECTED = expected_payment(
    decode_orchestrator_info(OFFER.SerializeToString()),
    sender=b"\x0a" * 20,
    creation_round=7,
    creation_round_block_hash=b"\x08" * 32,
)
NONCES = st.one_of(st.integers(1, 700), st.sampled_from([127, 128, 2**14 - 1, 2**21, 2**28 - 1, 2**32 - 2, 2**32 - 1]))


def _signed(first_nonce: int, count: int) -> bytes:
    signatures = [bytes([0x22, number]) * 32 + b"\x12" for number in range(count)]
    return decode_base64(
        encode_payment(EXPECTED.frame, nonces=range(first_nonce, first_nonce + count), signatures=signatures)
    )


def _decoded(data: bytes) -> Payment | None:
    try:
        return decode_payment_bytes(data)
    except MessageError:
        return None


def _require_no_other_reading(expected: ExpectedPayment, data: bytes, first_nonce: int) -> None:
    read = expected.read(data, first_nonce)
    assert read is None or read == _decoded(data), data.hex()


@given(NONCES, st.integers(1, 100))
def test_a_payment_as_it_was_asked_for_is_read_as_the_decoder_reads_it(first_nonce: int, count: int) -> None:
    count = min(count, 2**32 - first_nonce)
    data = _signed(first_nonce, count)
    read = EXPECTED.read(data, first_nonce)
    assert read == decode_payment_bytes(data)
    assert read is not None
    assert (read.nonces[0], len(read.signatures)) == (first_nonce, count)


def test_nothing_is_read_where_the_decoder_reads_something_else() -> None:
    """Each byte changed, left out or put in, anywhere; a part that is missing or there twice."""
    data, (before, after) = _signed(127, 3), (EXPECTED.frame.before, EXPECTED.frame.after)
    for at in range(len(data)):
        changed = [data[:at] + bytes([data[at] ^ bit]) + data[at + 1 :] for bit in (1, 4, 0x80, 0xFF)]
        for other in (*changed, data[:at] + data[at + 1 :], data[:at] + data[at : at + 1] + data[at:], data[:at]):
            _require_no_other_reading(EXPECTED, other, 127)
    between = data[len(before) : len(data) - len(after)]
    extras = [pb.Payment(sender=b"\x0b" * 20), pb.Payment(expected_price=pb.PriceInfo(pricePerUnit=1)), OFFER]
    for extra in (before, after, between, b"\x7a\x01x", *(message.SerializeToString() for message in extras)):
        for other in (before + extra + between + after, before + between + extra + after, before + extra + after):
            _require_no_other_reading(EXPECTED, other, 127)


@pytest.mark.parametrize("first_nonce", [-1, 0, 1, 6, 8, 2**32, 2**64])
def test_tickets_of_other_nonces_than_expected_are_left_to_the_decoder(first_nonce: int) -> None:
    assert EXPECTED.read(_signed(7, 2), first_nonce) is None
    for nonce in (0, 7):
        tickets = pb.Payment(ticket_sender_params=[pb.TicketSenderParams(sender_nonce=nonce, sig=bytes(65))])
        data = EXPECTED.frame.before + tickets.SerializeToString() + EXPECTED.frame.after
        assert EXPECTED.read(data, first_nonce) is None


@pytest.mark.parametrize("data", [b"", b"\x00"])
def test_what_is_shorter_than_its_two_ends_is_left_to_the_decoder(data: bytes) -> None:
    before, after = EXPECTED.frame.before, EXPECTED.frame.after
    assert EXPECTED.read(data, 1) is None
    assert EXPECTED.read(before + after, 1) is None
    assert EXPECTED._replace(frame=EXPECTED.frame.__class__(before, before[-4:])).read(before, 1) is None
