"""The schedule's job of invoices, without a schedule."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from prometheus_client import CollectorRegistry

from clearinghouse.config import Settings
from settlement.invoices.jobs import InvoiceMetrics, turn
from settlement.schedule import Tick
from tests.parts.invoiced import Invoiced


async def job_turn(house: Invoiced, **settings: Any) -> str:
    """As the schedule's, by its own clock a quarter of an hour later each time: what was held is tried again."""
    later = await house.desk.now() + timedelta(minutes=30)
    registry = CollectorRegistry()
    tick = Tick(house.engine, later)
    return await turn(tick, house.walker(), Settings(**settings), InvoiceMetrics(registry))
