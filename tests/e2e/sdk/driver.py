"""What the driving scripts share: one JSON object in on standard input, JSON lines out, in the client's environment.

The job comes over standard input because it holds an API key, which must not show in a list of processes.
"""

from __future__ import annotations

import json
import sys
from typing import Any


def read_job() -> dict[str, Any]:
    job: dict[str, Any] = json.load(sys.stdin)
    return job


def report(event: str, **facts: Any) -> None:
    """One line for the test to assert on. `event` says what the client did or which error it raised."""
    print(json.dumps({"event": event, **facts}), flush=True)


def report_error(event: str, error: Exception) -> None:
    report(event, error=type(error).__name__, message=str(error), status=getattr(error, "status_code", None))
