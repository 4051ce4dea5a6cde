"""The Livepeer-Segment header of payments: the same for every call of a stream by one auth token, so it is remembered.

It follows from the key, the manifest, the token and the capabilities alone: a signer that forgot answers alike.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Final

from chain.messages import (
    REMEMBERED_CAPABILITIES_BYTES_MAX,
    REMEMBERED_OFFER_BYTES_MAX,
    encode_seg_creds,
    flatten_segment,
    normalise_capabilities,
)
from chain.pb import lp_rpc_pb2 as pb
from chain.signatures import SigningKey
from clearinghouse.requests import PaymentRequest

#: Of usual ones about 1 kB each; of the largest that are remembered, with what they are known by, 8 kB.
REMEMBERED_MAX_COUNT: Final = 4096
SIGNATURES_MAX_COUNT: Final = 8192


class SegmentCredentials:
    """Segment credentials by one key. Safe in threads."""

    def __init__(self, key: SigningKey) -> None:
        # Deterministic, and the same by any token: those change every few minutes within a stream.
        self._signature = lru_cache(SIGNATURES_MAX_COUNT)(lambda manifest_id: key.bsign(flatten_segment(manifest_id)))
        self._remembered = lru_cache(REMEMBERED_MAX_COUNT)(self._encoded)

    def of(self, manifest_id: bytes, request: PaymentRequest) -> str:
        """The header's value. The request's capabilities decode: that was required long before."""
        token, capabilities = request.info.auth_token, request.capabilities
        is_small = len(token) <= REMEMBERED_OFFER_BYTES_MAX and len(capabilities) <= REMEMBERED_CAPABILITIES_BYTES_MAX
        return (self._remembered if is_small else self._encoded)(manifest_id, token, capabilities)

    def _encoded(self, manifest_id: bytes, auth_token: bytes, capabilities: bytes) -> str:
        return encode_seg_creds(
            manifest_id,
            signature=self._signature(manifest_id),
            auth_token=pb.AuthToken.FromString(auth_token),
            capabilities=normalise_capabilities(capabilities) if capabilities else None,
        )
