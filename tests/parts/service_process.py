"""`clearinghouse serve` as processes of their own, over one database of a test.

async with serving(database, processes_count=2) as (first, second):
    gateway = await first.house.new_gateway(tickets=10)
    answer = await second.pay(gateway, first.new_stream())      # POST /generate-live-payment
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass

from tests.parts.program import Home, Serving, new_home
from tests.parts.service import Served, house_of
from tests.parts.signer_process import Keystore, new_keystore
from tests.parts.stack import PEPPER


@dataclass
class ServiceProcess(Served):
    """One that has said where it listens."""

    serving: Serving

    @property
    def port(self) -> int:
        return self.serving.http_port


@asynccontextmanager
async def serving(
    conninfo: str, *, processes_count: int, settings_of: Callable[[Home, Keystore], dict[str, str]] | None = None
) -> AsyncIterator[list[ServiceProcess]]:
    """They share a ticket key and a pepper, answer signers that ask, and are killed when the block ends.

    `settings_of` adds to what they are told.
    """
    with new_home() as home:
        keystore = await asyncio.to_thread(new_keystore, home, "tickets")
        settings = serve_settings(home, conninfo, keystore)
        if settings_of is not None:
            settings |= settings_of(home, keystore)
        starts = [asyncio.to_thread(home.serve, settings) for _ in range(processes_count)]
        started = await asyncio.gather(*starts)
        async with house_of(conninfo) as house:
            yield [ServiceProcess(house, each) for each in started]


def serve_settings(home: Home, conninfo: str, keystore: Keystore) -> dict[str, str]:
    """What each process of a deployment is told; the keys that a `House` over the same database makes are valid."""
    return {
        **keystore.environment,
        "CLEARINGHOUSE_DATABASE_URL_FILE": home.secret_file("database_url", conninfo),
        "CLEARINGHOUSE_API_KEY_PEPPER_FILE": home.secret_file("pepper", PEPPER.decode()),
        "CLEARINGHOUSE_WEBHOOK__ENABLED": "true",
    }
