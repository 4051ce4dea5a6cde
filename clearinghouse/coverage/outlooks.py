"""Starts the process that looks ahead, gives it its question, and ends it where it takes too long."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Sequence
from typing import Final

import structlog

from clearinghouse.coverage.looking import Looked, read_answer
from clearinghouse.coverage.outcomes import Look

log = structlog.get_logger(__name__)

#: `-P`: nothing is imported from the directory that somebody happened to start the service in.
PROGRAM: Final = (sys.executable, "-P", "-m", "clearinghouse.coverage.looking")


async def look_ahead(
    question: bytes, *, timeout_s: float, program: Sequence[str] = PROGRAM
) -> tuple[Look, Looked | None]:
    """The answer, where there is one in time. No process is left behind, also where this is cancelled."""
    pipe = asyncio.subprocess.PIPE
    try:
        process = await asyncio.create_subprocess_exec(*program, stdin=pipe, stdout=pipe, stderr=pipe)
    except OSError as error:  # no memory, no process left
        log.warning("coverage_outlook_failed", reason=str(error))
        return Look.FAILED, None
    try:
        async with asyncio.timeout(timeout_s):
            answer, complaint = await process.communicate(question)
    except TimeoutError:
        log.warning("coverage_outlook_timed_out", after_s=timeout_s)
        return Look.TIMED_OUT, None
    finally:
        if process.returncode is None:
            process.kill()
            await asyncio.shield(process.wait())
    if process.returncode != 0:
        log.warning("coverage_outlook_failed", status=process.returncode, reason=_last_line(complaint))
        return Look.FAILED, None
    try:
        return Look.DONE, read_answer(answer)
    except ValueError as error:
        log.warning("coverage_outlook_failed", reason=str(error))
        return Look.FAILED, None


def _last_line(text: bytes) -> str:
    return text.decode(errors="replace").strip().rpartition("\n")[2][:500]
