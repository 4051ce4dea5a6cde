"""The events of the chain: whether they are read, and whether all redeemed tickets are ours."""

from __future__ import annotations

from typing import Any, Final

import psycopg

from clearinghouse.checkup.findings import Finding, error, ok, warning

NAME: Final = "chain events"
AGE_MAX_S: Final = 120

_STATE: Final = """
    SELECT begins_at_block, (SELECT max(number) FROM chain_block), head_block,
           extract(epoch FROM now() - read_at)::bigint,
           (SELECT count(*) FROM winning_ticket WHERE status IN ('foreign', 'altered'))
      FROM chain_follower
"""


async def events(connection: psycopg.AsyncConnection[tuple[Any, ...]], *, is_enabled: bool) -> list[Finding]:
    """What the database has. The connection must be able to read it. Nothing where nothing is read, or ever was."""
    row = await (await connection.execute(_STATE)).fetchone()
    if row is None:
        return [warning(NAME, "none were read yet", "`clearinghouse serve` reads them.")] if is_enabled else []
    begins_at, at, head, age_s, foreign_count = row
    if foreign_count:
        return [
            error(
                NAME,
                f"{foreign_count} redeemed tickets were not issued as they are: the key signs elsewhere too",
                "clearinghouse chain events --foreign; then move the deposit to another key.",
            )
        ]
    if not is_enabled:
        return []
    detail = f"blocks {begins_at} to {at} were read, {max(head - at, 0)} behind; every redeemed ticket is ours"
    if age_s > AGE_MAX_S:
        return [warning(NAME, f"{detail}; last read {age_s} s ago", "Is `clearinghouse serve` running? See its log.")]
    return [ok(NAME, detail)]
