"""Codecs of the messages shared with go-livepeer (remote-signer protocol, sections 4.4 to 4.7).

Everything that comes in is decoded, normalised and encoded again; fields we do not know are dropped on the way, so
that what is checked, hashed, forwarded and signed is one and the same thing (section 10, A9). What a signer answers is
decoded strictly: it is checked, not trusted.
"""

from __future__ import annotations

import binascii
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

from google.protobuf.message import DecodeError

from chain.pb import lp_rpc_pb2 as pb
from chain.remembered import remembered
from chain.signatures import ADDRESS_BYTES, EMPTY_KECCAK, SIGNATURE_BYTES, keccak

_HASH_BYTES: Final = 32
_UINT_BYTES_MAX: Final = 32
#: Words of 64 capabilities each. The network knows fewer than 64 capabilities; a word may cost a table of 64 entries.
_BITSTRING_WORDS_MAX: Final = 16
#: A usual offer has 300 to 1,000 bytes, and at most three times that when read. Larger ones are not kept: they could
#: fill the memory.
REMEMBERED_OFFER_BYTES_MAX: Final = 2048
REMEMBERED_OFFERS_MAX_COUNT: Final = 8192
#: Usual capabilities have 20 to 200 bytes, and about ten times that when decoded.
REMEMBERED_CAPABILITIES_BYTES_MAX: Final = 1024
REMEMBERED_CAPABILITIES_MAX_COUNT: Final = 1024
#: What go-livepeer writes where a segment has no profiles (section 4.7).
_NO_PROFILES: Final = b"invalid"
_CORRUPT: Final = "proto: cannot parse invalid wire-format data"

#: Names of the capabilities that run models, by number, as they stand in a discovery entry: "name/model".
CAPABILITY_NAMES: Final = {
    27: "text-to-image",
    28: "image-to-image",
    29: "image-to-video",
    30: "upscale",
    31: "audio-to-text",
    32: "segment-anything-2",
    33: "llm",
    34: "image-to-text",
    35: "live-video-to-video",
    36: "text-to-speech",
    37: "byoc",
}


class MessageError(ValueError):
    """A message that cannot be decoded, or says something no payment can say."""


class Price(NamedTuple):
    """Wei per so many units (pixels, seconds or calls). Both signed 64-bit as on the wire; the caller checks signs."""

    price_per_unit: int
    pixels_per_unit: int


@dataclass(frozen=True, slots=True)
class TicketParams:
    """What an orchestrator asks of a ticket, normalised to fixed lengths and unsigned numbers of at most 256 bits.

    Without expiration parameters the round is 0 and the hash is zero: the signer then takes its own.
    """

    recipient: bytes
    face_value_wei: int
    win_prob: int
    recipient_rand_hash: bytes
    seed: int
    expiration_block: int
    creation_round: int
    creation_round_block_hash: bytes


@dataclass(frozen=True, slots=True)
class OrchestratorInfo:
    """An orchestrator's offer as a caller presents it. Nobody signed it: every field is the caller's claim."""

    address: bytes
    transcoder: str
    ticket_params: TicketParams | None
    price: Price | None
    auth_token_expiration_unix_s: int | None
    #: Both encoded, b"" where they are absent: what was decoded may take thirty times the room.
    price_info: bytes
    auth_token: bytes
    encoded: bytes
    #: `encoded` in base64: each call by the offer says it again.
    text: str


class Payment(NamedTuple):
    """A batch of signed tickets: all alike but for nonce and signature, which pair up by position."""

    sender: bytes
    recipient: bytes
    face_value_wei: int
    win_prob: int
    recipient_rand_hash: bytes
    seed: int
    expiration_block: int
    creation_round: int
    creation_round_block_hash: bytes
    expected_price: Price
    nonces: tuple[int, ...]
    signatures: tuple[bytes, ...]


def decode_base64(text: str | bytes) -> bytes:
    """Standard base64 as Go decodes it: padding mandatory, CR and LF ignored, no other foreign character.

    Raises MessageError.
    """
    try:
        data = binascii.a2b_base64(text, strict_mode=True)
        if base64_chars(len(data)) == len(text):  # binascii passes over padding after whole groups
            return data
    except ValueError:  # binascii.Error is one, and so is what text beyond ASCII gets
        pass
    try:
        raw = text.encode("ascii") if isinstance(text, str) else text
        whole = raw.replace(b"\n", b"").replace(b"\r", b"")
        data = binascii.a2b_base64(whole, strict_mode=True)
    except ValueError:
        raise MessageError("illegal base64 data") from None
    if base64_chars(len(data)) != len(whole):
        raise MessageError("illegal base64 data")
    return data


def encode_base64(data: bytes) -> str:
    """Standard base64 with padding, in one line."""
    return binascii.b2a_base64(data, newline=False).decode("ascii")


def base64_chars(bytes_count: int) -> int:
    """How many letters `encode_base64` makes of so many bytes."""
    return (bytes_count + 2) // 3 * 4


@remembered(length_max=base64_chars(REMEMBERED_OFFER_BYTES_MAX), count_max=REMEMBERED_OFFERS_MAX_COUNT)
def decode_offer_text(text: str) -> bytes:
    """`decode_base64` of an offer, remembered as offers are: what is read by the same object is found sooner."""
    return decode_base64(text)


@remembered(length_max=REMEMBERED_OFFER_BYTES_MAX, count_max=REMEMBERED_OFFERS_MAX_COUNT)
def decode_orchestrator_info(data: bytes) -> OrchestratorInfo:
    """Decodes and normalises as go-livepeer does (section 4.4); absent messages become None.

    Raises MessageError: text begins with "proto:" where the bytes are no such message; a number beyond 256 bits or a
    negative creation round, which go-livepeer would silently bend into another ticket, are refused.

    A stream presents the same offer until it asks for a fresh one, so recent offers of the usual size are remembered.
    """
    message = pb.OrchestratorInfo()
    try:
        message.ParseFromString(data)
    except DecodeError:
        raise MessageError(_CORRUPT) from None
    message.DiscardUnknownFields()
    ticket_params = _ticket_params(message.ticket_params) if message.HasField("ticket_params") else None
    price = None
    if message.HasField("price_info"):
        price_info = message.price_info
        price = Price(price_info.pricePerUnit, price_info.pixelsPerUnit)
    encoded = message.SerializeToString(deterministic=True)
    return OrchestratorInfo(
        address=_fit(message.address, ADDRESS_BYTES),
        transcoder=message.transcoder,
        ticket_params=ticket_params,
        price=price,
        auth_token_expiration_unix_s=message.auth_token.expiration if message.HasField("auth_token") else None,
        price_info=message.price_info.SerializeToString(deterministic=True),
        auth_token=message.auth_token.SerializeToString(deterministic=True),
        encoded=encoded,
        text=encode_base64(encoded),
    )


def _ticket_params(params: pb.TicketParams) -> TicketParams:
    creation_round, block_hash = 0, bytes(_HASH_BYTES)
    if params.HasField("expiration_params"):
        creation_round = params.expiration_params.creation_round
        block_hash = _fit(params.expiration_params.creation_round_block_hash, _HASH_BYTES)
        if creation_round < 0:
            raise MessageError("ticketParams creation round is negative")
    return TicketParams(
        recipient=_fit(params.recipient, ADDRESS_BYTES),
        face_value_wei=_uint(params.face_value, "faceValue"),
        win_prob=_uint(params.win_prob, "winProb"),
        recipient_rand_hash=_fit(params.recipient_rand_hash, _HASH_BYTES),
        seed=_uint(params.seed, "seed"),
        expiration_block=_uint(params.expiration_block, "expirationBlock"),
        creation_round=creation_round,
        creation_round_block_hash=block_hash,
    )


def _fit(data: bytes, length: int) -> bytes:
    """The last `length` bytes, zeros on the left where there are fewer: go-ethereum's BytesToAddress, BytesToHash."""
    return data if len(data) == length else data[-length:].rjust(length, b"\0")


def _uint(data: bytes, name: str) -> int:
    """Unsigned, big-endian. Raises MessageError beyond 256 bits: it would not fit the ticket."""
    if len(data) > _UINT_BYTES_MAX:
        data = data.lstrip(b"\0")
        if len(data) > _UINT_BYTES_MAX:
            raise MessageError(f"ticketParams {name} does not fit 256 bits")
    return int.from_bytes(data, "big")


def _minimal(number: int) -> bytes:
    """Big-endian without leading zeros; zero is empty, and so left out of the message."""
    return number.to_bytes((number.bit_length() + 7) // 8, "big")


def decode_payment(header: str) -> Payment:
    """Decodes a Livepeer-Payment header, strictly: this is how a signer's answer is checked.

    Raises MessageError for anything a correct signer does not write: a missing part, a wrong length, a number beyond
    256 bits, no tickets, nonces that do not follow one another.
    """
    return decode_payment_bytes(decode_base64(header))


def decode_payment_bytes(data: bytes) -> Payment:
    """The same of what the header is the base64 of."""
    message = pb.Payment()
    try:
        message.ParseFromString(data)
    except DecodeError:
        raise MessageError(_CORRUPT) from None
    for part in ("ticket_params", "expiration_params", "expected_price"):
        if not message.HasField(part):
            raise MessageError(f"payment without {part}")
    params, expiration, price = message.ticket_params, message.expiration_params, message.expected_price
    recipient, rand_hash = params.recipient, params.recipient_rand_hash
    sender, block_hash = message.sender, expiration.creation_round_block_hash
    if len(sender) != ADDRESS_BYTES or len(recipient) != ADDRESS_BYTES:
        raise MessageError("payment's sender and recipient must have 20 bytes")
    if len(rand_hash) != _HASH_BYTES or len(block_hash) != _HASH_BYTES:
        raise MessageError("payment's recipientRandHash and creation round block hash must have 32 bytes")
    if expiration.creation_round < 0:
        raise MessageError("payment's creation round is negative")
    nonces, signatures = _signed_nonces(message.ticket_sender_params)
    return Payment(
        sender=sender,
        recipient=recipient,
        face_value_wei=_uint(params.face_value, "faceValue"),
        win_prob=_uint(params.win_prob, "winProb"),
        recipient_rand_hash=rand_hash,
        seed=_uint(params.seed, "seed"),
        expiration_block=_uint(params.expiration_block, "expirationBlock"),
        creation_round=expiration.creation_round,
        creation_round_block_hash=block_hash,
        expected_price=Price(price.pricePerUnit, price.pixelsPerUnit),
        nonces=nonces,
        signatures=signatures,
    )


def _signed_nonces(tickets: Iterable[pb.TicketSenderParams]) -> tuple[tuple[int, ...], tuple[bytes, ...]]:
    """Nonces and signatures by position. The first ticket of a session has nonce 1; a batch counts up by one."""
    pairs = [(ticket.sender_nonce, ticket.sig) for ticket in tickets]
    if not pairs:
        raise MessageError("payment without tickets")
    first = pairs[0][0]
    if first < 1:
        raise MessageError("payment's first nonce is 0; nonces begin with 1")
    for expected, (nonce, signature) in enumerate(pairs, first):
        if nonce != expected:
            raise MessageError("payment's nonces do not follow one another")
        if len(signature) != SIGNATURE_BYTES:
            raise MessageError("payment with a signature that has not 65 bytes")
    nonces, signatures = zip(*pairs, strict=True)
    return nonces, signatures


@dataclass(frozen=True, slots=True)
class PaymentFrame:
    """A payment without its tickets, encoded: the fields before theirs, and those behind."""

    before: bytes
    after: bytes


def payment_frame(
    info: OrchestratorInfo, *, sender: bytes, creation_round: int, creation_round_block_hash: bytes
) -> PaymentFrame:
    """What all payments by one offer share (section 4.6). Round and hash are those the tickets are hashed with.

    Raises ValueError where the info lacks ticket parameters: the caller checked that long before.
    """
    params = info.ticket_params
    if params is None:
        raise ValueError("a payment needs ticket parameters")
    before = pb.Payment(
        ticket_params=pb.TicketParams(
            recipient=params.recipient,
            face_value=_minimal(params.face_value_wei),
            win_prob=_minimal(params.win_prob),
            recipient_rand_hash=params.recipient_rand_hash,
            seed=_minimal(params.seed),
            expiration_block=_minimal(params.expiration_block),
        ),
        sender=sender,
        expiration_params=pb.TicketExpirationParams(
            creation_round=creation_round, creation_round_block_hash=creation_round_block_hash
        ),
    )
    # The price with its capability and constraint, not only the two numbers.
    after = pb.Payment(expected_price=pb.PriceInfo.FromString(info.price_info))
    return PaymentFrame(before.SerializeToString(deterministic=True), after.SerializeToString(deterministic=True))


def encode_payment(frame: PaymentFrame, *, nonces: Sequence[int], signatures: Sequence[bytes]) -> str:
    """The Livepeer-Payment header of a batch, to the byte as go-livepeer writes it (section 4.6).

    Fields are written in ascending order and the tickets are field 4, so the three parts in a row are the message.
    Raises ValueError where nonces and signatures do not pair up.
    """
    tickets = pb.Payment()
    add = tickets.ticket_sender_params.add
    for nonce, signature in zip(nonces, signatures, strict=True):
        add(sender_nonce=nonce, sig=signature)
    return encode_base64(frame.before + tickets.SerializeToString() + frame.after)


@remembered(length_max=REMEMBERED_CAPABILITIES_BYTES_MAX, count_max=REMEMBERED_CAPABILITIES_MAX_COUNT)
def normalise_capabilities(data: bytes) -> pb.Capabilities:
    """The capabilities as they come out of go-livepeer's own representation (section 4.7).

    Bits, mandatories and versions stay; missing capacities become 1 for every bit that is set; the constraints message
    is always there, and a model's capacityInUse is dropped. Serialise it deterministically: maps have no order.
    Raises MessageError for bytes that are no such message, and for bits beyond any capability there could be.

    A stream presents the same capabilities with every call, and many streams the same ones, so recent ones of the usual
    size are remembered: what is returned is shared, and must not be changed.
    """
    received = pb.Capabilities()
    try:
        received.ParseFromString(data)
    except DecodeError:
        raise MessageError(_CORRUPT) from None
    if max(len(received.bitstring), len(received.mandatories)) > _BITSTRING_WORDS_MAX:
        raise MessageError(f"capabilities are at most {_BITSTRING_WORDS_MAX} words of 64 bits")
    kept = pb.Capabilities(
        bitstring=received.bitstring,
        mandatories=received.mandatories,
        version=received.version,
        constraints=pb.Capabilities.Constraints(minVersion=received.constraints.minVersion),
        capacities=received.capacities or dict.fromkeys(_bits(received.bitstring), 1),
    )
    for number, constraints in received.constraints.PerCapability.items():
        models = kept.constraints.PerCapability[number].models  # touching the key creates it, even without models
        for name, model in constraints.models.items():
            models[name].warm = model.warm
            models[name].capacity = model.capacity
            models[name].runnerVersion = model.runnerVersion
    return kept


def _bits(words: Sequence[int]) -> Iterable[int]:
    """Numbers of the set bits, 64 to a word, the lowest bit of the first word being 0."""
    for index, word in enumerate(words):
        for bit in range(word.bit_length()):
            if word >> bit & 1:
                yield index * 64 + bit


def capability_names(data: bytes) -> tuple[str, str]:
    """(pipeline, model) where the capabilities constrain exactly one model of one known capability, else ("", "").

    A capability without a name of its own gives ("", "") as well. Raises MessageError like normalise_capabilities.
    """
    if not data:
        return "", ""
    message = pb.Capabilities()
    try:
        message.ParseFromString(data)
    except DecodeError:
        raise MessageError(_CORRUPT) from None
    named = [
        (CAPABILITY_NAMES.get(number, ""), model)
        for number, constraints in message.constraints.PerCapability.items()
        for model in constraints.models
    ]
    return named[0] if len(named) == 1 and named[0][0] else ("", "")


def flatten_segment(
    manifest_id: bytes, *, seq: int = 0, segment_hash: bytes = EMPTY_KECCAK, profile_names: Sequence[str] = ()
) -> bytes:
    """What the segment credentials sign (with `SigningKey.bsign`). Payments leave everything but the manifest alone."""
    profiles = b"".join(keccak(name.encode())[:4] for name in profile_names)
    return manifest_id + seq.to_bytes(32, "big") + segment_hash + profiles.hex().encode()


def encode_seg_creds(
    manifest_id: bytes,
    *,
    signature: bytes,
    auth_token: pb.AuthToken | None,
    capabilities: pb.Capabilities | None,
) -> str:
    """The Livepeer-Segment header of a payment without a segment (section 4.7).

    `signature` is `key.bsign(flatten_segment(manifest_id))`, `auth_token` that of the orchestrator's info, and
    `capabilities` come from `normalise_capabilities`, or are None where the request has none.
    """
    message = pb.SegData(
        manifestId=manifest_id,
        hash=EMPTY_KECCAK,
        profiles=_NO_PROFILES,
        sig=signature,
        capabilities=capabilities,
        auth_token=auth_token,
    )
    return encode_base64(message.SerializeToString(deterministic=True))
