"""Snapshots of coverage: what was known at a moment, kept as a time series for people and for what reads over it."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, fields
from datetime import datetime, timedelta
from typing import Any, Final, LiteralString, NamedTuple

import psycopg
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from chain.chain_reading import Lock
from chain.coverage import Level
from chain.outlook_document import WindowOutlook
from clearinghouse.coverage.escrows import Escrow, EscrowState
from clearinghouse.coverage.payees import Quote
from clearinghouse.database.batches import to_its_end


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A row of coverage_snapshot (migrations/sql/0001_coverage.sql says what the fields mean), of one sender.

    From `posterior_expected_wei` on it is the outlook: all of it None where it did not come to an end in time. Times to
    empty are None, too, where nothing like that is foreseen within a year.
    """

    sender: bytes
    observed_at: datetime
    block_number: int | None
    block_time: datetime
    l1_block_number: int
    round: int
    validity_rounds: int
    simulated: bool
    deposit_wei: int
    reserve_wei: int
    claimed_in_round_wei: int
    pool_size: int
    lock: Lock
    num_tickets: int
    expected_wei: int
    deviation_wei: int
    face_value_max_wei: int
    worst_case_wei: int
    coverage_bps: int | None
    level: Level
    remaining_ev_wei: int
    issuable_face_value_wei: int
    reserve_share_wei: int
    is_enforced: bool
    #: Of orchestrators that have claimed of the reserve or ask for more than they can quote.
    quotes: tuple[Quote, ...] = ()
    posterior_expected_wei: int | None = None
    posterior_deviation_wei: int | None = None
    posterior_coverage_bps: int | None = None
    delays_count: int | None = None
    exhausted_probability: float | None = None
    posterior_exhausted_probability: float | None = None
    horizon_s: int | None = None
    confidence_bps: int | None = None
    exhausted_in_horizon_probability: float | None = None
    burn_wei_per_day: int | None = None
    empty_median_s: int | None = None
    empty_pessimistic_s: int | None = None
    windows: tuple[WindowOutlook, ...] | None = None
    top_up_reserve_wei: int | None = None
    top_up_deposit_wei: int | None = None

    @property
    def has_outlook(self) -> bool:
        return self.posterior_expected_wei is not None

    @property
    def escrow(self) -> Escrow:
        """What it was taken of, but for what single claimants have claimed."""
        return Escrow(
            sender=self.sender, block_number=self.block_number, block_time=self.block_time,
            l1_block_number=self.l1_block_number, round=self.round, validity_rounds=self.validity_rounds,
            pool_size=self.pool_size, deposit_wei=self.deposit_wei, reserve_wei=self.reserve_wei,
            claimed_in_round_wei=self.claimed_in_round_wei, lock=self.lock, simulated=self.simulated,
        )  # fmt: skip

    @property
    def state(self) -> EscrowState:
        return EscrowState(self.deposit_wei, self.reserve_wei, self.claimed_in_round_wei, self.lock)


class Point(NamedTuple):
    """Of a curve over time."""

    observed_at: datetime
    deposit_wei: int
    reserve_wei: int
    expected_wei: int
    #: Expected value, deviations as configured and one largest ticket: what the deposit is divided by.
    needed_wei: int
    level: Level


_NAMES: Final = tuple(field.name for field in fields(Snapshot))
_COLUMNS: Final = ", ".join(_NAMES)
_INSERT: Final = (
    f"INSERT INTO coverage_snapshot ({_COLUMNS}) VALUES ({', '.join(f'%({name})s' for name in _NAMES)}) "  # noqa: S608
    "ON CONFLICT DO NOTHING"
).encode()
_NEWEST: Final = f"SELECT {_COLUMNS} FROM coverage_snapshot WHERE sender = "  # noqa: S608 - names of our own fields
_NEWEST_END: Final = " ORDER BY observed_at DESC LIMIT 1"
_WHOLE: Final = frozenset(
    field.name for field in fields(Snapshot) if str(field.type).startswith("int") and field.name != "windows"
)

_QUOTED_WEI: Final = frozenset(name for name in Quote._fields if name.endswith("_wei"))


async def record(connection: psycopg.AsyncConnection[Any], snapshot: Snapshot) -> None:
    """In role clearinghouse_serve. Raises psycopg.OperationalError."""
    row = asdict(snapshot) | {"level": snapshot.level.value, "lock": snapshot.lock.value}
    row["quotes"] = json.dumps([_quote_row(quote) for quote in snapshot.quotes])
    if snapshot.windows is not None:
        row["windows"] = json.dumps([
            window._asdict() | {"burn_wei_per_day": str(window.burn_wei_per_day)} for window in snapshot.windows
        ])  # fmt: skip
    await connection.execute(_INSERT, row)


async def newest(connection: psycopg.AsyncConnection[Any], sender: bytes) -> Snapshot | None:
    """Raises psycopg.OperationalError."""
    row = await (await connection.execute((_NEWEST + "%s" + _NEWEST_END).encode(), [sender])).fetchone()
    return _snapshot(row) if row is not None else None


async def newest_of_all(connection: AsyncConnection) -> list[Snapshot]:
    """Of every sender that has one, by sender. Any role."""
    senders = (await connection.execute(text(_SENDERS))).scalars()
    found = []
    for sender in sorted(map(bytes, senders)):
        query = text(_NEWEST + ":sender" + _NEWEST_END)
        found.append(_snapshot((await connection.execute(query, {"sender": sender})).one()))
    return found


async def newest_with_outlook(connection: AsyncConnection, sender: bytes, *, since: datetime) -> Snapshot | None:
    """The newest whose outlook has come to an end: one that a change of level or of funds wrote a moment ago often has
    none. Any role."""
    query = text(f"{_NEWEST}:sender AND posterior_expected_wei IS NOT NULL AND observed_at >= :since{_NEWEST_END}")
    row = (await connection.execute(query, {"sender": sender, "since": since})).one_or_none()
    return _snapshot(row) if row is not None else None


async def history(
    connection: AsyncConnection, sender: bytes, *, since: datetime, sigmas: int, points_max_count: int
) -> list[Point]:
    """Oldest first: of more snapshots than so many, the worst of each stretch of time. Any role."""
    parameters = {"sender": sender, "since": since, "sigmas": sigmas, "parts": points_max_count}
    rows = await connection.execute(text(_HISTORY), parameters)
    return [
        Point(at, int(deposit), int(reserve), int(expected), int(needed), Level(level))
        for at, deposit, reserve, expected, needed, level in rows
    ]


async def forget(engine: AsyncEngine, *, older_than: timedelta) -> None:
    """Forgets what was observed longer ago, in transactions of a bounded size. In role clearinghouse_serve."""
    await to_its_end(engine, "SELECT forget_coverage_snapshots(:older_than)", {"older_than": older_than})


#: By the index alone, however many snapshots there are.
_SENDERS: Final[LiteralString] = """
    WITH RECURSIVE known AS (
        (SELECT sender::bytea FROM coverage_snapshot ORDER BY sender LIMIT 1)
        UNION ALL
        SELECT (SELECT snapshot.sender::bytea FROM coverage_snapshot AS snapshot
                 WHERE snapshot.sender > known.sender ORDER BY snapshot.sender LIMIT 1)
          FROM known WHERE known.sender IS NOT NULL)
    SELECT sender FROM known WHERE sender IS NOT NULL
"""
_HISTORY: Final[LiteralString] = """
    SELECT observed_at, deposit_wei, reserve_wei, expected_wei, needed_wei, level
      FROM (SELECT DISTINCT ON (part) *
              FROM (SELECT *, expected_wei + :sigmas * deviation_wei + face_value_max_wei AS needed_wei,
                           width_bucket(extract(epoch FROM observed_at),
                                        extract(epoch FROM min(observed_at) OVER ()),
                                        extract(epoch FROM now()) + 1, :parts) AS part
                      FROM coverage_snapshot WHERE sender = :sender AND observed_at >= :since) AS seen
             ORDER BY part, coverage_bps NULLS LAST, deposit_wei, observed_at) AS worst
     ORDER BY observed_at
"""


def _snapshot(row: Any) -> Snapshot:
    found = dict(zip(_NAMES, row, strict=True))
    for name in _WHOLE:
        found[name] = int(found[name]) if found[name] is not None else None
    windows = found["windows"]
    return Snapshot(**found | {
        "sender": bytes(found["sender"]), "level": Level(found["level"]), "lock": Lock(found["lock"]),
        "windows": None if windows is None else tuple(
            WindowOutlook(**window | {"burn_wei_per_day": int(window["burn_wei_per_day"])}) for window in windows
        ),
        "quotes": tuple(map(_quote, found["quotes"])),
    })  # fmt: skip


def _quote_row(quote: Quote) -> dict[str, Any]:
    amounts = {name: None if wei is None else str(wei) for name, wei in quote._asdict().items() if name in _QUOTED_WEI}
    return quote._asdict() | amounts | {"recipient": quote.recipient.hex()}


def _quote(row: dict[str, Any]) -> Quote:
    amounts = {name: None if row[name] is None else int(row[name]) for name in _QUOTED_WEI}
    return Quote(**row | amounts | {"recipient": bytes.fromhex(row["recipient"])})
