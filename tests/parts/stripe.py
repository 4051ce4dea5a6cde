"""The way to Stripe, over a local Stripe that listens, with trouble on demand."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import SecretStr

from clearinghouse.config_stripe import StripeSettings
from settlement.stripe_link.client import StripeLink, stripe_link
from settlement.stripe_local.events import new_endpoint
from settlement.stripe_local.frame import LocalStripe
from settlement.stripe_local.keys import DEFAULT_KEY, ApiKeys
from tests.settlement.stripe_local.parts import Reached, Running, reached, running


@dataclass(frozen=True)
class LinkedStripe:
    """`link` is what the code under test uses. `running.client` is the plain SDK, for what others do at Stripe."""

    running: Reached
    link: StripeLink
    settings: StripeSettings

    @property
    def local(self) -> LocalStripe:
        """The server itself: its objects, its clock, and `requests`, what was asked for so far."""
        assert isinstance(self.running, Running), "it is in another process"
        return self.running.local

    @property
    def base_url(self) -> str:
        return self.running.base_url

    async def control(self, path: str, method: str = "POST", /, **wanted: Any) -> Any:
        """A control call of docs/stripe-local.md that must succeed: `control("clock", advance_s=86_400)`."""
        return await self.running.control(path, method, **wanted)

    async def fault(self, kind: str, **wanted: Any) -> None:
        """Trouble for the next calls: `fault("hang_after", method="POST", path="/v1/invoices*", times=2)`."""
        await self.control("faults", kind=kind, **wanted)

    async def works_again(self) -> None:
        """No more trouble."""
        await self.control("faults", "DELETE")

    async def delivers_to(self, url: str, *kinds: Any) -> str:
        """An endpoint that hears of these kinds of events, or of all. Returns the secret they are signed with."""
        wanted = {"url": url, "enabled_events": list(kinds) or ["*"]}
        made = await self.running.client.v1.webhook_endpoints.create_async(wanted)  # type: ignore[arg-type]
        assert made.secret is not None
        return made.secret

    def delivers_signed_to(self, url: str, *secrets: str) -> None:
        """The same with secrets that are known beforehand, as those of a service have to be; of all events."""
        desk = self.local.desk()
        new_endpoint(desk, url, ["*"], list(secrets))
        self.local.write(desk)

    async def delivered(self, *, within_s: float = 60) -> None:
        """Returns when nothing is on its way to an endpoint any more."""
        async with asyncio.timeout(within_s):
            while (await self.control("", "GET"))["pending_deliveries"]:
                await asyncio.sleep(0.01)

    def asked(self, method: str, path: str) -> int:
        """How often this was asked for so far, also where the answer was trouble."""
        return self.local.requests.count(f"{method} {path}")


def stripe_settings(base_url: str, **settings: Any) -> StripeSettings:
    """Of a local Stripe at that address; it hardly waits for a turn, and is as patient as a busy machine needs."""
    given = {"api_key": SecretStr(DEFAULT_KEY), "api_url": base_url, "writes_per_s": 1000, "retry_for_s": 30}
    return StripeSettings(**{**given, **settings})


@asynccontextmanager
async def linked_stripe(
    *, journal: Path | None = None, keys: ApiKeys | None = None, **settings: Any
) -> AsyncIterator[LinkedStripe]:
    """A local Stripe on a free port, and our link to it. `settings` are of StripeSettings."""
    async with running(journal, keys) as local, linked_to(local, **settings) as linked:
        yield linked


@asynccontextmanager
async def linked_elsewhere(base_url: str, **settings: Any) -> AsyncIterator[LinkedStripe]:
    """Our link to a local Stripe in another process."""
    async with reached(base_url) as local, linked_to(local, **settings) as linked:
        yield linked


@asynccontextmanager
async def linked_to(local: Reached, **settings: Any) -> AsyncIterator[LinkedStripe]:
    chosen = stripe_settings(local.base_url, **settings)
    async with stripe_link(chosen) as link:
        yield LinkedStripe(local, link, chosen)
