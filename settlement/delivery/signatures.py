"""How a message proves that we sent it: `Clearinghouse-Signature: t=1766700000,v1=<hex>`.

`v1` is the HMAC-SHA256, under the receiver's secret, of the Unix time in `t`, a point, and the body as it was sent.
While one secret replaces another there is a `v1` for each. The time keeps a recorded message from being sent again
later by somebody else.
"""

from __future__ import annotations

import hmac
import json
import time
from collections.abc import Sequence
from typing import Final

from clearinghouse.instants import rfc3339
from settlement.delivery.message import Delivery

HEADER: Final = "Clearinghouse-Signature"
TOLERANCE_S: Final = 300


def signed_event(delivery: Delivery, secrets: Sequence[bytes]) -> tuple[bytes, dict[str, str]]:
    """Body and headers of a webhook's POST. The id is the same however often it is sent; the signature is of now."""
    event_id = f"evt_{delivery.id.hex}"
    event = {
        "id": event_id, "type": delivery.message.type, "created_at": rfc3339(delivery.created_at),
        "data": delivery.message.document,
    }  # fmt: skip
    body = json.dumps(event, ensure_ascii=False, separators=(",", ":")).encode()
    signature = signature_header(body, secrets, at_unix_s=int(time.time()))
    return body, {HEADER: signature, "Idempotency-Key": event_id, "Clearinghouse-Attempt": str(delivery.attempt)}


def signature_header(body: bytes, secrets: Sequence[bytes], *, at_unix_s: int) -> str:
    """The header's value, with a signature under each secret."""
    return ",".join([f"t={at_unix_s}", *(f"v1={_signature(body, secret, at_unix_s)}" for secret in secrets)])


def is_signed(body: bytes, header: str, secret: bytes, *, now_unix_s: int, tolerance_s: int = TOLERANCE_S) -> bool:
    """What a receiver checks: one signature fits, and the time is near its own, in either direction."""
    parts = [part.partition("=")[::2] for part in header.split(",")]
    times = [value for name, value in parts if name == "t"]
    if len(times) != 1 or not (times[0].isascii() and times[0].isdigit() and len(times[0]) <= 12):
        return False
    at_unix_s = int(times[0])
    if abs(now_unix_s - at_unix_s) > tolerance_s:
        return False
    wanted = _signature(body, secret, at_unix_s).encode()
    return any(hmac.compare_digest(wanted, value.encode()) for name, value in parts if name == "v1")


def _signature(body: bytes, secret: bytes, at_unix_s: int) -> str:
    return hmac.digest(secret, f"{at_unix_s}.".encode() + body, "sha256").hex()
