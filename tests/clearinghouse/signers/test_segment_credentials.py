"""Segment credentials that are remembered are those that would be made anew, of whatever size."""

from __future__ import annotations

import random
from itertools import product

from chain.messages import (
    REMEMBERED_CAPABILITIES_BYTES_MAX,
    REMEMBERED_OFFER_BYTES_MAX,
    encode_seg_creds,
    flatten_segment,
)
from chain.pb import lp_rpc_pb2 as pb
from clearinghouse.requests import PaymentRequest, decode_payment_request
from clearinghouse.signers.segment_credentials import SegmentCredentials
from tests.clearinghouse.signers.calls import KEY, b64, body, info


def request_by(token: bytes, models: tuple[str, ...]) -> PaymentRequest:
    offer = info()
    offer.auth_token.token = token
    constraints = pb.Capabilities.Constraints()
    for model in models:
        constraints.PerCapability[27].models[model].warm = True
    message = pb.Capabilities(bitstring=[1 << 27], constraints=constraints)
    return decode_payment_request(body(offer, capabilities=b64(message.SerializeToString()) if models else None))


def made_anew(manifest_id: bytes, request: PaymentRequest) -> str:
    return encode_seg_creds(
        manifest_id,
        signature=KEY.bsign(flatten_segment(manifest_id)),
        auth_token=pb.AuthToken.FromString(request.info.auth_token),
        capabilities=request.decoded_capabilities(),
    )


def test_what_is_remembered_is_what_would_be_made_anew() -> None:
    credentials = SegmentCredentials(KEY)
    tokens = (b"one", b"another", b"x" * REMEMBERED_OFFER_BYTES_MAX)
    models = ((), ("a/b",), ("a/b", "c/d"), ("m" * REMEMBERED_CAPABILITIES_BYTES_MAX,))
    calls = [(name, request_by(*asked)) for name in (b"stream", b"other") for asked in product(tokens, models)] * 2
    random.Random(7).shuffle(calls)
    for manifest_id, request in calls:
        assert credentials.of(manifest_id, request) == made_anew(manifest_id, request)
