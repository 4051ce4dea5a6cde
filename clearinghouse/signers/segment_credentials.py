"""The Livepeer-Segment header of payments: the same for every call of a stream by one offer, so it is remembered.

It follows from the key, the manifest, the offer and the capabilities alone: a signer that forgot answers alike.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Final

from chain.messages import (
    REMEMBERED_CAPABILITIES_BYTES_MAX,
    REMEMBERED_OFFER_BYTES_MAX,
    OrchestratorInfo,
    decode_orchestrator_info,
    encode_seg_creds,
    flatten_segment,
    normalise_capabilities,
)
from chain.pb import lp_rpc_pb2 as pb
from chain.signatures import SigningKey
from clearinghouse.requests import PaymentRequest

#: Of usual ones about 1 kB each; of the largest that are remembered, 5 kB.
REMEMBERED_MAX_COUNT: Final = 4096
SIGNATURES_MAX_COUNT: Final = 8192


class SegmentCredentials:
    """Segment credentials by one key. Safe in threads."""

    def __init__(self, key: SigningKey) -> None:
        # Deterministic, and the same by any offer: those change every few minutes within a stream.
        self._signature = lru_cache(SIGNATURES_MAX_COUNT)(lambda manifest_id: key.bsign(flatten_segment(manifest_id)))
        self._remembered = lru_cache(REMEMBERED_MAX_COUNT)(self._encoded_again)

    def of(self, manifest_id: bytes, request: PaymentRequest) -> str:
        """The header's value. InvalidRequest where the request's capabilities do not decode."""
        offer, capabilities = request.info.encoded, request.capabilities
        if len(offer) > REMEMBERED_OFFER_BYTES_MAX or len(capabilities) > REMEMBERED_CAPABILITIES_BYTES_MAX:
            return self._encoded(manifest_id, request.info, request.decoded_capabilities())
        return self._remembered(manifest_id, offer, capabilities)

    def _encoded_again(self, manifest_id: bytes, offer: bytes, capabilities: bytes) -> str:
        decoded = normalise_capabilities(capabilities) if capabilities else None
        return self._encoded(manifest_id, decode_orchestrator_info(offer), decoded)

    def _encoded(self, manifest_id: bytes, info: OrchestratorInfo, capabilities: pb.Capabilities | None) -> str:
        return encode_seg_creds(
            manifest_id,
            signature=self._signature(manifest_id),
            auth_token=pb.AuthToken.FromString(info.auth_token),
            capabilities=capabilities,
        )
