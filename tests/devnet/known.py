"""What the service has found out about the chain, as its metrics tell whoever watches it."""

from __future__ import annotations

import re
import time
import urllib.request
from typing import Final

from clearinghouse.errors import Refusal

TIMEOUT_S: Final = 60
_POLL_S: Final = 0.2
_MATCHED: Final = re.compile(r'^clearinghouse_chain_redemptions_total\{status="matched"\} (\S+)$', re.MULTILINE)


class NotKnown(Refusal):
    """The service does not see what happened."""

    code, http_status = "not_known", 503
    what_next = "Ask `clearinghouse doctor`: it looks at the chain and at what was read of it."


def wait_until_matched(http_url: str, count: int) -> None:
    """Until so many redeemed tickets were found among those that the service has signed. Raises NotKnown."""
    give_up_at_s, found = time.monotonic() + TIMEOUT_S, 0
    while time.monotonic() < give_up_at_s:
        with urllib.request.urlopen(f"{http_url}/metrics", timeout=TIMEOUT_S) as answer:
            told = _MATCHED.search(answer.read().decode())
        found = int(told[1].partition(".")[0]) if told is not None else 0
        if found >= count:
            return
        time.sleep(_POLL_S)
    raise NotKnown(f"{count} tickets were redeemed, and the service knows of {found} after {TIMEOUT_S} s")
