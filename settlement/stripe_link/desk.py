"""What a handler of Stripe's events works with. handlers.py lists the handlers."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from clearinghouse.config_stripe import StripeSettings
from clearinghouse.database.connect import database_now, writable_engine
from settlement.schedule import Tick
from settlement.stripe_link.client import StripeLink, stripe_link

#: As many as the turn's own has. More than so many may work at one desk: they wait for Stripe most of the time, and
#: here for each other, without harm.
POOL_SIZE: Final = 8
POOL_WAIT_S: Final = 60


@dataclass(frozen=True, slots=True)
class Desk:
    """The way to Stripe and to our books, in role clearinghouse_work, for one object of Stripe's."""

    link: StripeLink
    engine: AsyncEngine

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[AsyncConnection]:
        """What is done in the block stays if it ends well. Ask Stripe before it, not within: keep it short."""
        async with self.engine.begin() as connection:
            yield connection

    async def now(self) -> datetime:
        """UTC by the database's clock, the only clock of whatever is recorded."""
        async with self.engine.connect() as connection:
            return await database_now(connection)


@asynccontextmanager
async def desk_of(settings: StripeSettings, tick: Tick) -> AsyncIterator[Desk]:
    """For a turn of a job, whose own engine reads. What is done at it is not fenced off from a turn that was given up,
    so it has to bear being done by two at once, as handlers do."""
    engine = writable_engine(tick.engine, pool_size=POOL_SIZE, pool_wait_s=POOL_WAIT_S)
    try:
        async with stripe_link(settings) as link:
            yield Desk(link, engine)
    finally:
        await engine.dispose()


class Park(Exception):
    """Nothing that we could try again would help: a person has to look. The event is parked with this reason."""


#: Brings our rows up to what Stripe says of the object with this id, which the handler asks Stripe for: never back, and
#: the same again if it is called again, or twice at once. Returns one line of what it did. Raises Park, and anything
#: else that may pass by itself: then it is called again later.
Handler = Callable[[Desk, str], Awaitable[str]]

#: Ids of Stripe's objects of one type, of which our row is not in its final state: those after `after` in the order of
#: the ids, no more than `count_max`. The sweep gives them to the type's handler, as if an event had come.
#: `async def open_invoices(connection, after, count_max): …WHERE stripe_id > :after … ORDER BY stripe_id LIMIT …`,
#: compared and ordered in one collation: COLLATE "C".
Sweepable = Callable[[AsyncConnection, str, int], Awaitable[Sequence[str]]]
