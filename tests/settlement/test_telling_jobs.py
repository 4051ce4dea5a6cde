"""The jobs that tell people something, as the worker has them: what they count, and what they must not stop at."""

from __future__ import annotations

from datetime import timedelta

from prometheus_client import CollectorRegistry

from chain.chain_reading import Lock
from clearinghouse.config import Settings
from settlement.schedule import Tick
from settlement.telling_jobs import telling_jobs
from tests.parts.receiver import http_receiver
from tests.parts.watched import watched


async def test_attempts_and_what_was_given_up_are_counted(database: str) -> None:
    registry = CollectorRegistry()

    def counted(outcome: str) -> float | None:
        return registry.get_sample_value("clearinghouse_messages_total", {"kind": "alert", "outcome": outcome})

    async with http_receiver(503, 400) as manager, watched(database) as house:
        channels = {"manager": f"alertmanager+http://127.0.0.1:{manager.port}/"}
        jobs = telling_jobs(Settings.model_validate({"alerts": {"channels": channels}}), registry)
        turns = {job.name: job.tick for job in jobs}
        assert counted("delivered") == counted("given_up") == 0, "there from the start"
        await house.escrow(after_s=0, lock=Lock.UNLOCKING)
        await turns["alerts-evaluate"](Tick(house.engine, house.at(1)))
        await turns["alerts-deliver"](Tick(house.engine, house.at(2)))
        assert (counted("delivered"), counted("failed"), counted("given_up")) == (1, 1, 0), "the log, the manager"
        await turns["alerts-deliver"](Tick(house.engine, house.at(2) + timedelta(seconds=10)))
        assert (counted("refused"), counted("given_up")) == (1, 1)
        await turns["notices"](Tick(house.engine, house.at(1)))
        assert await turns["notices-deliver"](Tick(house.engine, house.at(2))) == "nothing was due"
