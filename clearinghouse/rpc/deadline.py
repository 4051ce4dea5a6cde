"""How long a caller waits, by its own word (`grpc-timeout`)."""

from __future__ import annotations

import math
import re
from functools import lru_cache
from typing import Final

_TIMEOUT: Final = re.compile(rb"([0-9]{1,8})([HMSmun])")
_UNITS_S: Final = {b"H": 3600.0, b"M": 60.0, b"S": 1.0, b"m": 1e-3, b"u": 1e-6, b"n": 1e-9}


@lru_cache(256)  # clients mostly give all calls the same time
def timeout_s(text: bytes | None) -> float:
    """Infinity where nothing is said, or nothing that can be understood."""
    found = _TIMEOUT.fullmatch(text) if text is not None else None
    return int(found[1]) * _UNITS_S[found[2]] if found is not None else math.inf
