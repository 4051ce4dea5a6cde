"""A20: segment credentials and tickets are signed with one key; a ManifestID that spells a ticket would become one."""

from __future__ import annotations

import base64
import json

import grpc
import pytest

from chain.messages import flatten_segment
from chain.pb import lp_rpc_pb2 as net
from chain.signatures import keccak, recover_eth_signer
from chain.tickets import WIN_PROB_CERTAIN, Ticket, aux_data, recipient_rand_hash, ticket_hash
from clearinghouse.requests import MAX_MANIFEST_ID_CHARS
from tests.abuses.attack import GO_LIVEPEER, OURS, refused_everywhere
from tests.clearinghouse.api.grpc_parts import Refused, metadata, next_request
from tests.parts import client
from tests.parts.service import Service, our_body
from tests.parts.stack import SIGNER_KEY, TestGateway

RAND = 7
#: A ticket for everything, which its recipient can redeem.
TICKET = Ticket(
    recipient=b"\x0a" * 20,
    sender=SIGNER_KEY.address,
    face_value_wei=10**19,
    win_prob=WIN_PROB_CERTAIN,
    sender_nonce=1,
    recipient_rand_hash=recipient_rand_hash(RAND),
    creation_round=0,
    creation_round_block_hash=flatten_segment(b"")[32:],
)
#: What the segment credentials would have to begin with: the ticket up to its round and block hash.
PREIMAGE = b"".join(
    (
        TICKET.recipient,
        TICKET.sender,
        TICKET.face_value_wei.to_bytes(32, "big"),
        TICKET.win_prob.to_bytes(32, "big"),
        TICKET.sender_nonce.to_bytes(32, "big"),
        TICKET.recipient_rand_hash,
    )
)
#: A redeemable ticket has its round and its block hash behind that.
REDEEMABLE_BYTES = len(PREIMAGE) + len(aux_data(1, bytes(32)))


def test_the_attack_would_work_on_a_signer_that_signs_any_manifest() -> None:
    forged = SIGNER_KEY.bsign(flatten_segment(PREIMAGE))
    assert recover_eth_signer(ticket_hash(TICKET), forged) == SIGNER_KEY.address


@pytest.mark.parametrize("spelled", [PREIMAGE, PREIMAGE[:128], PREIMAGE[:104], PREIMAGE[:1]])
async def test_no_way_in_takes_the_bytes_of_a_ticket_as_a_manifest(
    service: Service, gateway: TestGateway, spelled: bytes
) -> None:
    stream = service.new_stream(manifest_id=spelled.decode("latin-1"))
    await refused_everywhere(service, gateway, stream, 400, "invalid_request")
    for path in (GO_LIVEPEER, OURS):
        stream.manifest_id = "MARK"
        document = json.dumps(our_body(stream.document()) if path == OURS else stream.document()).encode()
        for written in (spelled, b"".join(b"\\u%04x" % byte for byte in spelled), spelled.replace(b"\n", b"\\n")):
            answer = await service.sign(gateway, document.replace(b"MARK", written), path=path)
            assert (answer.status, answer.code) == (400, "invalid_request"), (path, answer.body)


async def test_the_raw_bytes_in_a_protobuf_are_no_text(service: Service, gateway: TestGateway) -> None:
    stream = service.new_stream(manifest_id="M" * len(PREIMAGE))
    encoded = next_request(stream).SerializeToString().replace(b"M" * len(PREIMAGE), PREIMAGE)
    async with grpc.aio.insecure_channel(f"127.0.0.1:{service.running.grpc_port}") as channel:
        method = channel.unary_unary("/livepeer.clearinghouse.v1.Clearinghouse/SignTicket")
        refused = await Refused.by(method(encoded, metadata=metadata(gateway)))
    assert (refused.code, refused.info.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "invalid_request")


@pytest.mark.parametrize("manifest_id", ["m", "x" * 104, "~" * MAX_MANIFEST_ID_CHARS, ""])
async def test_what_is_signed_for_a_manifest_is_too_short_for_any_ticket_that_can_be_redeemed(
    service: Service, gateway: TestGateway, manifest_id: str
) -> None:
    answer = await service.pay(gateway, service.new_stream(manifest_id=manifest_id))
    segment = net.SegData.FromString(base64.b64decode(answer.json["segCreds"]))
    signed = flatten_segment(segment.manifestId)
    assert recover_eth_signer(keccak(signed), segment.sig) == SIGNER_KEY.address
    assert len(signed) < REDEEMABLE_BYTES


async def test_no_route_signs_free_text(service: Service, gateway: TestGateway) -> None:
    authorization = ("Authorization", gateway.authorization)
    job = json.dumps({"id": "1", "capability": "x", "request": PREIMAGE.hex(), "parameters": ""}).encode()
    assert (await client.post(service.port, "/sign-byoc-job", job, authorization)).status == 404
    asked = await client.post(service.port, "/sign-orchestrator-info", job, authorization)
    empty = await client.post(service.port, "/sign-orchestrator-info", b"", authorization)
    assert asked.body == empty.body, "what is signed there is the address, whatever is sent"
