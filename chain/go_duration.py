"""Binary floating point, confined: seconds as Go's time.Duration counts them, turned into billable units.

This is the one module of the money path that uses `float`, and it must. go-livepeer computes the billed pixels and
seconds in float64, and a signer whose count differs by one unit signs a state that no longer agrees with the books of
the other. What leaves this module are whole *units* (pixels, seconds), never amounts: wei are computed from them
exactly. Python's float is the same IEEE 754 binary64, and division, sum, product, truncation and ceiling are
correctly rounded in both languages, so the results are equal to the bit (remote-signer protocol, section 3.1).
"""

from __future__ import annotations

import math
from typing import Final

#: 1280 x 720 pixels, 30 times a second: what a second of live video to video is billed as.
PIXELS_PER_SECOND: Final = 1280 * 720 * 30
#: Go's time.Time.Sub saturates here: about 292 years.
DURATION_NS_MAX: Final = 2**63 - 1


def seconds(duration_ns: int) -> float:
    """Go's Duration.Seconds(): whole seconds and the rest are converted apart, then added. Not negative."""
    whole_s, rest_ns = divmod(min(duration_ns, DURATION_NS_MAX), 1_000_000_000)
    return float(whole_s) + float(rest_ns) / 1e9


def pixels(duration_ns: int) -> int:
    """Pixels of a 720p stream of that duration, truncated as Go's int64(27648000.0 * seconds) does."""
    return math.trunc(float(PIXELS_PER_SECOND) * seconds(duration_ns))


def started_seconds(duration_ns: int) -> int:
    """Seconds begun in that duration: int64(math.Ceil(seconds))."""
    return math.ceil(seconds(duration_ns))
