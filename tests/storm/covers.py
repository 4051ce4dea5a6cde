"""Coverage in a storm: the gates go up and down at random, set as whoever evaluates sets them.

Nobody evaluates: the storm has the lead of the sender. What one gateway has released beyond its new share is taken from
the others', so the shares are read back, and that they are together no more than was divided is seen here.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final
from uuid import UUID

import psycopg
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from clearinghouse.coverage.lead import LOCK
from tests.parts.stack import TICKET_EV_WEI
from tests.storm.twin import Broken, Cover

VALID_S: Final = 3600
#: The watch stands by, and after each of its turns the gates are read.
SETTINGS: Final = {"enforced": "yes", "evaluate_s": 0.05}
_LEVELS: Final = {"ok": 6, "watch": 1, "low": 3, "critical": 6, "unknown": 1}
_FACE_VALUES: Final = "SELECT DISTINCT face_value_wei FROM issuance WHERE created_at > now() - interval '5 minutes'"
_TOTALS: Final = "SELECT id, ev_total_wei FROM account WHERE gateway_id IS NOT NULL"
_SET: Final = """
    SELECT set_coverage_gate(:sender, :level, CAST(:cap_wei AS numeric), :valid_s, CAST(:gateways AS uuid[]),
                             CAST(:totals_wei AS numeric[]))
"""
_SHARES: Final = """
    SELECT account.id, account.ev_total_wei, share.ev_total_max_wei
      FROM account LEFT JOIN cover_share AS share ON share.gateway_id = account.id AND share.sender = :sender
     WHERE account.gateway_id IS NOT NULL
"""


@contextmanager
def leading(conninfo: str, sender: bytes) -> Iterator[None]:
    """Nobody else evaluates while the block runs; it begins with everything allowed."""
    with psycopg.connect(conninfo, autocommit=True) as connection:
        connection.execute("SELECT pg_advisory_lock(%s::integer, hashtext(%s))", [LOCK, sender.hex()])
        connection.execute("SELECT set_coverage_gate(%s, 'ok', NULL, %s, '{}', '{}')", [sender, VALID_S])
        yield


async def set_at_random(engine: AsyncEngine, sender: bytes, dice: random.Random) -> dict[UUID, Cover]:
    """What every gateway may release from now on. `engine` is in role clearinghouse_serve. Raises Broken."""
    (level,) = dice.choices(list(_LEVELS), weights=list(_LEVELS.values()))
    async with engine.connect() as connection:
        face_values = sorted(int(wei) for wei in (await connection.execute(text(_FACE_VALUES))).scalars())
        began = {id_: int(total) for id_, total in (await connection.execute(text(_TOTALS))).all()}
    # What was issued lately is let through to the wei, or is a wei too large.
    cap_wei = dice.choice(face_values) - dice.randint(0, 1) if face_values and dice.random() < 0.2 else None
    allowances = dict.fromkeys(began, 0)
    if level == "critical":
        for id_ in dice.sample(sorted(began), dice.randint(0, len(began))):
            allowances[id_] = dice.choice([0, 1, 7, 60, 400]) * TICKET_EV_WEI
    given = {
        "sender": sender, "level": "ok" if level == "unknown" else level, "cap_wei": cap_wei,
        "valid_s": 0 if level == "unknown" else VALID_S, "gateways": list(began),
        "totals_wei": [total + allowances[id_] for id_, total in began.items()],
    }  # fmt: skip
    async with engine.begin() as connection:
        await connection.execute(text(_SET), given)
    async with engine.connect() as connection:
        rows = (await connection.execute(text(_SHARES), {"sender": sender})).all()
    if level == "critical":
        divided_wei = sum(allowances.values()) + sum(began.values())
        released_wei = sum(int(total) for _, total, _ in rows)
        at_most_wei = sum(max(int(total), int(most or 0)) for _, total, most in rows)
        if at_most_wei > max(divided_wei, released_wei):
            raise Broken(f"shares of {at_most_wei} wei together, where {divided_wei} were divided: {rows}")
    return {id_: Cover(level, cap_wei, int(most or 0)) for id_, _, most in rows}
