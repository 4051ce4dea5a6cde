"""The two headers of a payment, decoded as strictly as an orchestrator has to."""

from __future__ import annotations

import base64
import binascii

from google.protobuf.message import DecodeError

from chain.pb import lp_rpc_pb2 as pb
from tests.parts.orchestrator.books import PaymentRefused, Reason


def read_payment(header: str) -> pb.Payment:
    """The Livepeer-Payment header; raises PaymentRefused(402)."""
    try:
        return pb.Payment.FromString(base64.b64decode(header, validate=True))
    except (binascii.Error, ValueError, DecodeError) as error:
        raise PaymentRefused(402, Reason.UNDECODABLE) from error


def read_segment(header: str) -> pb.SegData:
    """The Livepeer-Segment header; raises PaymentRefused(403)."""
    try:
        segment = pb.SegData.FromString(base64.b64decode(header, validate=True))
    except (binascii.Error, ValueError, DecodeError) as error:
        raise PaymentRefused(403, Reason.BAD_SEGMENT) from error
    if segment.seq < 0:
        raise PaymentRefused(403, Reason.BAD_SEGMENT)
    return segment
