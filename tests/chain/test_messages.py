"""Codecs: what is normalised, what is dropped, what is refused."""

from __future__ import annotations

import base64
from collections.abc import Callable
from dataclasses import fields
from sys import getsizeof
from typing import Any

import pytest
from google.protobuf.message import Message
from hypothesis import given
from hypothesis import strategies as st

from chain.messages import (
    MessageError,
    PaymentFrame,
    Price,
    TicketParams,
    capability_names,
    decode_base64,
    decode_offer_text,
    decode_orchestrator_info,
    decode_payment,
    encode_base64,
    encode_payment,
    encode_seg_creds,
    flatten_segment,
    normalise_capabilities,
    payment_frame,
)
from chain.pb import lp_rpc_pb2 as pb
from chain.signatures import keccak

#: Field 900, wire type 2, 3 bytes: nothing the messages know.
UNKNOWN = bytes([0xA2, 0x38, 3]) + b"abc"


@pytest.mark.parametrize(
    ("text", "decoded"),
    [
        ("", b""),
        ("AQ==", b"\x01"),
        ("AQI=", b"\x01\x02"),
        ("A\rQ\n=\r\n=", b"\x01"),
        ("AR==", b"\x01"),
        ("+/+/", b"\xfb\xff\xbf"),
    ],
)
def test_base64_decodes_as_go_does(text: str, decoded: bytes) -> None:
    assert decode_base64(text) == decoded
    assert decode_base64(text.encode()) == decoded


@pytest.mark.parametrize(
    "text",
    [
        "A",
        "AQ",
        "AQ=",
        "AQ===",
        "====",
        "=",
        "AQ==AQ==",
        "A Q==",
        "_-==",
        "AQ==\t",
        "é",
        "AQ\u00a0==",
        "AAAA=",
        "AAAA====",
        "AA\nAA====",
    ],
)
def test_what_go_does_not_take_for_base64_is_refused(text: str) -> None:
    with pytest.raises(MessageError, match="illegal base64 data"):
        decode_base64(text)


@pytest.mark.parametrize("offer", [b"", b"a" * 2048, b"b" * 2049, b"c" * 10_000])
def test_the_text_of_an_offer_is_read_as_any_base64(offer: bytes) -> None:
    text = encode_base64(offer)
    for _ in range(2):
        assert decode_offer_text(text) == decode_offer_text(f"\n{text}") == offer
        with pytest.raises(MessageError, match="illegal base64 data"):
            decode_offer_text(f"{text}!")


@given(st.binary(max_size=100))
def test_base64_is_written_with_padding(data: bytes) -> None:
    assert encode_base64(data) == base64.standard_b64encode(data).decode()
    assert decode_base64(encode_base64(data)) == data


def _info(**changes: Any) -> pb.OrchestratorInfo:
    fields: dict[str, Any] = {
        "transcoder": "https://orch.example:8935",
        "address": b"\x01" * 20,
        "ticket_params": pb.TicketParams(
            recipient=b"\x02" * 20,
            face_value=b"\x00\x03\xe8",
            win_prob=b"\xff" * 32,
            recipient_rand_hash=b"\x04" * 32,
            seed=b"\x05",
            expiration_block=b"\x06",
            expiration_params=pb.TicketExpirationParams(creation_round=7, creation_round_block_hash=b"\x08" * 32),
        ),
        "price_info": pb.PriceInfo(pricePerUnit=9, pixelsPerUnit=10, capability=35, constraint="m"),
        "auth_token": pb.AuthToken(token=b"tok", session_id="s", expiration=1_900_000_000),
    }
    return pb.OrchestratorInfo(**(fields | changes))


def test_an_info_is_decoded_whole() -> None:
    info = decode_orchestrator_info(_info().SerializeToString())
    assert (info.address, info.transcoder) == (b"\x01" * 20, "https://orch.example:8935")
    assert info.ticket_params == TicketParams(
        b"\x02" * 20, 1000, 2**256 - 1, b"\x04" * 32, seed=5, expiration_block=6, creation_round=7,
        creation_round_block_hash=b"\x08" * 32,
    )  # fmt: skip
    assert info.price == Price(9, 10)
    assert info.auth_token_expiration_unix_s == 1_900_000_000
    assert info.encoded == _info().SerializeToString()


def test_what_an_info_lacks_is_none() -> None:
    info = decode_orchestrator_info(b"")
    assert (info.ticket_params, info.price, info.auth_token_expiration_unix_s) == (None, None, None)
    assert (info.address, info.transcoder, info.encoded) == (bytes(20), "", b"")


def test_absent_expiration_parameters_are_round_zero() -> None:
    params = decode_orchestrator_info(_info(ticket_params=pb.TicketParams()).SerializeToString()).ticket_params
    assert params == TicketParams(bytes(20), 0, 0, bytes(32), 0, 0, 0, bytes(32))


def test_short_and_long_addresses_and_hashes_are_fitted_from_the_right() -> None:
    params = pb.TicketParams(recipient=b"\x01\x02", recipient_rand_hash=b"\x09" + bytes(range(32)))
    info = decode_orchestrator_info(_info(ticket_params=params, address=b"\xff" * 5 + bytes(20)).SerializeToString())
    assert info.address == bytes(20)
    assert info.ticket_params is not None
    assert info.ticket_params.recipient == bytes(18) + b"\x01\x02"
    assert info.ticket_params.recipient_rand_hash == bytes(range(32))


def test_unknown_fields_are_dropped_at_every_depth() -> None:
    price = pb.PriceInfo.FromString(pb.PriceInfo(pricePerUnit=9, pixelsPerUnit=10).SerializeToString() + UNKNOWN)
    token = pb.AuthToken.FromString(pb.AuthToken(token=b"t").SerializeToString() + UNKNOWN)
    dirty = _info(price_info=price, auth_token=token).SerializeToString() + UNKNOWN
    assert dirty.count(b"abc") == 3
    info = decode_orchestrator_info(dirty)
    assert b"abc" not in info.encoded
    assert b"abc" not in info.price_info + info.auth_token
    assert decode_orchestrator_info(info.encoded).encoded == info.encoded


def test_what_is_remembered_of_an_offer_is_little_more_than_its_bytes() -> None:
    """Thousands are remembered: of empty messages, two bytes each, a decoded one would take thirty times the room."""
    padded = (
        _info().SerializeToString() + pb.OrchestratorInfo(hardware=[pb.HardwareInformation()] * 600).SerializeToString()
    )
    info = decode_orchestrator_info(padded)
    assert info is decode_orchestrator_info(bytes(bytearray(padded)))
    kept = [getattr(info, field.name) for field in fields(info)]
    assert not [part for part in kept if isinstance(part, Message)]
    assert sum(map(getsizeof, kept)) < 3 * len(padded)


@pytest.mark.parametrize("data", [b"not-proto", b"\xff", b"\x0a\x05a", b"\x0a\x01\xff"])
def test_bytes_that_are_no_info_are_refused_as_protobuf(data: bytes) -> None:
    with pytest.raises(MessageError, match=r"^proto:"):
        decode_orchestrator_info(data)


@pytest.mark.parametrize("field", ["face_value", "win_prob", "seed", "expiration_block"])
def test_a_number_beyond_256_bits_is_refused_and_leading_zeros_are_not(field: str) -> None:
    fits, too_large = pb.TicketParams(), pb.TicketParams()
    setattr(fits, field, bytes(1000) + b"\xff" * 32)
    assert decode_orchestrator_info(_info(ticket_params=fits).SerializeToString()).ticket_params is not None
    setattr(too_large, field, b"\x01" + bytes(32))
    with pytest.raises(MessageError, match="does not fit 256 bits"):
        decode_orchestrator_info(_info(ticket_params=too_large).SerializeToString())


def test_offers_that_mean_the_same_have_the_same_bytes_and_are_equal() -> None:
    encoded = _info().SerializeToString()
    one, other = (decode_orchestrator_info(data) for data in (encoded, encoded + UNKNOWN))
    assert one is not other
    assert (one, one.encoded) == (other, other.encoded)
    assert one != decode_orchestrator_info(_info(transcoder="elsewhere").SerializeToString())


def test_a_negative_creation_round_is_refused() -> None:
    params = pb.TicketParams(expiration_params=pb.TicketExpirationParams(creation_round=-1))
    with pytest.raises(MessageError, match="creation round is negative"):
        decode_orchestrator_info(_info(ticket_params=params).SerializeToString())


def _payment_header(nonces: tuple[int, ...] = (1, 2)) -> str:
    frame = payment_frame(
        decode_orchestrator_info(_info().SerializeToString()),
        sender=b"\x0a" * 20,
        creation_round=7,
        creation_round_block_hash=b"\x08" * 32,
    )
    return encode_payment(
        frame,
        nonces=nonces,
        signatures=[bytes([nonce % 256]) * 65 for nonce in nonces],
    )


def test_a_payment_round_trips_and_carries_the_price_as_it_was_sent() -> None:
    payment = decode_payment(_payment_header((41, 42, 43)))
    assert (payment.nonces, payment.face_value_wei, payment.win_prob) == ((41, 42, 43), 1000, 2**256 - 1)
    assert payment.signatures == (b"\x29" * 65, b"\x2a" * 65, b"\x2b" * 65)
    assert payment.expected_price == Price(9, 10)
    message = pb.Payment.FromString(decode_base64(_payment_header()))
    assert message.expected_price == _info().price_info
    assert not message.ticket_params.HasField("expiration_params")


def test_a_payment_is_not_made_of_signatures_that_do_not_pair_up() -> None:
    with pytest.raises(ValueError, match="shorter"):
        encode_payment(PaymentFrame(b"", b""), nonces=[1, 2], signatures=[bytes(65)])


def test_a_payment_is_not_made_of_an_offer_without_ticket_parameters() -> None:
    info = decode_orchestrator_info(b"")
    with pytest.raises(ValueError, match="ticket parameters"):
        payment_frame(info, sender=bytes(20), creation_round=1, creation_round_block_hash=bytes(32))


@given(st.lists(st.integers(0, 2**32 - 1), max_size=4), st.binary(min_size=65, max_size=65))
def test_a_payment_in_three_parts_is_the_message_in_one(nonces: list[int], signature: bytes) -> None:
    """The parts are put together as bytes: their fields must follow one another as the whole message has them."""
    header = encode_payment(
        payment_frame(
            decode_orchestrator_info(_info().SerializeToString()),
            sender=b"\x0a" * 20,
            creation_round=7,
            creation_round_block_hash=b"\x08" * 32,
        ),
        nonces=nonces,
        signatures=[signature] * len(nonces),
    )
    message = pb.Payment.FromString(decode_base64(header))
    assert message.SerializeToString(deterministic=True) == decode_base64(header)
    assert [(ticket.sender_nonce, ticket.sig) for ticket in message.ticket_sender_params] == [
        (nonce, signature) for nonce in nonces
    ]


def _reversed(payment: pb.Payment) -> None:
    payment.ticket_sender_params.reverse()


def _repeated(payment: pb.Payment) -> None:
    payment.ticket_sender_params[1].sender_nonce = payment.ticket_sender_params[0].sender_nonce


def _set(path: str, value: Any) -> Callable[[pb.Payment], None]:
    def change(payment: pb.Payment) -> None:
        *parents, field = path.split(".")
        target: Any = payment
        for parent in parents:
            target = target[int(parent)] if parent.isdigit() else getattr(target, parent)
        setattr(target, field, value)

    return change


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda p: p.ClearField("ticket_params"), "without ticket_params"),
        (lambda p: p.ClearField("expiration_params"), "without expiration_params"),
        (lambda p: p.ClearField("expected_price"), "without expected_price"),
        (lambda p: p.ClearField("ticket_sender_params"), "without tickets"),
        (_set("sender", bytes(19)), "20 bytes"),
        (_set("ticket_params.recipient", bytes(32)), "20 bytes"),
        (_set("ticket_params.recipient_rand_hash", bytes(31)), "32 bytes"),
        (_set("expiration_params.creation_round_block_hash", b""), "32 bytes"),
        (_set("expiration_params.creation_round", -1), "negative"),
        (_set("ticket_params.face_value", b"\x01" + bytes(32)), "faceValue does not fit"),
        (_set("ticket_params.win_prob", b"\x01" + bytes(32)), "winProb does not fit"),
        (_set("ticket_sender_params.0.sig", bytes(64)), "65 bytes"),
        (_set("ticket_sender_params.1.sig", bytes(66)), "65 bytes"),
        (_set("ticket_sender_params.0.sender_nonce", 0), "nonces begin with 1"),
        (_set("ticket_sender_params.1.sender_nonce", 3), "do not follow one another"),
        (_reversed, "do not follow one another"),
        (_repeated, "do not follow one another"),
    ],
)
def test_what_a_correct_signer_does_not_write_is_no_payment(change: Callable[[pb.Payment], None], reason: str) -> None:
    message = pb.Payment.FromString(decode_base64(_payment_header()))
    decode_payment(encode_base64(message.SerializeToString()))
    change(message)
    with pytest.raises(MessageError, match=reason):
        decode_payment(encode_base64(message.SerializeToString()))


@pytest.mark.parametrize("header", ["not base64!", encode_base64(b"not-proto")])
def test_a_header_that_is_no_payment_is_refused(header: str) -> None:
    with pytest.raises(MessageError, match=r"illegal base64|proto:"):
        decode_payment(header)


def _capabilities(**changes: Any) -> pb.Capabilities:
    return pb.Capabilities(**({"bitstring": [0, 8], "version": "0.9.1"} | changes))


def test_missing_capacities_become_one_for_every_bit_and_constraints_are_always_there() -> None:
    kept = normalise_capabilities(_capabilities(bitstring=[5, 8]).SerializeToString())
    assert dict(kept.capacities) == {0: 1, 2: 1, 67: 1}
    assert kept.HasField("constraints")
    empty = normalise_capabilities(b"")
    assert empty.SerializeToString().hex() == "2a00"
    no_bits = normalise_capabilities(_capabilities(bitstring=[0, 0]).SerializeToString())
    assert no_bits.SerializeToString().hex() == "0a0200002205302e392e312a00"


def test_models_keep_all_but_their_use_and_unknown_fields_are_dropped() -> None:
    received = _capabilities(mandatories=[1], capacities={35: 4})
    received.constraints.minVersion = "0.8"
    received.constraints.PerCapability[36].SetInParent()
    model = received.constraints.PerCapability[35].models["m"]
    model.warm, model.capacity, model.runnerVersion, model.capacityInUse = True, 3, "1.2", 2
    kept = normalise_capabilities(received.SerializeToString() + UNKNOWN)
    model.capacityInUse = 0
    assert kept == received
    assert b"abc" not in kept.SerializeToString()


def test_normalised_capabilities_are_one_sequence_of_bytes_however_they_were_sent() -> None:
    numbers = [3, 64, 1, 900, 35, 27]
    one, other = _capabilities(), _capabilities()
    for number in numbers:
        one.capacities[number] = number
    for number in reversed(numbers):
        other.capacities[number] = number
    first = normalise_capabilities(one.SerializeToString()).SerializeToString(deterministic=True)
    assert first == normalise_capabilities(other.SerializeToString()).SerializeToString(deterministic=True)
    assert first == normalise_capabilities(first).SerializeToString(deterministic=True)


def test_usual_capabilities_are_remembered_and_large_ones_are_not() -> None:
    usual, large = _capabilities().SerializeToString(), _capabilities(version="x" * 1024).SerializeToString()
    assert normalise_capabilities(usual) is normalise_capabilities(bytes(bytearray(usual)))
    assert normalise_capabilities(large) is not normalise_capabilities(large)
    assert normalise_capabilities(large) == normalise_capabilities(large)


def test_what_are_no_capabilities_is_refused() -> None:
    with pytest.raises(MessageError, match="cannot parse invalid wire-format data"):
        normalise_capabilities(b"not-valid-protobuf")
    with pytest.raises(MessageError, match="cannot parse invalid wire-format data"):
        capability_names(b"not-valid-protobuf")
    with pytest.raises(MessageError, match="at most 16 words"):
        normalise_capabilities(_capabilities(bitstring=[2**64 - 1] * 17).SerializeToString())


def _constrained(*pairs: tuple[int, str]) -> bytes:
    message = pb.Capabilities()
    for number, model in pairs:
        message.constraints.PerCapability[number].models[model].warm = True
    return message.SerializeToString(deterministic=True)


@pytest.mark.parametrize(
    ("data", "names"),
    [
        (b"", ("", "")),
        (_capabilities().SerializeToString(), ("", "")),
        (_constrained((35, "acme/model")), ("live-video-to-video", "acme/model")),
        (_constrained((27, "m")), ("text-to-image", "m")),
        (_constrained((35, "a"), (35, "b")), ("", "")),
        (_constrained((35, "a"), (36, "a")), ("", "")),
        (_constrained((999, "a")), ("", "")),
    ],
)
def test_pipeline_and_model_are_named_where_there_is_exactly_one(data: bytes, names: tuple[str, str]) -> None:
    assert capability_names(data) == names


def test_a_segment_flattens_to_the_published_digest() -> None:
    flat = flatten_segment(
        b"abcdef",
        seq=1234,
        segment_hash=b"browns".ljust(32, b"\0"),
        profile_names=("P144p30fps16x9", "P240p30fps16x9"),
    )
    assert flat.endswith(b"fca40bf9c0a6517a")
    assert keccak(flat).hex() == "08a398e7e7a5a545b0b07d9e7e1eab52b4131e0df1621bd53ee6e7550a15465b"


def test_segment_credentials_leave_out_what_the_request_has_not() -> None:
    header = encode_seg_creds(b"deadbeef", signature=bytes(65), auth_token=None, capabilities=None)
    message = pb.SegData.FromString(decode_base64(header))
    assert message == pb.SegData(manifestId=b"deadbeef", hash=keccak(b""), profiles=b"invalid", sig=bytes(65))
