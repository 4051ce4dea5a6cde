"""A heartbeat: what a process says of itself is in the database, with since when, until it leaves."""

from __future__ import annotations

from typing import Any

import psycopg

from clearinghouse.database.connect import SERVE_ROLE, async_engine, in_role
from clearinghouse.heartbeat import Heartbeat
from clearinghouse.readiness import NotReady, Readiness

Connection = psycopg.Connection[tuple[Any, ...]]


class Signer:
    """Well, or not."""

    trouble = ""

    async def probe(self) -> str:
        if self.trouble:
            raise NotReady(self.trouble)
        return "signs"


async def test_a_part_that_fails_is_told_with_since_when_and_a_process_that_stops_leaves(
    database: str, owner: Connection
) -> None:
    engine, signer = async_engine(in_role(database, SERVE_ROLE), pool_size=1), Signer()
    heartbeat = Heartbeat(engine, Readiness({"signer": signer.probe}), {"chain_agreement": Signer().probe})

    def said() -> list[tuple[Any, ...]]:
        query = "SELECT name, is_well, detail, since, seen_at FROM service_condition ORDER BY name"
        return owner.execute(query).fetchall()

    await heartbeat.beat()
    (_, first), (second, third) = said(), said()
    assert [row[:3] for row in said()] == [("chain_agreement", True, "signs"), ("signer", True, "signs")]
    signer.trouble = "hangs"
    await heartbeat.beat()
    (agreement, failing) = said()
    assert failing[:3] == ("signer", False, "hangs")
    assert failing[3] > first[3], "since it became so"
    assert agreement[3] == second[3], "nothing has changed"
    assert agreement[4] > second[4], "and it was seen again"
    assert third[1]
    await heartbeat.beat()
    assert said()[1][3] == failing[3]
    await heartbeat.stop()
    assert said() == []
    await engine.dispose()


async def test_processes_do_not_speak_for_one_another_and_the_killed_are_forgotten_after_a_day(
    database: str, owner: Connection
) -> None:
    engine = async_engine(in_role(database, SERVE_ROLE), pool_size=1)
    beats = [Heartbeat(engine, Readiness({"signer": Signer().probe}), {}) for _ in range(2)]
    for beat in beats:
        await beat.beat()
    assert owner.execute("SELECT count(DISTINCT process_id) FROM service_condition").fetchone() == (2,)
    owner.execute("UPDATE service_condition SET seen_at = now() - interval '25 hours'")
    await beats[0].beat()
    assert owner.execute("SELECT count(*) FROM service_condition").fetchone() == (1,)
    await engine.dispose()
