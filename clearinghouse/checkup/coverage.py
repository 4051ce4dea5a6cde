"""The coverage of each sender's deposit: whether somebody evaluates it, and whether it is enough."""

from __future__ import annotations

from typing import Any, Final

import psycopg

from chain.coverage import Level
from chain.signatures import checksum_address
from clearinghouse.checkup.findings import Finding, error, ok, warning

NAME: Final = "coverage"

_GATES: Final = """
    SELECT sender, level, valid_until > now(), extract(epoch FROM now() - evaluated_at)::bigint
      FROM coverage_gate ORDER BY sender
"""
_WHAT_NEXT: Final = "`clearinghouse coverage` says how much to add to reserve and deposit."


async def gates(connection: psycopg.AsyncConnection[tuple[Any, ...]], *, is_enforced: bool) -> list[Finding]:
    """One for each sender. The connection must be able to read them. Where nothing is enforced, nothing is an error."""
    rows = await (await connection.execute(_GATES)).fetchall()
    if not rows and is_enforced:
        return [warning(NAME, "was never evaluated", "`clearinghouse serve` does it; until then calls are refused.")]
    return [_about(bytes(sender), Level(level), holds, age_s, is_enforced) for sender, level, holds, age_s in rows]


def _about(sender: bytes, level: Level, holds: bool, age_s: int, is_enforced: bool) -> Finding:
    shown = checksum_address(sender)
    if not is_enforced:
        return ok(NAME, f"of {shown}: {level.value}, not enforced")
    if not holds:
        return warning(
            NAME,
            f"of {shown}: last evaluated {age_s} s ago, so that calls are refused",
            "Is `clearinghouse serve` running, and is the chain read? See its log.",
        )
    if level in {Level.LOW, Level.CRITICAL}:
        return error(NAME, f"of {shown}: {level.value}, new sessions are refused", _WHAT_NEXT)
    if level is Level.WATCH:
        return warning(NAME, f"of {shown}: {level.value}, less than twice what open tickets need", _WHAT_NEXT)
    return ok(NAME, f"of {shown}: {level.value}")
