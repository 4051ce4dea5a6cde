"""`python -m tests.bench.hot_path`: what the book of open tickets and the gates of coverage cost a call.

The commit function is called as it is and, for the same sessions on the same connection, as a twin without the parts
that are there for coverage: one right after the other, in alternating order. What counts is the difference of each
pair, in CPU of the PostgreSQL process that carries it out, and its median over all pairs. Beside it, what the gates
cost in the service before anything is signed.

A call alone is carried out by commit_next, all others by commit_issuances. While the deposit is critical commit_next
leaves all to the latter, which gets a call alone as a batch of one.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import re
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from math import sqrt
from pathlib import Path
from statistics import median
from typing import Any, Final, NamedTuple
from uuid import UUID

import psycopg

from clearinghouse.commits import COMMIT_NEXT
from clearinghouse.coverage.early import EarlyGate
from clearinghouse.database.connect import SERVE_ROLE, async_engine, hot_conninfo, in_role
from clearinghouse.database.embedded import EmbeddedPostgres
from clearinghouse.database.migrate import migrate
from tests.bench.failure import BenchFailed
from tests.bench.usage import cpu_ns
from tests.parts.books import (
    TYPES,
    Connection,
    Usage,
    as_a_batch_is_sent,
    as_one_is_sent,
    commit_together,
    new_gateway,
    usage,
)

COST_MAX_US: Final = 10
SENDER: Final = b"\x33" * 20
#: Of calls that came while the commit before was on its way: alone, and as they come from 64 callers.
BATCH_ROWS: Final = (1, 8, 16, 32, 64)
LEVELS: Final = ("ok", "critical")
CREDIT: Final = 10**6
EV_WEI: Final = 10**9
GATE_CALLS: Final = 200_000
Part = tuple[str, str]
#: What is taken out of each function, each exactly once: (what it is, its text).
PARTS: Final[dict[str, tuple[Part, ...]]] = {
    "commit_issuances": (
        ("lock of the shares", r"    IF a_covered THEN  -- until the end.*?\n    END IF;\n"),
        ("gates", r"        IF a_covered AND o_code IS NULL THEN\n.*?\n        END IF;\n"),
        ("shares", r"            -- A share is of all.*?\n            END IF;\n"),
        ("the book", r"        INSERT INTO exposure_delta \(.*?;\n"),
        ("what was ever released", r" ev_total_wei = ev_total_wei \+ paid\.ev,"),
        ("the same, read", r" account\.ev_total_wei,"),
    ),
    "commit_next": (
        ("lock of the shares", r"    IF a_covered AND pg_advisory.*?\n    END IF;\n"),
        ("gates", r"    IF a_covered THEN\n        PERFORM FROM coverage_gate.*?\n    END IF;\n"),
        ("the book", r"    INSERT INTO exposure_delta \(.*?;\n"),
        ("what was ever released", r"\n +ev_total_wei = ev_total_wei \+ a_ev,"),
    ),
}


class Measured(NamedTuple):
    """Of one batch size at one level: medians, in µs for each call."""

    rows: int
    level: str
    bare_us: float
    cost_us: float
    #: Ends of the interval that has the median of the difference with 95 %.
    low_us: float
    high_us: float
    #: The same difference in time that passed.
    wall_us: float
    #: What the book costs later and beside the calls, when its changes are added to its counters.
    later_us: float


def without_coverage(function: str, definition: str) -> str:
    """The definition of the twin. BenchFailed where the function is not the one that PARTS was written for."""
    for part, pattern in PARTS[function]:
        definition, count = re.subn(pattern, "", definition, flags=re.DOTALL)
        if count != 1:
            raise BenchFailed(f"{function} has {part} {count} times: {pattern}")
    return definition.replace(f"{function}(", f"{function}_bare(", 1)


def make_twins(owner: Connection) -> None:
    """Raises BenchFailed."""
    for function in PARTS:
        row = owner.execute("SELECT pg_get_functiondef(%s::regproc)", [function]).fetchone()
        assert row is not None
        owner.execute(without_coverage(function, row[0]).encode())
        owner.execute(f"GRANT EXECUTE ON FUNCTION {function}_bare TO {SERVE_ROLE}".encode())


@contextmanager
def twins() -> Iterator[tuple[str, Connection]]:
    """A database with the functions and their twins, and its owner's connection."""
    with (
        tempfile.TemporaryDirectory(prefix="bench-") as folder,
        EmbeddedPostgres(Path(folder) / "data") as database,
    ):
        migrate(database.conninfo)
        with psycopg.connect(database.conninfo, autocommit=True) as owner:
            make_twins(owner)
            yield database.conninfo, owner


class Sessions:
    """Sessions of so many gateways, which go on together."""

    def __init__(self, owner: Connection, rows: int) -> None:
        self.gateways = [new_gateway(owner, CREDIT) for _ in range(rows)]
        self._calls = [usage(*gateway, ev_wei=EV_WEI, sender=SENDER) for gateway in self.gateways]
        begun = commit_together(owner, self._calls)
        if any(code is not None for code, _ in begun):
            raise BenchFailed(f"no session was begun: {begun}")

    def next(self) -> list[Usage]:
        self._calls = [call.continued() for call in self._calls]
        return self._calls


def set_gate(owner: Connection, level: str, gateways: list[tuple[UUID, UUID]]) -> None:
    """For the rest of the day; while it is critical everybody has a share without end."""
    ids = [id_ for id_, _ in gateways]
    owner.execute("SELECT set_coverage_gate(%s, %s, NULL, 86400, %s::uuid[], %s::numeric[])",
                  [SENDER, level, ids, [10**24] * len(ids)])  # fmt: skip


def measure(conninfo: str, owner: Connection, *, rows: int, level: str, pairs: int) -> Measured:
    sessions, is_alone = Sessions(owner, rows), rows == 1 and level != "critical"
    set_gate(owner, level, sessions.gateways)
    took: dict[str, list[tuple[float, float]]] = {"": [], "_bare": []}
    with psycopg.connect(hot_conninfo(conninfo), autocommit=True, prepare_threshold=0) as connection:
        for number in range(pairs + 20):
            for twin in ("", "_bare") if number % 2 else ("_bare", ""):
                spent = commit_timed(connection, twin, sessions.next(), is_alone=is_alone)
                if number >= 20:  # plans are made, pages are in memory
                    took[twin].append(spent)
    later_us = _rolled_up_us(owner)
    cost, wall = ([(full[at] - bare[at]) / rows for full, bare in zip(took[""], took["_bare"], strict=True)]
                  for at in (0, 1))  # fmt: skip
    low, high = _interval(cost)
    bare_us = median(cpu for cpu, _ in took["_bare"]) / rows
    return Measured(rows, level, bare_us, median(cost), low, high, median(wall), later_us)


def commit_timed(
    connection: Connection, twin: str, calls: list[Usage], *, is_alone: bool = False
) -> tuple[float, float]:
    """CPU of the server's process and time that passed, in µs. `is_alone`: by commit_next."""
    query, parameters = _alone(twin, *calls) if is_alone else _together(twin, calls)
    pid, cursor = connection.info.backend_pid, psycopg.RawCursor(connection)
    cpu, began = cpu_ns(pid), time.perf_counter_ns()
    rows = cursor.execute(query, parameters, binary=True).fetchall()
    wall_us, cpu_us = (time.perf_counter_ns() - began) / 1000, (cpu_ns(pid) - cpu) / 1000
    if not all(is_done for (is_done,) in rows) or len(rows) != len(calls):
        raise BenchFailed(f"not every call was carried out: {rows}")
    return cpu_us, wall_us


def _alone(twin: str, call: Usage) -> tuple[bytes, list[Any]]:
    query = COMMIT_NEXT.replace("commit_next(", f"commit_next{twin}(").replace(
        "o_balance, o_credit_limit, o_created_at", "o_balance IS NOT NULL"
    )
    return query.encode(), [*as_one_is_sent(call), "t"]


def _together(twin: str, calls: list[Usage]) -> tuple[bytes, list[Any]]:
    given = ", ".join(f"${number}::{kind}[]" for number, kind in enumerate(TYPES, start=1))
    query = f"SELECT o_code IS NULL FROM commit_issuances{twin}({given}, false, true)"
    return query.encode(), as_a_batch_is_sent(calls)


def _rolled_up_us(owner: Connection) -> float:
    pid = owner.info.backend_pid
    began = cpu_ns(pid)
    row = owner.execute("SELECT roll_up_exposure(1000000)").fetchone()
    assert row is not None
    return (cpu_ns(pid) - began) / 1000 / int(row[0])


def _interval(values: list[float]) -> tuple[float, float]:
    """Of the median, by the ranks that it lies between with 95 %, whatever the distribution."""
    ordered, half = sorted(values), 0.98 * sqrt(len(values))
    middle = (len(values) - 1) / 2
    return ordered[max(int(middle - half), 0)], ordered[min(int(middle + half + 1), len(values) - 1)]


async def early_gate_us(conninfo: str, gateway_id: UUID) -> float:
    """Both questions that every call asks, of gates as they were last read."""
    engine = async_engine(in_role(conninfo, SERVE_ROLE), pool_size=1)
    try:
        gate = EarlyGate(engine, SENDER, is_enforced=True)
        await gate.refresh()
        return min(_each_us(lambda: _ask(gate, gateway_id)) for _ in range(5))
    finally:
        await engine.dispose()


def _ask(gate: EarlyGate, gateway_id: UUID) -> None:
    assert gate.refusal(SENDER, is_new_session=False, face_value_wei=10**15) is None
    assert gate.share_refusal(SENDER, gateway_id, EV_WEI) is None


def _each_us(call: Callable[[], Any]) -> float:
    began = time.process_time_ns()
    for _ in range(GATE_CALLS // 5):
        call()
    return (time.process_time_ns() - began) / 1000 / (GATE_CALLS // 5)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.hot_path", description="The cost of book and gates.")
    parser.add_argument("--pairs", type=int, default=400, help="of each batch size at each level (default 400)")
    pairs = parser.parse_args().pairs
    print(f"Book and gates in the commit, load average before: {os.getloadavg()[0]:.2f}")
    with twins() as (conninfo, owner):
        found = [
            measure(conninfo, owner, rows=rows, level=level, pairs=pairs) for level in LEVELS for rows in BATCH_ROWS
        ]
        gateway, _ = new_gateway(owner)
        set_gate(owner, "critical", [(gateway, gateway)])
        gate_us = asyncio.run(early_gate_us(conninfo, gateway))
    show(found, gate_us, pairs)
    return 0


def show(found: list[Measured], gate_us: float, pairs: int) -> None:
    print(f"Medians of {pairs} pairs, in µs of PostgreSQL's CPU for each call. Besides: the same in time that passed,\n"
          "the wait for the disk included, and what is done later, beside the calls.\n")  # fmt: skip
    print("  calls at once  level     without   they cost  95 %               passed   later")
    for each in found:
        interval = f"{each.low_us:.1f} to {each.high_us:.1f}"
        print(f"  {each.rows:>13}  {each.level:<8} {each.bare_us:>8.1f} {each.cost_us:>11.1f}  {interval:<16} "
              f"{each.wall_us:>8.1f} {each.later_us:>7.1f}")  # fmt: skip
    print(f"\nGates before signing, in the service: {gate_us:.2f} µs for each call.\n")
    for level in LEVELS:
        missed = [each.rows for each in found if each.level == level and each.cost_us + gate_us > COST_MAX_US]
        reached = [rows for rows in BATCH_ROWS if rows > max(missed, default=0)]
        said = f"reached from {reached[0]} calls at once on" if reached else "MISSED at every number of calls at once"
        print(f"  {COST_MAX_US} µs for a call, all together, at level {level}: {said}")


if __name__ == "__main__":
    sys.exit(main())
