"""Bytes that must not change: the same claims over the protocol's published vectors and over our own."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from typing import Any

import pytest

from chain.fees import tickets_needed
from chain.messages import (
    OrchestratorInfo,
    decode_base64,
    decode_orchestrator_info,
    decode_payment,
    encode_payment,
    encode_seg_creds,
    flatten_segment,
    normalise_capabilities,
    payment_frame,
)
from chain.payment_state import decode_state, encode_state
from chain.pb import lp_rpc_pb2 as pb
from chain.signatures import SignatureError, SigningKey, checksum_address, keccak, parse_address, recover_eth_signer
from chain.tickets import Ticket, aux_data, batch_preimage, recipient_rand_hash, ticket_ev, ticket_hash
from tests.chain.vectors import OURS, PROTOCOL, load
from tests.vectors import make


@pytest.fixture(params=[OURS, PROTOCOL], ids=["ours", "protocol"])
def vectors(request: pytest.FixtureRequest) -> dict[str, Any]:
    return load(request.param)


def test_our_vectors_are_those_their_script_makes() -> None:
    assert OURS.read_text(encoding="ascii") == make.render()


def test_ticket_hashes(vectors: dict[str, Any]) -> None:
    for vector in vectors["ticketHashes"]:
        ticket = Ticket(
            recipient=bytes.fromhex(vector["recipient"]),
            sender=bytes.fromhex(vector["sender"]),
            face_value_wei=int(vector["faceValue"]),
            win_prob=int(vector["winProb"]),
            sender_nonce=vector["senderNonce"],
            recipient_rand_hash=bytes.fromhex(vector["recipientRandHash"]),
            creation_round=int(vector["creationRound"]),
            creation_round_block_hash=bytes.fromhex(vector["creationRoundBlockHash"]),
        )
        assert ticket_hash(ticket).hex() == vector["hash"], vector


def test_aux_data(vectors: dict[str, Any]) -> None:
    for vector in vectors["auxData"]:
        encoded = aux_data(int(vector["creationRound"]), bytes.fromhex(vector["blockHash"]))
        assert encoded.hex() == vector["auxData"], vector


def test_expected_values(vectors: dict[str, Any]) -> None:
    for vector in vectors["expectedValueRoundedToWei"]:
        ev = ticket_ev(int(vector["faceValue"]), int(vector["winProb"]))
        assert int(ev + Fraction(1, 2)) == int(vector["ev"]), vector


def test_staged_tickets(vectors: dict[str, Any]) -> None:
    for vector in vectors["stagedTickets"]:
        ev = Fraction(vector["ev"])
        count = tickets_needed(balance=Fraction(vector["existing"]), fee=Fraction(vector["minCredit"]), ev=ev)
        assert (count, count * ev) == (vector["tickets"], Fraction(vector["newCredit"])), vector


def test_signatures_recover_and_a_high_s_does_not(vectors: dict[str, Any]) -> None:
    vector = vectors["recover"]
    message, signature = bytes.fromhex(vector["message"]), bytes.fromhex(vector["signature"])
    assert checksum_address(recover_eth_signer(message, signature)) == f"0x{vector['address']}"
    with pytest.raises(SignatureError, match="s value too high"):
        recover_eth_signer(message, bytes.fromhex(vector["rejectHighS"]))


def test_segment_flattening(vectors: dict[str, Any]) -> None:
    vector = vectors["segmentFlatten"]
    flat = flatten_segment(
        vector["manifestId"].encode(),
        seq=int(vector["seq"]),
        segment_hash=bytes.fromhex(vector["hash"]),
        profile_names=vector["profileNames"],
    )
    assert keccak(flat).hex() == vector["keccak"]


def _info(payment: dict[str, Any]) -> OrchestratorInfo:
    """What the orchestrator of the vector had sent: its numbers with leading zeros, which must not come out again."""
    params, token = payment["ticketParams"], payment["segment"]["authToken"]
    numbers = {
        name: bytes(2) + int(params[key]).to_bytes(30 if key != "seed" else 32, "big")
        for name, key in (
            ("face_value", "faceValue"),
            ("win_prob", "winProb"),
            ("seed", "seed"),
            ("expiration_block", "expirationBlock"),
        )
        if key != "winProb"
    }
    message = pb.OrchestratorInfo(
        transcoder="https://orchestrator.example:8935",
        address=bytes.fromhex(params["recipient"]),
        ticket_params=pb.TicketParams(
            recipient=bytes.fromhex(params["recipient"]),
            win_prob=int(params["winProb"]).to_bytes(32, "big"),
            recipient_rand_hash=bytes.fromhex(params["recipientRandHash"]),
            expiration_params=pb.TicketExpirationParams(
                creation_round=int(params["creationRound"]),
                creation_round_block_hash=bytes.fromhex(params["creationRoundBlockHash"]),
            ),
            **numbers,
        ),
        price_info=pb.PriceInfo(
            pricePerUnit=int(payment["expectedPrice"]["pricePerUnit"]),
            pixelsPerUnit=int(payment["expectedPrice"]["pixelsPerUnit"]),
        ),
        auth_token=pb.AuthToken(
            token=bytes.fromhex(token["tokenHex"]) if "tokenHex" in token else token["token"].encode(),
            session_id=token["sessionId"],
            expiration=int(token["expiration"]),
        ),
    )
    return decode_orchestrator_info(message.SerializeToString())


def test_a_payment_from_the_key_to_the_header(vectors: dict[str, Any]) -> None:
    payment = vectors["payment"]
    params, tickets = payment["ticketParams"], payment["tickets"]
    key = SigningKey(bytes.fromhex(payment["privateKey"]))
    assert key.address.hex() == payment["address"].lower()
    info = _info(payment)
    assert info.ticket_params is not None
    assert info.ticket_params.recipient_rand_hash == recipient_rand_hash(int(params["recipientRand"]))

    ticket = Ticket(
        recipient=info.ticket_params.recipient,
        sender=key.address,
        face_value_wei=info.ticket_params.face_value_wei,
        win_prob=info.ticket_params.win_prob,
        sender_nonce=0,
        recipient_rand_hash=info.ticket_params.recipient_rand_hash,
        creation_round=info.ticket_params.creation_round,
        creation_round_block_hash=info.ticket_params.creation_round_block_hash,
    )
    hashes = batch_preimage(ticket).hashes(tickets[0]["senderNonce"], len(tickets))
    assert hashes == [ticket_hash(replace(ticket, sender_nonce=t["senderNonce"])) for t in tickets]
    assert [h.hex() for h in hashes] == [t["hash"] for t in tickets]
    signatures = [key.eth_sign(h) for h in hashes]
    assert [s.hex() for s in signatures] == [t["sig"] for t in tickets]

    frame = payment_frame(
        info,
        sender=key.address,
        creation_round=ticket.creation_round,
        creation_round_block_hash=ticket.creation_round_block_hash,
    )
    header = encode_payment(
        frame,
        nonces=[t["senderNonce"] for t in tickets],
        signatures=signatures,
    )
    assert header == payment["livepeerPayment_base64"]


def test_a_payment_header_reads_back_as_what_it_was_made_of(vectors: dict[str, Any]) -> None:
    payment = vectors["payment"]
    decoded, params = decode_payment(payment["livepeerPayment_base64"]), payment["ticketParams"]
    assert decoded.sender.hex() == payment["address"].lower()
    assert decoded.recipient.hex() == params["recipient"]
    assert decoded.recipient_rand_hash.hex() == params["recipientRandHash"]
    assert decoded.creation_round_block_hash.hex() == params["creationRoundBlockHash"]
    numbers = (decoded.face_value_wei, decoded.win_prob, decoded.seed, decoded.expiration_block, decoded.creation_round)
    names = ("faceValue", "winProb", "seed", "expirationBlock", "creationRound")
    assert numbers == tuple(int(params[name]) for name in names)
    assert decoded.expected_price.price_per_unit == int(payment["expectedPrice"]["pricePerUnit"])
    assert decoded.expected_price.pixels_per_unit == int(payment["expectedPrice"]["pixelsPerUnit"])
    pairs = list(zip(decoded.nonces, (s.hex() for s in decoded.signatures), strict=True))
    assert pairs == [(t["senderNonce"], t["sig"]) for t in payment["tickets"]]
    for digest, signature in zip(payment["tickets"], decoded.signatures, strict=True):
        assert recover_eth_signer(bytes.fromhex(digest["hash"]), signature) == decoded.sender


def test_segment_credentials_and_info_signature(vectors: dict[str, Any]) -> None:
    payment = vectors["payment"]
    key, segment = SigningKey(bytes.fromhex(payment["privateKey"])), payment["segment"]
    manifest = segment["manifestId"].encode()
    received = decode_base64(segment.get("capabilities_base64", ""))
    credentials = encode_seg_creds(
        manifest,
        signature=key.bsign(flatten_segment(manifest)),
        auth_token=pb.AuthToken.FromString(_info(payment).auth_token),
        capabilities=normalise_capabilities(received) if received else None,
    )
    assert credentials == segment["livepeerSegment_base64"]
    assert key.bsign(checksum_address(key.address).encode()).hex() == payment["orchestratorInfoSignature"]


def test_a_state_reads_and_writes_to_the_byte(vectors: dict[str, Any]) -> None:
    vector = vectors["payment"]["state"]
    state, key = vector["json"].encode(), SigningKey(bytes.fromhex(vectors["payment"]["privateKey"]))
    assert encode_state(decode_state(state)) == state
    assert key.eth_sign(state).hex() == vector["sig"]
    assert recover_eth_signer(state, bytes.fromhex(vector["sig"])) == key.address
    assert parse_address(checksum_address(key.address)) == key.address
