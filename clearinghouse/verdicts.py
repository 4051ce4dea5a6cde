"""What a signer's webhook is told, as JSON: go-livepeer's signers read the verdict in the body (protocol, section 6).

    {"status":200,"auth_id":"gw_…/ses_…","maxPrice":{"price":"…","currency":"wei","unit":"seconds"}}
    {"status":402,"reason":"out_of_credit: …"}

An approval has no expiry, ever: one that holds for later payments too would let them pass unseen (section 10, A6). The
statuses are those that the clients behind the signer understand, and none that would make them act on its own protocol:
480 would have them look for a header that the signer does not send, 482 would tell them that nothing was due.
"""

from __future__ import annotations

import json
from decimal import Decimal
from functools import lru_cache
from typing import Final

from chain.fees import PRICE_UNITS
from clearinghouse.errors import Refusal

#: By the status that the refusal has where the caller is asked directly.
STATUSES: Final = {
    400: 403, 401: 403, 402: 402, 403: 403, 404: 403, 405: 403, 409: 409, 413: 403, 429: 429, 480: 409, 481: 403,
    482: 409, 500: 503, 502: 503, 503: 503,
}  # fmt: skip
#: A session's ceiling is mostly the same. A few hundred bytes each.
APPROVALS_REMEMBERED_MAX_COUNT: Final = 8192


@lru_cache(APPROVALS_REMEMBERED_MAX_COUNT)
def approval(auth_id: str, job_type: str, price_max_wei_per_unit: Decimal | None) -> bytes:
    """The signer writes `auth_id` into the state, and holds the orchestrator's price against the ceiling."""
    verdict: dict[str, object] = {"status": 200, "auth_id": auth_id}
    if price_max_wei_per_unit is not None:
        price = f"{price_max_wei_per_unit:f}"
        verdict["maxPrice"] = {"price": price, "currency": "wei", "unit": PRICE_UNITS[job_type]}
    return json.dumps(verdict, separators=(",", ":")).encode()


def rejection(refusal: Refusal) -> bytes:
    """The reason has the code, because the signer hands on nothing else; and when to try again, for the same reason."""
    wait = f" Try again in {refusal.retry_after_s} s." if refusal.retry_after_s is not None else ""
    verdict = {"status": STATUSES[refusal.http_status], "reason": f"{refusal.code}: {refusal.message}{wait}"}
    return json.dumps(verdict, separators=(",", ":"), ensure_ascii=False).encode()
