"""Runs a driving script in the client's environment and gives its report."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

from tests.e2e.sdk.environment import ensure_sdk_python

HERE = Path(__file__).parent
TIMEOUT_S = 90


async def drive(script: str, job: dict[str, Any]) -> list[dict[str, Any]]:
    """The JSON lines that `script` prints. The script's errors go to our own standard error.

    Raises AssertionError when the script fails, TimeoutError when it hangs; it is never left running.
    """
    python = await asyncio.to_thread(ensure_sdk_python)
    process = await asyncio.create_subprocess_exec(
        str(python), str(HERE / script), stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE
    )
    try:
        output, _ = await asyncio.wait_for(process.communicate(json.dumps(job).encode()), TIMEOUT_S)
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    assert process.returncode == 0, f"{script} ended with {process.returncode} after printing {output.decode()}"
    return [json.loads(line) for line in output.splitlines()]
