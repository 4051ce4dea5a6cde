"""The doubles, compiled: once for a run, in a process of its own, because the compiler is large."""

from __future__ import annotations

import json
import subprocess
import sys
from functools import cache
from pathlib import Path

CONTRACTS_DIR = Path(__file__).parent / "contracts"


@cache
def bytecodes() -> dict[str, bytes]:
    """What is deployed, by the contract's name."""
    files = [path.name for path in sorted(CONTRACTS_DIR.glob("*.vy"))]
    command = [sys.executable, "-m", "vyper.cli.vyper_compile", "-f", "combined_json", *files]
    done = subprocess.run(command, cwd=CONTRACTS_DIR, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    compiled = json.loads(done.stdout)
    return {name.removesuffix(".vy"): bytes.fromhex(compiled[name]["bytecode"].removeprefix("0x")) for name in files}
