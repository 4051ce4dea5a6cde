"""Whether Stripe sent these bytes, and lately: the Stripe-Signature header. Pure; the time is given.

Stripe-Signature: t=1492774577,v1=5257a869…,v1=6ffbb59b…,v0=…

v1 = HMAC-SHA256(secret, t + "." + body), as hex; while an endpoint's secret is rolled there is one for each
"""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Sequence
from typing import Final

HEADER_BYTES_MAX: Final = 4096
_TIME: Final = re.compile(rb"t=([0-9]{1,12})", re.ASCII)
_SIGNATURE: Final = re.compile(rb"v1=([0-9a-f]{64})", re.ASCII)


class BadSignature(ValueError):
    """Stripe did not send this to us, or not now. The text says why and quotes nothing."""


def require_signed(body: bytes, header: bytes, secrets: Sequence[bytes], *, now_s: float, tolerance_s: int) -> None:
    """Raises BadSignature. Every secret is tried on every signature: how long it takes tells nothing of them.

    The time is signed too, so that what was heard on the way cannot be sent again later; and one that lies ahead is no
    better than one that lies behind, since it could be sent again for as long.
    """
    if len(header) > HEADER_BYTES_MAX:
        raise BadSignature("the Stripe-Signature header is too long")
    parts = [part.strip() for part in header.split(b",")]
    times = [found[1] for part in parts if (found := _TIME.fullmatch(part))]
    signatures = [found[1] for part in parts if (found := _SIGNATURE.fullmatch(part))]
    if len(times) != 1 or not signatures:
        raise BadSignature("the Stripe-Signature header is missing, or has no time and signature (t=…,v1=…)")
    signed = times[0] + b"." + body
    expected = [hmac.new(secret, signed, hashlib.sha256).hexdigest().encode() for secret in secrets]
    matches = [hmac.compare_digest(ours, theirs) for ours in expected for theirs in signatures]
    if not any(matches):
        raise BadSignature("no signature matches: the body was changed, or is signed with a secret we do not have")
    if abs(now_s - int(times[0])) > tolerance_s:
        raise BadSignature(f"the signature's time is more than {tolerance_s} s from ours")
