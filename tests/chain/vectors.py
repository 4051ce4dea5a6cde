"""Where the vectors are: ours beside the tests, the protocol's own where the project is checked out next to them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
OURS = ROOT / "tests" / "vectors" / "payments.json"
PROTOCOL = ROOT.parent / "shared" / "vectors" / "protocol.json"


def load(file: Path) -> dict[str, Any]:
    """The vectors of `file`. Only the protocol's own may be missing, and then the run says so."""
    if file == PROTOCOL and not file.exists():
        pytest.skip("../shared/vectors/protocol.json is not there: only our own vectors were tested")
    vectors: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    return vectors
