"""What every part of a service stands on while it is put together."""

from __future__ import annotations

from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Protocol, TypeVar

from sqlalchemy.ext.asyncio import AsyncEngine

from clearinghouse.chain_watch import Budgets
from clearinghouse.config import Settings
from clearinghouse.database.connect import SERVE_ROLE, async_engine, in_role
from clearinghouse.metrics import Metrics


class _Stoppable(Protocol):
    async def stop(self) -> None: ...


T = TypeVar("T", bound=_Stoppable)


@dataclass(frozen=True, slots=True)
class Ground:
    """What is put on `stack` is stopped with the service, in reverse, also when its start fails."""

    stack: AsyncExitStack
    settings: Settings
    #: Of a login with the rights of clearinghouse_serve.
    conninfo: str
    metrics: Metrics
    #: One for each endpoint of the chain, for all who ask it.
    budgets: Budgets

    def engine(self, conninfo: str | None = None, role: str = SERVE_ROLE, *, pool_size: int = 4) -> AsyncEngine:
        """Connections of its own for whoever asks."""
        engine = async_engine(in_role(conninfo or self.conninfo, role), pool_size=pool_size)
        self.stack.push_async_callback(engine.dispose)
        return engine

    def stops(self, part: T) -> T:
        """The same part, which is stopped with the service."""
        self.stack.push_async_callback(part.stop)
        return part
