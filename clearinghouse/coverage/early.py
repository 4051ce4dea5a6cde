"""The gates of coverage as a process knows them, so that a call which the commit would refuse never reaches a signer.

Read every second, and so perhaps a second old: the commit judges again, by what the database has then.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from time import monotonic
from typing import Final, NamedTuple
from uuid import UUID

import structlog
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from chain.coverage import Level
from clearinghouse.background import Repeated
from clearinghouse.database.connect import DATABASE_FAILED
from clearinghouse.readiness import NotReady

log = structlog.get_logger(__name__)

READ_INTERVAL_S: Final = 1
_READ_TIMEOUT_S: Final = 5

_GATES: Final = """
    SELECT sender, level, face_value_max_wei, extract(epoch FROM valid_until - clock_timestamp()),
           extract(epoch FROM clock_timestamp() - evaluated_at)
      FROM coverage_gate
"""
_SHARES: Final = """
    SELECT share.sender, share.gateway_id, share.ev_total_max_wei - account.ev_total_wei
      FROM cover_share AS share JOIN account ON account.id = share.gateway_id
"""


class Gate(NamedTuple):
    """Of one sender, as last read. Times are this process's monotonic clock's."""

    level: Level
    face_value_max_wei: int | None
    valid_until_s: float
    evaluated_at_s: float


class EarlyGate:
    """`start` before the first call, `stop` at the end. `sender` is this process's own."""

    def __init__(
        self, engine: AsyncEngine, sender: bytes, *, is_enforced: bool, now_s: Callable[[], float] = monotonic
    ) -> None:
        self._engine = engine
        self.sender = sender
        self.is_enforced = is_enforced
        self._now_s = now_s
        self._gates: dict[bytes, Gate] = {}
        self._left_wei: dict[tuple[bytes, UUID], int] = {}
        self._reading = Repeated("read-coverage", self.refresh, every_s=READ_INTERVAL_S)

    async def start(self) -> None:
        """A database that is away is no obstacle: until it is back, nothing is signed."""
        await self.refresh()
        self._reading.start(at_once=False)

    async def stop(self) -> None:
        await self._reading.stop()

    def refusal(self, sender: bytes, *, is_new_session: bool, face_value_wei: int | None) -> str | None:
        """The code that the commit would refuse with, in its order; None where it would not. `face_value_wei` None: it
        is not shown."""
        if not self.is_enforced:
            return None
        gate = self._gates.get(sender)
        if gate is None or gate.valid_until_s <= self._now_s():
            return "coverage_unknown"
        if is_new_session and gate.level in {Level.LOW, Level.CRITICAL}:
            return "coverage_low"
        if face_value_wei is not None and gate.face_value_max_wei is not None:
            return "face_value" if face_value_wei > gate.face_value_max_wei else None
        return None

    def share_refusal(self, sender: bytes, gateway_id: UUID, ev_wei: int) -> str | None:
        """The same of what comes last: a gateway's share while the level is critical."""
        gate = self._gates.get(sender)
        if not self.is_enforced or gate is None or gate.level is not Level.CRITICAL:
            return None
        return "coverage_critical" if ev_wei and ev_wei > self._left_wei.get((sender, gateway_id), 0) else None

    def level(self) -> Level | None:
        """Of our own sender; None where it is not known, or not any more."""
        gate = self._gates.get(self.sender)
        return gate.level if gate is not None and gate.valid_until_s > self._now_s() else None

    def age_s(self, sender: bytes) -> float | None:
        """Since the gate was last set; None where it never was."""
        gate = self._gates.get(sender)
        return self._now_s() - gate.evaluated_at_s if gate is not None else None

    async def probe(self) -> str:
        """For readiness. Raises NotReady where calls are refused because nobody knows."""
        gate, age_s = self._gates.get(self.sender), self.age_s(self.sender)
        shown = f"level {gate.level.value}, {round(age_s)} s old" if gate and age_s is not None else "not evaluated yet"
        if self.refusal(self.sender, is_new_session=False, face_value_wei=None) == "coverage_unknown":
            raise NotReady(f"coverage is not known ({shown}): the log says why")
        return shown if self.is_enforced else f"{shown}, not enforced"

    async def refresh(self) -> None:
        """Reads anew. What cannot be read stays as it is, until it holds no longer."""
        try:
            async with asyncio.timeout(_READ_TIMEOUT_S):
                await self._read()
        except (*DATABASE_FAILED, TimeoutError) as error:
            log.warning("coverage_gates_not_read", reason=type(error).__name__, retry_in_s=READ_INTERVAL_S)

    async def _read(self) -> None:
        began_at_s = self._now_s()
        async with self._engine.connect() as connection:
            gates = (await connection.execute(text(_GATES))).all()
            is_divided = any(level == Level.CRITICAL for _, level, *_ in gates)
            shares = (await connection.execute(text(_SHARES))).all() if is_divided else []
        self._gates = {
            bytes(sender): Gate(
                Level(level), None if cap is None else int(cap), began_at_s + float(left_s), began_at_s - float(age_s)
            )
            for sender, level, cap, left_s, age_s in gates
        }
        self._left_wei = {(bytes(sender), gateway_id): int(left) for sender, gateway_id, left in shares}
